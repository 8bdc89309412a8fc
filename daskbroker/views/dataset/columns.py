"""Read some rows of a column from chunks, and external cells from their files.

A :class:`Block` is the part of the plan that a task carries: which rows of which chunks. Each
Dask task has its own block; xarray's lazy arrays hold the whole plan (:class:`ChunkColumn`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from xarray.backends import BackendArray
from xarray.core import indexing

from ...assets.filling.filling import Filling, Target
from ...assets.filling.held import COLUMNS, Held, held_table
from ...assets.handlers.stored_frames import CellFrames, NoReference
from ...assets.shapes import Declared, outer_index
from ...core.chunks import ChunkPlan, ChunkReader, chunk_label, damage_of
from ...core.schema import TIME, constant, to_pandas
from .regions import Region, region_shape, within
from .rows import DatasetRows, Rows, as_slice, by_chunk

__all__ = [
    "Block",
    "BlockColumn",
    "ChunkColumn",
    "ColumnSource",
    "Constants",
    "ExternalColumn",
    "StoredColumn",
    "planned_block",
    "read_columns",
]


class Piece(NamedTuple):
    """Some rows of a chunk.

    Attributes
    ----------
    key
        Key of the chunk.
    owner
        Descriptor of the events, by its position among those that sources know.
    rows
        Rows of the chunk.
    near
        Relative position of the chunk in the plan, from 0 to 1, to find datums quickly.
    later
        :attr:`~daskbroker.assets.filling.held.Held.later` of the rows.
    """

    key: Any
    owner: int
    rows: Rows
    near: float
    later: np.ndarray | None = None

    @property
    def length(self) -> int:
        """Number of rows."""
        rows = self.rows
        return rows.stop - rows.start if isinstance(rows, slice) else len(rows)

    def take(self, among: Rows) -> Piece:
        """Return the piece with only some of its rows."""
        later = None if self.later is None else self.later[among]
        return self._replace(rows=_chosen(self.rows, among), later=later)


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of a stream, chunk by chunk.

    Attributes
    ----------
    reader, store
        Reader and store of the plan.
    pieces
        The rows.
    order
        Position of each row of the block among those of all pieces; None if they are in order.
    labels
        Label of each owner's chunks, for messages.
    """

    reader: ChunkReader
    store: str
    pieces: tuple[Piece, ...]
    order: np.ndarray | None
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return sum(piece.length for piece in self.pieces)

    def __reduce__(self) -> tuple[Any, ...]:
        portable = self.reader.portable([piece.key for piece in self.pieces])
        pieces = tuple(p._replace(key=key) for p, key in zip(self.pieces, portable))
        return (Block, (self.reader, self.store, pieces, self.order, self.labels))

    def take(self, places: slice | np.ndarray) -> Block:
        """Return the block with only some of its rows, in the given order."""
        count = len(self)
        if isinstance(places, slice) and places.indices(count) == (0, count, 1):
            return self
        wanted = np.arange(count)[places] if isinstance(places, slice) else places
        if self.order is not None:
            wanted = self.order[wanted]
        ends = np.cumsum(np.array([piece.length for piece in self.pieces], np.int64))
        numbers = np.searchsorted(ends, wanted, side="right")
        begins = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        found, order = by_chunk(numbers, wanted - begins[numbers])
        pieces = tuple(self.pieces[number].take(rows) for number, rows in found)
        return replace(self, pieces=pieces, order=order)

    def followed_by(self, others: Sequence[Block]) -> Block:
        """Return the joined rows of several blocks of one store, each of them in order."""
        pieces = list(self.pieces)
        labels = list(self.labels)
        for other in others:
            pieces += [p._replace(owner=p.owner + len(labels)) for p in other.pieces]
            labels += other.labels
        return replace(self, pieces=tuple(pieces), labels=tuple(labels))

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield stored columns of the chunk of each piece, with all rows of the chunk."""
        keys = [piece.key for piece in self.pieces]
        labels = [self.labels[piece.owner] for piece in self.pieces]
        return self.reader.read_labelled(keys, labels, columns)

    def joined(self, tables: Sequence[pa.Table]) -> tuple[Block, Sequence[pa.Table]]:
        """Return the block and its tables as one piece of one table, if all have one schema."""
        rows = [piece.rows for piece in self.pieces if isinstance(piece.rows, slice)]
        alike = all(table.schema == tables[0].schema for table in tables[1:])
        if len(tables) < 2 or len(rows) < len(tables) or not alike:
            return self, tables
        parts = [t.slice(r.start, r.stop - r.start) for t, r in zip(tables, rows, strict=True)]
        whole = self.pieces[0]._replace(rows=slice(0, len(self)), later=None)
        return replace(self, pieces=(whole,)), [pa.concat_tables(parts)]

    def arranged(self, values: np.ndarray) -> np.ndarray:
        """Return values of the pieces' rows in the order of the block."""
        return values if self.order is None else values[self.order]


