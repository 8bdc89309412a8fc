"""Locations of frames in their files: the bytes that hold them, and their coding.

Nothing here depends on Zarr or on a format of references.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ...core.errors import FillError
from ...core.file_identity import Identity

Codec = Mapping[str, Any]
"""One step of coding chunks, as a configuration of numcodecs: ``{"id": "zlib", "level": 4}``."""


class NoReference(FillError):
    """Raised if cells are not ranges of bytes of files, or if these ranges cannot be told."""


class StoredFile(NamedTuple):
    """Path of a file, and its identity when it was looked at."""

    path: str
    state: Identity


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Location of a dataset in its file: its chunks, and rows that are frames.

    Attributes
    ----------
    path
        Path of the file, or of the folder if each chunk is a file.
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
        offset is -1 if a chunk was never written. If chunks are in several files, a fourth number
        is that of the file in ``parts``.
    parts
        Files that have the chunks, if there is not one file for all.
    """

    path: str
    state: Identity
    shape: tuple[int, ...]
    dtype: np.dtype
    chunk: tuple[int, ...] | None = None
    codecs: tuple[Codec, ...] = ()
    offset: int = 0
    table: np.ndarray | None = None
    parts: Sequence[StoredFile] = ()

    @property
    def files(self) -> Sequence[StoredFile]:
        """The files that have the chunks."""
        return self.parts or [StoredFile(self.path, self.state)]

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
            raise NoReference(f"only a part of the frames of {self.path!r} is shown")
        kept = [axis for axis in range(len(self.shape)) if axis not in axes]
        table = self.table
        if table is not None:
            table = table.reshape(*(table.shape[axis] for axis in kept), table.shape[-1])
        return replace(
            self,
            shape=tuple(self.shape[axis] for axis in kept),
            chunk=None if self.chunk is None else tuple(self.chunk[axis] for axis in kept),
            table=table,
        )

    def channel(self, number: int) -> StoredRows:
        """Return the part with one index along the second dimension, without that dimension.

        Raises
        ------
        NoReference
            If chunks that are coded, or do not have whole rows, hold several indices.
        """
        rows, channels, *inner = self.shape
        if self.chunk is not None and self.chunk[1] == 1 and self.table is not None:
            chunk = (self.chunk[0], *self.chunk[2:])
            return replace(self, shape=(rows, *inner), chunk=chunk, table=self.table[:, number])
        size = prod(inner) * self.dtype.itemsize
        row = np.arange(rows)
        table = np.zeros((rows, 3), np.int64)
        table[:, 1] = size
        if self.chunk is None or self.table is None:
            table[:, 0] = self.offset + (row * channels + number) * size
        elif self.codecs or self.chunk[2:] != tuple(inner):
            raise NoReference(
                f"chunks of {self.path!r} hold {self.chunk[1]} channels, of which each cell has one"
            )
        else:
            deep, wide = self.chunk[:2]
            found = self.table[row // deep, number // wide].reshape(rows, -1)
            inside = (row % deep * wide + number % wide) * size
            table[:, 0] = np.where(found[:, 0] < 0, -1, found[:, 0] + inside)
        grid = table.reshape(rows, *[1] * len(inner), 3)
        return replace(self, shape=(rows, *inner), chunk=(1, *inner), table=grid, offset=0)

    @property
    def row_bytes(self) -> int:
        """Bytes of an uncoded frame."""
        return prod(self.shape[1:]) * self.dtype.itemsize

    def ranges(self, rows: np.ndarray, count: int) -> np.ndarray:
        """Return offset, size, mask and number of the file of the chunks that begin with rows.

        Parameters
        ----------
        rows
            First row of each chunk.
        count
            Number of rows of each chunk; any number for a dataset without chunks.

        Returns
        -------
        numpy.ndarray
            Shape ``(len(rows), *grid of a frame, 4)``, int64.
        """
        if self.table is not None and self.chunk is not None:
            found = self.table[rows // self.chunk[0]]
        else:
            found = np.zeros((len(rows), *[1] * (len(self.shape) - 1), 3), np.int64)
            flat = found.reshape(len(rows), 3)
            flat[:, 0] = self.offset + rows * self.row_bytes
            flat[:, 1] = count * self.row_bytes
        # Chunks of several files have the number of their file; of one file it is 0.
        if found.shape[-1] == 4:
            return found
        return np.concatenate([found, np.zeros_like(found[..., :1])], axis=-1)


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
        """Join parts, each with the positions of its cells, to the frames of ``count`` cells.

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
        for positions, part in parts:
            if part.has_axis != first.has_axis or part.numbers.shape[1] != width:
                raise NoReference("events have differing numbers of frames")
            numbers[positions], rows[positions] = part.numbers + len(stored), part.rows
            stored.extend(part.stored)
        if (numbers < 0).any():
            raise NoReference(f"{int((numbers < 0).any(axis=1).sum()):,} events have no frames")
        return cls(stored, numbers, rows, first.has_axis)
