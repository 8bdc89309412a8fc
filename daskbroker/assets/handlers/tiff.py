"""Handlers of sequences of TIFF files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import tifffile

from ...core.errors import FillError
from ..files.readable import ReadableRoots
from ..files.sizes import check_cell
from ..regions import Axis, Roi, shape_of, take_region
from ..shapes import Shape
from .sequences import FileSequence, PointSequence, StreamSequence, region_of
from .stored_frames import StoredRows
from .tiff_checks import check_image, frame_series, names_others
from .tiff_stored import stored_image


class _TIFF(FileSequence):
    """Reads TIFF files: the series that :func:`~.tiff_checks.frame_series` returns."""

    def load(self, file: BinaryIO, roi: Roi, like: Shape | None = None) -> np.ndarray:
        with opened_tiff(file, self.readable) as tiff:
            some = frame_series(tiff)
            series = some[0]
            axes = region_of(file, _shape_of(some), roi, like)
            if len(some) > 1:
                return _stacked(tiff, some, axes)
            if roi and series.dataoffset is not None:
                dtype = np.dtype(tiff.byteorder + series.dtype.char)
                whole = np.memmap(file, dtype, "r", series.dataoffset, series.shape)
                return np.array(take_region(whole, axes), dtype.newbyteorder("="))
            check_image(tiff, series)
            whole = series.asarray()
        return take_region(whole, axes).astype(whole.dtype.newbyteorder("="), copy=False)

    def look_in(self, file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
        with opened_tiff(file, self.readable) as tiff:
            some = frame_series(tiff)
            return _shape_of(some), np.dtype(some[0].dtype)

    def stored_in(self, file: BinaryIO, path: str) -> StoredRows:
        with opened_tiff(file, self.readable) as tiff:
            return stored_image(tiff, path)


def _shape_of(some: Sequence[Any]) -> tuple[int, ...]:
    """Return the shape of all series together, which have an axis of their own if several."""
    shape = tuple(some[0].shape)
    return shape if len(some) == 1 else (len(some), *shape)


def _stacked(tiff: tifffile.TiffFile, some: Sequence[Any], axes: Sequence[Axis]) -> np.ndarray:
    """Read a region of several series of one shape; only the needed ones are read."""
    check_cell(_shape_of(some), some[0].dtype.itemsize, tiff.filehandle.size)
    numbers = np.atleast_1d(np.asarray(axes[0], np.int64))
    out = np.empty((len(numbers), *shape_of(axes[1:])), some[0].dtype.newbyteorder("="))
    for position, number in enumerate(numbers.tolist()):
        check_image(tiff, some[number])
        out[position] = take_region(some[number].asarray(), axes[1:])
    return out[0] if isinstance(axes[0], int) else out


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