def planned_block(
    plan: ChunkPlan,
    pieces: Sequence[tuple[int, Rows]],
    order: np.ndarray | None,
    owners: Sequence[int] | None = None,
    later: Mapping[int, np.ndarray] | None = None,
) -> Block:
    """Return the block of some rows of a plan.

    Parameters
    ----------
    plan
        Plan of events.
    pieces, order
        Rows by the position of their chunk in the plan, as from :func:`by_chunk`.
    owners
        Positions of the descriptors that sources will know (:meth:`ColumnSource.of_owners`); all
        of the plan if None.
    later
        :attr:`DatasetRows.later`.
    """
    descriptors = plan.records["descriptor"]
    known = range(len(plan.descriptors)) if owners is None else owners
    number_of = {place: number for number, place in enumerate(known)}
    labels = tuple(chunk_label(plan.descriptors[place]) for place in known)
    of_chunk = later or {}
    found = tuple(
        Piece(
            plan.keys[place],
            number_of[int(descriptors[place])],
            rows,
            (place + 0.5) / len(plan),
            of_chunk[place][rows] if place in of_chunk else None,
        )
        for place, rows in pieces
    )
    return Block(plan.reader, plan.store, found, order, labels)


def _chosen(rows: Rows, among: Rows) -> Rows:
    """Return the rows of a chunk that are chosen among its `rows`."""
    if isinstance(rows, slice) and isinstance(among, slice):
        return slice(rows.start + among.start, rows.start + among.stop)
    every = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
    return as_slice(every[among])


# -- sources ---------------------------------------------------------------------------------


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

    def of_owners(self, places: Sequence[int]) -> ColumnSource:
        """Return the source with only the descriptors at these positions, in this order."""
        return self

    @abstractmethod
    def cells(self, block: Block, tables: Sequence[pa.Table]) -> np.ndarray:
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

    def read(self, block: Block, inner: tuple[Any, ...] = ()) -> np.ndarray:
        """Return a region of the cells of a block, of shape ``(rows, *cell[inner])``."""
        tables = list(block.tables(self.physical))
        return outer_index(block.arranged(self.cells(block, tables)), inner)


@dataclass(frozen=True)
class Constants(ColumnSource):
    """Source of one constant value per descriptor, which no chunk holds."""

    values: tuple[Any, ...]
    dtype: np.dtype
    cell_shape: tuple[int, ...] = ()

    def of_owners(self, places: Sequence[int]) -> Constants:
        """See :meth:`ColumnSource.of_owners`."""
        return replace(self, values=tuple(self.values[place] for place in places))

    def cells(self, block: Block, tables: Sequence[pa.Table]) -> np.ndarray:
        """See :meth:`ColumnSource.cells`."""
        values = np.empty(len(self.values), dtype=self.dtype)
        for place, value in enumerate(self.values):
            values[place] = np.nan if value is None and self.dtype.kind != "O" else value
        owners = np.array([piece.owner for piece in block.pieces], np.int64)
        return values[
            np.repeat(owners, np.array([piece.length for piece in block.pieces], np.int64))
        ]

    def read(self, block: Block, inner: tuple[Any, ...] = ()) -> np.ndarray:
        """See :meth:`ColumnSource.read`."""
        return block.arranged(self.cells(block, ()))


