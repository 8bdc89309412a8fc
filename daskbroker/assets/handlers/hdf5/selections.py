"""Convert selections of HDF5 dataspaces to positions along each dimension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from h5py import h5s

from ....core.errors import FillError
from ...regions import Axis

MAX_POSITIONS = 2**22
MOST_BLOCKS = 2**16
"""Maximum positions and blocks of selections that are not ranges, as these become arrays."""

Selected = tuple["range | np.ndarray", ...]
"""Places along each dimension; all their combinations are selected."""


@dataclass(frozen=True)
class Unlimited:
    """A selection that is unlimited along one dimension.

    Attributes
    ----------
    axis
        Number of that dimension.
    start, step
        First position along it, and distance of the positions.
    others
        Selection along all dimensions, with no positions along ``axis``.
    """

    axis: int
    start: int
    step: int
    others: Selected

    def up_to(self, count: int) -> Selected:
        """Return the selection with ``count`` positions along its unlimited dimension."""
        positions = range(self.start, self.start + count * self.step, self.step)
        return (*self.others[: self.axis], positions, *self.others[self.axis + 1 :])

    def available(self, size: int) -> int:
        """Return the number of positions along a dimension of length ``size``."""
        return len(range(self.start, size, self.step))


def selected(space: h5s.SpaceID, shape: Sequence[int] | None) -> Selected | Unlimited:
    """Return what a dataspace selects.

    Parameters
    ----------
    space
        Dataspace of either side of a virtual dataset's mapping.
    shape
        Shape that "all" stands for; that of the dataspace itself if None.

    Raises
    ------
    FillError
        If nothing or single points are selected, or if the selection is not all combinations of
        positions along each dimension.
    """
    kind = space.get_select_type()
    if kind == h5s.SEL_ALL:
        sizes = space.get_simple_extent_dims() if shape is None else shape
        return tuple(range(size) for size in sizes)
    if kind == h5s.SEL_NONE:
        raise FillError("the mapping selects nothing")
    if kind != h5s.SEL_HYPERSLABS:
        raise FillError("the mapping selects single points")
    if not space.is_regular_hyperslab():
        return _of_blocks(space)
    sides = list(zip(*space.get_regular_hyperslab()))  # start, stride, count, block
    endless = [axis for axis, (_, _, *counts) in enumerate(sides) if h5s.UNLIMITED in counts]
    if not endless:
        return tuple(_positions(*side) for side in sides)
    start, stride, count, block = sides[endless[0]]
    if len(endless) > 1 or (block != 1 and (block, count) != (h5s.UNLIMITED, 1)):
        raise FillError("the mapping selects unlimited blocks")
    others = tuple(range(0) if n == endless[0] else _positions(*s) for n, s in enumerate(sides))
    return Unlimited(endless[0], start, stride if block == 1 else 1, others)


def _positions(start: int, stride: int, count: int, block: int) -> range | np.ndarray:
    if count == 1 or stride == block:
        return range(start, start + count * block)
    if block == 1:
        return range(start, start + count * stride, stride)
    if count * block > MAX_POSITIONS:
        raise FillError(
            f"{count} blocks of {block} places are mapped, more than the supported number"
        )
    return (start + np.arange(count)[:, None] * stride + np.arange(block)).ravel()


def _of_blocks(space: h5s.SpaceID) -> Selected:
    """Return the positions of a union of boxes, which must be all combinations of them."""
    if space.get_select_hyper_nblocks() > MOST_BLOCKS:
        raise FillError(f"more than {MOST_BLOCKS} boxes are mapped")
    boxes = np.asarray(space.get_select_hyper_blocklist(), np.int64)
    axes: list[np.ndarray] = []
    for sides in boxes.transpose(2, 0, 1):
        ranges = np.unique(sides, axis=0)
        if int((ranges[:, 1] - ranges[:, 0] + 1).sum()) > MAX_POSITIONS:
            raise FillError("more places are mapped than the supported number")
        axes.append(np.unique(np.concatenate([np.arange(a, b + 1) for a, b in ranges.tolist()])))
    if int(np.prod([len(axis) for axis in axes], dtype=object)) != space.get_select_npoints():
        raise FillError("the mapped selection is not a grid of places")
    return tuple(axes)


def paired(target: Selected, source: Selected) -> list[int | None] | None:
    """Return which dimension of the target each dimension of the source runs along.

    HDF5 maps the elements of two selections in their order. If both have the same lengths, except
    for lengths of 1, this maps dimension to dimension; otherwise the result is None. A dimension of
    the source of length 1 runs along none, for which the item is None.
    """
    long = [axis for axis, positions in enumerate(target) if len(positions) != 1]
    lengths = [len(positions) for positions in source if len(positions) != 1]
    if lengths != [len(target[axis]) for axis in long]:
        return None
    axes = iter(long)
    return [None if len(positions) == 1 else next(axes) for positions in source]


def meet(wanted: np.ndarray, positions: Axis) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the wanted ones that are among ``positions``, and their numbers there.

    ``positions`` must be increasing.
    """
    if isinstance(positions, range):
        number, rest = np.divmod(wanted - positions.start, positions.step)
        hits = np.flatnonzero((rest == 0) & (number >= 0) & (number < len(positions)))
        return hits, number[hits]
    others = np.asarray(positions)
    number = np.minimum(np.searchsorted(others, wanted), max(len(others) - 1, 0))
    hits = np.flatnonzero(others[number] == wanted) if len(others) else np.zeros(0, np.int64)
    return hits, number[hits]
