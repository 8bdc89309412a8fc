"""Cells that are rows of fields.

In documents, structured arrays and the ``Table`` of ophyd-async are rows, lists of the values of
their fields, which is also what event-model's own sanitizing makes of them. Those that were
inserted as arrays are stored with their dtype (:class:`~.frozen.ArrayList`). Of rows that another
program has made of arrays the descriptor may declare name and dtype of each field, in
``dtype_numpy``; with these, cells are converted back to structured arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from .documents import equal
from .dtypes import plain_dtype
from .field_rows import has_fields, lists_of
from .frozen import ArrayList


def fields_of(claims: Iterable[Mapping[str, Any]]) -> np.dtype | None:
    """Return the dtype of fields that descriptors declare, or None unless all declare the same."""
    found = {_declared(claim.get("dtype_numpy")) for claim in claims}
    return found.pop() if len(found) == 1 else None


def _declared(given: object) -> np.dtype | None:
    # Not structured, or nothing declared.
    if not isinstance(given, list) or not given:
        return None
    names = [field[0] for field in given if isinstance(field, list) and len(field) == 2]
    # A name is missing or given twice, which NumPy refuses.
    if len(names) < len(given) or len(set(map(str, names))) < len(given):
        return None
    if not all(isinstance(name, str) and name for name in names):
        return None
    try:
        fields = [(name, plain_dtype(text)) for name, text in given]
        return np.dtype(fields) if all(one.kind in "biufSU" for _, one in fields) else None
    except ValueError:
        return None


def structured_cell(cell: Any, dtype: np.dtype) -> Any:
    """Return a row, or rows in any number of dimensions, as a structured scalar or array.

    A cell that does not fit the dtype is returned as it is. Text gets the declared length or, if
    it is longer, its own; nothing is truncated.
    """
    if type(cell) is ArrayList and cell.dtype.names:
        cell = cell.array()
    if has_fields(cell):
        if cell.dtype == dtype:
            return cell
        if cell.dtype.names == dtype.names:
            # astype rounds and truncates without an error.
            found = cell.astype(dtype)
            if equal(lists_of(found), lists_of(cell)):
                return found
    rows = lists_of(cell) if isinstance(cell, np.ndarray) else cell
    if not isinstance(rows, list):
        return cell
    if not rows:
        return np.empty(0, dtype)
    # The innermost lists are rows; each level of lists above them is a dimension.
    shape: list[int] = []
    level: list[Any] = [rows]
    while _all_lists(level) and any(isinstance(value, list) for row in level for value in row):
        lengths = set(map(len, level))
        if len(lengths) > 1:
            return cell
        shape.append(lengths.pop())
        level = list(chain.from_iterable(level))
    found = _of_rows(level, dtype) if _all_lists(level) else None
    if found is None:
        return cell
    return found.reshape(shape) if shape else found[0]


def _all_lists(values: Sequence[Any]) -> bool:
    return all(isinstance(value, list) for value in values)


def _of_rows(rows: Sequence[Sequence[Any]], dtype: np.dtype) -> np.ndarray | None:
    names = dtype.names or ()
    if any(len(row) != len(names) for row in rows):
        return None
    columns: dict[str, np.ndarray] = {}
    for position, name in enumerate(names):
        column = field_values([row[position] for row in rows], dtype[name])
        if column is None:
            return None
        columns[name] = column
    found = np.empty(len(rows), [(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        found[name] = column
    return found


def field_values(values: Sequence[Any], dtype: np.dtype) -> np.ndarray | None:
    """Return the values of one field as an array of its dtype, or None if that is not exact."""
    if dtype.kind in "SU":
        return _texts(values, dtype)
    try:
        found = np.array(values, dtype)
    except (ValueError, TypeError, OverflowError):
        return None
    if found.ndim != 1:
        return None
    # NumPy rounds numbers and parses text without an error, so the values are compared.
    wanted = [np.nan if value is None else value for value in values]
    return found if found.tolist() == wanted or equal(found.tolist(), wanted) else None


def _texts(values: Sequence[Any], dtype: np.dtype) -> np.ndarray | None:
    """Return text or bytes as an array, whichever of them ``dtype`` is.

    Tables declare bytes and hold text. None is returned if the values are mixed or not exact.
    """
    types = set(map(type, values))
    if len(types) > 1 or not types <= {str, bytes}:
        return None
    letter = "U" if types == {str} else "S" if types else dtype.kind
    declared = dtype.itemsize // (4 if dtype.kind == "U" else 1)
    found = np.array(values, f"{letter}{max(1, declared, *map(len, values))}")
    return found if found.tolist() == list(values) else None  # not if NumPy drops an end