@dataclass(frozen=True)
class StoredColumn(ColumnSource):
    """Source that is a stored column.

    Attributes
    ----------
    name
        Name of the column.
    kind
        Name of the dtype that a table has for it.
    """

    name: str
    kind: str
    dtype: np.dtype
    cell_shape: tuple[int, ...] = ()

    @property
    def is_joinable(self) -> bool:
        """See :attr:`ColumnSource.is_joinable`; in cells of objects, chunks note single rows."""
        return self.kind != "object"

    @property
    def physical(self) -> tuple[str, ...]:
        """See :attr:`ColumnSource.physical`."""
        return (self.name,)

    def cells(self, block: Block, tables: Sequence[pa.Table]) -> np.ndarray:
        """See :meth:`ColumnSource.cells`."""
        if self.kind == "object":  # chunks have notes of their rows
            parts = [
                to_pandas(table, self.name, self.kind)[piece.rows]
                for table, piece in zip(tables, block.pieces, strict=True)
            ]
        else:
            parts = [_numpy(values, self.kind) for values in self._joined(tables, block.pieces)]
        if not parts:
            return np.empty((0, *self.cell_shape), self.dtype)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _joined(self, tables: Sequence[pa.Table], pieces: Sequence[Piece]) -> Iterator[Any]:
        """Yield the chosen rows as in a table; consecutive chunks of one type are joined."""
        if len(pieces) == 1:
            yield to_pandas(tables[0], self.name, self.kind)[pieces[0].rows]
            return
        pairs = zip(tables, pieces, strict=True)
        for (there, field), alike in groupby(pairs, lambda pair: _field(pair[0], self.name)):
            if not there:
                yield constant(None, sum(piece.length for _, piece in alike), self.kind)
                continue
            columns = [_rows_of(table.column(self.name), piece.rows) for table, piece in alike]
            chunks = [chunk for column in columns for chunk in column.chunks]
            column = pa.chunked_array(chunks, columns[0].type)
            yield to_pandas(pa.table([column], pa.schema([field])), self.name, self.kind)


def _field(table: pa.Table, name: str) -> tuple[bool, pa.Field | None]:
    """Return whether the table has a column, and its field.

    The flag is needed for comparisons, as Arrow cannot compare a field with None.
    """
    place = table.schema.get_field_index(name)
    return place >= 0, None if place < 0 else table.schema.field(place)


def _rows_of(column: pa.ChunkedArray, rows: Rows) -> pa.ChunkedArray:
    if isinstance(rows, slice):
        return column.slice(rows.start, rows.stop - rows.start)
    return column.take(pa.array(rows))


