"""The variables of a Dataset: their sources, dimensions and attributes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import gcd
from typing import Any

import numpy as np
from xarray.core import indexing

from ...assets.filling.common_cells import common_cells
from ...assets.filling.filling import Filling
from ...assets.filling.target import Target
from ...assets.shapes import Declared
from ...core.arrays import OBJECT
from ...core.chunks import ChunkPlan
from ...core.dtypes import dtype_of
from ...core.external import is_stream_key
from ...core.fields import Field
from ...core.schema import TIME_DTYPE, TableColumn, constant_of, stored_kinds
from ..view_options import Runs
from .array_sources import Cast, StoredArray, StructuredField, leaf_paths
from .attributes import plain_attr, renamed_units
from .column_sources import ChunkColumn, ColumnSource, Constants, ExternalColumn, StoredColumn
from .dataset_rows import DatasetRows


def coordinate_sources(plan: ChunkPlan, *, with_run: bool) -> dict[str, ColumnSource]:
    """Return the sources of the coordinates of every stream, with ``run`` if requested."""
    sources: dict[str, ColumnSource] = {
        "time": StoredColumn("time", TIME_DTYPE, np.dtype("datetime64[us]")),
        "seq_num": StoredColumn("seq_num", "int64", np.dtype(np.int64)),
    }
    if with_run:
        uids = tuple(descriptor["run_start"] for descriptor in plan.descriptors)
        sources["run"] = Constants(uids, np.dtype(object))
    return sources


def lazy_array(plan: ChunkPlan, rows: DatasetRows, source: ColumnSource) -> Any:
    """Return a column as xarray's own lazy array."""
    return indexing.LazilyIndexedArray(ChunkColumn(plan, rows, source))


# -- what a variable is read from ------------------------------------------------------------


def variable_sources(
    plan: ChunkPlan,
    column: TableColumn,
    runs: Runs,
    filling: Filling | None,
    dtypes: Mapping[str, Any],
) -> dict[str, ColumnSource]:
    """Return the sources of the variables of a column, by name.

    A column of rows of fields has one variable per field, other columns have one in all. External
    columns are filled if there is a filling.
    """
    chosen = dtypes.get(column.name)
    # A column may be shown as `data:<key>`; dtypes may name it by its key, too.
    if chosen is None and column.field.role == "data":
        chosen = dtypes.get(column.field.key)
    if not column.physical:
        constants = tuple(constant_of(column.field, d, runs) for d in plan.descriptors)
        source: ColumnSource = Constants(constants, _numpy_dtype(column.dtype))
    elif column.external and filling is not None:
        declared = _declared(plan, column, filling, chosen)
        return {
            column.name: ExternalColumn.of(plan.descriptors, column.field.key, declared, filling)
        }
    # Each field of structured cells is a variable.
    elif column.fields is not None:
        return _field_sources(column, column.fields, dtypes)
    elif column.arrays is not None:
        source = StoredArray(column.physical, column.arrays)
    elif column.dtype == "Int64" and any(
        kind is not None and kind.name == "long" for kind in stored_kinds(plan, column.physical)
    ):
        source = StoredColumn(column.physical, "object", OBJECT)  # no float holds them all
    else:
        source = StoredColumn(column.physical, column.dtype, _numpy_dtype(column.dtype))
    return {column.name: source if chosen is None else _cast(column.name, source, chosen)}


def _field_sources(
    column: TableColumn, fields: np.dtype, dtypes: Mapping[str, Any]
) -> dict[str, ColumnSource]:
    form = column.arrays if column.arrays is not None and column.arrays.shape else None
    paths = {".".join((column.name, *path)): path for path in leaf_paths(fields)}
    # Chosen by the names of variables, which are paths to fields.
    for name, path in paths.items():
        if name in dtypes:
            fields = _with_leaf(fields, path, dtype_of(dtypes[name]))
    return {
        name: StructuredField(column.physical, fields, path, form) for name, path in paths.items()
    }


def _with_leaf(fields: np.dtype, path: Sequence[str], chosen: np.dtype) -> np.dtype:
    """Return a dtype whose field at a path is of another dtype, in the same shape."""
    if not path:
        return np.dtype((chosen, fields.shape)) if fields.shape else chosen
    first, *others = path
    return np.dtype(
        [
            (name, _with_leaf(fields[name], others, chosen) if name == first else fields[name])
            for name in fields.names or ()
        ]
    )


def _cast(name: str, source: ColumnSource, chosen: object) -> ColumnSource:
    """Return the source with the requested dtype."""
    dtype = dtype_of(chosen)
    # Nothing to convert, and no need to look whether values change.
    if dtype == source.dtype:
        return source
    # As objects, cells keep what they are; a cast of the joined array could not give that back.
    if dtype == OBJECT and isinstance(source, StoredArray):
        return StoredArray(source.name, replace(source.form, leaf=""))
    if dtype == OBJECT and isinstance(source, StoredColumn):
        return StoredColumn(source.name, "object", OBJECT)
    return Cast(name, source, dtype)


