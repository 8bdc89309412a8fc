"""Sequences of TIFF files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import tifffile

from ...core.errors import FillError
from ..readable import ReadableRoots
from .base import Block, Datums, Roi
from .file_names import check_percent
from .regions import axes_of, take_region
from .sequences import FileSequence, StreamSequence
from .tiff_checks import check_image, names_others

__all__ = ["AreaDetectorTIFF", "StreamTIFF", "opened_tiff"]


class _TIFF(FileSequence):
    """Reads TIFF files: their first series, as tifffile calls it."""

    def load(self, file: BinaryIO, roi: Roi) -> np.ndarray:
        with opened_tiff(file, self.readable) as tiff:
            series = tiff.series[0]
            axes = axes_of(roi, series.shape)
            if roi and series.dataoffset is not None:
                dtype = np.dtype(tiff.byteorder + series.dtype.char)
                whole = np.memmap(file, dtype, "r", series.dataoffset, series.shape)
                return np.array(take_region(whole, axes), dtype.newbyteorder("="))
            check_image(tiff, series)
            whole = series.asarray()
        return take_region(whole, axes).astype(whole.dtype.newbyteorder("="), copy=False)

    def look_in(self, file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
        with opened_tiff(file, self.readable) as tiff:
            series = tiff.series[0]
            return tuple(series.shape), np.dtype(series.dtype)


@contextmanager
def opened_tiff(file: BinaryIO, readable: ReadableRoots) -> Iterator[tifffile.TiffFile]:
    """An open file as TIFF; one that only makes sense with others is refused under roots.

    Raises
    ------
    FillError
    """
    if readable.roots is None:
        with tifffile.TiffFile(file) as tiff:
            yield tiff
        return
    with tifffile.TiffFile(file, _multifile=False) as tiff:
        if names_others(tiff):
            raise FillError(
                f"{file.name!r} is a part of an image in several files, which tifffile would "
                "open by their names; that is not done where readable roots are set"
            )
        yield tiff


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
        number = self.first_file(datums)
        return None if number is None else (self._per_point, *self.shape_of_number(number))

    def first_file(self, datums: Datums) -> int | None:
        places = datums.integers("point_number")
        return int(places[0]) * self._per_point if len(places) and self._per_point else None


class StreamTIFF(StreamSequence, _TIFF):
    """Mimetype ``multipart/related;type=image/tiff``; see :class:`~.sequences.StreamSequence`."""

    specs = frozenset({"multipart/related;type=image/tiff"})
