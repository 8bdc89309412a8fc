"""Conversion of the byte ranges of frames to one regular grid of equal chunks, as Zarr needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, prod

import numpy as np

from ...assets.handlers.stored_frames import (
    CellFrames,
    Codec,
    NoReference,
    StoredFile,
    StoredRows,
)

MAX_CHUNK_BYTES = 4 * 2**20
"""Maximum bytes of a chunk that is made of several contiguous frames of files without chunks."""


@dataclass(frozen=True, eq=False)
class FrameGrid:
    """An array whose chunks are ranges of bytes in files.

    Attributes
    ----------
    shape, chunk
        Shape of the array, and of each chunk.
    dtype
        Dtype of the values, in the byte order of the files.
    codecs
        Codecs of each chunk, in the order in which they were applied.
    files
        Files that hold the chunks.
    numbers, offsets, sizes
        Index of the file in ``files``, offset and size in bytes of each chunk. Their shape is the
        number of chunks along each axis.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype
    codecs: tuple[Codec, ...]
    files: Sequence[StoredFile]
    numbers: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk."""
        return prod(self.chunk) * self.dtype.itemsize


def frame_grid(frames: CellFrames, shape: tuple[int, ...]) -> FrameGrid:
    """Return the grid of the cells of a variable.

    Parameters
    ----------
    frames
        Places of the cells in files.
    shape
        Shape of the array. It may have more or fewer axes of length 1 than the files.

    Raises
    ------
    NoReference
        If the cells cannot be described by one regular grid with the same codecs for all chunks.
    """
    numbers, rows = frames.numbers.ravel(), frames.rows.ravel()
    used, numbers = np.unique(numbers, return_inverse=True)
    files = [frames.stored[number] for number in used.tolist()]
    first = files[0]
    for file in files[1:]:
        _check_alike(first, file)
    count = _frames_of_a_chunk(first, numbers, rows, frames.numbers.shape[1])
    firsts = np.arange(0, len(rows), count)
    ranges = _ranges(files, numbers[firsts], rows[firsts], count)
    inner = first.shape[1:] if first.chunk is None else first.chunk[1:]
    whole = (len(frames.rows), *frames.cell_shape)
    chunk = _fitted((*_leading(frames, count), *inner), whole, shape)
    begins = np.cumsum([0, *(len(file.files) for file in files)])  # in the list of all files
    of_frame = tuple(range(1, ranges.ndim - 1))  # axes of the grid of chunks within a frame
    of_chunk = np.expand_dims(begins[numbers[firsts]], of_frame) + ranges[..., 3]
    grid = tuple(-(-size // side) for size, side in zip(shape, chunk))
    return FrameGrid(
        shape=shape,
        chunk=chunk,
        dtype=first.dtype,
        codecs=first.codecs,
        files=[part for file in files for part in file.files],
        numbers=of_chunk.reshape(grid),
        offsets=ranges[..., 0].reshape(grid),
        sizes=ranges[..., 1].reshape(grid),
    )


def _leading(frames: CellFrames, count: int) -> tuple[int, ...]:
    """Return the leading sides of a chunk of ``count`` frames: events, and frames of each."""
    per_cell = frames.numbers.shape[1]
    if not frames.has_axis:
        return (count,)
    return (count // per_cell, per_cell) if count % per_cell == 0 else (1, count)


def _check_alike(first: StoredRows, other: StoredRows) -> None:
    """Raise NoReference unless one array can hold the frames of both files."""
    for what in ("dtype", "chunk", "codecs"):
        one, two = getattr(first, what), getattr(other, what)
        if one != two:
            raise NoReference(
                f"{first.path!r} has the {what} {_shown(one)}, and {other.path!r} {_shown(two)}"
            )
    if first.shape[1:] != other.shape[1:]:
        raise NoReference(
            f"{first.path!r} has frames of {first.shape[1:]}, and {other.path!r} of "
            f"{other.shape[1:]}"
        )


def _shown(value: object) -> object:
    return "of values without chunks" if value is None else value


def _frames_of_a_chunk(
    stored: StoredRows, numbers: np.ndarray, rows: np.ndarray, per_cell: int
) -> int:
    """Return how many consecutive frames each chunk has.

    Files without chunks may be cut anywhere: the largest number is taken that divides all
    contiguous sequences of frames and makes chunks of at most :data:`MAX_CHUNK_BYTES` bytes.
    """
    follows = (np.diff(numbers) == 0) & (np.diff(rows) == 1)
    # Contiguous rows are cut here: a chunk is as many as follow each other everywhere.
    if stored.chunk is None:
        edges = np.concatenate([[0], np.flatnonzero(~follows) + 1, [len(rows)]])
        alike = gcd(*np.diff(edges).tolist())
        most = max(1, MAX_CHUNK_BYTES // max(1, stored.row_bytes))
        fitting = (n for n in range(min(alike, most), 1, -1) if alike % n == 0)
        return next((n for n in fitting if n % per_cell == 0 or per_cell % n == 0), 1)
    count = stored.chunk[0]
    if count == 1:
        return 1
    if count % per_cell and per_cell % count:
        raise NoReference(f"chunks have {count} frames, and events {per_cell}")
    inside = np.arange(len(rows)) % count
    if (rows[::count] % count).any() or not (follows | (inside[1:] == 0)).all():
        raise NoReference(
            f"chunks of {stored.path!r} have {count} frames, and consecutive events do not have "
            "all frames of each chunk in their order"
        )
    return count


def _ranges(
    files: Sequence[StoredRows], numbers: np.ndarray, rows: np.ndarray, count: int
) -> np.ndarray:
    """Return offset, size, filter mask and number of the file of each chunk.

    The shape is ``(chunks along the rows, *grid of a frame, 4)``.
    """
    parts = []
    order = np.argsort(numbers, kind="stable")
    bounds = np.searchsorted(numbers[order], np.arange(len(files) + 1))
    for file, low, high in zip(files, bounds, bounds[1:]):
        found = file.ranges(rows[order[low:high]], count)
        _check_ranges(file, found)
        parts.append(found)
    ordered = np.concatenate(parts)
    out = np.empty_like(ordered)
    out[order] = ordered
    return out


def _check_ranges(file: StoredRows, ranges: np.ndarray) -> None:
    offsets, sizes, masks, parts = np.moveaxis(ranges, -1, 0)
    missing, left_out = int((offsets < 0).sum()), int((masks[offsets >= 0] != 0).sum())
    if missing:
        raise NoReference(
            f"{missing:,} chunks of {file.path!r} were never written, so readers of it have fill "
            "values there"
        )
    if left_out:
        raise NoReference(
            f"{left_out:,} chunks of {file.path!r} were written without some of the filters "
            "(filter_mask)"
        )
    there = np.array([0 if one.state is None else one.state[2] for one in file.files])
    beyond = np.flatnonzero((offsets + sizes > there[parts]).ravel())
    if len(beyond):
        path, state = file.files[int(parts.ravel()[beyond[0]])]
        size = 0 if state is None else state[2]
        raise NoReference(f"{path!r} has {size:,} bytes, and some frames are beyond that")


def _fitted(
    chunk: tuple[int, ...], stored: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the shape of a chunk after adding and removing axes of length 1.

    Parameters
    ----------
    chunk, stored
        Shapes of a chunk and of the array, as the files have them.
    shape
        Shape that the array shall have.

    Raises
    ------
    NoReference
        If the shapes differ in more than axes of length 1.
    """
    if stored == shape:
        return chunk
    pairs = list(zip(stored[1:], chunk[1:]))
    kept = [(size, side) for size, side in pairs if (size, side) != (1, 1)]
    wanted = [size for size in shape[1:] if size != 1]
    if stored[0] != shape[0] or [size for size, _ in kept] != wanted:
        raise NoReference(f"files have cells of {stored[1:]}, which are shown as {shape[1:]}")
    sides = iter(side for _, side in kept)
    return (chunk[0], *(1 if size == 1 else next(sides) for size in shape[1:]))
