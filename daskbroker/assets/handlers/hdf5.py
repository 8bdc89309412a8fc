"""Frames in HDF5 files: area detectors' own layout, and datasets that stream resources name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from ...core.errors import FillError
from ..sizes import check_block, check_cell
from .base import Block, BlockHandler, Datums, Roi
from .hdf5_open import OpenDatasets
from .hdf5_rows import dtype_as_read
from .hdf5_virtual import Rows
from .layout import EventLayout, parse_slice
from .regions import Axis, axes_of, compose, shape_of

__all__ = ["AreaDetectorHDF5", "AreaDetectorHDF5SWMR", "FrameHDF5", "StreamHDF5"]

AD_DATASET = "/entry/data/data"
MOST_PICKED = 2**22
"""More frames than that are not counted one by one before it is known that files can hold them."""


class AreaDetectorHDF5(BlockHandler):
    """Spec ``AD_HDF5``: frames of an area detector, some of them a point.

    A datum has the keyword ``point_number``; its cell is
    ``frames[point_number * n : (point_number + 1) * n]``, so ``(n, height, width)``.

    Parameters
    ----------
    path
        Of the file.
    frame_per_point
        That is n.
    key
        Of the dataset in the file.
    swmr
        Expect a writer at work.
    """

    specs = frozenset({"AD_HDF5"})

    def __init__(
        self, path: str, /, frame_per_point: int = 1, key: str = AD_DATASET, swmr: bool = False
    ) -> None:
        self._per_point, self._key = int(frame_per_point), key
        self._datasets = OpenDatasets(path, swmr)

    def read(self, datums: Datums, roi: Roi = ()) -> Block:
        source = self._datasets.get(self._key, self.readable)
        places = datums.integers("point_number")
        axes = axes_of(roi, (self._per_point, *source.shape[1:]))
        return _read_events(source, places, self._per_point, axes, _whole(source.shape))

    def cell_shape(self, datums: Datums) -> tuple[int, ...]:
        source = self._datasets.get(self._key, self.readable)
        return (self._per_point, *source.shape[1:])

    def cell_dtype(self, datums: Datums) -> np.dtype | None:
        return dtype_as_read(self._datasets.get(self._key, self.readable).dtype)

    def refresh(self) -> bool:
        return self._datasets.refresh()


class AreaDetectorHDF5SWMR(AreaDetectorHDF5):
    """Spec ``AD_HDF5_SWMR``: as ``AD_HDF5``, of a file that may be still written."""

    specs = frozenset({"AD_HDF5_SWMR"})

    def __init__(self, path: str, /, frame_per_point: int = 1, key: str = AD_DATASET) -> None:
        super().__init__(path, frame_per_point, key, swmr=True)


class FrameHDF5(BlockHandler):
    """Spec ``AD_HDF5_SWMR_STREAM`` of resources with datums that name dataset and frame.

    A datum has the keyword ``frame``, and ``dataset`` unless the resource has it; the cell is
    ``(n, height, width)``.

    Parameters
    ----------
    path
        Of the file.
    frame_per_point
        That is n.
    dataset
        In the file, for datums that name none.
    chunk_shape, swmr
        Of the writer; the file itself tells the former.
    """

    specs = frozenset({"AD_HDF5_SWMR_STREAM"})

    def __init__(
        self,
        path: str,
        /,
        frame_per_point: int = 1,
        dataset: str = AD_DATASET,
        chunk_shape: Sequence[int] = (),
        swmr: bool = True,
    ) -> None:
        self._per_point, self._dataset = int(frame_per_point), dataset
        self._datasets = OpenDatasets(path, swmr)

    def read(self, datums: Datums, roi: Roi = ()) -> Block:
        source, places = self._find(datums)
        axes = axes_of(roi, (self._per_point, *source.shape[1:]))
        return _read_events(source, places, self._per_point, axes, _whole(source.shape))

    def cell_shape(self, datums: Datums) -> tuple[int, ...]:
        return (self._per_point, *self._find(datums)[0].shape[1:])

    def cell_dtype(self, datums: Datums) -> np.dtype | None:
        return dtype_as_read(self._find(datums)[0].dtype)

    def refresh(self) -> bool:
        return self._datasets.refresh()

    def _find(self, datums: Datums) -> tuple[Rows, np.ndarray]:
        columns = dict(datums.columns)
        names = sorted(set(map(str, columns.pop("dataset", [self._dataset]))))
        if len(names) > 1:
            raise FillError(f"datums of one key name several datasets: {', '.join(names)}")
        places = Datums(columns, datums.count).integers("frame", "point_number")
        return self._datasets.get(names[0] if names else self._dataset, self.readable), places


class StreamHDF5(BlockHandler):
    """Mimetype ``application/x-hdf5``: a dataset whose rows are the frames of all events.

    How frames make events is told by :class:`~.layout.EventLayout`.

    Parameters
    ----------
    file
        Path.
    data_key
        The descriptor's entry.
    dataset
        Name in the file; ``path`` is its older name.
    slice
        Text such as ``":, 5, :"``: the part of the dataset that is meant.
    squeeze
        Drop dimensions of one place, but that of rows.
    swmr
        Expect a writer at work.
    join_method, multiplier, indices
        See :class:`~.layout.EventLayout`.
    **others
        ``chunk_shape``, ``join_chunks`` and what else writers tell; the file itself knows.
    """

    specs = frozenset({"application/x-hdf5"})

    def __init__(
        self,
        file: str,
        /,
        *,
        data_key: Mapping[str, Any],
        dataset: str | None = None,
        path: str | None = None,
        slice: str | Sequence[str] = "",
        squeeze: bool = False,
        swmr: bool = True,
        join_method: str = "concat",
        multiplier: int | None = None,
        indices: tuple[int, int] = (0, 0),
        **others: Any,
    ) -> None:
        if not (dataset or path):
            raise FillError("the stream_resource's parameters lack 'dataset', the name in the file")
        self._name = str(dataset or path)
        self._layout = EventLayout.of(data_key, join_method, multiplier)
        self._slice, self._squeeze, self._indices = parse_slice(slice), bool(squeeze), indices
        self._datasets = OpenDatasets(file, bool(swmr))

    def read(self, datums: Datums, roi: Roi = ()) -> Block:
        source, view = self._view()
        frame = shape_of(view[1:])
        per_event = self._layout.frames_per_event(1 + len(frame))
        first = self._layout.first_index(self._indices, len(_rows(view)), per_event)
        places = datums.integers("index") - first
        if per_event is None:
            axes = (0, *axes_of(roi, frame))
            return _read_events(source, places, 1, axes, view)
        axes = axes_of(roi, (per_event, *frame))
        return _read_events(source, places, per_event, axes, view)

    def cell_shape(self, datums: Datums) -> tuple[int, ...]:
        frame = shape_of(self._view()[1][1:])
        per_event = self._layout.frames_per_event(1 + len(frame))
        return frame if per_event is None else (per_event, *frame)

    def cell_dtype(self, datums: Datums) -> np.dtype | None:
        return dtype_as_read(self._view()[0].dtype)

    def refresh(self) -> bool:
        return self._datasets.refresh()

    def _view(self) -> tuple[Rows, tuple[Axis, ...]]:
        """The dataset, and what the stream resource means of each of its dimensions."""
        source = self._datasets.get(self._name, self.readable)
        view = axes_of(self._slice, source.shape)
        if isinstance(view[0], int):
            raise FillError("the parameter 'slice' drops the first dimension, that of frames")
        if self._squeeze:
            view = (view[0], *(_squeezed(axis) for axis in view[1:]))
        return source, view


def _squeezed(axis: Axis) -> Axis:
    return axis if isinstance(axis, int) or len(axis) != 1 else int(axis[0])


def _whole(shape: Sequence[int]) -> tuple[Axis, ...]:
    return tuple(map(range, shape))


def _rows(view: Sequence[Axis]) -> range:
    rows = view[0]
    assert isinstance(rows, range)
    return rows


def _read_events(
    source: Rows,
    places: np.ndarray,
    per_event: int,
    axes: Sequence[Axis],
    view: Sequence[Axis],
) -> np.ndarray:
    """Read events that have ``per_event`` rows of a view each.

    ``axes`` select along these rows and along the dimensions that the view keeps.
    """
    rows = _rows(view)
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
        raise FillError(
            f"the dataset {source.name!r} has {count} frames, too few for place {first} with "
            f"{per_event} each: frames {first * per_event} to {(first + 1) * per_event - 1}"
        )


def _frames(places: np.ndarray, per_event: int, picked: Sequence[int] | np.ndarray) -> np.ndarray:
    return (places[:, None] * per_event + np.asarray(picked, dtype=np.int64)).ravel()
