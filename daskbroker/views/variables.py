"""The variables of a Dataset: what each is read from, its dimensions and attributes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import gcd
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

from ..assets.filling import Filling
from ..assets.shapes import Declared
from ..core.chunks import ChunkPlan
from ..core.codec import Kind
from ..core.external import is_stream_key
from ..core.fields import Field, project
from ..core.schema import TIME, TableColumn, posix_to_datetime
from .chunk_column import ChunkColumn, ColumnSource, Constants, ExternalColumn, StoredColumn
from .dataframe import Runs, common_cells
from .dataset_rows import DatasetRows

__all__ = ["chunk_length", "coordinates", "loaded_coordinates", "variable", "variable_source"]


def variable(
    plan: ChunkPlan, rows: DatasetRows, column: TableColumn, source: ColumnSource
) -> xr.Variable:
    """A lazy variable along ``time``."""
    lazy = indexing.LazilyIndexedArray(ChunkColumn(plan, rows, source))
    dims = _dims(plan, column, len(source.cell_shape))
    return xr.Variable(dims, lazy, _variable_attrs(plan, column.field))


def coordinates(plan: ChunkPlan, rows: DatasetRows, with_run: bool) -> dict[str, xr.Variable]:
    """The coordinates that every stream has, lazily; with the run's uid if it is asked for."""
    sources: dict[str, ColumnSource] = {
        "time": StoredColumn("time", TIME, np.dtype("datetime64[us]")),
        "seq_num": StoredColumn("seq_num", "int64", np.dtype(np.int64)),
    }
    if with_run:
        uids = tuple(descriptor["run_start"] for descriptor in plan.descriptors)
        sources["run"] = Constants(uids, np.dtype(object))
    return {
        name: xr.Variable(("time",), indexing.LazilyIndexedArray(ChunkColumn(plan, rows, source)))
        for name, source in sources.items()
    }


def loaded_coordinates(
    plan: ChunkPlan, rows: DatasetRows, with_run: bool
) -> tuple[dict[str, xr.Variable], xr.indexes.PandasIndex]:
    """The same coordinates in memory, read in one pass, and the index of ``time``."""
    if not len(plan):
        found = {name: var.load() for name, var in coordinates(plan, rows, with_run).items()}
        return found, xr.indexes.PandasIndex(found["time"].values, "time")
    tables = list(plan.read_all(["time", "seq_num"]))
    times, numbers = (
        rows.taken_from([table.column(name).to_numpy() for table in tables])
        for name in ("time", "seq_num")
    )
    index = xr.indexes.PandasIndex(posix_to_datetime(times).tz_localize(None), "time")
    found = dict(index.create_variables())
    found["seq_num"] = xr.Variable(("time",), numbers)
    if with_run:
        uids = np.array([d["run_start"] for d in plan.descriptors], dtype=object)
        of_chunks = uids[plan.records["descriptor"]]
        column = rows.taken_from([np.repeat(uid, n) for uid, n in zip(of_chunks, rows.lengths)])
        found["run"] = xr.Variable(("time",), column)
    return found, index


# -- what a variable is read from ------------------------------------------------------------


def variable_source(
    plan: ChunkPlan,
    column: TableColumn,
    runs: Runs,
    filling: Filling | None,
    dtypes: Mapping[str, Any],
) -> ColumnSource:
    """What a column is read from; external ones are filled if there is a filling."""
    if not column.physical:
        constants = tuple(_constant(column.field, d, runs) for d in plan.descriptors)
        return Constants(constants, _numpy_dtype(column.dtype))
    if column.external and filling is not None:
        chosen = dtypes.get(column.name, dtypes.get(column.field.key))
        declared = _declared(plan, column, filling, chosen)
        return ExternalColumn(column.field.key, declared, filling)
    if column.dtype == "object":
        found = _common_block(plan, column.physical)
        if found is not None:
            return StoredColumn(column.physical, "array", found[1], found[0])
    return StoredColumn(column.physical, column.dtype, _numpy_dtype(column.dtype))


