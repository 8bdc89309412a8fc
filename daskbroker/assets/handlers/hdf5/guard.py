"""Check the unpacked size that compressed chunks claim, before HDF5 unpacks them.

HDF5's filters take as much memory as a chunk claims, or as comes out of it. So each chunk is
checked once: its stored bytes must not be much more than a chunk, and neither must what comes out
of any of its filters. The first bytes of a chunk tell that, or the parameters of the filter; if
neither does, the chunk is unpacked in steps and nothing is kept. A chunk that was compressed more
than once is unpacked here up to the last step, as only what comes out tells the next size.
"""

from __future__ import annotations

import bz2
import itertools
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from math import prod

import h5py
import numpy as np

from ....core.errors import FillError
from ...regions import Axis
from .chunk_filters import (
    BITSHUFFLE,
    BLOSC,
    BZIP2,
    CHECKSUM,
    DEFLATE,
    FLETCHER32,
    LZ4,
    SHUFFLE,
    ZSTD,
    Damaged,
    filters_of,
    is_packing,
    most_bytes,
    undo,
)
from .chunk_index import ChunkIndex, can_be_indexed, grid_of

SZIP, NBIT, SCALE_OFFSET = 4, 5, 6
SUSPICIOUS = 512 * 2**20
"""Bytes to which a deflated chunk could unpack at most without being tried out: 1032 times its
stored size."""
HEAD = 18
"""Bytes at the beginning of a chunk that tell its unpacked size: the longest header of a Zstandard
frame."""


