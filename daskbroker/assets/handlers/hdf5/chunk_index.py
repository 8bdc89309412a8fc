"""Find where the chunks of an HDF5 dataset lie in its file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple

import h5py
import numpy as np

MOST_INDEXED = 2**17
"""Maximum number of chunks of a dataset that are looked up; for more it takes too long."""
MOST_ONE_BY_ONE = 16
"""Maximum number of chunks that are looked up one by one."""

ChunkPosition = tuple[int, ...]


class StoredChunk(NamedTuple):
    """Offset and size of a chunk in its file, in bytes, and its mask of omitted filters.

    The offset is -1 if the chunk was never written.
    """

    offset: int
    size: int
    mask: int


class ChunkIndex:
    """Finds chunks by their positions in the grid. Threads may share it.

    HDF5 goes through all chunks to find one, so after a few look-ups all are looked up at once.

    Parameters
    ----------
    dataset
        Open dataset with chunks.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self._known: dict[ChunkPosition, StoredChunk] = {}
        self._table: np.ndarray | None = None

    def find(self, positions: Sequence[ChunkPosition]) -> list[StoredChunk]:
        """Return the stored chunks at some positions in the grid of chunks."""
        if self._table is None:
            new = [position for position in positions if position not in self._known]
            if len(self._known) + len(new) <= MOST_ONE_BY_ONE:
                for position in new:
                    self._known[position] = self._ask(position)
                return [self._known[position] for position in positions]
            self._table = chunk_table(self._dataset)
        return [StoredChunk(*self._table[position].tolist()) for position in positions]

    def effort(self, positions: Sequence[ChunkPosition]) -> int:
        """Return the number of chunks that HDF5 must go through for :meth:`find`."""
        if self._table is not None:
            return 0
        new = sum(position not in self._known for position in positions)
        return prod(grid_of(self._dataset)) * min(new, MOST_ONE_BY_ONE)

    def _ask(self, position: ChunkPosition) -> StoredChunk:
        corner = tuple(at * side for at, side in zip(position, self._dataset.chunks))
        info = self._dataset.id.get_chunk_info_by_coord(corner)
        offset = -1 if info.byte_offset is None else info.byte_offset
        return StoredChunk(offset, info.size, info.filter_mask)


def grid_of(dataset: h5py.Dataset) -> tuple[int, ...]:
    """Return the number of chunks along each dimension."""
    return tuple(-(-size // side) for size, side in zip(dataset.shape, dataset.chunks))


def can_be_indexed(dataset: h5py.Dataset) -> bool:
    """Return whether a dataset of chunks has some, and not too many to be looked up."""
    return 0 < prod(grid_of(dataset)) <= MOST_INDEXED


def chunk_table(dataset: h5py.Dataset) -> np.ndarray:
    """Return offset, size and filter mask of each chunk, int64 of shape ``(*grid, 3)``.

    All three are -1 if a chunk was never written.
    """
    table = np.full((*grid_of(dataset), 3), -1, dtype=np.int64)
    found: list[Iterable[int]] = []

    def note(info: h5py.h5d.StoreInfo) -> None:
        found.append((*info.chunk_offset, info.byte_offset, info.size, info.filter_mask))

    dataset.id.chunk_iter(note)
    if found:
        rows = np.array(found, dtype=np.int64)
        table[tuple((rows[:, :-3] // dataset.chunks).T)] = rows[:, -3:]
    return table
