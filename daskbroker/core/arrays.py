"""Columns of arrays: the common form of the cells in all chunks of a stream.

As with scalars, the stored values decide, not the descriptor's claim: cells that are arrays of
one shape make an array of one dimension more, whose dtype holds every leaf exactly
(:mod:`.leaves`). Structured arrays, and lists whose claim has a ``dtype_numpy`` of fields, are
rows; see :mod:`.structured`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa

from .codec import block, decode
from .column_kinds import MISSING, ColumnKind, field_kind
from .errors import StoreDamaged
from .leaves import WIDE, common_leaf

OBJECT = np.dtype(object)


@dataclass(frozen=True, slots=True)
class ArrayForm:
    """Common form of the cells of a column that holds arrays.

    Attributes
    ----------
    leaf
        Type of their leaves, see :mod:`.leaves`.
    shape
        Shape of each cell, or None if the shapes differ.
    gaps
        Whether some events have no cell.
    """

    leaf: str
    shape: tuple[int, ...] | None
    gaps: bool

    @property
    def cell_dtype(self) -> np.dtype:
        """Dtype of an array that holds the leaves of one cell."""
        if self.leaf in ("null", "none"):
            return np.dtype(np.float64)
        return OBJECT if self.leaf in ("", "<U") else np.dtype(self.leaf)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of an array that holds the leaves of all events, gaps included."""
        if not self.gaps:
            return self.cell_dtype
        return OBJECT if self.leaf in WIDE else with_gaps(self.cell_dtype)


def with_gaps(dtype: np.dtype) -> np.dtype:
    """Return the dtype that values of a dtype need if some are missing, as xarray chooses it.

    Integers of up to 16 bits become float32, larger ones float64; floats stay as they are, and
    everything else becomes object.
    """
    if dtype.kind in "iu":
        return np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)
    return dtype if dtype.kind == "f" else OBJECT


def array_form(kinds: Iterable[ColumnKind | None]) -> ArrayForm | None:
    """Return the common form of the cells of all chunks, or None if they are not all arrays.

    Parameters
    ----------
    kinds
        Kind of the column in each chunk; None for a chunk without the column.
    """
    kinds = list(kinds)
    gaps = any(kind is None or kind.nulls for kind in kinds)
    found = [kind for kind in kinds if kind is not None and kind.name != "null"]
    if not found or not all(map(_holds_arrays, found)):
        return None
    shapes = {kind.shape for kind in found if kind.name == "array" or kind.shape}
    alike = len(shapes) == 1 and all(kind.shape for kind in found)
    if not alike and any(len(shape) > 1 for shape in shapes):
        return None  # as in one chunk, see :func:`~.leaves.cell_form`
    leaf = common_leaf(kind.dtype for kind in found)
    shape = shapes.pop() if alike else ()
    if prod(shape) and shape:
        return ArrayForm(leaf, shape, gaps)
    return ArrayForm(leaf, None, gaps) if leaf else None


def rows_form(kinds: Iterable[ColumnKind | None]) -> ArrayForm:
    """Return the form of structured cells; the fields count as one more dimension."""
    kinds = list(kinds)
    gaps = any(kind is None or kind.nulls for kind in kinds)
    shapes = {kind.shape for kind in kinds if kind is not None and kind.name == "rows"}
    shape = shapes.pop() if len(shapes) == 1 else ()
    return ArrayForm("", shape if prod(shape) and shape else None, gaps)


def _holds_arrays(kind: ColumnKind) -> bool:
    return kind.name in ("array", "list") or (
        kind.name == "json" and bool(kind.shape or kind.dtype)
    )


def blank(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """Return an array of missing values: None for objects, NaN for floats, else zeros."""
    if dtype == OBJECT:
        return np.full(shape, None, dtype=object)
    return np.full(shape, np.nan if dtype.kind == "f" else np.zeros((), dtype), dtype=dtype)


def array_block(
    column: pa.Array | None, arrow_field: pa.Field | None, rows: int, form: ArrayForm
) -> np.ndarray:
    """Return the cells of one chunk's column as an array of ``form.dtype``.

    Parameters
    ----------
    column, arrow_field
        The column and its field, or None if the chunk lacks the column.
    rows
        Number of rows of the chunk.
    form
        Form of the cells of all chunks; it must have a shape.

    Returns
    -------
    numpy.ndarray
        Of shape ``(rows, *form.shape)``.

    Raises
    ------
    StoreDamaged
        If the cells are not of the form.
    """
    shape, dtype = (rows, *(form.shape or ())), form.dtype
    if column is None or arrow_field is None:
        return blank(shape, dtype)
    kind, _ = field_kind(arrow_field)
    if kind.name == "null":
        return blank(shape, dtype)
    try:
        if kind.name == "array" and kind.dtype != "<U":
            return _of_block(column, kind, shape, dtype)
        return _of_cells(decode(column, arrow_field), shape, dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise StoreDamaged(f"the column {arrow_field.name!r} of a chunk is damaged") from error


def _of_block(
    column: pa.Array, kind: ColumnKind, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    values = block(column, kind).reshape(shape)
    valid = column.is_valid().to_numpy(zero_copy_only=False) if column.null_count else None
    if valid is None:
        return values.astype(dtype, copy=False)
    found = blank(shape, dtype)
    found[valid] = values[valid]
    return found


def _of_cells(cells: Sequence[Any], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    found = blank(shape, dtype)
    positions = [n for n, cell in enumerate(cells) if cell is not None and cell is not MISSING]
    if positions:
        solid = np.array([cells[position] for position in positions], dtype=dtype)
        found[positions] = solid.reshape(len(positions), *shape[1:])
    return found
