"""Structured arrays as rows: lists of the values of their fields, in as many dimensions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

EXACT_SIZE = 4
"""Maximum size of integers, in bytes, that 64-bit floats hold exactly."""


def has_fields(value: object) -> bool:
    """Return whether a value is a structured array, a single element included."""
    return isinstance(value, (np.ndarray, np.void)) and bool(value.dtype.names)


def lists_of(array: np.ndarray) -> Any:
    """Return the values of any array as nested lists, a scalar if it has no dimension.

    An element of a structured array becomes the list of the values of its fields.
    """
    values = array.tolist()
    return _lists(values) if array.dtype.names else values


def _lists(value: object) -> Any:
    if isinstance(value, np.ndarray):  # a field that is an array
        return _lists(value.tolist())
    return list(map(_lists, value)) if isinstance(value, (list, tuple)) else value


def structured_rows(array: np.ndarray) -> tuple[Any, np.dtype]:
    """Return the rows of a structured array, and their dtype without layout and byte order.

    A field of which some values are masked becomes a field of objects, with None in their place.
    """
    mask = array.mask if isinstance(array, np.ma.MaskedArray) else None
    return _lists(array.tolist()), _field_dtype(array.dtype, mask)


def _field_dtype(dtype: np.dtype, mask: Any) -> np.dtype:
    if dtype.names:
        fields = [
            (name, _field_dtype(dtype[name], None if mask is None else mask[name]))
            for name in dtype.names
        ]
        return np.dtype(fields)
    base, shape = (dtype, ()) if dtype.subdtype is None else dtype.subdtype
    if base.names:  # NumPy has no masks of arrays in fields that have fields themselves
        base = _field_dtype(base, None)
    elif mask is not None and np.any(mask):
        base = np.dtype(object)
    return np.dtype((base.newbyteorder("="), shape)) if shape else base.newbyteorder("=")


def array_of_rows(rows: Any, dtype: np.dtype, shape: Sequence[int]) -> np.ndarray:
    """Return rows as a structured array of a dtype and shape.

    Raises
    ------
    ValueError, TypeError, OverflowError
        If they are not such rows.
    """
    found = np.empty(tuple(shape), dtype)
    if found.size:
        found[...] = np.array(_elements(rows, dtype, len(found.shape)), dtype)
    return found


def _elements(value: Any, dtype: np.dtype, levels: int) -> Any:
    """Return nested lists with tuples for elements that have fields, as NumPy wants them."""
    if levels:
        return [_elements(item, dtype, levels - 1) for item in value]
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return _elements(value, base, len(shape))
    if not dtype.names:
        return value
    return tuple(
        _elements(item, dtype[name], 0) for item, name in zip(value, dtype.names, strict=True)
    )


# -- several dtypes --------------------------------------------------------------------------


def _common_fields(one: np.dtype, other: np.dtype) -> np.dtype | None:
    """Return the dtype that holds the elements of two structured dtypes exactly.

    Fields of numbers of which no number type holds all values become fields of objects. None is
    returned unless the names of the fields are the same, in the same order.
    """
    if one == other:
        return one
    if one.names is None or one.names != other.names:
        return None
    fields = []
    for name in one.names:
        dtype = _common(one[name], other[name])
        if dtype is None:
            return None
        fields.append((name, dtype))
    return np.dtype(fields)


def common_of(dtypes: Iterable[np.dtype]) -> np.dtype | None:
    """Return the dtype that holds the elements of several structured dtypes exactly, if any."""
    every = list(dict.fromkeys(dtypes))
    found: np.dtype | None = every[0] if every else None
    for dtype in every[1:]:
        found = None if found is None else _common_fields(found, dtype)
    return found


def _common(one: np.dtype, other: np.dtype) -> np.dtype | None:
    if one == other:
        return one
    if one.names or other.names:
        return _common_fields(one, other)
    if one.subdtype is not None and other.subdtype is not None and one.shape == other.shape:
        base = _common(one.base, other.base)
        return None if base is None else np.dtype((base, one.shape))
    if one.subdtype is not None or other.subdtype is not None:
        return None
    kinds = {one.kind, other.kind}
    if len(kinds) == 1 and kinds <= set("SU"):
        return max(one, other, key=lambda dtype: dtype.itemsize)
    if kinds <= set("iuf"):
        found = np.result_type(one, other)
        integers = [d for d in (one, other) if d.kind in "iu"]
        if found.kind in "iu" or all(d.itemsize <= EXACT_SIZE for d in integers):
            return found
    return np.dtype(object)
