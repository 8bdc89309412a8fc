"""Handlers of frames in HDF5 files: area detectors' layout, and datasets of stream resources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ....core.errors import FillError, FrameMissing
from ....core.name_lists import listed
from ...regions import Roi, axes_of
from ..contract import Block, BlockHandler, Datums, FramesThere
from ..frame_rows import OneFrame, Rows, locate_events, read_events, whole_region
from ..layout import frame_count
from ..stored_frames import CellFrames
from ..stream_rows import StreamRows
from .open_datasets import OpenDatasets
from .row_source import HDF5Rows, dtype_as_read

AD_DATASET = "/entry/data/data"


class AreaDetectorHDF5(BlockHandler):
    """Spec ``AD_HDF5``: frames of an area detector, n of which are a point.

    A datum has the keyword ``point_number``; its cell is
    ``frames[point_number * n : (point_number + 1) * n]``, of shape ``(n, height, width)``. A
    two-dimensional dataset that cannot grow is a single frame.

    Parameters
    ----------
    path
        Path of the file.
    frame_per_point
        Number n of frames of a point.
    key
        Name of the dataset in the file.
    swmr
        Whether a writer is expected to be at work.
    """

    specs = frozenset({"AD_HDF5"})
    keywords: ClassVar[tuple[str, ...]] = ("point_number",)
    """Keywords of a datum of which one tells the point."""

    def __init__(
        self, path: str, /, frame_per_point: int = 1, key: str = AD_DATASET, swmr: bool = False
    ) -> None:
        self._per_point, self._key = frame_count(frame_per_point, "frame_per_point"), key
        self._datasets = OpenDatasets(path, swmr=swmr)

    def read(self, datums: Datums, roi: Roi = ()) -> Block:
        source, positions = self._frames(datums), self._positions(datums)
        axes = axes_of(roi, (self._per_point, *source.shape[1:]))
        try:
            return read_events(source, positions, self._per_point, axes, whole_region(source.shape))
        except FrameMissing as error:
            if not isinstance(source, OneFrame):
                raise
            why = "as a dataset of two dimensions that cannot grow is a single frame"
            raise FrameMissing(f"{error}, {why}") from None

    def cell_shape(self, datums: Datums) -> tuple[int, ...]:
        return (self._per_point, *self._frames(datums).shape[1:])

    def cell_dtype(self, datums: Datums) -> np.dtype | None:
        return dtype_as_read(self._frames(datums).dtype)

    def frames_there(self, datums: Datums) -> FramesThere | None:
        name = next((n for n in self.keywords if n in datums.columns), self.keywords[-1])
        rows = self._frames(datums).shape[0]
        return FramesThere(rows, name, self._per_point, option="frame_per_point")

    def frames_of(self, datums: Datums) -> CellFrames:
        source, positions = self._frames(datums), self._positions(datums)
        return locate_events(source, positions, self._per_point, whole_region(source.shape))

    def _positions(self, datums: Datums) -> np.ndarray:
        """Return the positions of the points among those of the dataset."""
        return datums.integers(*self.keywords)

    def _frames(self, datums: Datums) -> Rows:
        """Return the dataset; a single frame gets a leading dimension of frames."""
        source = self._datasets.get(self._key, self.readable)
        return OneFrame(source) if _is_one_frame(source) else source

    def refresh(self) -> bool:
        return self._datasets.refresh()


def _is_one_frame(source: HDF5Rows) -> bool:
    """Return whether a dataset is one frame: two-dimensional, with a first dimension of fixed size.

    Area detectors' plugins write a file this way in the mode "Single", of one frame per file. In
    other modes the dimension of frames is unlimited.
    """
    return len(source.shape) == 2 and source.maximum[0] is not None


class AreaDetectorHDF5SWMR(AreaDetectorHDF5):
    """Spec ``AD_HDF5_SWMR``: as ``AD_HDF5``, for a file that may still be written."""

    specs = frozenset({"AD_HDF5_SWMR"})

    def __init__(self, path: str, /, frame_per_point: int = 1, key: str = AD_DATASET) -> None:
        super().__init__(path, frame_per_point, key, swmr=True)


class FrameHDF5(AreaDetectorHDF5):
    """Spec ``AD_HDF5_SWMR_STREAM``, for resources whose datums name dataset and frame.

    A datum has the keyword ``frame`` (or ``point_number``), and ``dataset`` unless the resource has
    it. The cell has the shape ``(n, height, width)``.

    Parameters
    ----------
    path
        Path of the file.
    frame_per_point
        Number n of frames of a point.
    dataset
        Name of the dataset in the file, for datums that do not name one.
    chunk_shape
        Recorded by the writer; ignored, as the file itself has this information.
    swmr
        Whether a writer is expected to be at work.
    """

    specs = frozenset({"AD_HDF5_SWMR_STREAM"})
    keywords = ("frame", "point_number")

    def __init__(
        self,
        path: str,
        /,
        frame_per_point: int = 1,
        dataset: str = AD_DATASET,
        chunk_shape: Sequence[int] = (),
        swmr: bool = True,
    ) -> None:
        super().__init__(path, frame_per_point, dataset, swmr)

    def _positions(self, datums: Datums) -> np.ndarray:
        columns = {name: cells for name, cells in datums.columns.items() if name != "dataset"}
        return Datums(columns, datums.count).integers(*self.keywords)

    def _frames(self, datums: Datums) -> Rows:
        names = sorted(set(map(str, datums.columns.get("dataset", ())))) or [self._key]
        if len(names) > 1:
            raise FillError(f"datums of one key name several datasets: {listed(map(repr, names))}")
        return self._datasets.get(names[0], self.readable)


class StreamHDF5(StreamRows):
    """Mimetype ``application/x-hdf5``: a dataset whose rows are the frames of all events.

    :class:`~.layout.EventLayout` describes how frames make events.

    Parameters
    ----------
    file
        Path of the file.
    dataset
        Name of the dataset in the file; ``path`` is an older name of this parameter.
    swmr
        Whether a writer is expected to be at work.
    **others
        See :class:`~.stream_rows.StreamRows`.

    Raises
    ------
    FillError
        If neither ``dataset`` nor ``path`` is given.
    """

    specs = frozenset({"application/x-hdf5"})

    def __init__(
        self,
        file: str,
        /,
        *,
        dataset: str | None = None,
        path: str | None = None,
        swmr: bool = True,
        **others: Any,
    ) -> None:
        if not (dataset or path):
            raise FillError("the stream_resource's parameters lack 'dataset', the name in the file")
        super().__init__(**others)
        self._name, self._datasets = str(dataset or path), OpenDatasets(file, swmr=bool(swmr))

    def source(self) -> Rows:
        return self._datasets.get(self._name, self.readable)

    def cell_dtype(self, datums: Datums) -> np.dtype | None:
        return dtype_as_read(self.source().dtype)

    def refresh(self) -> bool:
        return self._datasets.refresh()
