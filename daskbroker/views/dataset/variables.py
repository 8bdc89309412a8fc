"""The variables of a Dataset: what each is read from, its dimensions and attributes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import gcd
from typing import Any

import numpy as np
from xarray.core import indexing

from ...assets.filling import Filling
from ...assets.shapes import Declared
from ...core.chunks import ChunkPlan
from ...core.codec import Kind
from ...core.external import is_stream_key
from ...core.fields import Field, project
from ...core.schema import TIME, TableColumn
from ..attributes import plain_attr
from ..dataframe import Runs, common_cells
from .columns import ChunkColumn, ColumnSource, Constants, ExternalColumn, StoredColumn
from .rows import DatasetRows

__all__ = [
    "chunk_length",
    "coordinate_sources",
    "dimensions",
    "lazy_array",
    "variable_attrs",
    "variable_source",
]


def coordinate_sources(plan: ChunkPlan, with_run: bool) -> dict[str, ColumnSource]:
    """The coordinates that every stream has; with the run's uid if it is asked for."""
    sources: dict[str, ColumnSource] = {
        "time": StoredColumn("time", TIME, np.dtype("datetime64[us]")),
        "seq_num": StoredColumn("seq_num", "int64", np.dtype(np.int64)),
    }
    if with_run:
        uids = tuple(descriptor["run_start"] for descriptor in plan.descriptors)
        sources["run"] = Constants(uids, np.dtype(object))
    return sources


def lazy_array(plan: ChunkPlan, rows: DatasetRows, source: ColumnSource) -> Any:
    """Xarray's own lazy array of a column."""
    return indexing.LazilyIndexedArray(ChunkColumn(plan, rows, source))


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
        return ExternalColumn.of(plan.descriptors, column.field.key, declared, filling)
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
    shape = source.declared.shape
    found = 1
    for resource in resources:
        chunk = (resource.get("parameters") or {}).get("chunk_shape")
        if resource.get("data_key") != source.key or not isinstance(chunk, list) or not chunk:
            continue
        if not all(type(n) is int and n > 0 for n in chunk):
            continue
        frames = shape[0] if shape and len(shape) == len(chunk) else 1
        found = max(found, chunk[0] // gcd(chunk[0], frames))
    return found


# -- dimensions and attributes ---------------------------------------------------------------


def dimensions(plan: ChunkPlan, column: TableColumn, inner: int) -> tuple[str, ...]:
    """Names of the dimensions of a variable, of which cells have ``inner``."""
    claims = _claims(plan, column.field.key) if column.field.role == "data" else []
    named = claims[0].get("dims") if claims else None
    if isinstance(named, list) and len(named) == inner and len({*named, "time"}) == inner + 1:
        return ("time", *map(str, named))
    return ("time", *(f"{column.name}_dim_{n}" for n in range(inner)))


def variable_attrs(plan: ChunkPlan, field: Field) -> dict[str, Any]:
    """What descriptors say of a data key, for readers."""
    if field.role != "data":
        return {}
    descriptor = next(d for d in plan.descriptors if field.key in d["data_keys"])
    claim = descriptor["data_keys"][field.key]
    found = {n: claim[n] for n in ("units", "source", "precision") if claim.get(n) is not None}
    owner = claim.get("object_name") or next(
        (name for name, keys in descriptor.get("object_keys", {}).items() if field.key in keys),
        None,
    )
    found |= {"object": owner} if owner else {}
    return {name: plain_attr(value) for name, value in found.items()}
