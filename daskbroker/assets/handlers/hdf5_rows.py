"""Reading rows of an HDF5 dataset: few, large reads into arrays made beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import h5py
import numpy as np

from .regions import Axis, compose, shape_of, take_region

__all__ = ["read_rows"]

GAP = 64 * 1024
"""Bytes that are read and dropped rather than skipped: a read costs as much as this."""
TINY = 4096
"""Bytes: HDF5 is slow at many blocks smaller than this."""
PIECE = 16 * 2**20
"""Bytes that are read at a time where more is read than wanted."""


def read_rows(dataset: h5py.Dataset, rows: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
    """Read a region of some rows.

    Parameters
    ----------
    dataset
        Of one dimension or more.
    rows
        Places along the first dimension, int64, all inside, in any order, repeated or not.
    axes
        What to read along the others.

    Returns
    -------
    numpy.ndarray
        Shape ``(len(rows), *shape_of(axes))``, in the byte order of this machine.
    """
    if len(rows) > 1 and (np.diff(rows) <= 0).any():
        ordered, places = np.unique(rows, return_inverse=True)
        return read_rows(dataset, ordered, axes)[places]
    if dataset.dtype.hasobject or dataset.dtype.subdtype is not None:
        return _read_objects(dataset, rows, axes)
    if not len(rows) or 0 in shape_of(axes):
        return np.empty((len(rows), *shape_of(axes)), dataset.dtype.newbyteorder("="))
    strides = [dataset.chunks is None and place < len(axes) - 1 for place in range(len(axes))]
    box = [_box(axis, stride) for axis, stride in zip(axes, strides)]
    if all(side.rest is None for side in box):
        return _read_exactly(dataset, rows, box).reshape(len(rows), *shape_of(axes))
    return _read_more(dataset, rows, box, axes)


def _read_objects(dataset: h5py.Dataset, rows: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
    """Texts, values of varying length and arrays as elements, the way h5py reads them."""
    source = dataset.asstr() if h5py.check_string_dtype(dataset.dtype) else dataset
    if not len(rows):
        return take_region(source[:0], axes, lead=1)
    span = source[int(rows[0]) : int(rows[-1]) + 1]
    return take_region(span[rows - rows[0]], axes, lead=1)


# -- what to read of a row -------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """What is read along one dimension: ``count`` places from ``start``, ``step`` apart.

    ``rest`` is then selected among them; None: all, in this order.
    """

    start: int
    count: int
    step: int
    rest: Axis | None


def _box(axis: Axis, stride: bool) -> Side:
    """The simplest selection that holds an axis.

    HDF5 is slow at picking single elements, and at any stride inside chunks. So without
    ``stride`` all places from the first to the last wanted one are read.
    """
    if isinstance(axis, int):
        return Side(axis, 1, 1, None)
    if isinstance(axis, range) and (axis.step == 1 or len(axis) == 1):
        return Side(axis[0], len(axis), 1, None)
    if isinstance(axis, range) and axis.step > 1 and stride:
        return Side(axis.start, len(axis), axis.step, None)
    if isinstance(axis, range):
        low, high = min(axis[0], axis[-1]), max(axis[0], axis[-1])
        end = axis[-1] - low + (1 if axis.step > 0 else -1)
        return Side(low, high - low + 1, 1, range(axis[0] - low, end, axis.step))
    low, high = int(axis.min()), int(axis.max())
    return Side(low, high - low + 1, 1, axis - low)


# -- which rows ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slab:
    """Rows that one call reads: ``count`` blocks of ``block`` rows, ``stride`` apart."""

    start: int
    stride: int
    count: int
    block: int

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.count * self.block


def _runs(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row and length of each run of consecutive rows."""
    edges = np.flatnonzero(rows[1:] - rows[:-1] != 1) + 1
    first = np.concatenate(([0], edges))
    return rows[first], np.concatenate((edges, [len(rows)])) - first


def _regular(starts: np.ndarray, lengths: np.ndarray, row_bytes: int) -> Slab | None:
    """The one slab that holds all runs, if they are alike, evenly spaced and not tiny."""
    if len(starts) == 1:
        return Slab(int(starts[0]), int(lengths[0]), 1, int(lengths[0]))
    if lengths[0] * row_bytes < TINY:
        return None
    steps = starts[1:] - starts[:-1]
    if (lengths == lengths[0]).all() and (steps == steps[0]).all():
        return Slab(int(starts[0]), int(steps[0]), len(starts), int(lengths[0]))
    return None


def _groups(starts: np.ndarray, lengths: np.ndarray, row_bytes: int) -> Iterator[tuple[int, int]]:
    """First and last run of each group that is read in one go, small gaps included."""
    ends = starts + lengths
    apart = (starts[1:] - ends[:-1]) * row_bytes > GAP
    piece = (starts - starts[0]) * row_bytes // PIECE
    edges = np.flatnonzero(apart | (piece[1:] != piece[:-1])) + 1
    yield from zip([0, *edges.tolist()], [*edges.tolist(), len(starts)])


def _read_exactly(dataset: h5py.Dataset, rows: np.ndarray, box: Sequence[Side]) -> np.ndarray:
    """Read what the box holds, all of which is wanted."""
    out = np.empty((len(rows), *(side.count for side in box)), dataset.dtype.newbyteorder("="))
    starts, lengths = _runs(rows)
    slab = _regular(starts, lengths, out[0].nbytes)
    if slab is not None:
        _read_slab(dataset, slab, box, out)
        return out
    done = 0
    for first, last in _groups(starts, lengths, out[0].nbytes):
        count = int(lengths[first:last].sum())
        low, high = int(starts[first]), int(starts[last - 1] + lengths[last - 1])
        slab = Slab(low, high - low, 1, high - low)
        into = out[done : done + count]
        if slab.size == count:
            _read_slab(dataset, slab, box, into)
        else:
            span = np.empty((slab.size, *out.shape[1:]), out.dtype)
            _read_slab(dataset, slab, box, span)
            np.take(span, rows[done : done + count] - low, axis=0, out=into)
        done += count
    return out


def _read_more(
    dataset: h5py.Dataset, rows: np.ndarray, box: Sequence[Side], axes: Sequence[Axis]
) -> np.ndarray:
    """Read a box that holds more than is wanted, piece by piece."""
    dtype = dataset.dtype.newbyteorder("=")
    out = np.empty((len(rows), *shape_of(axes)), dtype)
    rest = [_of_box(side, axis) for side, axis in zip(box, axes)]
    row_bytes = dtype.itemsize * int(np.prod([side.count for side in box], dtype=int))
    step = max(1, PIECE // row_bytes)
    for first in range(0, len(rows), step):
        piece = _read_exactly(dataset, rows[first : first + step], box)
        out[first : first + step] = take_region(piece, rest, lead=1)
    return out


def _of_box(side: Side, axis: Axis) -> Axis:
    if isinstance(axis, int):
        return 0
    return range(side.count) if side.rest is None else compose(range(side.count), side.rest)


def _read_slab(dataset: h5py.Dataset, slab: Slab, box: Sequence[Side], out: np.ndarray) -> None:
    """One call of HDF5, straight into the array."""
    space = dataset.id.get_space()
    space.select_hyperslab(
        (slab.start, *(side.start for side in box)),
        (slab.count, *(side.count for side in box)),
        stride=(slab.stride, *(side.step for side in box)),
        block=(slab.block, *(1 for _ in box)),
    )
    if out.size:
        dataset.id.read(h5py.h5s.create_simple(out.shape), space, out)
