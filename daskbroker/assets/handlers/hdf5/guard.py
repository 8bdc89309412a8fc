"""What compressed chunks say they unpack to, looked at before HDF5 unpacks them.

HDF5's filters take as much memory as a chunk says, or as comes out. So each chunk is looked at
once: what is stored cannot be much larger than a chunk, and where its first bytes tell its size,
that has to be a chunk's.
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
from ..regions import Axis
from .chunk_index import MOST_CHUNKS, ChunkIndex, grid_of

__all__ = ["ChunkGuard"]

DEFLATE, LZF, LZ4, BITSHUFFLE, BLOSC, ZSTD = 1, 32000, 32004, 32008, 32001, 32015
FLETCHER32 = 3
SLACK = 2**20
"""Bytes that a chunk may have beyond its size, stored or unpacked: headers and padding."""
SUSPICIOUS = 512 * 2**20
"""Bytes that deflate may come to before it is tried out."""
HEAD = 18


class ChunkGuard:
    """The chunks of a dataset that HDF5 unpacks. Threads may share it.

    Parameters
    ----------
    dataset
        With filters.
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
        """For an open dataset; None where nothing is unpacked, or chunks are too many."""
        if dataset.chunks is None or not dataset.id.get_create_plist().get_nfilters():
            return None
        return cls(dataset) if 0 < prod(grid_of(dataset)) <= MOST_CHUNKS else None

    def check(self, rows: Axis, axes: Sequence[Axis]) -> None:
        """Look at the chunks that have a region of some rows, as far as none did before.

        Raises
        ------
        FillError
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
        if offset < 0:
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
        """Bytes that a chunk unpacks to, as far as that can be told without unpacking it."""
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
    """How much comes out, or something more than ``most``; nothing is kept."""
    inflate, size = zlib.decompressobj(), 0
    while data and not inflate.eof and size <= most:
        found = len(inflate.decompress(data, 2**20))
        size, data = size + found, inflate.unconsumed_tail
        if not found and not data:
            break
    return size


def _of_zstd(head: bytes) -> int:
    """The size that the header of a frame of Zstandard tells; 0 if it tells none."""
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return 0
    single, code = head[4] >> 5 & 1, head[4] >> 6
    start = 5 + (0 if single else 1) + (0, 1, 2, 4)[head[4] & 3]
    length = (single, 2, 4, 8)[code]
    return int.from_bytes(head[start : start + length], "little") + (256 if length == 2 else 0)
