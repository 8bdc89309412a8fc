"""Handlers of sequences of TIFF files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import tifffile

from ...core.errors import FillError
from ..files.readable import ReadableRoots
from ..regions import Roi, take_region
from ..shapes import Shape
from .sequences import FileSequence, PointSequence, StreamSequence, region_of
from .stored_frames import StoredRows
from .tiff_checks import check_image, names_others
from .tiff_stored import stored_image

__all__ = ["AreaDetectorTIFF", "StreamTIFF", "opened_tiff"]


class _TIFF(FileSequence):
    """Reads TIFF files: their first series, as tifffile calls it."""

    def load(self, file: BinaryIO, roi: Roi, like: Shape | None = None) -> np.ndarray:
        with opened_tiff(file, self.readable) as tiff:
            series = tiff.series[0]
            axes = region_of(file, series.shape, roi, like)
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

    def stored_in(self, file: BinaryIO, path: str) -> StoredRows:
        with opened_tiff(file, self.readable) as tiff:
            return stored_image(tiff, path)


@contextmanager
def opened_tiff(file: BinaryIO, readable: ReadableRoots) -> Iterator[tifffile.TiffFile]:
    """Open a file as TIFF.

    Raises
    ------
    FillError
        If readable roots are set and the image is spread over several files.
    """
    if readable.roots is None:
        with tifffile.TiffFile(file) as tiff:
            yield tiff
        return
    with tifffile.TiffFile(file, _multifile=False) as tiff:
        if names_others(tiff):
            raise FillError(
                f"{file.name!r} is a part of an image in several files, which tifffile would "
                "open by name; this is refused if readable roots are set"
            )
        yield tiff


class AreaDetectorTIFF(PointSequence, _TIFF):
    """Spec ``AD_TIFF``: one file per frame; see :class:`~.sequences.PointSequence`."""

    specs = frozenset({"AD_TIFF"})


class StreamTIFF(StreamSequence, _TIFF):
    """Mimetype ``multipart/related;type=image/tiff``; see :class:`~.sequences.StreamSequence`."""

    specs = frozenset({"multipart/related;type=image/tiff"})
