"""Rows of a stream as a task carries them: which rows of which chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ...core.chunks import ChunkPlan, ChunkReader, chunk_label
from .dataset_rows import RowsOfChunk, by_chunk, slice_if_consecutive


class ChunkRows(NamedTuple):
    """Some rows of a chunk.

    Attributes
    ----------
    key
        Key of the chunk.
    owner
        Descriptor of the events, by its position among those that sources know.
    rows
        Rows of the chunk.
    run_fraction
        Relative position of the chunk in the plan, from 0 to 1, to find datums quickly.
    later
        :attr:`~daskbroker.assets.filling.contents.CellContents.later` of the rows.
    """

    key: Any
    owner: int
    rows: RowsOfChunk
    run_fraction: float
    later: np.ndarray | None = None

    @property
    def length(self) -> int:
        """Number of rows."""
        rows = self.rows
        return rows.stop - rows.start if isinstance(rows, slice) else len(rows)

    def take(self, among: RowsOfChunk) -> ChunkRows:
        """Return the piece with only some of its rows."""
        later = None if self.later is None else self.later[among]
        return self._replace(rows=_chosen(self.rows, among), later=later)


@dataclass(frozen=True, eq=False)
class RowBlock:
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
    pieces: tuple[ChunkRows, ...]
    order: np.ndarray | None
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return sum(piece.length for piece in self.pieces)

    def __reduce__(self) -> tuple[Any, ...]:
        portable = self.reader.portable_keys([piece.key for piece in self.pieces])
        pieces = tuple(p._replace(key=key) for p, key in zip(self.pieces, portable))
        return (RowBlock, (self.reader, self.store, pieces, self.order, self.labels))

    def take(self, positions: slice | np.ndarray) -> RowBlock:
        """Return the block with only some of its rows, in the given order."""
        count = len(self)
        if isinstance(positions, slice) and positions.indices(count) == (0, count, 1):
            return self
        wanted = np.arange(count)[positions] if isinstance(positions, slice) else positions
        if self.order is not None:
            wanted = self.order[wanted]
        ends = np.cumsum(np.array([piece.length for piece in self.pieces], np.int64))
        numbers = np.searchsorted(ends, wanted, side="right")
        begins = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        found, order = by_chunk(numbers, wanted - begins[numbers])
        pieces = tuple(self.pieces[number].take(rows) for number, rows in found)
        return replace(self, pieces=pieces, order=order)

    def followed_by(self, others: Sequence[RowBlock]) -> RowBlock:
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

    def joined(self, tables: Sequence[pa.Table]) -> tuple[RowBlock, Sequence[pa.Table]]:
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
    pieces: Sequence[tuple[int, RowsOfChunk]],
    order: np.ndarray | None,
    owners: Sequence[int] | None = None,
    later: Mapping[int, np.ndarray] | None = None,
) -> RowBlock:
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
    number_of = {index: number for number, index in enumerate(known)}
    labels = tuple(chunk_label(plan.descriptors[index]) for index in known)
    of_chunk = later or {}
    found = tuple(
        ChunkRows(
            plan.keys[index],
            number_of[int(descriptors[index])],
            rows,
            (index + 0.5) / len(plan),  # the middle of the chunk
            of_chunk[index][rows] if index in of_chunk else None,
        )
        for index, rows in pieces
    )
    return RowBlock(plan.reader, plan.store, found, order, labels)


def _chosen(rows: RowsOfChunk, among: RowsOfChunk) -> RowsOfChunk:
    """Return the rows of a chunk that are chosen among its `rows`."""
    if isinstance(rows, slice) and isinstance(among, slice):
        return slice(rows.start + among.start, rows.start + among.stop)
    every = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
    return slice_if_consecutive(every[among])
