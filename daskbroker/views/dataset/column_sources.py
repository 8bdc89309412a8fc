"""Read some rows of a column from chunks, and external cells from their files.

Each Dask task reads a :class:`.row_block.RowBlock` of its own; xarray's lazy arrays hold the whole
plan (:class:`ChunkColumn`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa
from xarray.backends import BackendArray
from xarray.core import indexing

from ...assets.filling.contents import CELL_COLUMNS, CellContents, contents_table
from ...assets.filling.filling import Filling
from ...assets.filling.target import Target
from ...assets.handlers.stored_frames import CellFrames, NoReference
from ...assets.regions import Region, shape_of, take_roi, within
from ...assets.shapes import Declared
from ...core.chunks import ChunkPlan, damage_of
from ...core.schema import TIME_DTYPE, constant, joined_arrays, to_pandas
from .dataset_rows import DatasetRows, RowsOfChunk, by_chunk
from .row_block import ChunkRows, RowBlock, planned_block


class ColumnSource(ABC):
    """Source from which a variable is read.

    Attributes
    ----------
    cell_shape, dtype
        Shape and dtype of the variable's cells.
    """

    cell_shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def is_joinable(self) -> bool:
        """Whether chunks of one schema can be read as one, as only their rows matter."""
        return False

    @property
    def physical(self) -> tuple[str, ...]:
        """Names of the stored columns that are read."""
        return ()

    @property
    def is_mixed(self) -> bool:
        """Whether cells are objects that may differ in length or type, rather than text."""
        return self.dtype.kind == "O"

    def of_owners(self, indices: Sequence[int]) -> ColumnSource:
        """Return the source with only the descriptors at these positions, in this order."""
        return self

    @abstractmethod
    def cells(self, block: RowBlock, tables: Sequence[pa.Table]) -> np.ndarray:
        """Return whole cells of the rows of a block, in the order of its pieces.

        Parameters
        ----------
        block
            The rows.
        tables
            Chunk of each piece, with those columns of :attr:`physical` that it has.

        Returns
        -------
        ndarray
            Array of shape ``(rows, *cell_shape)``.
        """

    def read(self, block: RowBlock, inner: tuple[Any, ...] = ()) -> np.ndarray:
        """Return a region of the cells of a block, of shape ``(rows, *cell[inner])``."""
        tables = list(block.tables(self.physical))
        return take_roi(block.arranged(self.cells(block, tables)), inner)

    def _joined(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Return the cells of all pieces as one array, which can be written to."""
        if not parts:
            return np.empty((0, *self.cell_shape), self.dtype)
        return joined_arrays(parts)


@dataclass(frozen=True)
class OneColumn(ColumnSource):
    """Source that is a stored column.

    Attributes
    ----------
    name
        Name of the column.
    """

    name: str

    @property
    def physical(self) -> tuple[str, ...]:
        return (self.name,)


@dataclass(frozen=True)
class Constants(ColumnSource):
    """Source of one constant value per descriptor, which no chunk holds."""

    values: tuple[Any, ...]
    dtype: np.dtype
    cell_shape: tuple[int, ...] = ()

    @property
    def is_mixed(self) -> bool:
        text = all(value is None or isinstance(value, str) for value in self.values)
        return self.dtype.kind == "O" and not text

    def of_owners(self, indices: Sequence[int]) -> Constants:
        return replace(self, values=tuple(self.values[position] for position in indices))

    def cells(self, block: RowBlock, tables: Sequence[pa.Table]) -> np.ndarray:
        null = None if self.dtype.kind == "O" else np.nan
        cells = (null if value is None else value for value in self.values)
        values = np.fromiter(cells, self.dtype, len(self.values))
        owners = np.array([piece.owner for piece in block.pieces], np.int64)
        lengths = np.array([piece.length for piece in block.pieces], np.int64)
        return np.repeat(values[owners], lengths)

    def read(self, block: RowBlock, inner: tuple[Any, ...] = ()) -> np.ndarray:
        return block.arranged(self.cells(block, ()))


