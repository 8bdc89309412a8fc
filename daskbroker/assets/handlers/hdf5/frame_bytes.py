"""Read frames that are stored as they are, by several threads, and only the wanted parts of them.

HDF5 reads for one thread at a time. It reads chunks of up to 8 MiB completely into its cache, even
for a single pixel.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod
from typing import Any

import h5py
import numpy as np
from h5py import h5d

from ....core.errors import FillError
from ....core.file_identity import Identity, identity
from ...regions import Axis, shape_of, take_region
from ..cores import divide
from .chunk_bytes import is_plain, is_written_here, opened_unchanged
from .chunk_index import ChunkIndex, can_be_indexed

WORTH = 2**20
"""Minimum bytes of a read; for less HDF5 takes no longer than opening the file again."""
SMALLEST = 2**12
"""Minimum bytes of a frame, each of which is looked up by itself."""
GAP = 2**16
"""Bytes that must be saved to read only a part of a frame, and a part of it by itself: a read by
itself costs as much as reading this many bytes."""
PER_CHUNK = 200
"""Bytes that HDF5 reads in the time in which it goes through one chunk of a dataset to find
another."""
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
        """Open the file; see :func:`~.chunk_bytes.opened_unchanged`."""
        return opened_unchanged(self.path, self.state)

    def read_rows(self, file: int, rows: np.ndarray, axes: Sequence[Axis]) -> np.ndarray | None:
        """Read a region of some rows; None if HDF5 must read it, or reads little more.

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
        part = None
        if any(not _is_all(axis, side) for axis, side in zip(axes, self.frame)):
            part = _Part.of(axes, self.frame, self.dtype)
            if part is None or not self._saves(rows, size - part.nbytes):
                return None
        offsets = self._offsets(rows, size)
        if offsets is None or self.state is None or offsets.max() + size > self.state[2]:
            return None  # never written, or cut off: HDF5 knows what to do
        if part is not None:
            return _read_parts(file, offsets, part)
        out = np.empty((len(rows), *self.frame), self.dtype)
        data = out.reshape(-1).view(np.uint8)

        def read(piece: slice) -> None:
            into = data[piece.start * size : piece.stop * size]
            _read_into(file, int(offsets[piece.start]), into)

        divide(read, _pieces(offsets, size))
        return out

    def _saves(self, rows: np.ndarray, saved: int) -> bool:
        """Return whether HDF5 takes longer to read more of each row than to find the chunks."""
        if saved <= GAP or self.index is None:
            return saved > GAP
        return PER_CHUNK * self.index.effort(self._chunks(rows)) < saved * len(rows)

    def _chunks(self, rows: np.ndarray) -> list[tuple[int, ...]]:
        """Return the positions of the chunks of increasing rows."""
        inner = (0,) * len(self.frame)
        return [(number, *inner) for number in np.unique(rows // self.deep).tolist()]

    def _offsets(self, rows: np.ndarray, size: int) -> np.ndarray | None:
        """Return the byte offset of each row; None if a chunk was never written."""
        if self.index is None:
            return self.offset + rows * size
        stored = np.array(self.index.find(self._chunks(rows)), np.int64)
        _, which = np.unique(rows // self.deep, return_inverse=True)
        if (stored[:, 0] < 0).any() or (stored[:, 1] != self.deep * size).any():
            return None
        return stored[which, 0] + rows % self.deep * size


def _is_all(axis: Axis, side: int) -> bool:
    return isinstance(axis, range) and axis == range(side)


def are_worth(rows: np.ndarray, axes: Sequence[Axis], itemsize: int, size: int) -> bool:
    """Return whether it may be worth reading a region of some rows past HDF5.

    It is if so much is wanted, or so little of each row, which has ``size`` bytes.
    """
    wanted = prod(shape_of(axes)) * itemsize
    if wanted == size:
        return wanted * len(rows) >= WORTH
    return len(rows) > 0 and 0 < wanted < size - GAP


@dataclass(frozen=True)
class _Part:
    """The part of a frame that has a region of it, in one or several reads.

    Attributes
    ----------
    shape, dtype
        Shape and dtype of the region.
    apart
        Selection along the first axes, each combination of whose positions is read by itself.
    begin
        Offset in the frame that all reads have in common.
    span
        Bytes of each read.
    box
        Shape of the array that a read has, of the axes that are read together.
    strides
        Bytes from one position to the next along each axis of the frame.
    rest
        Selection from that array.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    apart: tuple[Axis, ...]
    begin: int
    span: int
    box: tuple[int, ...]
    strides: tuple[int, ...]
    rest: tuple[Axis, ...]

    @property
    def nbytes(self) -> int:
        """Bytes that are read of a frame."""
        return self.span * prod(shape_of(self.apart))

    def reads(self) -> list[tuple[int, tuple[int, ...]]]:
        """Return for each read its offset in the frame, and the index of its values.

        There are as many as the region has combinations of positions, so the file must be known to
        hold the frame.
        """
        return [
            (
                self.begin + sum(at * stride for at, stride in zip(positions, self.strides)),
                tuple(n for n, axis in zip(numbers, self.apart) if not isinstance(axis, int)),
            )
            for numbers, positions in _combined(self.apart)
        ]

    @classmethod
    def of(cls, axes: Sequence[Axis], frame: tuple[int, ...], dtype: np.dtype) -> _Part | None:
        """Build from a region of a frame; None if it is empty."""
        if 0 in shape_of(axes):
            return None
        strides = [prod(frame[axis + 1 :]) * dtype.itemsize for axis in range(len(frame))]
        lows, highs = zip(*map(_ends, axes))
        # The last axes are read together, up to one whose positions are far apart.
        span, apart = dtype.itemsize, len(frame)
        for axis, low, high, stride in reversed([*zip(axes, lows, highs, strides)]):
            step = abs(axis.step) if isinstance(axis, range) else 1
            if high > low and step * stride - span > GAP:
                break
            span += (high - low) * stride
            apart -= 1
        return cls(
            shape_of(axes),
            dtype,
            tuple(axes[:apart]),
            sum(low * stride for low, stride in zip(lows[apart:], strides[apart:])),
            span,
            tuple(high - low + 1 for low, high in zip(lows[apart:], highs[apart:])),
            tuple(strides),
            tuple(_moved(axis, low) for axis, low in zip(axes[apart:], lows[apart:])),
        )


def _ends(axis: Axis) -> tuple[int, int]:
    """Return the first and the last position of a selection that is not empty."""
    if isinstance(axis, int):
        return axis, axis
    if isinstance(axis, range):
        return min(axis[0], axis[-1]), max(axis[0], axis[-1])
    return int(axis.min()), int(axis.max())


def _moved(axis: Axis, low: int) -> Axis:
    if isinstance(axis, range):
        return range(axis.start - low, axis.stop - low, axis.step)
    return axis - low


def _combined(axes: Sequence[Axis]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yield the numbers of all combinations of positions, and these positions."""
    sides = [[axis] if isinstance(axis, int) else [int(at) for at in axis] for axis in axes]
    numbers = itertools.product(*(range(len(side)) for side in sides))
    return zip(numbers, itertools.product(*sides))


def _read_parts(file: int, offsets: np.ndarray, part: _Part) -> np.ndarray:
    out = np.empty((len(offsets), *part.shape), part.dtype)
    reads, strides = part.reads(), part.strides[len(part.apart) :]

    def read(number: int) -> None:
        data = np.empty(part.span, np.uint8)
        box = np.ndarray(part.box, part.dtype, data, strides=strides)
        for offset, index in reads:
            _read_into(file, int(offsets[number]) + offset, data)
            where: Any = (number, *index, ...)
            out[where] = take_region(box, part.rest)

    divide(read, range(len(offsets)), alone=len(offsets) * part.nbytes < WORTH)
    return out


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
