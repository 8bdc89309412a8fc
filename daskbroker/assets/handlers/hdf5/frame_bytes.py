"""Read whole frames that are stored as they are, by several threads and straight into the result.

HDF5 reads for one thread at a time, and copies chunks of less than a MiB through its cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod

import h5py
import numpy as np
from h5py import h5d

from ....core.errors import FillError
from ....core.file_identity import Identity, identity
from ...regions import Axis, shape_of
from ..cores import divide
from .chunk_bytes import is_plain, is_written_here, opened_unchanged
from .chunk_index import ChunkIndex, can_be_indexed

__all__ = ["FrameBytes", "are_worth"]

WORTH = 2**20
"""Minimum bytes of a read; for less HDF5 takes no longer than opening the file again."""
SMALLEST = 2**12
"""Minimum bytes of a frame, each of which is looked up by itself."""
PIECE = 2**22
"""Bytes that are read at a time by one thread."""


@dataclass(frozen=True, eq=False)
class FrameBytes:
    """Locations of the rows of a dataset whose values are stored without a filter.

    Attributes
    ----------
    path
        Path of the file.
    state
        Identity of the file when this was determined.
    frame, dtype
        Shape and dtype of a row.
    offset
        Byte offset of the first row, if the dataset has no chunks.
    deep
        Number of rows of a chunk.
    index
        Finds the positions of the chunks; None if the dataset has no chunks.
    """

    path: str
    state: Identity
    frame: tuple[int, ...]
    dtype: np.dtype
    offset: int = 0
    deep: int = 1
    index: ChunkIndex | None = None

    @classmethod
    def of(cls, dataset: h5py.Dataset) -> FrameBytes | None:
        """Build from an open dataset; None if its rows cannot or need not be read this way.

        They can if they hold plain numbers in the byte order of this machine, each row lies in one
        piece of one file, and that file is not being written.
        """
        frame, dtype = tuple(dataset.shape[1:]), dataset.dtype
        small = prod(frame) * dtype.itemsize < SMALLEST
        # HDF5 converts byte orders, and has in its cache what this process has written.
        if small or not dtype.isnative or not is_plain(dataset) or is_written_here(dataset):
            return None
        plist = dataset.id.get_create_plist()
        about = (dataset.file.filename, identity(dataset.file.id.get_vfd_handle()), frame, dtype)
        if plist.get_layout() == h5d.CONTIGUOUS and not plist.get_external_count():
            offset = dataset.id.get_offset()
            return None if offset is None else cls(*about, offset=int(offset))
        if plist.get_layout() != h5d.CHUNKED or plist.get_nfilters():
            return None
        deep, *inner = dataset.chunks
        if tuple(inner) != frame or not can_be_indexed(dataset):
            return None
        return cls(*about, deep=deep, index=ChunkIndex(dataset))

    def opened(self) -> AbstractContextManager[int | None]:
        """Open the file; the context is its descriptor, or None if it changed or is written."""
        return opened_unchanged(self.path, self.state)

    def read_rows(self, file: int, rows: np.ndarray, axes: Sequence[Axis]) -> np.ndarray | None:
        """Read whole rows; None if that is not what is wanted, or HDF5 must read them.

        Parameters
        ----------
        file
            File descriptor from :meth:`opened`.
        rows
            Increasing positions along the first dimension.
        axes
            Selection along each of the other dimensions.

        Raises
        ------
        FillError
            If the file became shorter meanwhile.
        """
        size = prod(self.frame) * self.dtype.itemsize
        if any(not _is_all(axis, side) for axis, side in zip(axes, self.frame)):
            return None
        offsets = self._offsets(rows, size)
        if offsets is None or self.state is None or offsets.max() + size > self.state[2]:
            return None  # never written, or cut off: HDF5 knows what to do
        out = np.empty((len(rows), *self.frame), self.dtype)
        data = out.reshape(-1).view(np.uint8)

        def read(piece: slice) -> None:
            into = data[piece.start * size : piece.stop * size]
            _read_into(file, int(offsets[piece.start]), into)

        divide(read, _pieces(offsets, size))
        return out

    def _offsets(self, rows: np.ndarray, size: int) -> np.ndarray | None:
        """Return the byte offset of each row; None if a chunk was never written."""
        if self.index is None:
            return self.offset + rows * size
        numbers, which = np.unique(rows // self.deep, return_inverse=True)
        inner = (0,) * len(self.frame)
        stored = np.array(self.index.find([(n, *inner) for n in numbers.tolist()]), np.int64)
        if (stored[:, 0] < 0).any() or (stored[:, 1] != self.deep * size).any():
            return None
        return stored[which, 0] + rows % self.deep * size


def _is_all(axis: Axis, side: int) -> bool:
    return isinstance(axis, range) and axis == range(side)


def are_worth(rows: np.ndarray, axes: Sequence[Axis], itemsize: int) -> bool:
    """Return whether so much is wanted of some rows that it is worth reading them past HDF5."""
    whole = all(isinstance(axis, range) and axis.start == 0 and axis.step == 1 for axis in axes)
    return whole and len(rows) * prod(shape_of(axes)) * itemsize >= WORTH


def _pieces(offsets: np.ndarray, size: int) -> Iterator[slice]:
    """Yield rows that follow each other in the file, to be read in one call."""
    count, most = len(offsets), max(1, PIECE // size)
    ends = [*(np.flatnonzero(np.diff(offsets) != size) + 1).tolist(), count]
    begin = 0
    for end in ends:
        yield from (slice(at, min(at + most, end)) for at in range(begin, end, most))
        begin = end


def _read_into(file: int, offset: int, data: np.ndarray) -> None:
    done = 0
    while done < len(data):
        count = os.preadv(file, [data[done:].data], offset + done)
        if not count:
            raise FillError("the file was cut off while its frames were read")
        done += count
