"""Regions of cells: the algebra of outer (orthogonal) indexing.

A :data:`Roi` is what users and handlers write: slices, integers and integer arrays. With the shape
of a cell it is resolved by :func:`axes_of` to a :data:`Region`: the positions that it selects
along each axis. Regions are composed (:func:`compose`, :func:`within`), measured
(:func:`shape_of`), and taken out of arrays (:func:`take_region`, :func:`take_roi`).
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import TypeAlias

import numpy as np

from ..core.errors import FillError

Roi: TypeAlias = "tuple[slice | int | np.ndarray, ...]"
"""Index of a cell's own axes (those after the row axis), one item per axis. Trailing axes without
an item are kept whole; ``()`` is the whole cell. Indexing is outer (orthogonal): each
one-dimensional integer array selects along its own axis. An int drops its axis."""

Axis: TypeAlias = "range | np.ndarray | int"
"""Selection along one axis: positions, or one of them as an int, which drops the axis."""

Region: TypeAlias = "Sequence[Axis]"
"""A resolved :data:`Roi`: the selection along every axis of a cell."""


def axes_of(roi: Roi, shape: Sequence[int]) -> tuple[Axis, ...]:
    """Return the selection of an index along every axis of a shape.

    Negative positions count from the end; a boolean array selects where it is True.

    Raises
    ------
    FillError
        If the region has more items than the shape has dimensions, reaches beyond the shape, or
        has an item that is not a valid index.
    """
    if len(roi) > len(shape):
        raise FillError(f"the region {roi!r} has more dimensions than the cell, {tuple(shape)}")
    whole = tuple(range(size) for size in shape[len(roi) :])
    return tuple(_axis(item, size, shape) for item, size in zip(roi, shape)) + whole


def _axis(item: slice | int | np.ndarray, size: int, shape: Sequence[int]) -> Axis:
    if isinstance(item, slice):
        return range(size)[item]
    if isinstance(item, (np.ndarray, list)) and np.ndim(item) == 1:
        positions = np.asarray(item, dtype=None if len(item) else np.int64)
        if positions.dtype == bool and len(positions) == size:
            return np.flatnonzero(positions)
        if positions.dtype.kind in "iu":
            _check(positions, size, shape)
            return np.where(positions < 0, positions + size, positions).astype(np.int64)
        raise FillError(f"an array of {positions.dtype} cannot select along {size} places")
    try:
        position = index(item)
    except TypeError:
        raise FillError(
            f"{item!r} is not a valid index along a dimension of {size} places"
        ) from None
    _check(np.array([position]), size, shape)
    return position % size


def _check(positions: np.ndarray, size: int, shape: Sequence[int]) -> None:
    outside = positions[(positions < -size) | (positions >= size)]
    if len(outside):
        raise FillError(f"place {outside[0]} is outside a dimension of a cell of {tuple(shape)}")


def shape_of(region: Region) -> tuple[int, ...]:
    """Return the shape of what a region selects."""
    return tuple(len(axis) for axis in region if not isinstance(axis, int))


def as_index(axis: Axis) -> slice | int | np.ndarray:
    """Return the item of a :data:`Roi` that selects the same positions."""
    return as_slice(axis) if isinstance(axis, range) else axis


def as_slice(positions: range) -> slice:
    """Return the slice that selects these positions."""
    if not positions:
        return slice(0, 0)
    # A descending range that ends at 0 has stop -1, which a slice would count from the end.
    stop = positions.stop if positions.step > 0 or positions.stop >= 0 else None
    return slice(positions.start, stop, positions.step)


def as_axis(positions: np.ndarray) -> Axis:
    """Return evenly spaced positions as a range, others as they are."""
    step = int(positions[1] - positions[0]) if len(positions) > 1 else 1
    if len(positions) and step and (positions[1:] - positions[:-1] == step).all():
        return range(int(positions[0]), int(positions[0]) + step * len(positions), step)
    return positions


def compose(base: Axis, axis: Axis) -> Axis:
    """Select by ``axis`` among the positions of ``base``, which must not be an int."""
    assert not isinstance(base, int)
    if isinstance(axis, range):
        return base[as_slice(axis)]
    if isinstance(axis, int):
        return int(base[axis])
    if isinstance(base, range):  # it may be as long as a file claims
        return base.start + np.asarray(axis, dtype=np.int64) * base.step
    return np.asarray(base, dtype=np.int64)[axis]


def within(region: Region, inner: Roi) -> Roi:
    """Convert an index of what a region shows of a cell to an index of the whole cell."""
    axes = iter(axes_of(inner, shape_of(region)))
    return tuple(
        shown if isinstance(shown, int) else as_index(compose(shown, next(axes)))
        for shown in region
    )


def increasing(axis: Axis) -> tuple[range | np.ndarray, Axis]:
    """Split a selection into increasing positions, each once, and a selection among these."""
    if isinstance(axis, range):
        ascending = axis if axis.step > 0 else axis[::-1]
        return ascending, range(len(axis)) if axis.step > 0 else range(len(axis))[::-1]
    if isinstance(axis, int):
        return range(axis, axis + 1), 0
    # HDF5 selects only in increasing order and once; `back` restores order and repetitions.
    once, back = np.unique(axis, return_inverse=True)
    positions = as_axis(once)
    assert not isinstance(positions, int)
    return positions, back


def take_region(array: np.ndarray, region: Region, lead: int = 0) -> np.ndarray:
    """Return the selected region of an array, after ``lead`` axes that are kept whole.

    It is a view of the array if no axis is an array.
    """
    # Slices and ints first: they make a view, so that arrays of positions copy only what is left.
    basic = [slice(None) if isinstance(axis, np.ndarray) else as_index(axis) for axis in region]
    result = array[(slice(None),) * lead + tuple(basic)]
    position = lead
    for axis in region:
        if isinstance(axis, np.ndarray):
            result = result.take(axis, axis=position)
        position += not isinstance(axis, int)
    return np.asanyarray(result)


def take_roi(block: np.ndarray, roi: Roi) -> np.ndarray:
    """Return the region of each cell of a block of shape ``(rows, *cell)``."""
    return take_region(block, axes_of(roi, block.shape[1:]), lead=1)


def put_region(out: np.ndarray, positions: Sequence[Axis], values: np.ndarray) -> None:
    """Assign ``values`` to ``out[np.ix_(*positions)]``, by slices where positions are even."""
    axes = [as_axis(part) if isinstance(part, np.ndarray) else part for part in positions]
    if all(isinstance(axis, range) and axis.step > 0 for axis in axes):
        out[tuple(slice(a.start, a.stop, a.step) for a in axes if isinstance(a, range))] = values
    else:
        out[np.ix_(*positions)] = values
