"""Where frames lie in their files: which bytes hold them, and how these are coded.

Nothing here depends on Zarr or on a format of references; references are made from it elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from ...core.errors import FillError
from ...core.regular import Identity

__all__ = ["CellFrames", "Codec", "NoReference", "StoredRows"]

Codec = Mapping[str, Any]
"""One step of coding chunks, as a configuration of numcodecs: ``{"id": "zlib", "level": 4}``."""


class NoReference(FillError):
    """Raised if cells are not ranges of bytes of files, or if these ranges cannot be told."""


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Location of a dataset in one file: its chunks, and rows that are frames.

    Attributes
    ----------
    path
        Path of the file.
    state
        Identity of the file when the location was determined.
    shape
        Shape of the dataset.
    dtype
        Dtype of the values, in the byte order of the file.
    chunk
        Shape of a chunk; None if the values are stored contiguously and uncoded.
    codecs
        Codecs of the chunks, in the order in which they were applied.
    offset
        Byte offset of the first value, for a dataset without chunks.
    table
        Offset, size and mask of omitted filters of each chunk, int64 of shape ``(*grid, 3)``. The
        offset is -1 if a chunk was never written.
    """

    path: str
    state: Identity
    shape: tuple[int, ...]
    dtype: np.dtype
    chunk: tuple[int, ...] | None = None
    codecs: tuple[Codec, ...] = ()
    offset: int = 0
    table: np.ndarray | None = None

    def as_one_row(self) -> StoredRows:
        """Return the whole dataset as the only row of one with an additional first dimension."""
        return replace(
            self,
            shape=(1, *self.shape),
            chunk=None if self.chunk is None else (1, *self.chunk),
            table=None if self.table is None else self.table[None],
        )

    def without(self, axes: Sequence[int]) -> StoredRows:
        """Return the dataset without some dimensions, all of which must have length 1.

        Raises
        ------
        NoReference
            If the dataset or its chunks are longer than 1 along one of them.
        """
        lengths = [(self.shape[a], 1 if self.chunk is None else self.chunk[a]) for a in axes]
        if any(pair != (1, 1) for pair in lengths):
            raise NoReference(f"only some of the frames of {self.path!r} is shown")
        kept = [axis for axis in range(len(self.shape)) if axis not in axes]
        table = self.table
        if table is not None:
            table = table.reshape(*(table.shape[axis] for axis in kept), 3)
        return replace(
            self,
            shape=tuple(self.shape[axis] for axis in kept),
            chunk=None if self.chunk is None else tuple(self.chunk[axis] for axis in kept),
            table=table,
        )

    @property
    def row_bytes(self) -> int:
        """Bytes of an uncoded frame."""
        return prod(self.shape[1:]) * self.dtype.itemsize

    def ranges(self, rows: np.ndarray, count: int) -> np.ndarray:
        """Return the offset, size and mask of the chunks that begin with some rows.

        Parameters
        ----------
        rows
            First row of each chunk.
        count
            Number of rows of each chunk; any number for a dataset without chunks.

        Returns
        -------
        numpy.ndarray
            Shape ``(len(rows), *grid of a frame, 3)``, int64.
        """
        if self.table is not None and self.chunk is not None:
            return self.table[rows // self.chunk[0]]
        offsets = self.offset + rows * self.row_bytes
        sizes = np.full(len(rows), count * self.row_bytes, np.int64)
        parts = np.stack([offsets, sizes, np.zeros(len(rows), np.int64)], axis=-1)
        return parts.reshape(len(rows), *[1] * (len(self.shape) - 1), 3)


@dataclass(frozen=True, eq=False)
class CellFrames:
    """The frames that some cells consist of.

    Attributes
    ----------
    stored
        Datasets that have the frames.
    numbers, rows
        For each frame of each cell, the number of its dataset in ``stored`` and its row there:
        two int64 arrays of shape ``(cells, frames)``.
    has_axis
        Whether a cell has an axis of frames; if not, it is one frame.
    """

    stored: Sequence[StoredRows]
    numbers: np.ndarray
    rows: np.ndarray
    has_axis: bool

    @property
    def cell_shape(self) -> tuple[int, ...]:
        """Shape of a cell in its file."""
        frame = self.stored[0].shape[1:]
        return (self.numbers.shape[1], *frame) if self.has_axis else frame

    @classmethod
    def joined(cls, count: int, parts: Sequence[tuple[np.ndarray, CellFrames]]) -> CellFrames:
        """Join parts, each with the places of its cells, to the frames of ``count`` cells.

        Raises
        ------
        NoReference
            If the cells of the parts have differing numbers of frames, or a cell is in no part.
        """
        if not parts:
            raise NoReference("there are no frames")
        first = parts[0][1]
        width = first.numbers.shape[1]
        numbers = np.full((count, width), -1, np.int64)
        rows = np.zeros((count, width), np.int64)
        stored: list[StoredRows] = []
        for places, part in parts:
            if part.has_axis != first.has_axis or part.numbers.shape[1] != width:
                raise NoReference("events have differing numbers of frames")
            numbers[places], rows[places] = part.numbers + len(stored), part.rows
            stored.extend(part.stored)
        if (numbers < 0).any():
            raise NoReference(f"{int((numbers < 0).any(axis=1).sum()):,} events have no frames")
        return cls(stored, numbers, rows, first.has_axis)