@dataclass(frozen=True)
class StoredColumn(OneColumn):
    """Source that is a stored column of scalars, or of objects.

    Attributes
    ----------
    pandas_dtype
        Name of the dtype that a table has for it.
    """

    pandas_dtype: str
    dtype: np.dtype
    cell_shape: tuple[int, ...] = ()

    @property
    def is_joinable(self) -> bool:
        """See :attr:`ColumnSource.is_joinable`; in cells of objects, chunks note single rows."""
        return self.pandas_dtype != "object"

    @property
    def is_mixed(self) -> bool:
        return self.pandas_dtype == "object"

    def cells(self, block: RowBlock, tables: Sequence[pa.Table]) -> np.ndarray:
        if self.pandas_dtype == "object":  # chunks have notes of their rows
            parts = [
                to_pandas(table, self.name, self.pandas_dtype)[piece.rows]
                for table, piece in zip(tables, block.pieces, strict=True)
            ]
        else:
            parts = [
                _numpy(values, self.pandas_dtype) for values in self._chosen(tables, block.pieces)
            ]
        return self._joined(parts)

    def _chosen(self, tables: Sequence[pa.Table], pieces: Sequence[ChunkRows]) -> Iterator[Any]:
        """Yield the chosen rows as in a table; consecutive chunks of one type are joined."""
        if len(pieces) == 1:
            yield to_pandas(tables[0], self.name, self.pandas_dtype)[pieces[0].rows]
            return
        pairs = zip(tables, pieces, strict=True)
        for (there, field), alike in groupby(pairs, lambda pair: _field(pair[0], self.name)):
            if not there:
                yield constant(None, sum(piece.length for _, piece in alike), self.pandas_dtype)
                continue
            columns = [_rows_of(table.column(self.name), piece.rows) for table, piece in alike]
            chunks = [chunk for column in columns for chunk in column.chunks]
            column = pa.chunked_array(chunks, columns[0].type)
            yield to_pandas(pa.table([column], pa.schema([field])), self.name, self.pandas_dtype)


def _field(table: pa.Table, name: str) -> tuple[bool, pa.Field | None]:
    """Return whether the table has a column, and its field.

    The flag is needed for comparisons, as Arrow cannot compare a field with None.
    """
    position = table.schema.get_field_index(name)
    return position >= 0, None if position < 0 else table.schema.field(position)


def _rows_of(column: pa.ChunkedArray, rows: RowsOfChunk) -> pa.ChunkedArray:
    if isinstance(rows, slice):
        return column.slice(rows.start, rows.stop - rows.start)
    return column.take(pa.array(rows))


def _numpy(values: Any, dtype: str) -> np.ndarray:
    """Convert a table's column to the NumPy array of a variable."""
    if dtype == TIME_DTYPE:
        return values.tz_localize(None).to_numpy()
    if dtype == "Int64":
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    if isinstance(values, np.ndarray):
        return values
    out = np.array(values, dtype=object)
    out[np.asarray(values.isna())] = None
    return out


