"""Common type of the leaves of arrays: the rules of scalars, one level down.

A leaf type is a short text, kept as the ``dtype`` of a column's kind. Any two leaf types have a
common one, whatever the order or the parts in which the leaves of a column are inspected: so the
type of a column does not depend on how it was cut into chunks.

======================== ===================================================================
leaf type                leaves
======================== ===================================================================
``"none"``               there are none: all arrays are empty
``"null"``               nothing but ``None``
``"|b1"``                booleans
``"|u1"``, ``"<i4"``, …   integers of a NumPy array of that dtype
``"i8"``, ``"u8"``        integers up to 2**53, each of which a float holds exactly
``"<i8"``, ``"<u8"``      integers of 64 bits, some of which may be larger than that; without sign
                         only those of NumPy arrays
``"<f4"``                floats of a NumPy array of that dtype
``"<f8"``                floats; or numbers and ``None``, all of which a float holds
``"<U"``                 text
``""``                   anything else: only objects hold it
======================== ===================================================================
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from .frozen import FrozenList

EXACT_INTEGER = 2**53
"""Largest integer up to which a float holds every integer exactly."""

LISTS = frozenset({list, FrozenList})
SCALARS = frozenset({bool, int, float, str, bytes, uuid.UUID})
LIST_LEAVES = frozenset({"none", "null", "|b1", "i8", "<i8", "<f8", "<U", ""})
"""Leaf types of lists; the others are only those of arrays of NumPy."""
WIDE = {"<i8": "i8", "<u8": "u8"}
"""Leaf type of 64-bit integers if none exceeds :data:`EXACT_INTEGER`, by the type if some may."""


class CellForm(NamedTuple):
    """Common form of cells that are arrays.

    Attributes
    ----------
    leaf
        Leaf type of all cells.
    shape
        Shape of each cell; () for flat arrays of differing lengths.
    """

    leaf: str
    shape: tuple[int, ...]


UNKNOWN = CellForm("", ())
"""Form of cells that are not arrays, or are arrays of differing dimensions or shapes."""


def is_plain_leaf(leaf: str) -> bool:
    """Return whether lists of the values have this leaf type too, not only arrays of NumPy."""
    return leaf in LIST_LEAVES


# -- of one column's part --------------------------------------------------------------------


def leaf_of_array(values: np.ndarray) -> str:
    """Return the leaf type of a NumPy array of numbers or booleans."""
    leaf = values.dtype.newbyteorder("<").str
    return WIDE[leaf] if leaf in WIDE and not is_beyond(values) else leaf


def is_beyond(values: np.ndarray) -> bool:
    """Return whether some values are integers beyond :data:`EXACT_INTEGER`."""
    # Only integers of 64 bits can be larger than a float holds exactly.
    if values.dtype.kind not in "iu" or values.itemsize < 8 or not values.size:
        return False
    return bool(values.max() > EXACT_INTEGER or values.min() < -EXACT_INTEGER)


def leaf_of_values(values: Sequence[Any]) -> str | None:
    """Return the leaf type of Python values, or None if some are not scalars."""
    types = set(map(type, values))
    # No array has a leaf.
    if not types:
        return "none"
    nulls = type(None) in types
    types.discard(type(None))
    # Every leaf is None.
    if not types:
        return "null"
    # Python's integers and floats mix freely in lists; their common type decides.
    if types <= {int, float}:
        return _leaf_of_numbers(
            [v for v in values if type(v) is int], as_floats=nulls or float in types
        )
    if types in ({bool}, {str}) and not nulls:
        return "|b1" if types == {bool} else "<U"
    return "" if types <= SCALARS else None


def _leaf_of_numbers(integers: Sequence[int], *, as_floats: bool) -> str:
    """Return the leaf type of numbers.

    Parameters
    ----------
    integers
        Those of the numbers that are integers.
    as_floats
        Whether there are also floats or None.
    """
    low, high = (min(integers), max(integers)) if integers else (0, 0)
    if low >= -EXACT_INTEGER and high <= EXACT_INTEGER:
        return "<f8" if as_floats else "i8"
    # A float would round the large ones.
    if as_floats:
        return ""
    return "<i8" if low >= -(2**63) and high < 2**63 else ""


def cell_form(cells: Sequence[Any]) -> CellForm:
    """Return the common form of lists and NumPy arrays that no plain Arrow column can hold."""
    arrays = [cell for cell in cells if isinstance(cell, np.ndarray)]
    level: list[Any] = [c.tolist() if isinstance(c, np.ndarray) else c for c in cells]
    shape: list[int] = []
    while level and LISTS.issuperset(map(type, level)):
        lengths = set(map(len, level))
        level = list(chain.from_iterable(level))
        # Lists of different lengths have one dimension more than their shape tells, and no
        # further.
        if len(lengths) > 1:
            leaf = None if shape else leaf_of_values(level)
            return UNKNOWN if leaf is None else CellForm(_with_arrays(leaf, arrays), ())
        shape.append(lengths.pop())
    leaf = leaf_of_values(level)
    return UNKNOWN if leaf is None else CellForm(_with_arrays(leaf, arrays), tuple(shape))


def _with_arrays(leaf: str, arrays: Iterable[np.ndarray]) -> str:
    """Return the leaf type of lists of which some were these arrays: "" if large and unsigned."""
    return "" if any(a.dtype.kind == "u" and is_beyond(a) for a in arrays) else leaf


# -- of all parts ----------------------------------------------------------------------------


def common_leaf(leaves: Iterable[str]) -> str:
    """Return the leaf type that holds all values of some leaf types exactly."""
    return reduce(_common, leaves, "none")


def _common(one: str, other: str) -> str:
    # "none" is the type of cells without leaves, which fit any other type.
    if one == other or other == "none":
        return one
    if one == "none":
        return other
    # Both are unsigned; only one of them may exceed what a float holds.
    if {one, other} == {"u8", "<u8"}:
        return "<u8"
    kinds = {_sort(one), _sort(other)}
    if kinds == {"exact"}:
        return "i8"
    if kinds == {"exact", "long"}:
        return "<i8"
    # Large integers among floats have no common type that holds both.
    return "<f8" if kinds <= {"exact", "float"} else ""


def _sort(leaf: str) -> str:
    """Return the sort of a leaf type, by which common types are found.

    ``"exact"`` are integers that a float holds exactly, ``"long"`` signed integers that it may
    not, ``"float"`` floats and nulls, ``"other"`` all else.
    """
    # A null among numbers is NaN.
    if leaf in ("<f4", "<f8", "null"):
        return "float"
    if leaf == "<i8":
        return "long"
    is_integer = leaf not in ("", "<u8", "<U") and np.dtype(leaf).kind in "iu"
    return "exact" if is_integer else "other"


def with_empty_arrays(solid: Sequence[Any], types: set[type]) -> tuple[Sequence[Any], set[type]]:
    """Replace empty lists among arrays of one dtype by empty arrays; return cells and types.

    Empty arrays are normalized to empty lists. If there are several dtypes, or a list that is not
    empty, the cells are returned as they are.
    """
    dtypes = {cell.dtype for cell in solid if isinstance(cell, np.ndarray)}
    if len(dtypes) > 1 or any(len(cell) for cell in solid if not isinstance(cell, np.ndarray)):
        return solid, types
    empty = np.empty(0, dtypes.pop())
    return [cell if isinstance(cell, np.ndarray) else empty for cell in solid], {np.ndarray}
