"""Check the unpacked size that compressed chunks claim, before HDF5 unpacks them.

HDF5's filters take as much memory as a chunk claims, or as comes out of it. So each chunk is
checked once: its stored bytes must not be much more than a chunk, and if its first bytes tell the
unpacked size, that must not be much more either.
"""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Sequence
from math import prod

import h5py
import numpy as np

from ....core.errors import FillError
from ...regions import Axis
from .chunk_index import MOST_CHUNKS, ChunkIndex, grid_of

__all__ = ["ChunkGuard"]

DEFLATE, LZF, LZ4, BITSHUFFLE, BLOSC, ZSTD = 1, 32000, 32004, 32008, 32001, 32015
FLETCHER32 = 3
SLACK = 2**20
"""Maximum bytes that a chunk may have beyond twice its size, stored or unpacked: headers and
padding."""
SUSPICIOUS = 512 * 2**20
"""Bytes to which a deflated chunk could unpack at most without being tried out: 1032 times its
stored size."""
HEAD = 18


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
        plist = dataset.id.get_create_plist()
        filters = [plist.get_filter(number) for number in range(plist.get_nfilters())]
        while filters and filters[-1][0] == FLETCHER32:  # it adds four bytes at the end
            filters.pop()
        self._last = len(filters) - 1
        self._code = filters[-1][0] if filters else 0
        self._values = filters[-1][2] if filters else ()
        self._waiting = np.ones(grid_of(dataset), bool)
        self._left = self._waiting.size
        self._index = ChunkIndex(dataset)

    @classmethod
    def of(cls, dataset: h5py.Dataset) -> ChunkGuard | None:
        """Build for an open dataset; None if it has no filters, no chunks, or too many chunks."""
        if dataset.chunks is None or not dataset.id.get_create_plist().get_nfilters():
            return None
        return cls(dataset) if 0 < prod(grid_of(dataset)) <= MOST_CHUNKS else None

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
        for place in itertools.product(*(side.tolist() for side in sides)):
            if self._waiting[place]:
                self._check_chunk(file, place)
                self._waiting[place] = False
        self._left = int(self._waiting.sum())

    def _check_chunk(self, file: int, place: tuple[int, ...]) -> None:
        offset, stored, mask = self._index.find([place])[0]
        if offset < 0:  # never written
            return
        claimed = stored
        if self._last >= 0 and not mask >> self._last & 1:
            claimed = max(stored, self._unpacked(file, offset, stored))
        if claimed > 2 * self._size + SLACK:
            raise FillError(
                f"the chunk {place} of the dataset {self._dataset.name!r} is damaged: it takes or "
                f"unpacks to {claimed:,} bytes or more, far more than the {self._size} of a chunk"
            )

    def _unpacked(self, file: int, offset: int, stored: int) -> int:
        """Return the bytes that a chunk unpacks to, or 0 if its header does not tell.

        A deflated chunk that could unpack to very much is unpacked in steps, keeping nothing.
        """
        if (
            self._code == DEFLATE
            and stored * 1032 > SUSPICIOUS
            and stored <= 2 * self._size + SLACK
        ):
            return _inflated(os.pread(file, stored, offset), 2 * self._size + SLACK)
        head = os.pread(file, min(HEAD, stored), offset)
        if self._code == LZ4 or (self._code == BITSHUFFLE and any(self._values[4:5])):
            return int.from_bytes(head[:8], "big")
        if self._code == BLOSC:
            return int.from_bytes(head[4:8], "little")
        return _of_zstd(head) if self._code == ZSTD else 0


def _inflated(data: bytes, most: int) -> int:
    """Return the unpacked size, or some number above ``most``; nothing is kept."""
    inflate, size = zlib.decompressobj(), 0
    while data and not inflate.eof and size <= most:
        found = len(inflate.decompress(data, 2**20))
        size, data = size + found, inflate.unconsumed_tail
        if not found and not data:
            break
    return size


def _of_zstd(head: bytes) -> int:
    """Return the content size in a Zstandard frame's header; 0 if it has none."""
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return 0
    single, code = head[4] >> 5 & 1, head[4] >> 6
    start = 5 + (0 if single else 1) + (0, 1, 2, 4)[head[4] & 3]
    length = (single, 2, 4, 8)[code]
    return int.from_bytes(head[start : start + length], "little") + (256 if length == 2 else 0)
