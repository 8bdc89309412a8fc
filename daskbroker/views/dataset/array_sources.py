"""Sources of variables with cells of arrays or rows of fields, or with a requested dtype."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ...core.arrays import OBJECT, ArrayForm, array_block, blank, with_gaps
from ...core.column_kinds import MISSING
from ...core.errors import BadQuery, StoreError
from ...core.layouts import as_one_chunk
from ...core.layouts import cells as cells_of
from ...core.schema import object_cells
from ...core.structured import structured_cell
from .column_sources import ColumnSource, OneColumn
from .row_block import ChunkRows, RowBlock


@dataclass(frozen=True)
class StoredArray(OneColumn):
    """Source that is a stored column of arrays.

    Attributes
    ----------
    form
        Common form of the cells of all chunks. Without a common shape, cells are objects.
    """

    form: ArrayForm

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        """Dtype of the elements; object if cells have no common shape."""
        return OBJECT if self.form.shape is None else self.form.dtype

    @property
    def cell_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Shape of each cell."""
        return self.form.shape or ()

    def cells(self, block: RowBlock, tables: Sequence[pa.Table]) -> np.ndarray:
        pairs = zip(tables, block.pieces, strict=True)
        return self._joined([self._chosen(table, piece) for table, piece in pairs])

    def _chosen(self, table: pa.Table, piece: ChunkRows) -> np.ndarray:
        if self.form.shape is None:
            return object_cells(table, self.name, piece.rows, self.form, None)
        position = table.schema.get_field_index(self.name)
        if position < 0:
            return array_block(None, None, piece.length, self.form)
        column, field = as_one_chunk(table.column(position)), table.schema.field(position)
        return array_block(column, field, table.num_rows, self.form)[piece.rows]


def leaf_paths(dtype: np.dtype) -> Iterator[tuple[str, ...]]:
    """Yield the path of each field of a dtype that has no fields itself."""
    for name in dtype.names or ():
        if dtype[name].names:
            yield from ((name, *path) for path in leaf_paths(dtype[name]))
        else:
            yield (name,)


def leaf_dtype(dtype: np.dtype, path: Sequence[str]) -> np.dtype:
    """Return the dtype of the field at a path."""
    for name in path:
        dtype = dtype[name]
    return dtype


@dataclass(frozen=True)
class StructuredField(OneColumn):
    """Source that is one field of a stored column of rows of fields.

    Attributes
    ----------
    fields
        Structured dtype that is declared or requested.
    path
        Name of the field, after the names of those that it is a field of.
    form
        Common form of the rows of all chunks; None if they have no common shape. Then cells are
        objects.
    """

    fields: np.dtype
    path: tuple[str, ...]
    form: ArrayForm | None

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        """Dtype of the field; object for text, and if cells have no common shape."""
        declared = leaf_dtype(self.fields, self.path).base
        if self.form is None or declared.kind in "SU":
            return OBJECT
        return with_gaps(declared) if self.form.gaps else declared

    @property
    def cell_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Shape of the rows of a cell, followed by that of the field if it is an array."""
        if self.form is None:
            return ()
        return (*(self.form.shape or ())[:-1], *leaf_dtype(self.fields, self.path).shape)

    def cells(self, block: RowBlock, tables: Sequence[pa.Table]) -> np.ndarray:
        """See :meth:`ColumnSource.cells`.

        Raises
        ------
        StoreError
            If values are not of the declared dtype.
        """
        found = blank((len(block), *self.cell_shape), self.dtype)
        begin = 0
        for table, piece in zip(tables, block.pieces, strict=True):
            part = found[begin : begin + piece.length]
            begin += piece.length
            if self.name in table.column_names:
                every = cells_of(table, self.name)
                chosen = np.arange(table.num_rows)[piece.rows].tolist()
                self._put(part, [every[number] for number in chosen], block.labels[piece.owner])
        return found

    def _put(self, out: np.ndarray, cells: Sequence[Any], label: str) -> None:
        """Write the field's values of some cells to `out`; missing cells are left blank."""
        for position, cell in enumerate(cells):
            if cell is None or cell is MISSING:
                continue
            rows = structured_cell(cell, self.fields)
            if not isinstance(rows, (np.ndarray, np.void)) or rows.dtype.names is None:
                key = self.name.removeprefix("data:")
                raise StoreError(
                    f"{label}: rows of {key!r} are not of the dtype {self.fields.descr} that its "
                    f"descriptor declares: {cell!r:.80}; documents and tables have them as they "
                    f"are, dtypes={{{'.'.join((key, *self.path))!r}: dtype}} takes another dtype"
                )
            for name in self.path:
                rows = rows[name]
            out[position] = rows


@dataclass(frozen=True)
class Cast(ColumnSource):
    """Source whose values are cast to a requested dtype.

    Attributes
    ----------
    name
        Name of the variable, for messages.
    source
        Source of the stored values.
    dtype
        Requested dtype.
    """

    name: str
    source: ColumnSource
    dtype: np.dtype

    @property
    def physical(self) -> tuple[str, ...]:
        return self.source.physical

    @property
    def cell_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Shape of each cell."""
        return self.source.cell_shape

    def of_owners(self, indices: Sequence[int]) -> Cast:
        return Cast(self.name, self.source.of_owners(indices), self.dtype)

    def cells(self, block: RowBlock, tables: Sequence[pa.Table]) -> np.ndarray:
        """See :meth:`ColumnSource.cells`.

        Raises
        ------
        BadQuery
            If the dtype cannot hold some values. Rounding to another float dtype is allowed.
        """
        values = self.source.cells(block, tables)
        reason: Any = "some would be another value"
        try:
            with np.errstate(invalid="raise", over="raise"):
                found = values.astype(self.dtype)
            if self.dtype.kind in "US":  # which NumPy cuts to the width of the dtype
                values = values.astype(self.dtype.kind)
            if self.dtype.kind in "mM" and values.dtype.kind == "f":  # which NumPy cuts, too
                back = found.astype(np.int64).astype(values.dtype)
                if bool(((back == values) | np.isnan(values)).all()):
                    return found
                reason = (
                    f"fractions; of seconds (ds[{self.name!r}] * 1e6).astype('M8[us]') keeps them"
                )
            elif self.dtype.kind not in "biuUS" or bool((found == values).all()):
                return found
        except (ValueError, TypeError, OverflowError, FloatingPointError) as error:
            reason = error
        raise BadQuery(
            f"dtypes={{{self.name!r}: {str(self.dtype)!r}}}: that dtype does not hold all values "
            f"of {self.name!r} ({reason}); the stored values have dtype {self.source.dtype}"
        )
