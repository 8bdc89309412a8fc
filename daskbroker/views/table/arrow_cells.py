"""Arrow types and arrays for cells of columns of objects: text, and nested lists for arrays.

=========================================== ==================================================
cells                                       type
=========================================== ==================================================
arrays and lists of numbers, booleans, text ``list<item: T>``, a list within it for each dimension
text                                        ``string``
numbers of several types, in arrays too     the type that holds all of them
anything else: mappings, bytes, text among  None: no type in common
numbers, arrays of several dimensionalities,
integers beyond 2**53 among floats
=========================================== ==================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ...core.documents import is_unicode
from ...core.leaves import EXACT_INTEGER

NUMBERS = "biuf"
LEAVES = (pa.int64(), pa.float64(), pa.bool_(), pa.string(), pa.null())
"""Types that Python values within lists may become."""


class CellTypes:
    """The Arrow type that the cells of each column have in common, found from the cells.

    Parameters
    ----------
    names
        Names of the columns.

    Attributes
    ----------
    types
        Type of each column that had a cell; None if its cells have no type in common.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.types: dict[str, pa.DataType | None] = {}
        self._wide: set[str] = set()  # columns with integers that no float holds

    def look(self, frame: pd.DataFrame) -> CellTypes:
        """Take the cells of some rows into account, and return self."""
        for name in self.names:
            for cell in frame[name]:
                if not is_missing(cell):
                    kind = _type_of(cell)
                    if name not in self._wide and kind is not None and _is_wide(cell, kind):
                        self._wide.add(name)
                    self._add(name, kind)
        return self

    def merge(self, other: CellTypes) -> CellTypes:
        """Take the types found in other rows into account, and return self."""
        self._wide |= other._wide
        for name, kind in other.types.items():
            self._add(name, kind)
        return self

    def _add(self, name: str, arrow_type: pa.DataType | None) -> None:
        known = self.types.get(name, arrow_type)
        found = common_type(known, arrow_type)
        if name in self._wide and found is not None and pa.types.is_floating(list_depth(found)[1]):
            found = None
        self.types[name] = found

    def settled(self, claims: dict[str, pa.DataType] | None = None) -> dict[str, Any]:
        """Return the type of each column; for one without cells its claimed type, else text."""
        claims = claims or {}
        known = {name: claims.get(name, pa.string()) for name in self.names} | self.types
        return {name: kind and _without_null(kind) for name, kind in known.items()}


def is_missing(cell: object) -> bool:
    """Return whether a cell is missing: None, ``pd.NA`` or NaN."""
    return cell is None or cell is pd.NA or (isinstance(cell, float) and np.isnan(cell))


def _type_of(cell: object) -> pa.DataType | None:
    if isinstance(cell, str):
        return pa.string() if is_unicode(cell) else None  # Arrow holds no lone surrogates
    if isinstance(cell, np.ndarray):
        return _type_of_array(cell)
    if isinstance(cell, list):
        return _type_of_list(cell)
    # Before integers, as a bool of Python is one.
    if isinstance(cell, (bool, np.bool_)):
        return pa.bool_()
    if isinstance(cell, (int, np.integer)):
        return pa.int64() if -(2**63) <= cell < 2**63 else None
    return pa.float64() if isinstance(cell, (float, np.floating)) else None


def _is_wide(cell: Any, arrow_type: pa.DataType) -> bool:
    """Return whether a cell of this type is, or has, an integer that no float holds."""
    if not pa.types.is_integer(list_depth(arrow_type)[1]):
        return False
    if not isinstance(cell, np.ndarray):
        values = pa.array([cell], arrow_type)
        while pa.types.is_list(values.type):
            values = values.flatten()
        cell = values.drop_null().to_numpy(zero_copy_only=False)
    if not cell.size:
        return False
    return max(-int(cell.min()), int(cell.max())) > EXACT_INTEGER


def _type_of_array(cell: np.ndarray) -> pa.DataType | None:
    if cell.dtype.kind in NUMBERS and cell.ndim:
        leaf = _leaf(cell.dtype) if cell.size else pa.null()
        return None if leaf is None else _nested_type(leaf, cell.ndim)
    return _type_of(cell.tolist()) if cell.dtype.kind in "OTU" else None


def _leaf(dtype: np.dtype) -> pa.DataType | None:
    try:
        return pa.from_numpy_dtype(dtype)
    except pa.ArrowNotImplementedError:  # floats of 80 or 128 bits
        return None


def _type_of_list(cell: list[Any]) -> pa.DataType | None:
    """Return the type that Arrow infers for a list; None if there is none, or none we write.

    Inner lists may have different lengths.
    """
    try:
        kind = pa.infer_type([cell])
        pa.array([cell], kind)
    except MemoryError:  # Arrow's is one of its exceptions, too
        raise
    except (pa.ArrowException, ValueError, OverflowError):
        return None
    return kind if list_depth(kind)[1] in LEAVES else None


