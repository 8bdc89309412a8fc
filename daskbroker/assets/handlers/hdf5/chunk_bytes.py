"""Read chunks of HDF5 datasets as bytes, so that several threads can decompress at the same time.

HDF5 works for one thread at a time, decompression included. Here it is only asked once where the
chunks lie; the rest is done by ``os.pread`` and :mod:`.chunk_filters`, which hold no lock. The
result is the same.
"""

from __future__ import annotations

import ctypes
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import h5py
import numpy as np
from h5py import h5d, h5f, h5p

from ....core.errors import FillError
from ....core.file_identity import Identity, identity
from ....core.regular_files import open_regular
from ...regions import Axis, as_axis, put_region, shape_of, take_region
from ..cores import divide
from .chunk_filters import Damaged, Filters
from .chunk_index import ChunkIndex, StoredChunk, can_be_indexed

WORTH = 2**16
"""Minimum bytes of a chunk for which helper threads are worth it."""
DONT_FILTER_EDGES = 2
"""HDF5's bit ``H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS`` of the chunk options."""
SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class _Part:
    """The overlap of one axis with one chunk: positions in the chunk, and in the result."""

    chunk: int
    inside: Axis
    outside: np.ndarray


@dataclass(frozen=True, eq=False)
class ChunkBytes:
    """Locations of the chunks of a dataset in its file, and their coding.

    Attributes
    ----------
    path
        Path of the file.
    state
        Identity of the file when this was determined.
    shape, dtype, chunk, fill
        Shape, dtype and chunk shape of the dataset, and the value of what was never written;
        ``dtype`` is in the byte order of the file.
    filters
        Filters of the chunks.
    index
        Finds where the chunks are in the file.
    """

    path: str
    state: Identity
    shape: tuple[int, ...]
    dtype: np.dtype
    chunk: tuple[int, ...]
    fill: object
    filters: Filters
    index: ChunkIndex

    @classmethod
    def of(cls, dataset: h5py.Dataset) -> ChunkBytes | None:
        """Build from an open dataset; None if its chunks cannot or need not be read this way.

        They can if :class:`~.chunk_filters.Filters` can undo their filters, if they hold plain
        numbers, and if they lie in one file that is not being written.
        """
        filters = Filters.of(dataset)
        if filters is None or not is_plain(dataset) or not is_coded_to_its_edge(dataset):
            return None
        if not can_be_indexed(dataset):
            return None
        if is_written_here(dataset):
            return None
        path, state = dataset.file.filename, identity(dataset.file.id.get_vfd_handle())
        return cls(
            *(path, state, dataset.shape, dataset.dtype, dataset.chunks),
            dataset.fillvalue if has_fill_value(dataset.id.get_create_plist()) else 0,
            filters,
            ChunkIndex(dataset),
        )

    def opened(self) -> AbstractContextManager[int | None]:
        """Open the file; see :func:`opened_unchanged`."""
        return opened_unchanged(self.path, self.state)

    def read_rows(self, file: int, rows: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
        """Read a region of some rows; see :func:`~.row_source.read_rows`.

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
            If a chunk is cut off or damaged.
        """
        sides = [_parts(axis, side) for axis, side in zip((rows, *axes), self.chunk)]
        lengths = [len(rows), *(1 if isinstance(axis, int) else len(axis) for axis in axes)]
        out = np.empty(lengths, self.dtype.newbyteorder("="))
        wanted = list(itertools.product(*sides))
        stored = self.index.find([tuple(part.chunk for part in parts) for parts in wanted])
        divide(
            lambda item: self._read_chunk(file, *item, out),
            zip(wanted, stored),
            alone=self.filters.size < WORTH,
        )
        return out.reshape(len(rows), *shape_of(axes))

    def _read_chunk(
        self, file: int, parts: tuple[_Part, ...], stored: StoredChunk, out: np.ndarray
    ) -> None:
        """Read one chunk into its place in ``out``; it is decoded in place if all is wanted."""
        if stored.offset < 0:
            chunk = np.broadcast_to(np.asarray(self.fill, self.dtype), self.chunk)
        else:
            into = self._equal_region(parts, out)
            if into is None:
                data = np.empty(self.filters.size, np.uint8)
            else:
                data = into.reshape(-1).view(np.uint8)
            try:
                self._decode(file, stored, data)
            except Damaged as error:
                position = tuple(part.chunk for part in parts)
                raise FillError(
                    f"the chunk {position} of the dataset is damaged: {error}"
                ) from None
            if into is not None:
                return
            chunk = data.view(self.dtype).reshape(self.chunk)
        inside = take_region(chunk, [part.inside for part in parts])
        put_region(out, [part.outside for part in parts], inside)

    def _equal_region(self, parts: tuple[_Part, ...], out: np.ndarray) -> np.ndarray | None:
        """Return the contiguous part of the result that equals the chunk; None if there is none."""
        whole = (
            isinstance(part.inside, range) and part.inside == range(side)
            for part, side in zip(parts, self.chunk)
        )
        if out.dtype != self.dtype or not all(whole):
            return None
        into = out[tuple(slice(part.outside[0], part.outside[-1] + 1) for part in parts)]
        return into if into.flags.c_contiguous and into.shape == self.chunk else None

    def _decode(self, file: int, stored: StoredChunk, out: np.ndarray) -> None:
        # pread would allocate the claimed size, even if the file is shorter.
        there = 0 if self.state is None else self.state[2]
        if stored.offset + stored.size > there or stored.size > self.filters.most:
            raise Damaged(f"its size of {stored.size:,} bytes is not possible in this file")
        data = os.pread(file, stored.size, stored.offset)
        self.filters.decode(memoryview(data), stored.mask, out)


def has_fill_value(plist: h5p.PropDCID) -> bool:
    """Return whether HDF5 puts a fill value where nothing was written.

    Otherwise it leaves what is in memory there, which is zero in h5py.
    """
    never = plist.get_fill_time() == h5d.FILL_TIME_NEVER
    return not never and plist.fill_value_defined() != h5d.FILL_VALUE_UNDEFINED


def is_plain(dataset: h5py.Dataset) -> bool:
    """Return whether a dataset has NumPy's plain numbers, in a file without a user block."""
    dtype = dataset.dtype
    return (
        dtype.kind in "iufc"
        and dtype.metadata is None
        and dataset.id.get_type().equal(h5py.h5t.py_create(dtype, logical=True))
        and dataset.file.userblock_size == 0
    )


def is_coded_to_its_edge(dataset: h5py.Dataset) -> bool:
    """Return whether chunks that extend over an edge are known to be coded as others are.

    Files of newer formats may leave them unfiltered, and the chunks' filter masks do not tell.
    h5py has no function for this option, so HDF5's own is called.
    """
    if all(size % side == 0 for size, side in zip(dataset.shape, dataset.chunks)):
        return True
    options, plist = ctypes.c_uint(), dataset.id.get_create_plist()
    with h5py._objects.phil:
        try:
            ask = ctypes.CDLL(h5py.h5z.__file__).H5Pget_chunk_opts
        # Without the function it is not known how the edge is stored, so HDF5 reads it.
        except (OSError, AttributeError):
            return False
        ask.argtypes = [ctypes.c_int64, ctypes.POINTER(ctypes.c_uint)]
        return bool(ask(plist.id, options) >= 0 and not options.value & DONT_FILTER_EDGES)


@contextmanager
def opened_unchanged(path: str, state: Identity) -> Iterator[int | None]:
    """Open a file; the context is its descriptor, or None if it changed, moved or is written."""
    try:
        file = open_regular(path, buffering=0)
    except OSError:  # HDF5 has the file open, wherever it is now
        file = None
    if file is None:
        yield None
        return
    with file:
        number = file.fileno()
        same = identity(number) == state and not is_written(number)
        yield number if same else None


def is_written_here(dataset: h5py.Dataset) -> bool:
    """Return whether the file of an open dataset is being written, by this process or another.

    If this process has it open for writing, HDF5 holds values that are not in the file yet, and
    nothing in the file tells that. It refuses to open for writing what is open for reading.
    """
    file = dataset.file.id
    return bool(file.get_intent() & h5f.ACC_RDWR) or is_written(file.get_vfd_handle())


def is_written(file: int) -> bool:
    """Return whether a writer is at work, which superblocks since version 3 mark.

    A file without HDF5's signature at its beginning counts as written.
    """
    # After the signature, byte 8 is the version of the superblock, and byte 11 its flags.
    head = os.pread(file, 12, 0)
    return not head.startswith(SIGNATURE) or (head[8] >= 3 and head[11] != 0)


def _parts(axis: Axis, side: int) -> list[_Part]:
    """Divide an axis by chunks; evenly spaced positions in a chunk become a range."""
    positions = np.array([axis] if isinstance(axis, int) else axis, dtype=np.int64)
    chunks = positions // side
    parts = []
    for chunk in np.unique(chunks).tolist():
        outside = np.flatnonzero(chunks == chunk)
        parts.append(_Part(chunk, as_axis(positions[outside] - chunk * side), outside))
    return parts
