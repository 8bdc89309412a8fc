"""Where frames lie in their files: which bytes they are, and how these are coded.

What is found here says nothing of Zarr or of any format of references; those are made of it.
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
"""A step by which chunks are coded, as numcodecs configures it: ``{"id": "zlib", "level": 4}``."""


class NoReference(FillError):
    """Cells that are no ranges of bytes of files, or whose ranges cannot be told."""


@dataclass(frozen=True, eq=False)
class StoredRows:
    """A dataset in one file, whose rows are frames, and where its chunks lie.

    Attributes
    ----------
    path
        Of the file.
    state
        What the file was when this was found out.
    shape
        Of the dataset.
    dtype
        Of its values, in the byte order of the file.
    chunk
        Shape of a chunk; None: the values lie one after the other, uncoded.
    codecs
        By which chunks are coded, in the order in which they were applied.
    offset
        Of the first value, without chunks.
    table
        Offset, size and mask of left out filters of each chunk, ``(*grid, 3)``; the offset is -1
        where a chunk was never written.
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
        """The same as one row of a dataset with a dimension more."""
        return replace(
            self,
            shape=(1, *self.shape),
            chunk=None if self.chunk is None else (1, *self.chunk),
            table=None if self.table is None else self.table[None],
        )

    def without(self, axes: Sequence[int]) -> StoredRows:
        """The same without some dimensions, each of one place.

        Raises
        ------
        NoReference
            If one has more, or chunks of more.
        """
        lengths = [(self.shape[a], 1 if self.chunk is None else self.chunk[a]) for a in axes]
        if any(pair != (1, 1) for pair in lengths):
            raise NoReference(f"only a part of the frames of {self.path!r} is shown")
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
        """Of a frame that is not coded."""
        return prod(self.shape[1:]) * self.dtype.itemsize

    def ranges(self, rows: np.ndarray, count: int) -> np.ndarray:
        """Offset, size and mask of the chunks that begin with some rows.

        Parameters
        ----------
        rows
            First row of each.
        count
            Rows of each: of a chunk, or of any number where there are none.

        Returns
        -------
        numpy.ndarray
            Shape ``(len(rows), *grid of a frame, 3)``.
        """
        if self.table is not None and self.chunk is not None:
            return self.table[rows // self.chunk[0]]
        offsets = self.offset + rows * self.row_bytes
        sizes = np.full(len(rows), count * self.row_bytes, np.int64)
        parts = np.stack([offsets, sizes, np.zeros(len(rows), np.int64)], axis=-1)
        return parts.reshape(len(rows), *[1] * (len(self.shape) - 1), 3)


@dataclass(frozen=True, eq=False)
class CellFrames:
    """Which frames some cells are.

    Attributes
    ----------
    stored
        The datasets.
    numbers, rows
        Of each cell's frames, ``(cells, frames)``: which dataset, and which row of it.
    has_axis
        Whether a cell has an axis of frames; else it is one frame.
    """

    stored: Sequence[StoredRows]
    numbers: np.ndarray
    rows: np.ndarray
    has_axis: bool

    @property
    def cell_shape(self) -> tuple[int, ...]:
        """Of a cell, as its file has it."""
        frame = self.stored[0].shape[1:]
        return (self.numbers.shape[1], *frame) if self.has_axis else frame

    @classmethod
    def joined(cls, count: int, parts: Sequence[tuple[np.ndarray, CellFrames]]) -> CellFrames:
        """Those of ``count`` cells, from parts and the places of their cells.

        Raises
        ------
        NoReference
            If the cells of parts differ, or some are in none.
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