@dataclass(frozen=True, eq=False)
class ExternalColumn(ColumnSource):
    """Source of references, which are filled when they are read.

    Attributes
    ----------
    declared
        Shape and dtype of a cell; without a shape, cells are objects.
    filling
        Filling of the runs.
    targets
        Target to fill of each descriptor.
    region
        Region of each cell that is shown; all of it if None.
    """

    declared: Declared
    filling: Filling
    targets: tuple[Target, ...]
    region: Region | None = None

    @classmethod
    def of(
        cls,
        descriptors: Sequence[Mapping[str, Any]],
        key: str,
        declared: Declared,
        filling: Filling,
    ) -> ExternalColumn:
        """Return the source of a data key of some descriptors."""
        return cls(declared, filling, tuple(Target.of(d, key) for d in descriptors))

    @property
    def key(self) -> str:
        """Data key."""
        return self.targets[0].key

    @property
    def physical(self) -> tuple[str, ...]:
        return (f"data:{self.key}", *CELL_COLUMNS)

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        """Dtype of the elements of cells."""
        return self.declared.dtype

    @property
    def cell_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Shape of the shown part of a cell; () if cells are objects."""
        return shape_of(self.region) if self.region is not None else self.declared.shape or ()

    @property
    def cell_bytes(self) -> int:
        """Bytes in memory of the shown part of a cell."""
        if self.region is None:
            return self.declared.cell_bytes
        return max(1, prod(self.cell_shape) * self.dtype.itemsize)

    @property
    def axes(self) -> tuple[int, ...]:
        """Axes of a whole cell that are shown."""
        parts = self.region or tuple(map(range, self.declared.shape or ()))
        return tuple(axis for axis, part in enumerate(parts) if isinstance(part, range))

    def of_owners(self, indices: Sequence[int]) -> ExternalColumn:
        targets = tuple(self.targets[position] for position in indices)
        filling = self.filling.of_runs({target.run for target in targets})
        return replace(self, targets=targets, filling=filling)

    def cells(self, block: RowBlock, tables: Sequence[pa.Table]) -> np.ndarray:
        return self._filled(block, tables, self._full_index(()))

    def read(self, block: RowBlock, inner: tuple[Any, ...] = ()) -> np.ndarray:
        """See :meth:`ColumnSource.read`; of a file only the region is read, in one call."""
        index = self._full_index(inner)
        tables = self._tables(block) if block.pieces else []
        return block.arranged(self._filled(block, tables, index))

    def present(self, block: RowBlock) -> np.ndarray:
        """Return a mask of the rows of a block that have a cell, see :meth:`Filling.present`."""
        contents = self._contents(block, self._tables(block) if block.pieces else [])
        parts = [self.filling.present(*one) for one in contents]
        return block.arranged(np.concatenate([np.zeros(0, bool), *parts]))

    def frames(self, block: RowBlock) -> CellFrames:
        """Return which bytes of which files the cells of a block are, see :meth:`Filling.frames`.

        Raises
        ------
        NoReference
            If that cannot be told, such as for a region of cells.
        """
        if self.region is not None:
            raise NoReference("only a region of the cells is shown")
        tables = self._tables(block) if block.pieces else []
        parts, begin = [], 0
        for target, contents, run_fraction in self._contents(block, tables):
            positions = np.arange(begin, begin + len(contents))
            parts.append((positions, self.filling.frames(target, contents, run_fraction)))
            begin += len(contents)
        found = CellFrames.joined(begin, parts)
        return replace(
            found, numbers=block.arranged(found.numbers), rows=block.arranged(found.rows)
        )

    def _full_index(self, inner: tuple[Any, ...]) -> tuple[Any, ...]:
        return inner if self.region is None else within(self.region, inner)

    def _tables(self, block: RowBlock) -> Sequence[pa.Table]:
        if len(block.pieces) != 1:
            return list(block.tables(self.physical))
        (piece,) = block.pieces
        with damage_of(block.labels[piece.owner]):
            return [contents_table(block.store, block.reader, piece.key, self.key)]

    def _filled(
        self, block: RowBlock, tables: Sequence[pa.Table], inner: tuple[Any, ...]
    ) -> np.ndarray:
        parts = []
        for target, contents, run_fraction in self._contents(block, tables):
            if self.declared.shape is None:
                parts.append(self.filling.cells(target, contents, run_fraction))
            else:
                parts.append(
                    self.filling.array(target, contents, self.declared, inner, run_fraction)
                )
        if not parts:
            return take_roi(np.empty((0, *(self.declared.shape or ())), self.dtype), inner)
        return self._joined(parts)

    def _contents(
        self, block: RowBlock, tables: Sequence[pa.Table]
    ) -> Iterator[tuple[Target, CellContents, float]]:
        """Yield target, cells and fraction of the run of consecutive pieces of a descriptor."""
        pairs = zip(tables, block.pieces, strict=True)
        for owner, some in groupby(pairs, lambda pair: pair[1].owner):
            pieces = list(some)
            target = self.targets[owner]
            contents = [
                replace(
                    CellContents.of_table(table, target.key, piece.rows, external=target.external),
                    later=piece.later,
                )
                for table, piece in pieces
            ]
            yield target, CellContents.joined(contents), pieces[0][1].run_fraction


# -- reading ---------------------------------------------------------------------------------


def read_columns(block: RowBlock, sources: Sequence[ColumnSource]) -> list[np.ndarray]:
    """Return whole cells of several columns of a block, reading each chunk once."""
    physical = dict.fromkeys(name for source in sources for name in source.physical)
    tables = list(block.tables(tuple(physical))) if physical else []
    joined = block.joined(tables)
    cells = (s.cells(*(joined if s.is_joinable else (block, tables))) for s in sources)
    return [block.arranged(values) for values in cells]


class ChunkColumn(BackendArray):
    """One column of a stream as an array of an xarray backend.

    Parameters
    ----------
    plan
        Plan of events.
    rows
        Rows that are shown.
    source
        What is read.
    """

    def __init__(self, plan: ChunkPlan, rows: DatasetRows, source: ColumnSource) -> None:
        self._plan = plan
        self._rows = rows
        self._source = source
        self.shape = (len(rows), *source.cell_shape)
        self.dtype = source.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        pieces, order = self._pieces(key[0])
        owners = np.unique(self._plan.records["descriptor"][[position for position, _ in pieces]])
        block = planned_block(self._plan, pieces, order, owners.tolist(), self._rows.later)
        values = self._source.of_owners(owners.tolist()).read(block, key[1:])
        return values if isinstance(key[0], slice) or np.ndim(key[0]) else _first_cell(values)

    def _pieces(self, item: Any) -> tuple[list[tuple[int, RowsOfChunk]], np.ndarray | None]:
        """Return the chosen rows, chunk by chunk; see :func:`.dataset_rows.by_chunk`."""
        begin, end, step = item.indices(len(self._rows)) if isinstance(item, slice) else (0, 0, 0)
        # Without an array of all rows, which takes longer than to read a column.
        if step == 1:
            return self._rows.pieces(begin, end)
        positions = row_positions(item, len(self._rows))
        return by_chunk(*self._rows.locate(np.atleast_1d(positions)))


class BlockColumn:
    """One column of a block, as an array that Dask's tasks index: see :mod:`.graphs`.

    Parameters
    ----------
    block
        The rows.
    source
        What is read of them.
    """

    def __init__(self, block: RowBlock, source: ColumnSource) -> None:
        self._block = block
        self._source = source
        self.shape = (len(block), *source.cell_shape)
        self.dtype = source.dtype
        self.ndim = len(self.shape)

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray:
        """Read an outer index; ``key`` may leave out axes at the end."""
        if isinstance(key[0], slice):
            return self._source.read(self._block.take(key[0]), tuple(key[1:]))
        positions = row_positions(key[0], len(self._block))
        values = self._source.read(self._block.take(np.atleast_1d(positions)), tuple(key[1:]))
        return _first_cell(values) if positions.ndim == 0 else values


def _first_cell(values: np.ndarray) -> np.ndarray:
    """Return the first cell; an object as an array of no dimensions, as it may be an array."""
    return np.asarray(values[0, ...])


def row_positions(item: Any, count: int) -> np.ndarray:
    """Return the positions of the chosen rows among ``count`` rows.

    They are computed without an array of all rows, as a stream may claim more than fit into
    memory.
    """
    if isinstance(item, slice):
        return np.arange(*item.indices(count))
    positions = np.asarray(item)
    if positions.dtype == bool:
        return np.flatnonzero(positions)
    if ((positions < -count) | (positions >= count)).any():
        raise IndexError(f"row {positions!r} is outside {count} rows")
    return np.where(positions < 0, positions + count, positions)