def _nested_type(leaf: pa.DataType, depth: int) -> pa.DataType:
    for _ in range(depth):
        leaf = pa.list_(leaf)
    return leaf


def list_depth(arrow_type: pa.DataType) -> tuple[int, pa.DataType]:
    """Return the number of nested lists, and the type of their innermost items."""
    depth = 0
    while pa.types.is_list(arrow_type):
        depth, arrow_type = depth + 1, arrow_type.value_type
    return depth, arrow_type


def common_type(one: pa.DataType | None, other: pa.DataType | None) -> pa.DataType | None:
    """Return the type that holds the cells of both types without loss; None if there is none."""
    if one is None or other is None or one == other:
        return one if one == other else None
    # Nulls, as in empty lists, fit any type.
    if pa.types.is_null(one) or pa.types.is_null(other):
        return other if pa.types.is_null(one) else one
    if pa.types.is_list(one) and pa.types.is_list(other):
        inner = common_type(one.value_type, other.value_type)
        return None if inner is None else pa.list_(inner)
    if not all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in (one, other)):
        return None
    found = pa.from_numpy_dtype(np.result_type(one.to_pandas_dtype(), other.to_pandas_dtype()))
    # int64 and uint64 have only a float in common, which does not hold all their values.
    both_whole = pa.types.is_integer(one) and pa.types.is_integer(other)
    return None if both_whole and pa.types.is_floating(found) else found


def _without_null(arrow_type: pa.DataType) -> pa.DataType:
    """Replace the null type by float64, also within lists, as not all tools read null types.

    Lists have the null type if all of them were empty.
    """
    depth, leaf = list_depth(arrow_type)
    return _nested_type(pa.float64(), depth) if pa.types.is_null(leaf) else arrow_type


def claimed_type(claim: Any) -> pa.DataType | None:
    """Return the type of a data key that claims an array in each event; None for other keys.

    The dtype is that of ``dtype_numpy``, float64 if there is none or if NumPy does not know it.
    """
    shape = claim.get("shape")
    if claim.get("dtype") != "array" or claim.get("external") or not isinstance(shape, list):
        return None
    try:
        dtype = np.dtype(claim.get("dtype_numpy") or "f8")
    except TypeError:  # any text may be there
        dtype = np.dtype("f8")
    leaf = _leaf(dtype) if dtype.kind in NUMBERS else pa.string()
    return None if leaf is None else _nested_type(leaf, max(1, len(shape)))


def arrow_cells(cells: Iterable[Any], arrow_type: pa.DataType) -> pa.Array:
    """Return cells as an Arrow array of a type that :class:`CellTypes` found for them.

    Missing cells become null.

    Raises
    ------
    pyarrow.ArrowException, TypeError, ValueError
        If a cell is not of that type.
    """
    cells = [None if is_missing(cell) else cell for cell in cells]
    depth, leaf = list_depth(arrow_type)
    if not depth:
        return pa.array(cells, arrow_type)
    given = [cell for cell in cells if cell is not None]
    if all(isinstance(cell, np.ndarray) and cell.dtype.kind in NUMBERS for cell in given):
        return _nested(cells, depth, leaf)
    return pa.array(
        [cell.tolist() if hasattr(cell, "tolist") else cell for cell in cells], arrow_type
    )


def _nested(cells: list[Any], depth: int, leaf: pa.DataType) -> pa.Array:
    """Return nested lists made of one flat array of values and of the lists' lengths.

    Thus no Python object is made for each number.
    """
    dtype = np.dtype(leaf.to_pandas_dtype())
    arrays = [_at_depth(cell, depth) for cell in cells if cell is not None]
    flat = [array.ravel().astype(dtype, casting="safe", copy=False) for array in arrays]
    found = pa.array(np.concatenate(flat) if flat else np.empty(0, dtype), leaf)
    for axis in range(depth - 1, 0, -1):
        lengths = [np.full(prod(array.shape[:axis]), array.shape[axis]) for array in arrays]
        found = pa.ListArray.from_arrays(_offsets(lengths), found)
    lengths = [np.array([0 if cell is None else len(cell) for cell in cells], np.int64)]
    is_null = pa.array([cell is None for cell in cells], pa.bool_())
    return pa.ListArray.from_arrays(_offsets(lengths), found, mask=is_null)


def _at_depth(array: np.ndarray, depth: int) -> np.ndarray:
    if array.ndim != depth:
        if array.size:
            raise ValueError(f"an array of {array.ndim} dimensions among those of {depth}")
        array = array.reshape((0,) * depth)
    return array


def _offsets(lengths: list[np.ndarray]) -> pa.Array:
    counts = np.concatenate(lengths) if lengths else np.empty(0, np.int64)
    ends = np.cumsum(counts, dtype=np.int64)
    return pa.array(np.concatenate([[0], ends]), pa.int32())