class ChunkGuard:
    """Checks the chunks of a dataset that HDF5 is about to unpack. Threads may share it.

    Parameters
    ----------
    dataset
        Open dataset with chunks and filters.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self._size = prod(dataset.chunks) * dataset.dtype.itemsize
        self._filters = filters_of(dataset)
        self._most = most_bytes(self._size)
        self._waiting = np.ones(grid_of(dataset), bool)
        self._left = self._waiting.size
        self._index = ChunkIndex(dataset)

    @classmethod
    def of(cls, dataset: h5py.Dataset) -> ChunkGuard | None:
        """Build for an open dataset; None if it has no filters, no chunks, or too many chunks."""
        if dataset.chunks is None or not dataset.id.get_create_plist().get_nfilters():
            return None
        return cls(dataset) if can_be_indexed(dataset) else None

    def check(self, rows: Axis, axes: Sequence[Axis]) -> None:
        """Check those chunks of a region of some rows that were not checked before.

        Raises
        ------
        FillError
            If a chunk takes, or claims to unpack to, far more bytes than a chunk has.
        """
        if not self._left:
            return
        sides = [
            np.unique(np.atleast_1d(np.asarray(axis, np.int64)) // side)
            for axis, side in zip((rows, *axes), self._dataset.chunks)
        ]
        if not all(len(side) for side in sides) or not self._waiting[np.ix_(*sides)].any():
            return
        file = self._dataset.file.id.get_vfd_handle()
        for position in itertools.product(*(side.tolist() for side in sides)):
            if self._waiting[position]:
                self._check_chunk(file, position)
                self._waiting[position] = False
        self._left = int(self._waiting.sum())

    def _check_chunk(self, file: int, position: tuple[int, ...]) -> None:
        offset, stored, mask = self._index.find([position])[0]
        if offset < 0:  # never written
            return
        applied = [pair for bit, pair in enumerate(self._filters) if not mask >> bit & 1]
        while applied and applied[-1][0] == FLETCHER32:  # it adds four bytes at the end
            applied.pop()
        packings = sum(is_packing(*pair) for pair in applied)
        try:
            if stored > self._most:
                raise _TooLarge(stored)
            if packings == 1 and is_packing(*applied[-1]):
                self._check_last(file, offset, stored, *applied[-1])
            elif packings:
                self._check_each(os.pread(file, stored, offset), applied)
        except _TooLarge as error:
            raise FillError(
                f"the chunk {position} of the dataset {self._dataset.name!r} is damaged: it "
                f"{error}, far more than the {self._size} of a chunk"
            ) from None
        except Damaged as error:
            raise FillError(
                f"the chunk {position} of the dataset {self._dataset.name!r} cannot be read "
                f"safely: {error}"
            ) from None

    def _check_last(
        self, file: int, offset: int, stored: int, code: int, values: tuple[int, ...]
    ) -> None:
        """Check a chunk that one filter has compressed, after all others; often by its head."""
        whole = code == BZIP2 or (code == DEFLATE and stored * 1032 > SUSPICIOUS)
        if whole or code not in _IN_STEPS:
            head = os.pread(file, stored if whole else min(HEAD, stored), offset)
            self._believed(_unpacked(code, values, head, self._most) or 0)

    def _check_each(self, data: bytes, applied: list[tuple[int, tuple[int, ...]]]) -> None:
        """Undo the filters of a chunk down to the one that compressed it first, and check each."""
        first = next(number for number, pair in enumerate(applied) if is_packing(*pair))
        for number in range(len(applied) - 1, first - 1, -1):
            code, values = applied[number]
            if code == FLETCHER32:
                data = data[:-CHECKSUM]
                continue
            size = len(data) if code == SHUFFLE else _unpacked(code, values, data, self._most)
            if number > first and size is None:
                raise Damaged(
                    f"the size of what filter {code} produces for the next filter is unknown"
                )
            self._believed(size or 0)
            if number > first:
                out = np.empty(size or 0, np.uint8)
                undo(code, values, memoryview(data), out)
                data = out.tobytes()

    def _believed(self, size: int) -> None:
        if size > self._most:
            raise _TooLarge(size)


class _TooLarge(ValueError):
    """Raised if a chunk takes, or unpacks to, more bytes than it may."""

    def __str__(self) -> str:
        return f"takes or unpacks to {self.args[0]:,} bytes or more"


def _unpacked(code: int, values: tuple[int, ...], data: bytes, most: int) -> int | None:
    """Return the bytes that a filter makes of some data, or any number above ``most``.

    None if neither the data, of which the first bytes suffice, nor the filter's parameters tell.
    """
    if code in _IN_STEPS:
        return _IN_STEPS[code](data, most)
    if code in (LZ4, BITSHUFFLE):  # the inner filter, which compresses
        return int.from_bytes(data[:8], "big")
    if code in (BLOSC, SZIP):
        # The header of Blosc has four bytes before the size: versions, flags, bytes of an element.
        start = 4 if code == BLOSC else 0
        return int.from_bytes(data[start : start + 4], "little")
    if code in (NBIT, SCALE_OFFSET) and len(values) > 4:
        return values[2] * values[4]  # elements, and the bytes of one
    return (_of_zstd(data) or None) if code == ZSTD else None


def _inflated(data: bytes, most: int) -> int:
    """Return the unpacked size, or some number above ``most``; nothing is kept."""
    inflate, size = zlib.decompressobj(), 0
    with suppress(zlib.error):  # HDF5 raises the error when it reads the chunk
        while data and not inflate.eof and size <= most:
            found = len(inflate.decompress(data, 2**20))
            size, data = size + found, inflate.unconsumed_tail
            if not found and not data:
                break
    return size


def _unzipped(data: bytes, most: int) -> int:
    """Return the size unpacked from bzip2, or some number above ``most``; nothing is kept."""
    unzip, size = bz2.BZ2Decompressor(), 0
    with suppress(OSError):  # HDF5 raises the error when it reads the chunk
        while not unzip.eof and size <= most:
            found = len(unzip.decompress(data, 2**20))
            size, data = size + found, b""
            if not found and unzip.needs_input:
                break
    return size


_IN_STEPS = {DEFLATE: _inflated, BZIP2: _unzipped}
"""Functions for filters without a header that tells the unpacked size, which can be very large."""


def _of_zstd(head: bytes) -> int:
    """Return the content size in a Zstandard frame's header; 0 if it has none."""
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return 0
    # The byte after the magic number has the widths of the fields that follow: the window (absent
    # from a frame of a single segment), the id of a dictionary, and the content size.
    single, code = head[4] >> 5 & 1, head[4] >> 6
    start = 5 + (0 if single else 1) + (0, 1, 2, 4)[head[4] & 3]
    length = (single, 2, 4, 8)[code]
    # A size of two bytes is stored minus 256, as smaller ones fit into one byte.
    return int.from_bytes(head[start : start + length], "little") + (256 if length == 2 else 0)