def _numpy(values: Any, kind: str) -> np.ndarray:
    """Convert a table's column to the NumPy array of a variable."""
    if kind == TIME:
        return values.tz_localize(None).to_numpy()
    if kind == "Int64":
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
        """See :attr:`ColumnSource.physical`."""
        return (f"data:{self.key}", *COLUMNS)

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        """Dtype of the elements of cells."""
        return self.declared.dtype

    @property
    def cell_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Shape of the shown part of a cell; () if cells are objects."""
        return region_shape(self.region) if self.region is not None else self.declared.shape or ()

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

    def of_owners(self, places: Sequence[int]) -> ExternalColumn:
        """See :meth:`ColumnSource.of_owners`."""
        targets = tuple(self.targets[place] for place in places)
        filling = self.filling.of_runs({target.run for target in targets})
        return replace(self, targets=targets, filling=filling)

    def cells(self, block: Block, tables: Sequence[pa.Table]) -> np.ndarray:
        """See :meth:`ColumnSource.cells`."""
        return self._filled(block, tables, self._whole_index(()))

    def read(self, block: Block, inner: tuple[Any, ...] = ()) -> np.ndarray:
        """See :meth:`ColumnSource.read`; of a file only the region is read, in one call."""
        index = self._whole_index(inner)
        tables = self._tables(block) if block.pieces else []
        return block.arranged(self._filled(block, tables, index))

    def present(self, block: Block) -> np.ndarray:
        """Return a mask of the rows of a block that have a cell, see :meth:`Filling.present`."""
        held = self._held(block, self._tables(block) if block.pieces else [])
        parts = [self.filling.present(*one) for one in held]
        return block.arranged(np.concatenate([np.zeros(0, bool), *parts]))

    def frames(self, block: Block) -> CellFrames:
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
        for target, held, near in self._held(block, tables):
            places = np.arange(begin, begin + len(held))
            parts.append((places, self.filling.frames(target, held, near)))
            begin += len(held)
        found = CellFrames.joined(begin, parts)
        return replace(
            found, numbers=block.arranged(found.numbers), rows=block.arranged(found.rows)
        )

    def _whole_index(self, inner: tuple[Any, ...]) -> tuple[Any, ...]:
        return inner if self.region is None else within(self.region, inner)

    def _tables(self, block: Block) -> Sequence[pa.Table]:
        if len(block.pieces) != 1:
            return list(block.tables(self.physical))
        (piece,) = block.pieces
        with damage_of(block.labels[piece.owner]):
            return [held_table(block.store, block.reader, piece.key, self.key)]

    def _filled(
        self, block: Block, tables: Sequence[pa.Table], inner: tuple[Any, ...]
    ) -> np.ndarray:
        parts = []
        for target, held, near in self._held(block, tables):
            if self.declared.shape is None:
                parts.append(self.filling.cells(target, held, near))
            else:
                parts.append(self.filling.array(target, held, self.declared, inner, near))
        if not parts:
            return outer_index(np.empty((0, *(self.declared.shape or ())), self.dtype), inner)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _held(
        self, block: Block, tables: Sequence[pa.Table]
    ) -> Iterator[tuple[Target, Held, float]]:
        """Yield target, held rows and relative position for consecutive pieces of a descriptor."""
        pairs = zip(tables, block.pieces, strict=True)
        for owner, some in groupby(pairs, lambda pair: pair[1].owner):
            pieces = list(some)
            target = self.targets[owner]
            held = [
                replace(
                    Held.of_table(table, target.key, piece.rows, external=target.external),
                    later=piece.later,
                )
                for table, piece in pieces
            ]
            yield target, Held.joined(held), pieces[0][1].near


# -- reading ---------------------------------------------------------------------------------


def read_columns(block: Block, sources: Sequence[ColumnSource]) -> list[np.ndarray]:
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
        places = row_places(key[0], len(self._rows))
        pieces, order = by_chunk(*self._rows.locate(np.atleast_1d(places)))
        owners = np.unique(self._plan.records["descriptor"][[place for place, _ in pieces]])
        block = planned_block(self._plan, pieces, order, owners.tolist(), self._rows.later)
        values = self._source.of_owners(owners.tolist()).read(block, key[1:])
        return values[0] if np.ndim(places) == 0 else values


class BlockColumn:
    """One column of a block, as an array that Dask's tasks index: see :mod:`.graphs`.

    Parameters
    ----------
    block
        The rows.
    source
        What is read of them.
    """

    def __init__(self, block: Block, source: ColumnSource) -> None:
        self._block = block
        self._source = source
        self.shape = (len(block), *source.cell_shape)
        self.dtype = source.dtype
        self.ndim = len(self.shape)

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray:
        """Read an outer index; ``key`` may leave out axes at the end."""
        if isinstance(key[0], slice):
            return self._source.read(self._block.take(key[0]), tuple(key[1:]))
        places = row_places(key[0], len(self._block))
        values = self._source.read(self._block.take(np.atleast_1d(places)), tuple(key[1:]))
        return values[0] if places.ndim == 0 else values


def row_places(item: Any, count: int) -> np.ndarray:
    """Return the positions of the chosen rows among ``count`` rows.

    They are computed without an array of all rows, as a stream may claim more than fit into
    memory.
    """
    if isinstance(item, slice):
        return np.arange(*item.indices(count))
    places = np.asarray(item)
    if places.dtype == bool:
        return np.flatnonzero(places)
    if ((places < -count) | (places >= count)).any():
        raise IndexError(f"row {places!r} is outside {count} rows")
    return np.where(places < 0, places + count, places)