def _constant(field: Field, descriptor: Mapping[str, Any], runs: Runs) -> Any:
    if field.role in ("run", "descriptor"):
        return descriptor["run_start" if field.role == "run" else "uid"]
    return project(field, *runs[descriptor["run_start"]], descriptor)


def _numpy_dtype(dtype: str) -> np.dtype:
    """Of a variable; nullable integers become floats, other nullable kinds objects."""
    if dtype in ("float64", "int64", "uint64", "bool"):
        return np.dtype(dtype)
    return np.dtype(np.float64) if dtype == "Int64" else np.dtype(object)


def _common_block(plan: ChunkPlan, physical: str) -> tuple[tuple[int, ...], np.dtype] | None:
    """Shape and dtype of array cells, if they are the same in all chunks."""
    used = np.unique(plan.records["schema"]).tolist()
    kinds = [plan.schemas[place].get(physical) for place in used]
    if not kinds or any(
        k is None or k.name != "array" or k.nulls or k.dtype == "<U" for k in kinds
    ):
        return None
    found: list[Kind] = [kind for kind in kinds if kind is not None]
    if len({kind.shape for kind in found}) > 1:
        return None
    dtypes = {np.dtype(kind.dtype) for kind in found}
    return (found[0].shape, dtypes.pop()) if len(dtypes) == 1 else None


def _claims(plan: ChunkPlan, key: str) -> list[Mapping[str, Any]]:
    return [d["data_keys"][key] for d in plan.descriptors if key in d["data_keys"]]


def _declared(plan: ChunkPlan, column: TableColumn, filling: Filling, dtype: Any) -> Declared:
    """What is believed of external cells, made fit for events that lack them."""
    declared = common_cells(plan, column.field.key, filling, dtype)
    return declared.nullable() if dtype is None and _may_lack(plan, column) else declared


def _may_lack(plan: ChunkPlan, column: TableColumn) -> bool:
    """Whether some events may have no cell, as far as the plan tells."""
    pairs = np.unique(plan.records[["descriptor", "schema"]])
    for descriptor, schema in pairs.tolist():
        claim = plan.descriptors[descriptor]["data_keys"].get(column.field.key)
        if claim is None:
            return True
        kind = plan.schemas[schema].get(column.physical)
        if not is_stream_key(claim) and (kind is None or kind.nulls):
            return True
    return False


def chunk_length(
    source: ExternalColumn, plan: ChunkPlan, resources: Iterable[Mapping[str, Any]]
) -> int:
    """How many events have one chunk in the files, as stream_resources tell; else 1."""
    if not any(is_stream_key(claim) for claim in _claims(plan, source.key)):
        return 1
    shape = source.cell_shape
    found = 1
    for resource in resources:
        chunk = (resource.get("parameters") or {}).get("chunk_shape")
        if resource.get("data_key") != source.key or not chunk:
            continue
        if not all(isinstance(n, int) and n > 0 for n in chunk):
            continue
        frames = shape[0] if shape and len(shape) == len(chunk) else 1
        found = max(found, chunk[0] // gcd(chunk[0], frames))
    return found


# -- dimensions and attributes ---------------------------------------------------------------


def _dims(plan: ChunkPlan, column: TableColumn, inner: int) -> tuple[str, ...]:
    claims = _claims(plan, column.field.key) if column.field.role == "data" else []
    named = claims[0].get("dims") if claims else None
    if isinstance(named, list) and len(named) == inner and len({*named, "time"}) == inner + 1:
        return ("time", *map(str, named))
    return ("time", *(f"{column.name}_dim_{n}" for n in range(inner)))


def _variable_attrs(plan: ChunkPlan, field: Field) -> dict[str, Any]:
    if field.role != "data":
        return {}
    descriptor = next(d for d in plan.descriptors if field.key in d["data_keys"])
    claim = descriptor["data_keys"][field.key]
    found = {n: claim[n] for n in ("units", "source", "precision") if claim.get(n) is not None}
    owner = claim.get("object_name") or next(
        (name for name, keys in descriptor.get("object_keys", {}).items() if field.key in keys),
        None,
    )
    return {**found, **({"object": owner} if owner else {})}
