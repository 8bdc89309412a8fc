"""Columns of a table and their dtypes, from descriptors and the kinds of chunks.

Every partition of a table has the same dtypes, whatever a descriptor claims: the stored values
decide (through the kinds in the chunks' manifest, without reading a chunk), and the descriptor's
claim only if there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from .arrays import ArrayForm, array_form, rows_form
from .chunks import ChunkPlan
from .clock import EARLIEST_SECONDS, LATEST_SECONDS
from .codec import block, decode
from .column_kinds import MISSING, ColumnKind, field_kind
from .documents import is_unicode, plain
from .dtypes import fields_dtype
from .field_rows import common_of
from .fields import Field, configuration_claim, data_keys_of, project
from .frozen import ArrayList, FrozenList
from .layouts import as_one_chunk
from .leaves import EXACT_INTEGER
from .structured import fields_of, structured_cell

TIME_DTYPE = "datetime64[us, UTC]"
"""Dtype of every table's ``time``, whatever the zone of the broker: Dask computes the divisions of
nanoseconds, and of any other zone, wrongly, and loses rows (``set_index``, ``resample``)."""
NULLABLE = {"int64": "Int64", "bool": "boolean", "uint64": "UInt64"}
"""Dtype that has nulls, by the dtype that has none."""


@dataclass(frozen=True, slots=True)
class TableColumn:
    """One column of a table: its source and its dtype.

    Attributes
    ----------
    field
        Role, key and name.
    physical
        Name of the chunk's column, or "" if the value is the same in all rows of a chunk.
    dtype
        Name of the pandas dtype; the same in each partition.
    external
        Whether the values are outside the store (event-model's ``external``) and must be filled.
    arrays
        Common form of the cells of all chunks, if they are arrays.
    fields
        Dtype of fields, if cells are rows: of the stored structured arrays, else as declared.
    """

    field: Field
    physical: str
    dtype: str
    external: bool = False
    arrays: ArrayForm | None = None
    fields: np.dtype | None = None

    @property
    def name(self) -> str:
        """Name of the column."""
        return self.field.name


def table_columns(
    plan: ChunkPlan, fields: Sequence[Field], runs: Mapping[str, tuple[Any, Any]]
) -> list[TableColumn]:
    """Return source and dtype of each selected field.

    Parameters
    ----------
    plan
        Plan of the stream's chunks.
    fields
        Fields that :func:`daskbroker.core.fields.select` returned.
    runs
        ``{run uid: (start, stop)}``, for projections.
    """
    return [_column(plan, field, runs) for field in fields]


def _column(plan: ChunkPlan, field: Field, runs: Mapping[str, tuple[Any, Any]]) -> TableColumn:
    # A field's role decides where its values come from; only data keys need the chunks.
    if field.role == "time":
        return TableColumn(field, "time", TIME_DTYPE)
    if field.role == "uid":
        return TableColumn(field, "uid", "str")
    if field.role in ("descriptor", "run"):
        return TableColumn(field, "", "str")
    if field.role == "ts":
        dtype = unify(stored_kinds(plan, f"ts:{field.key}"), "float64")
        return TableColumn(field, f"ts:{field.key}", dtype)
    if field.role == "data":
        physical = f"data:{field.key}"
        claims = [
            d["data_keys"][field.key] for d in plan.descriptors if field.key in d["data_keys"]
        ]
        # Cells may be references or, once filled, values of any form.
        if any(claim.get("external") for claim in claims):
            return TableColumn(field, physical, "object", external=True)
        kinds = stored_kinds(plan, physical)
        dtype = unify(kinds, claimed_dtype(claims))
        if dtype != "object":
            return TableColumn(field, physical, dtype)
        fields = stored_fields(kinds)
        if fields is not None:
            return TableColumn(field, physical, dtype, arrays=rows_form(kinds), fields=fields)
        arrays = array_form(kinds)
        fields = _declared_fields(claims, kinds, arrays)
        return TableColumn(field, physical, dtype, arrays=arrays, fields=fields)
    # What is left are constants of start, stop and configuration: one value for each descriptor.
    values = [constant_of(field, d, runs) for d in plan.descriptors]
    return TableColumn(field, "", values_dtype(values))


def constant_of(
    field: Field, descriptor: Mapping[str, Any], runs: Mapping[str, tuple[Any, Any]]
) -> Any:
    """Return the value of a field that one descriptor's events share, or None if absent.

    It is a projection, or the uid of the run or descriptor. Configuration that was a structured
    array, or is declared as one, is one, and read-only, as all rows share it.
    """
    if field.role in ("run", "descriptor"):
        return descriptor["run_start" if field.role == "run" else "uid"]
    value = project(field, *runs[descriptor["run_start"]], descriptor)
    # A structured array of the start stays one; to others it is a list of rows.
    if type(value) is ArrayList and value.dtype.names:
        value = value.array()
    # The configuration's own data_keys may declare fields for rows.
    elif field.role == "config" and type(value) is FrozenList:
        fields = fields_of([configuration_claim(field, descriptor)])
        value = value if fields is None else structured_cell(plain(value), fields)
    if isinstance(value, (np.ndarray, np.void)):
        value.setflags(write=False)
    return value


def stored_kinds(plan: ChunkPlan, physical: str) -> list[ColumnKind | None]:
    """Return the different kinds of a column in a plan's chunks; None for chunks without it."""
    used = np.unique(plan.records["schema"])
    return [plan.schemas[position].get(physical) for position in used.tolist()]


def stored_fields(kinds: Sequence[ColumnKind | None]) -> np.dtype | None:
    """Return the dtype of fields that holds all cells, or None if some are not structured."""
    found = [kind for kind in kinds if kind is not None and kind.name != "null"]
    # One chunk with other cells is enough: then no dtype of fields holds all.
    if not all(kind.name == "rows" and kind.dtype for kind in found):
        return None
    return common_of(fields_dtype(kind.dtype) for kind in found)


def _declared_fields(
    claims: Sequence[Mapping[str, Any]],
    kinds: Sequence[ColumnKind | None],
    arrays: ArrayForm | None,
) -> np.dtype | None:
    """Return the declared dtype of fields, or None if the cells cannot be rows of as many."""
    fields = fields_of(claims)
    names = {kind.name for kind in kinds if kind is not None}
    # Only what is stored as lists or rows can be rows of fields.
    if fields is None or not names <= {"array", "list", "rows", "json", "null"}:
        return None
    shape = None if arrays is None else arrays.shape
    return fields if shape is None or shape[-1] == len(fields.names or ()) else None


def unify(kinds: Iterable[ColumnKind | None], claim: str) -> str:
    """Return the name of one pandas dtype for the column of all chunks.

    It is ``object`` for integers that a float cannot hold beside floats, and for types that have
    nothing in common.

    Parameters
    ----------
    kinds
        Kinds of the column; None for a chunk without the column.
    claim
        Dtype to use if no values are stored.
    """
    kinds = list(kinds)
    nulls = any(kind is None or kind.nulls for kind in kinds)
    names = {kind.name for kind in kinds if kind is not None and kind.name != "null"}
    if not names:
        dtype = claim
        # Without chunks there are no nulls either; the dtype is the claimed one.
        nulls = nulls and bool(kinds)
    elif names <= {"int", "long"}:
        dtype = "int64"
    elif names <= {"int", "float", "number"}:
        dtype = "float64"
    # Beyond int64, and so never mixed with integers within it.
    elif names == {"uint"}:
        dtype = "uint64"
    elif len(names) == 1:
        dtype = {"bool": "bool", "str": "str"}.get(names.pop(), "object")
    else:
        dtype = "object"
    return NULLABLE.get(dtype, dtype) if nulls else dtype


def claimed_dtype(claims: Sequence[Mapping[str, Any]]) -> str:
    """Return the dtype that descriptors claim for a data key; ``object`` if they disagree."""
    dtypes = {_claim(claim) for claim in claims}
    if len(dtypes) == 1:
        return dtypes.pop()
    # Devices that claim both mean numbers; other pairs have nothing in common.
    return "float64" if dtypes == {"int64", "float64"} else "object"


def _claim(claim: Mapping[str, Any]) -> str:
    if claim.get("shape") or claim.get("external"):
        return "object"
    by_name = {"number": "float64", "integer": "int64", "string": "str", "boolean": "bool"}
    return by_name.get(str(claim.get("dtype")), "object")


def values_dtype(values: Sequence[Any]) -> str:
    """Return the name of the pandas dtype of a constant column of JSON-like values."""
    types = {type(value) for value in values if value is not None}
    nulls = any(value is None for value in values)
    if types == {int} and all(v is None or abs(v) < 2**63 for v in values):
        return "Int64" if nulls else "int64"
    if types == {bool}:
        return "boolean" if nulls else "bool"
    if types == {str}:  # pandas cannot hold lone surrogates as text
        return "str" if all(v is None or is_unicode(v) for v in values) else "object"
    exact = all(type(v) is not int or abs(v) <= EXACT_INTEGER for v in values)
    # Larger integers would be rounded among floats.
    if types and types <= {int, float} and exact:
        return "float64"
    return "object"


# -- arrays of the decided dtype -------------------------------------------------------------


def to_pandas(table: pa.Table, physical: str, dtype: str) -> Any:
    """Return a chunk's column as a pandas or NumPy array of exactly this dtype.

    Nulls are NaN, NA or NaT, depending on the dtype, and None in ``object``; a column that the
    chunk lacks is all null. Array cells are NumPy arrays, JSON cells Python values.
    """
    rows = table.num_rows
    position = table.schema.get_field_index(physical)
    # The chunk lacks the column: events of this descriptor do not have the key.
    if position < 0:
        return constant(None, rows, dtype)
    column = table.column(position)
    kind, _ = field_kind(table.schema.field(position))
    if dtype == TIME_DTYPE:
        return posix_to_datetime(column.to_numpy())
    if dtype == "object":
        return _objects(as_one_chunk(column), table.schema.field(position), kind)
    # A column of nulls is of the dtype that the other chunks have.
    if kind.name == "null":
        return constant(None, rows, dtype)
    if dtype == "str":
        return pd.array(column, dtype="str")
    if dtype in ("Int64", "UInt64", "boolean"):
        return _nullable(as_one_chunk(column), dtype)
    values = column.to_numpy()  # nulls of floats become NaN
    return values.astype(dtype, copy=False)


def joined_arrays(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return arrays as one that can be written to; Arrow's memory cannot."""
    if len(arrays) == 1 and arrays[0].flags.writeable:
        return arrays[0]
    return np.concatenate(arrays)


def column_cells(table: pa.Table, column: TableColumn, rows: slice | np.ndarray) -> Any:
    """Return the cells of a column in some rows of a chunk, as :func:`to_pandas` does.

    The arrays of all chunks have one dtype; rows of fields are structured arrays.
    """
    # Scalars: the decided dtype says all.
    if column.arrays is None and column.fields is None:
        return to_pandas(table, column.physical, column.dtype)[rows]
    return object_cells(table, column.physical, rows, column.arrays, column.fields)


def object_cells(
    table: pa.Table,
    physical: str,
    rows: slice | np.ndarray,
    arrays: ArrayForm | None,
    fields: np.dtype | None,
) -> np.ndarray:
    """Return cells that are arrays in the common form of all chunks, see `TableColumn`."""
    cells: np.ndarray = to_pandas(table, physical, "object")[rows]
    if fields is not None:
        convert: Callable[[Any], Any] = partial(structured_cell, dtype=fields)
    elif arrays is None or _has_leaves_of(table, physical, arrays.cell_dtype):
        return cells
    elif arrays.cell_dtype.kind == "O":  # lists, as in a chunk that has all sorts of leaves
        convert = plain
    else:
        convert = partial(np.asarray, dtype=arrays.cell_dtype)
    ragged = arrays is not None and arrays.shape is None
    for position, cell in enumerate(cells):
        if cell is None or (ragged and type(cell) is list and None in cell):
            continue  # lists of differing lengths that have None are kept as they are
        cells[position] = convert(cell)
    return cells


def _has_leaves_of(table: pa.Table, physical: str, dtype: np.dtype) -> bool:
    """Return whether a chunk's cells are arrays of a dtype, or lists if that is of objects."""
    position = table.schema.get_field_index(physical)
    if position < 0:
        return True
    kind, _ = field_kind(table.schema.field(position))
    if kind.name not in ("array", "list") or kind.dtype == "<U":
        return dtype.kind == "O"
    return np.dtype(kind.dtype) == dtype


def _nullable(array: pa.Array, dtype: str) -> Any:
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    filled = array.fill_null(False if dtype == "boolean" else 0)
    values = filled.to_numpy(zero_copy_only=False)
    if dtype == "boolean":
        return pd.arrays.BooleanArray(values.astype(bool), ~valid)
    return pd.arrays.IntegerArray(values.astype(dtype.lower()), ~valid)


def _objects(array: pa.Array, arrow_field: pa.Field, kind: ColumnKind) -> np.ndarray:
    if kind.name == "array" and kind.dtype != "<U":
        rows: Iterable[Any] = block(array, kind).copy()  # Arrow's memory cannot be written to
    elif kind.name == "list" and kind.dtype != "<U":
        rows = _ragged_rows(array)
    else:
        rows = [None if cell is MISSING else cell for cell in decode(array, arrow_field)]
        if kind.name == "rows":
            rows = [cell.array() if type(cell) is ArrayList else cell for cell in rows]
    out = np.fromiter(rows, object, len(array))
    # Fixed-size lists have storage below null cells, so block and split gave these values.
    if kind.nulls and kind.name in ("array", "list"):
        out[~array.is_valid().to_numpy(zero_copy_only=False)] = None
    return out


def _ragged_rows(array: pa.Array) -> list[np.ndarray]:
    if not len(array):
        return []
    flat = array.values.to_numpy(zero_copy_only=False)
    offsets = array.offsets.to_numpy(zero_copy_only=False)
    begin = offsets[0]
    return np.split(flat[begin : offsets[-1]].copy(), offsets[1:-1] - begin)


COUNTS_PER_SECOND = {("s", 1): 1.0, ("ms", 1): 1e3, ("us", 1): 1e6, ("ns", 1): 1e9}
"""Number of each unit of ``datetime64`` in a second."""

NULLS = {"float64": np.nan, "int64": 0, "uint64": 0, "bool": False}
"""Value in place of null in columns of numbers, by their dtype."""


def posix_to_datetime(seconds: np.ndarray) -> pd.DatetimeIndex:
    """Return POSIX seconds as ``datetime64[us, UTC]``, to the nearest microsecond.

    A float of today's size resolves 0.24 microseconds. NaN, and times outside the calendars of
    pandas, Arrow and Dask (the years 1 to 9999), become NaT.
    """
    nat = ~((seconds >= EARLIEST_SECONDS) & (seconds < LATEST_SECONDS))  # also of NaN
    micro = np.rint(np.where(nat, 0.0, seconds) * 1e6).astype(np.int64)
    stamps = micro.view("datetime64[us]")
    # Only then, as the assignment takes a pass over all rows.
    if nat.any():
        stamps[nat] = np.datetime64("NaT", "us")
    return pd.DatetimeIndex(stamps, tz="UTC", copy=False)


def datetime_to_posix(times: np.ndarray) -> np.ndarray:
    """Return the POSIX seconds of ``datetime64`` values of any unit, in UTC; NaT becomes NaN.

    Durations become seconds, likewise. Each is the nearest float, so a time of whole microseconds
    equals the one that :func:`posix_to_datetime` was given. One of more than 104 days that has
    nanoseconds may be the float beside it.
    """
    # Months, days and other units have no fixed number in a second, or are not in the table.
    if np.datetime_data(times.dtype) not in COUNTS_PER_SECOND:
        times = times.astype(f"{times.dtype.kind}8[us]")
    counts, per_second = times.astype(np.int64), COUNTS_PER_SECOND[np.datetime_data(times.dtype)]
    # No float holds the nanoseconds since 1970; it holds the microseconds.
    if per_second == 1e9:
        micro, rest = np.divmod(counts, 1000)
        exact = np.abs(counts) < 2**53
        seconds = np.where(exact, counts / per_second, micro / 1e6 + rest / per_second)
    else:
        seconds = counts / per_second
    return np.where(np.isnat(times), np.nan, seconds)


def constant(value: Any, rows: int, dtype: str) -> Any:
    """Return an array of one repeated value of the given dtype; None becomes null."""
    return of_values([value] * rows, dtype)


def of_values(values: Sequence[Any], dtype: str) -> Any:
    """Return an array of values of the given dtype; None becomes null."""
    if dtype == "object":
        return np.fromiter(values, object, len(values))
    if dtype == TIME_DTYPE:
        return pd.DatetimeIndex([pd.NaT] * len(values), dtype=TIME_DTYPE)
    if dtype in NULLS:
        # For integers and booleans the null is never used: these dtypes are chosen without nulls.
        null = NULLS[dtype]
        return np.array([null if value is None else value for value in values], dtype=dtype)
    return pd.array(list(values), dtype=dtype)


def empty_frame(columns: Sequence[TableColumn], attrs: Mapping[str, Any]) -> pd.DataFrame:
    """Return a table without rows: index ``seq_num``, all columns with their dtypes, and attrs."""
    data = {c.name: pd.Series(constant(None, 0, c.dtype), dtype=c.dtype) for c in columns}
    frame = pd.DataFrame(data, columns=[c.name for c in columns])
    frame.index = pd.Index(np.zeros(0, np.int64), name="seq_num")
    frame.attrs = dict(attrs)
    return frame


def stream_attrs(descriptors: Sequence[Mapping[str, Any]], stream: str) -> dict[str, Any]:
    """Return the attrs of a table: stream, uids of the first 100 runs and descriptors, units."""
    runs = list(dict.fromkeys(d["run_start"] for d in descriptors))
    units: dict[str, Any] = {}
    for key in data_keys_of(descriptors):
        for descriptor in descriptors:
            unit = descriptor["data_keys"].get(key, {}).get("units")
            if unit:
                units[key] = unit
    return {
        "stream": stream,
        "runs": runs[:100],
        "descriptors": [d["uid"] for d in descriptors[:100]],
        "units": units,
    }
