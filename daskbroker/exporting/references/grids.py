"""From the places of frames to one regular grid of chunks of one kind, as Zarr has arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, prod

import numpy as np

from ...assets.handlers.stored_frames import CellFrames, Codec, NoReference, StoredRows

__all__ = ["FrameGrid", "frame_grid"]

PIECE = 4 * 2**20
"""Bytes of a chunk of values that lie one after the other, if the files can be cut so."""


@dataclass(frozen=True, eq=False)
class FrameGrid:
    """An array whose chunks are ranges of bytes of files.

    Attributes
    ----------
    shape, chunk
        Of the array, of a chunk.
    dtype
        In the byte order of the files.
    codecs
        By which each chunk is coded, in the order in which they were applied.
    files
        In which chunks are.
    numbers, offsets, sizes
        Of each chunk of the grid, which file it is in, and which bytes.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype
    codecs: tuple[Codec, ...]
    files: Sequence[StoredRows]
    numbers: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray

    @property
    def chunk_bytes(self) -> int:
        """Of a chunk that is not coded."""
        return prod(self.chunk) * self.dtype.itemsize


def frame_grid(frames: CellFrames, shape: tuple[int, ...]) -> FrameGrid:
    """The grid of some cells.

    Parameters
    ----------
    frames
        Where the cells lie.
    shape
        That they shall have as one array, by which axes of length 1 may come or go.

    Raises
    ------
    NoReference
        If no one grid, or no one chain of codecs, can say it.
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
    of_chunk = np.broadcast_to(
        np.expand_dims(numbers[firsts], _inner_axes(ranges)), ranges.shape[:-1]
    )
    grid = tuple(-(-size // side) for size, side in zip(shape, chunk))
    return FrameGrid(
        *(shape, chunk, first.dtype, first.codecs, files),
        numbers=of_chunk.reshape(grid),
        offsets=ranges[..., 0].reshape(grid),
        sizes=ranges[..., 1].reshape(grid),
    )


def _leading(frames: CellFrames, count: int) -> tuple[int, ...]:
    """Of a chunk of so many frames: how many events, and how many frames of each."""
    per_cell = frames.numbers.shape[1]
    if not frames.has_axis:
        return (count,)
    return (count // per_cell, per_cell) if count % per_cell == 0 else (1, count)


def _inner_axes(ranges: np.ndarray) -> tuple[int, ...]:
    """Axes of the grid of a frame, in an array that has one of chunks before and one after."""
    return tuple(range(1, ranges.ndim - 1))


def _check_alike(first: StoredRows, other: StoredRows) -> None:
    """Check that one array can have the frames of both."""
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
    """How many consecutive frames each chunk has."""
    follows = (np.diff(numbers) == 0) & (np.diff(rows) == 1)
    if stored.chunk is None:
        edges = np.concatenate([[0], np.flatnonzero(~follows) + 1, [len(rows)]])
        alike = gcd(*np.diff(edges).tolist())
        most = max(1, PIECE // max(1, stored.row_bytes))
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
    """Offset and size of each chunk, ``(chunks along the rows, *grid of a frame, 3)``."""
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
    offsets, sizes, masks = np.moveaxis(ranges, -1, 0)
    missing, left_out = int((offsets < 0).sum()), int((masks[offsets >= 0] != 0).sum())
    if missing:
        raise NoReference(
            f"{missing:,} chunks of {file.path!r} were never written, so HDF5 has fill values there"
        )
    if left_out:
        raise NoReference(
            f"{left_out:,} chunks of {file.path!r} were written without some of the filters "
            "(filter_mask)"
        )
    size = file.state[2] if file.state is not None else 0
    if int((offsets + sizes).max(initial=0)) > size:
        raise NoReference(f"{file.path!r} has {size:,} bytes, and some frames are beyond that")


def _fitted(
    chunk: tuple[int, ...], whole: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[int, ...]:
    """The chunk in another shape of the array, by which axes of length 1 come or go."""
    if whole == shape:
        return chunk
    pairs = list(zip(whole[1:], chunk[1:]))
    kept = [(size, side) for size, side in pairs if (size, side) != (1, 1)]
    wanted = [size for size in shape[1:] if size != 1]
    if whole[0] != shape[0] or [size for size, _ in kept] != wanted:
        raise NoReference(f"files have cells of {whole[1:]}, which are shown as {shape[1:]}")
    sides = iter(side for _, side in kept)
    return (chunk[0], *(1 if size == 1 else next(sides) for size in shape[1:]))
