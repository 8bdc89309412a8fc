"""Sequences of TIFF files."""

from __future__ import annotations

import os

import numpy as np
import tifffile

from .base import Block, Datums, Roi
from .file_names import check_percent
from .regions import axes_of, take_region
from .sequences import FileSequence, StreamSequence

__all__ = ["AreaDetectorTIFF", "StreamTIFF"]


class _TIFF(FileSequence):
    """Reads TIFF files: their first series, as tifffile calls it."""

    def load(self, path: str, roi: Roi) -> np.ndarray:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            axes = axes_of(roi, series.shape)
            if roi and series.dataoffset is not None:
                dtype = np.dtype(file.byteorder + series.dtype.char)
                whole = np.memmap(path, dtype, "r", series.dataoffset, series.shape)
                return np.array(take_region(whole, axes), dtype.newbyteorder("="))
            whole = series.asarray()
        return take_region(whole, axes).astype(whole.dtype.newbyteorder("="), copy=False)

    def shape_in(self, path: str) -> tuple[int, ...]:
        with tifffile.TiffFile(path) as file:
            return tuple(file.series[0].shape)


class AreaDetectorTIFF(_TIFF):
    """Spec ``AD_TIFF``: a file a frame, some of them a point.

    A datum has the keyword ``point_number``; its cell is ``(n, *frame)`` of the files with
    numbers from ``point_number * n``.

    Parameters
    ----------
    path
        Of the folder.
    template
        In C's style, for folder, file name and number: ``%s%s_%6.6d.tif``.
    filename
        What the template calls so.
    frame_per_point
        That is n.
    """

    specs = frozenset({"AD_TIFF"})

    def __init__(
        self, path: str, /, template: str, filename: str, frame_per_point: int = 1
    ) -> None:
        self._folder, self._filename = os.path.join(path, ""), filename
        self._template, self._per_point = check_percent(template), int(frame_per_point)

    def name(self, number: int) -> str:
        return self._template % (self._folder, self._filename, number)

    def read(self, datums: Datums, roi: Roi = ()) -> Block:
        return self.read_frames(datums.integers("point_number"), self._per_point, roi)

    def cell_shape(self, datums: Datums) -> tuple[int, ...] | None:
        places = datums.integers("point_number")
        if not len(places) or not self._per_point:
            return None
        return (self._per_point, *self.shape_of_number(int(places[0]) * self._per_point))


class StreamTIFF(StreamSequence, _TIFF):
    """Mimetype ``multipart/related;type=image/tiff``; see :class:`~.sequences.StreamSequence`."""

    specs = frozenset({"multipart/related;type=image/tiff"})
