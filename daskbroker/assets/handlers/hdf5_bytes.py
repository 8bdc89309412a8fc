"""Chunks of HDF5 datasets read as bytes, so that threads decompress at the same time.

HDF5 lets one thread in at a time, decompression included. Here it only tells, once, where the
chunks lie; the rest is ``os.pread`` and zlib, which hold no lock. What comes out is the same.
"""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import h5py
import numpy as np

from ...core.errors import FillError
from ...core.regular import open_regular
from .regions import Axis, as_axis, put_region, shape_of, take_region

__all__ = ["MOST_CHUNKS", "ChunkBytes", "chunk_table"]

FILTERS = {h5py.h5z.FILTER_DEFLATE: "deflate", h5py.h5z.FILTER_SHUFFLE: "shuffle"}
Buffer: TypeAlias = "bytes | memoryview"
MOST_CHUNKS = 2**17
"""Beyond that, finding out where each lies takes too long."""
SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class _Part:
    """Where one axis meets one chunk: places in the chunk, and in what is read."""

    chunk: int
    inside: Axis
    outside: np.ndarray


@dataclass(frozen=True, eq=False)
class ChunkBytes:
    """Where the chunks of a dataset lie in its file, and how they are coded.

    Attributes
    ----------
    path
        Of the file.
    state
        Device, inode, size and time of the file when this was found out.
    shape, dtype, chunk, fill
        Of the dataset; ``dtype`` with the byte order of the file.
    filters
        In the order in which they were applied.
    table
        ``(offset, bytes, mask)`` of each chunk of the grid, offset -1 where there is none.
    """

    path: str
    state: tuple[int, int, int, int]
    shape: tuple[int, ...]
    dtype: np.dtype
    chunk: tuple[int, ...]
    fill: object
    filters: tuple[str, ...]
    table: np.ndarray

    @classmethod
    def of(cls, dataset: h5py.Dataset) -> ChunkBytes | None:
        """From an open dataset; None where its chunks cannot or need not be read this way.

        They can if they are compressed by gzip, with or without shuffle, hold plain numbers,
        and lie in one file that nobody writes.
        """
        filters = _filters(dataset)
        if "deflate" not in filters or not _is_plain(dataset):
            return None
        grid = tuple(-(-size // side) for size, side in zip(dataset.shape, dataset.chunks))
        if not 0 < int(np.prod(grid, dtype=object)) <= MOST_CHUNKS:
            return None
        path, file = dataset.file.filename, dataset.file.id.get_vfd_handle()
        state = _state(file)
        if _is_written(file):
            return None
        table = chunk_table(dataset)
        return cls(
            *(path, state, dataset.shape, dataset.dtype, dataset.chunks),
            dataset.fillvalue,
            filters,
            table,
        )

    @contextmanager
    def opened(self) -> Iterator[int | None]:
        """The file's descriptor; None if the file has changed or is written."""
        with open_regular(self.path, buffering=0) as file:
            number = file.fileno()
            same = _state(number) == self.state and not _is_written(number)
            yield number if same else None

    def read_rows(self, file: int, rows: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
        """Read a region of some rows; see :func:`~.hdf5_rows.read_rows`.

        Parameters
        ----------
        file
            From :meth:`opened`.
        rows
            Increasing.
        axes
            What to read along the other dimensions.

        Raises
        ------
        FillError
            For a chunk that is cut off or damaged.
        """
        sides = [_parts(axis, side) for axis, side in zip((rows, *axes), self.chunk)]
        lengths = [len(rows), *(1 if isinstance(axis, int) else len(axis) for axis in axes)]
        out = np.empty(lengths, self.dtype.newbyteorder("="))
        for parts in itertools.product(*sides):
            chunk = self._chunk(file, tuple(part.chunk for part in parts))
            inside = take_region(chunk, [part.inside for part in parts])
            put_region(out, [part.outside for part in parts], inside)
        return out.reshape(len(rows), *shape_of(axes))

    def _chunk(self, file: int, place: tuple[int, ...]) -> np.ndarray:
        """One chunk, decoded."""
        offset, size, mask = self.table[place].tolist()
        if offset < 0:
            return np.broadcast_to(np.asarray(self.fill, self.dtype), self.chunk)
        try:
            if offset + size > self.state[2]:  # pread would take memory for what is not there
                raise ValueError("it ends beyond the file")
            data: Buffer = os.pread(file, size, offset)
            for number, name in reversed(list(enumerate(self.filters))):
                if not mask >> number & 1:
                    data = self._decoded(name, data)
            return np.frombuffer(data, self.dtype).reshape(self.chunk)
        except (zlib.error, ValueError) as error:
            raise FillError(f"the chunk {place} of the dataset is damaged: {error}") from error

    def _decoded(self, name: str, data: Buffer) -> Buffer:
        if name == "deflate":
            return _inflated(data, prod(self.chunk) * self.dtype.itemsize)
        # Shuffle puts the first bytes of all elements first, then all second bytes, and so on.
        planes = np.frombuffer(data, np.uint8).reshape(self.dtype.itemsize, -1)
        elements = np.empty((planes.shape[1], len(planes)), np.uint8)
        for number, plane in enumerate(planes):  # six times as fast as a transposed copy
            elements[:, number] = plane
        return elements.data


def _inflated(data: Buffer, size: int) -> bytes:
    """Decompress what is known to have a size, and never more than that.

    Raises
    ------
    ValueError, zlib.error
        If it has another size or is damaged.
    """
    inflate = zlib.decompressobj()
    # One byte more than fits: zlib tells the end of its data, and its checksum, only then.
    found = inflate.decompress(data, size + 1)
    if len(found) != size or not inflate.eof:
        more = "more" if len(found) > size else "fewer" if len(found) < size else "no end after"
        raise ValueError(f"it holds {more} bytes than the {size} of a chunk")
    return found


def chunk_table(dataset: h5py.Dataset) -> np.ndarray:
    """Offset in the file, bytes and filter mask of each chunk of the grid; -1 where none is."""
    grid = [-(-size // side) for size, side in zip(dataset.shape, dataset.chunks)]
    table = np.full((*grid, 3), -1, dtype=np.int64)

    def note(info: h5py.h5d.StoreInfo) -> None:
        place = tuple(at // side for at, side in zip(info.chunk_offset, dataset.chunks))
        table[place] = info.byte_offset, info.size, info.filter_mask

    dataset.id.chunk_iter(note)
    return table


def _filters(dataset: h5py.Dataset) -> tuple[str, ...]:
    """Names of the dataset's filters; none where it has no chunks or other filters."""
    if dataset.chunks is None:
        return ()
    plist = dataset.id.get_create_plist()
    codes = [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
    return tuple(FILTERS[code] for code in codes) if set(codes) <= FILTERS.keys() else ()


def _is_plain(dataset: h5py.Dataset) -> bool:
    """Numbers as NumPy has them, in a file without a block of a user's own before it."""
    dtype = dataset.dtype
    return (
        dtype.kind in "iufc"
        and dtype.metadata is None
        and dataset.id.get_type().equal(h5py.h5t.py_create(dtype, logical=True))
        and dataset.file.userblock_size == 0
    )


def _state(file: int) -> tuple[int, int, int, int]:
    found = os.fstat(file)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _is_written(file: int) -> bool:
    """Whether a writer is at work: superblocks since version 3 have a mark for that."""
    head = os.pread(file, 12, 0)
    return not head.startswith(SIGNATURE) or (head[8] >= 3 and head[11] != 0)


def _parts(axis: Axis, side: int) -> list[_Part]:
    """An axis chunk by chunk, the places inside as a range where they are one."""
    places = np.array([axis] if isinstance(axis, int) else axis, dtype=np.int64)
    chunks = places // side
    parts = []
    for chunk in np.unique(chunks).tolist():
        outside = np.flatnonzero(chunks == chunk)
        parts.append(_Part(chunk, as_axis(places[outside] - chunk * side), outside))
    return parts
