"""Datasets whose rows are the frames of events, in whatever format."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Protocol

import numpy as np

from ...core.errors import FrameMissing
from ...core.regular import Identity
from ..files.sizes import check_block, check_cell
from .contract import Roi
from .regions import Axis, axes_of, compose, shape_of, take_region

__all__ = ["ArrayRows", "OneFrame", "Rows", "read_cell", "read_events", "rows_of", "whole"]

MOST_PICKED = 2**22
"""More frames than that are not counted one by one before it is known that files can hold them."""


class Rows(Protocol):
    """A dataset that is read by rows."""

    @property
    def name(self) -> str:
        """In its file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """With the rows that there are now."""

    @property
    def dtype(self) -> np.dtype:
        """In the byte order of the file."""

    @property
    def opened(self) -> dict[str, Identity]:
        """The files that hold it, as far as they were opened, and what they were then."""

    @property
    def watched(self) -> bool:
        """Whether all of them were opened to be watched while they are written."""

    def stored(self, rows: np.ndarray | None = None) -> int | None:
        """Bytes of the files that hold some rows, or all of them; None: not known."""

    def read(self, rows: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
        """Read a region of some rows; see :func:`~.hdf5.rows.read_rows`."""

    def refresh(self) -> None:
        """See the rows that a writer added."""


class ArrayRows:
    """An array in memory, or mapped into it.

    Parameters
    ----------
    array
        Of one dimension or more.
    name, stored
        What errors call it, and the bytes of its file.
    """

    watched = False

    def __init__(self, array: np.ndarray, name: str, stored: int) -> None:
        self._array, self._stored = array, stored
        self.name, self.shape, self.dtype = name, tuple(array.shape), array.dtype
        self.opened: dict[str, Identity] = {}

    def stored(self, rows: np.ndarray | None = None) -> int | None:
        """Bytes of the file."""
        return self._stored

    def read(self, rows: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
        """Read a region of some rows; see :func:`~.hdf5.rows.read_rows`."""
        region = take_region(self._array, (rows, *axes))
        return np.array(region, self.dtype.newbyteorder("="))

    def refresh(self) -> None:
        """Nothing: who has it builds another one."""


class OneFrame:
    """A dataset that is one frame, without a dimension of frames, as the only row of another.

    Parameters
    ----------
    frame
        Of two dimensions or more.
    """

    def __init__(self, frame: Rows) -> None:
        self._frame = frame
        self.name, self.dtype = frame.name, frame.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """With a dimension of frames."""
        return (1, *self._frame.shape)

    @property
    def opened(self) -> dict[str, Identity]:
        """The files that hold it, as far as they were opened, and what they were then."""
        return self._frame.opened

    @property
    def watched(self) -> bool:
        """Whether all of them were opened to be watched while they are written."""
        return self._frame.watched

    def stored(self, rows: np.ndarray | None = None) -> int | None:
        """Bytes of the files that hold it."""
        return self._frame.stored()

    def read(self, rows: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
        """Read a region of some rows; see :func:`~.hdf5.rows.read_rows`."""
        lines = np.atleast_1d(np.asarray(axes[0], np.int64))
        frame = self._frame.read(lines, axes[1:])
        frame = frame[0] if isinstance(axes[0], int) else frame
        return np.broadcast_to(frame, (len(rows), *frame.shape)).copy()

    def refresh(self) -> None:
        """See what a writer changed."""
        self._frame.refresh()


def whole(shape: Sequence[int]) -> tuple[Axis, ...]:
    """All places along each dimension."""
    return tuple(map(range, shape))


def rows_of(view: Sequence[Axis]) -> range:
    """The rows that a view has."""
    rows = view[0]
    assert isinstance(rows, range)
    return rows


def read_cell(source: Rows, roi: Roi) -> np.ndarray:
    """A region of a dataset that is one cell, all its rows."""
    axes = axes_of(roi, source.shape)
    rows = source.shape[0]
    return read_events(source, np.zeros(1, np.int64), rows, axes, whole(source.shape))[0]


def read_events(
    source: Rows,
    places: np.ndarray,
    per_event: int,
    axes: Sequence[Axis],
    view: Sequence[Axis],
) -> np.ndarray:
    """Read events that have ``per_event`` rows of a view each.

    ``axes`` select along these rows and along the dimensions that the view keeps.
    """
    rows = rows_of(view)
    _check_rows(source, places, per_event, len(rows))
    picked = axes[0] if not isinstance(axes[0], int) else [axes[0]]
    few = len(places) * len(picked) <= MOST_PICKED
    frames = _frames(places, per_event, picked) if few else None
    stored = source.stored(None if frames is None else rows.start + frames * rows.step)
    check_cell((per_event, *source.shape[1:]), source.dtype.itemsize, stored)
    check_block(len(places) * prod(shape_of(axes)) * source.dtype.itemsize, stored)
    if frames is None:
        frames = _frames(places, per_event, picked)
    chosen = iter(axes[1:])
    inner = [a if isinstance(a, int) else compose(a, next(chosen)) for a in view[1:]]
    values = source.read(rows.start + frames * rows.step, inner)
    return values.reshape(len(places), *shape_of(axes[:1]), *values.shape[1:])


def _check_rows(source: Rows, places: np.ndarray, per_event: int, count: int) -> None:
    """Check that the file has all frames; without a writer at work, missing ones do not come."""
    whole = count // per_event if per_event else np.iinfo(np.int64).max
    outside = places[(places < 0) | (places >= whole)]  # no product, which might be too large
    if len(outside):
        first = int(outside[0])
        raise FrameMissing(
            f"the dataset {source.name!r} has {count} frames, too few for place {first} with "
            f"{per_event} each: frames {first * per_event} to {(first + 1) * per_event - 1}"
        )


def _frames(places: np.ndarray, per_event: int, picked: Sequence[int] | np.ndarray) -> np.ndarray:
    return (places[:, None] * per_event + np.asarray(picked, dtype=np.int64)).ravel()
