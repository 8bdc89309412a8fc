"""``to_parquet`` and ``to_csv`` for tables with columns of arrays.

Dask's ``to_parquet`` infers Arrow types from empty columns, and so fails on columns of objects;
here the types are found from the cells. Dask's ``to_csv`` writes what NumPy prints of an array,
with ``...`` in place of most of it; here this is an error, or the columns are left out.
"""

# dask does not annotate its private API.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import dask
import numpy as np
import pandas as pd
import pyarrow as pa
from dask.dataframe.dask_expr import _expr as ex
from dask.dataframe.dask_expr._indexing import LocBase, LocUnknown
from dask.dataframe.dask_expr._repartition import Repartition

from daskbroker.core.arguments import check_one_of
from daskbroker.core.errors import BadQuery
from daskbroker.views.table.arrow_cells import CellTypes, arrow_cells
from daskbroker.views.table.expression import FromPartitions
from daskbroker.views.table.plain_cells import ARRAYS, holds_arrays

SELECTIONS = (
    ex.Projection, ex.Filter, ex.Partitions, ex.Head, ex.Tail, ex.Drop, ex.DropnaFrame, ex.Query,
    ex.ResetIndex, ex.Assign, LocBase, LocUnknown, Repartition,
)  # fmt: skip
"""Expressions that choose columns or rows, or add columns, and change no cell."""


def object_columns(meta: pd.DataFrame) -> list[Any]:
    """Return the names of the columns that hold Python objects."""
    return [name for name, dtype in meta.dtypes.items() if dtype.kind == "O"]


def with_arrow_lists(table: Any, given: Mapping[str, Any]) -> tuple[Any, dict[str, pa.DataType]]:
    """Return the table with cells of Arrow types in place of objects, and these types.

    The result is for ``to_parquet`` only: its meta claims Arrow dtypes, so that Dask infers the
    types, but its partitions hold objects.

    Parameters
    ----------
    table
        Lazy table. Its columns of objects, except those in `given`, are computed once to find
        their types.
    given
        Types of columns that are known, by name.

    Raises
    ------
    BadQuery
        If the cells of a column have no Arrow type in common; the message names the columns.
    """
    objects = object_columns(table._meta)
    known = {name: given[name] for name in objects if name in given}
    names = [name for name in objects if name not in given]
    arrow_types = {**known, **_arrow_types(table, names)}
    dtypes = {name: pd.ArrowDtype(arrow_type) for name, arrow_type in arrow_types.items()}
    meta = table._meta.assign(**{n: pd.Series([], dtype=dtype) for n, dtype in dtypes.items()})
    if arrow_types:
        table = table.map_partitions(_in_arrow, arrow_types, meta=meta)
    return table, arrow_types


def _arrow_types(table: Any, names: list[Any]) -> dict[str, pa.DataType]:
    types = CellTypes(names)
    if not names:
        return {}
    first, *others = table[names].to_delayed()
    look = dask.delayed(_types_of, pure=True)
    # Most unsuitable columns show in the first partition; then the others need not be computed.
    for some in ([first], others):
        for found in dask.compute(*[look(part, names) for part in some]):
            types.merge(found)
        _refuse(table, types)
    return types.settled()


def _types_of(frame: pd.DataFrame, names: list[str]) -> CellTypes:
    return CellTypes(names).look(frame)


def _refuse(table: Any, types: CellTypes) -> None:
    refused = [name for name, kind in types.types.items() if kind is None]
    if refused:
        raise BadQuery(
            f"to_parquet cannot write {_named(table, refused)}: the cells have no Arrow type in "
            f"common; leave out what cannot be written by table.drop(columns={refused!r}), or "
            "write the run by h.export(path, format='parquet'), which writes them as JSON text"
        )


def _named(table: Any, names: list[str]) -> str:
    return f"column{'s' * (len(names) > 1)} {', '.join(map(repr, names))}{_of_stream(table)}"


def _of_stream(table: Any) -> str:
    stream = table._meta.attrs.get("stream")
    return "" if stream is None else f" of stream {stream!r}"


def _in_arrow(frame: pd.DataFrame, types: Mapping[str, pa.DataType]) -> pd.DataFrame:
    """Convert cells to their Arrow types, but keep the columns' dtype ``object``.

    With Arrow list dtypes, the Parquet files would name dtypes that neither pandas nor Dask
    understands when reading them.
    """
    columns = {}
    for name, kind in types.items():
        converted = _as_arrow_type(frame[name], kind).to_pandas()
        cells = np.fromiter(converted, object, len(frame))
        columns[name] = pd.Series(cells, index=frame.index, dtype=object)
    return frame.assign(**columns)


def _as_arrow_type(cells: pd.Series, arrow_type: pa.DataType) -> pa.Array:
    try:
        return arrow_cells(cells, arrow_type)
    except TypeError:  # the type was given by the user, and arrow_cells cannot cast to it safely
        return pa.array([c.tolist() if hasattr(c, "tolist") else c for c in cells], arrow_type)


def without_arrays(table: Any, arrays: str) -> Any:
    """Return the table in a form that a text file can hold.

    Parameters
    ----------
    table
        Lazy table.
    arrays
        What becomes of columns in which a cell is an array, a list or a mapping. ``"raise"``: they
        are an error that names them, here or when the result is computed. ``"drop"``: they are left
        out; columns of objects that are not known to hold arrays are computed here.

    Raises
    ------
    BadQuery
        If `arrays` is not valid; with ``"raise"``, also if such a column is known, else when a
        partition with one is computed.
    """
    check_one_of("arrays", arrays, ARRAYS)
    known = known_arrays(table)
    names = [name for name in object_columns(table._meta) if name not in known]
    if arrays == "raise":
        if known:
            raise _refusal(known, _of_stream(table))
        return table.map_partitions(_check_text, _of_stream(table), meta=table._meta)
    look = dask.delayed(holds_arrays, pure=True)
    parts = table[names].to_delayed() if names else []
    found = known.union(*dask.compute(*[look([part]) for part in parts]))
    return table[[name for name in table.columns if name not in found]]


def known_arrays(table: Any) -> frozenset[Any]:
    """Return the names of those columns that are known to hold arrays without reading them."""
    expr, assigned = table.expr, set[Any]()
    while isinstance(expr, SELECTIONS):
        if isinstance(expr, ex.Assign):
            assigned.update(expr.keys)
        expr = expr.frame
    if not isinstance(expr, FromPartitions):
        return frozenset()
    return expr._parts.array_columns.intersection(object_columns(table._meta)) - assigned


def _refusal(names: Iterable[Any], stream: str) -> BadQuery:
    found = sorted(map(str, names))
    return BadQuery(
        f"to_csv cannot write the column{'s' * (len(found) > 1)} "
        f"{', '.join(map(repr, found))}{stream}: they hold arrays or mappings; leave them out "
        "by to_csv(..., arrays='drop'), or write to Parquet"
    )


def _check_text(frame: pd.DataFrame, stream: str) -> pd.DataFrame:
    found = holds_arrays([frame])
    if found:
        raise _refusal(found, stream)
    return frame