def _numpy_dtype(dtype: str) -> np.dtype:
    """Return a variable's dtype for a table's; nullable integers become floats, others objects."""
    if dtype in ("float64", "int64", "uint64", "bool"):
        return np.dtype(dtype)
    return np.dtype(np.float64) if dtype == "Int64" else np.dtype(object)


def _claims(plan: ChunkPlan, key: str) -> list[Mapping[str, Any]]:
    return [d["data_keys"][key] for d in plan.descriptors if key in d["data_keys"]]


def _declared(plan: ChunkPlan, column: TableColumn, filling: Filling, dtype: object) -> Declared:
    """Return shape and dtype of external cells, with a dtype that has NaN if some become NaN."""
    key = column.field.key
    declared = common_cells(plan, key, filling, dtype)
    rule = filling.rule(Target.of(plan.descriptors[0], key))
    has_nan = rule.lost == "nan" or (rule.gap == "nan" and _may_lack(plan, column))
    return declared.nullable() if dtype is None and has_nan else declared


def _may_lack(plan: ChunkPlan, column: TableColumn) -> bool:
    """Return whether the plan allows for events without a cell."""
    pairs = np.unique(plan.records[["descriptor", "schema"]])
    for descriptor, schema in pairs.tolist():
        claim = plan.descriptors[descriptor]["data_keys"].get(column.field.key)
        # Events of a descriptor without the key have no cell.
        if claim is None:
            return True
        kind = plan.schemas[schema].get(column.physical)
        # Cells of stream keys are found by seq_num, and their absence is known only from
        # stream_datums.
        if not is_stream_key(claim) and (kind is None or kind.nulls):
            return True
    return False


def chunk_length(
    source: ExternalColumn, plan: ChunkPlan, resources: Iterable[Mapping[str, Any]]
) -> int:
    """Return how many events share one chunk in the files, from stream_resources; 1 if unknown."""
    # Only stream_resources tell their chunks.
    if not any(is_stream_key(claim) for claim in _claims(plan, source.key)):
        return 1
    shape = source.declared.shape
    found = 1
    for resource in resources:
        chunk = (resource.get("parameters") or {}).get("chunk_shape")
        # Of another key, or a chunk shape that is no list.
        if resource.get("data_key") != source.key or not isinstance(chunk, list) or not chunk:
            continue
        if not all(type(n) is int and n > 0 for n in chunk):
            continue
        # Several frames of an event lie along the same axis as the events' frames.
        frames = shape[0] if shape and len(shape) == len(chunk) else 1
        found = max(found, chunk[0] // gcd(chunk[0], frames))
    return found


# -- dimensions and attributes ---------------------------------------------------------------


def declared_dims(plan: ChunkPlan, column: TableColumn, inner: int) -> tuple[str, ...] | None:
    """Return the names that a descriptor gives the `inner` dimensions of a cell.

    None if it does not name exactly this number. The first descriptor with the key counts.
    """
    claims = _claims(plan, column.field.key) if column.field.role == "data" else []
    named = claims[0].get("dims") if claims else None
    # Names for another number of dimensions cannot be told apart.
    if not isinstance(named, list) or len(named) != inner:
        return None
    return tuple(map(str, named))


class Dimensions:
    """Chooses names of the dimensions of a Dataset, so that each has one length.

    Parameters
    ----------
    names
        Names of variables and coordinates; no dimension except ``time`` has one of these.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {*names, "time"}
        self._lengths: dict[str, int] = {}

    def of(
        self, variable: str, declared: tuple[str, ...] | None, lengths: Mapping[int, int]
    ) -> tuple[str, ...]:
        """Return the names of the dimensions of a cell.

        These are the declared ones if none of them clashes, else ``<variable>_dim_N``.

        Parameters
        ----------
        variable
            Name of the variable.
        declared
            Names of all axes of a whole cell; None if they are not declared.
        lengths
            Lengths of the axes that are shown, by their positions in a whole cell.
        """
        # A name given twice would join dimensions of a cell.
        if declared is not None and len(set(declared)) == len(declared):
            shown = {declared[axis]: length for axis, length in lengths.items()}
            if all(self._is_free(name, length) for name, length in shown.items()):
                self._lengths |= shown
                return tuple(shown)
        own = {}
        for axis, length in lengths.items():
            name = f"{variable}_dim_{axis}"
            # A name that other variables use with another length gets a mark.
            while not self._is_free(name, length):
                name += "_"
            own[name] = length
        self._lengths |= own
        return tuple(own)

    def _is_free(self, name: str, length: int) -> bool:
        return name not in self._names and self._lengths.get(name, length) == length


def variable_attrs(plan: ChunkPlan, field: Field) -> dict[str, Any]:
    """Return the attributes of a data key's variable, such as units, as plain values."""
    if field.role != "data":
        return {}
    descriptor = next(d for d in plan.descriptors if field.key in d["data_keys"])
    claim = descriptor["data_keys"][field.key]
    found = {n: claim[n] for n in ("units", "source", "precision") if claim.get(n) is not None}
    devices = descriptor.get("object_keys", {}).items()
    owner = claim.get("object_name") or next(
        (name for name, keys in devices if isinstance(keys, list) and field.key in keys), None
    )
    found |= {"object": owner} if owner else {}
    return {name: plain_attr(value) for name, value in renamed_units(found).items()}
