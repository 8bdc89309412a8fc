"""Read events from datasets whose rows are frames, for every file format."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Protocol, TypeAlias

import numpy as np

from ...core.errors import FrameMissing
from ...core.file_identity import identity
from ..files.sizes import check_block, check_cell
from ..regions import Axis, Roi, axes_of, compose, shape_of, take_region
from .stored_frames import CellFrames, NoReference, StoredRows

MOST_PICKED = 2**22
"""Maximum number of frames that are listed one by one before it is known that the files can hold
them."""


Located: TypeAlias = "tuple[list[StoredRows], np.ndarray, np.ndarray]"
"""Datasets as bytes of files and, for each requested row, the number of the dataset that has it and
its row there (two int64 arrays)."""


class Rows(Protocol):
    """Protocol of a dataset that is read by rows."""

    @property
    def name(self) -> str:
        """Name of the dataset in its file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, with the number of rows that exist now."""

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the values, in the byte order of the file."""

    def stored(self, rows: np.ndarray | None = None) -> int | None:
        """Return the bytes of the files that hold ``rows``, or all rows if None; None: unknown."""

    def read(self, rows: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
        """Read a region of some rows; see :func:`~.hdf5.row_source.read_rows`."""

    def locate(self, rows: np.ndarray) -> Located:
        """Return where some rows lie; raise :class:`~.stored_frames.NoReference` if unknown."""


class ArrayRows:
    """The rows of an array that is in memory or mapped into it.

    Parameters
    ----------
    array
        Array of at least one dimension.
    name
        Name in error messages; the path of the file for a mapped array.
    stored
        Size of the file, in bytes.
    """

    def __init__(self, array: np.ndarray, name: str, stored: int) -> None:
        self._array, self._stored = array, stored
        self.name, self.shape, self.dtype = name, tuple(array.shape), array.dtype

    def stored(self, rows: np.ndarray | None = None) -> int | None:
        """Return the size of the whole file, in bytes."""
        return self._stored

    def read(self, rows: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
        """Read a region of some rows; see :func:`~.hdf5.row_source.read_rows`."""
        region = take_region(self._array, (rows, *axes))
        return np.array(region, self.dtype.newbyteorder("="))

    def locate(self, rows: np.ndarray) -> Located:
        """Return where some rows lie; raise ``NoReference`` unless the array is mapped."""
        array = self._array
        if not isinstance(array, np.memmap) or not array.flags.c_contiguous:
            raise NoReference(f"{self.name!r} is not stored as an array")
        stored = StoredRows(
            self.name, identity(self.name), self.shape, self.dtype, offset=array.offset
        )
        return one_dataset(stored, rows)


class OneFrame:
    """The only row of a dataset that is one frame, without a dimension of frames.

    Parameters
    ----------
    frame
        Dataset of at least two dimensions.
    """

    def __init__(self, frame: Rows) -> None:
        self._frame = frame
        self.name, self.dtype = frame.name, frame.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, with a leading dimension of one frame."""
        return (1, *self._frame.shape)

    def stored(self, rows: np.ndarray | None = None) -> int | None:
        """Return the bytes of the files that hold the frame."""
        return self._frame.stored()

    def read(self, rows: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
        """Read a region of some rows; see :func:`~.hdf5.row_source.read_rows`."""
        lines = np.atleast_1d(np.asarray(axes[0], np.int64))
        frame = self._frame.read(lines, axes[1:])
        frame = frame[0] if isinstance(axes[0], int) else frame
        return np.broadcast_to(frame, (len(rows), *frame.shape)).copy()

    def locate(self, rows: np.ndarray) -> Located:
        """Return where the row lies; raise ``NoReference`` if it has parts of several datasets."""
        lines = np.arange(self._frame.shape[0])
        stored, _, positions = self._frame.locate(lines)
        if len(stored) != 1 or stored[0].shape != self._frame.shape or (positions != lines).any():
            raise NoReference(f"{self.name!r} has its values in parts of other datasets")
        return one_dataset(stored[0].as_one_row(), rows)


def one_dataset(stored: StoredRows, rows: np.ndarray) -> Located:
    """Return where rows lie that are all in one dataset."""
    return [stored], np.zeros(len(rows), np.int64), rows


def whole_region(shape: Sequence[int]) -> tuple[Axis, ...]:
    """Select all positions along each dimension."""
    return tuple(map(range, shape))


def rows_of(view: Sequence[Axis]) -> range:
    """Return the rows of a view, which must be a range."""
    rows = view[0]
    assert isinstance(rows, range)
    return rows


def read_cell(source: Rows, roi: Roi) -> np.ndarray:
    """Read a region of a dataset that is one cell with all its rows."""
    axes = axes_of(roi, source.shape)
    rows = source.shape[0]
    return read_events(source, np.zeros(1, np.int64), rows, axes, whole_region(source.shape))[0]


def read_events(
    source: Rows,
    events: np.ndarray,
    per_event: int,
    axes: Sequence[Axis],
    view: Sequence[Axis],
) -> np.ndarray:
    """Read events that have ``per_event`` rows of a view each.

    Parameters
    ----------
    source
        Dataset to read.
    events
        Numbers of the events: event i has rows i*per_event to (i+1)*per_event - 1 of the view.
    per_event
        Number of rows of an event.
    axes
        Selection along the rows of an event and along the dimensions that the view keeps.
    view
        Selection along each dimension of the dataset, of which events are made.

    Returns
    -------
    numpy.ndarray
        Shape ``(len(events), *shape_of(axes))``.

    Raises
    ------
    FrameMissing
        If the view has too few rows for an event.
    FillError
        If a cell or the result is larger than its files can hold.
    """
    rows = rows_of(view)
    _check_rows(source, events, per_event, len(rows))
    picked = axes[0] if not isinstance(axes[0], int) else [axes[0]]
    # A claimed number of frames must not take memory before the file is known to hold so many.
    few = len(events) * len(picked) <= MOST_PICKED
    frames = _frames(events, per_event, picked) if few else None
    stored = source.stored(None if frames is None else rows.start + frames * rows.step)
    check_cell((len(picked), *source.shape[1:]), source.dtype.itemsize, stored)
    check_block(len(events) * prod(shape_of(axes)) * source.dtype.itemsize, stored)
    if frames is None:
        frames = _frames(events, per_event, picked)
    chosen = iter(axes[1:])
    inner = [a if isinstance(a, int) else compose(a, next(chosen)) for a in view[1:]]
    values = source.read(rows.start + frames * rows.step, inner)
    return values.reshape(len(events), *shape_of(axes[:1]), *values.shape[1:])


def locate_events(
    source: Rows, events: np.ndarray, per_event: int | None, view: Sequence[Axis]
) -> CellFrames:
    """Return where events lie that have ``per_event`` rows of a view each.

    If ``per_event`` is None, an event has one row and its cell has no axis of frames.

    Raises
    ------
    NoReference
        If the view shows less than whole frames, or if it cannot be told where they lie.
    FrameMissing
        If the view has too few rows for an event.
    """
    rows, count = rows_of(view), 1 if per_event is None else per_event
    _check_rows(source, events, count, len(rows))
    dropped = [axis for axis, part in enumerate(view) if isinstance(part, int)]
    kept = [(part, size) for part, size in zip(view, source.shape) if not isinstance(part, int)]
    if any(not np.array_equal(part, range(size)) for part, size in kept[1:]):
        raise NoReference(f"only a part of the frames of {source.name!r} is shown")
    frames = rows.start + _frames(events, count, range(count)) * rows.step
    stored, numbers, inside = source.locate(frames)
    return cell_frames(
        [one.without(dropped) for one in stored],
        numbers,
        inside,
        count,
        has_axis=per_event is not None,
    )


def cell_frames(
    stored: Sequence[StoredRows],
    numbers: np.ndarray,
    rows: np.ndarray,
    per_cell: int,
    *,
    has_axis: bool,
) -> CellFrames:
    """Group consecutive frames into cells of ``per_cell`` frames each."""
    if not per_cell:
        raise NoReference("events have no frames")
    shape = (-1, per_cell)
    return CellFrames(stored, numbers.reshape(shape), rows.reshape(shape), has_axis)


def _check_rows(source: Rows, events: np.ndarray, per_event: int, count: int) -> None:
    """Raise ``FrameMissing`` if the dataset's ``count`` frames are too few for some events.

    Unless a writer is still at work, the missing frames will never appear.
    """
    whole = count // per_event if per_event else np.iinfo(np.int64).max
    outside = events[(events < 0) | (events >= whole)]  # no product, which might be too large
    if len(outside):
        first = int(outside[0])
        raise FrameMissing(
            f"the dataset {source.name!r} has {count} frames, too few for place {first} with "
            f"{per_event} each: frames {first * per_event} to {(first + 1) * per_event - 1}"
        )


def _frames(events: np.ndarray, per_event: int, picked: Sequence[int] | np.ndarray) -> np.ndarray:
    return (events[:, None] * per_event + np.asarray(picked, dtype=np.int64)).ravel()
