"""Handler of SPE files, which cameras of Princeton Instruments write."""

from __future__ import annotations

import os
import struct
from math import prod
from typing import BinaryIO, NamedTuple

import numpy as np

from ...core.errors import FillError, FrameMissing
from ...core.file_identity import identity
from ..regions import Roi, take_region
from ..shapes import Shape, long_axes
from .sequences import DatumFiles, PointFiles, region_of
from .stored_frames import StoredRows

HEADER = 4100
"""Bytes of the header, after which the frames follow."""
_TYPES = {0: "<f4", 1: "<i4", 2: "<i2", 3: "<u2", 5: "<f8", 6: "|u1", 8: "<u4"}
"""Dtypes by the format's numbers of them."""


class _Header(NamedTuple):
    frames: int
    frame: tuple[int, int]
    dtype: np.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a cell: all frames, without axes of length 1."""
        return tuple(long_axes((self.frames, *self.frame)))


class AreaDetectorSPE(DatumFiles, PointFiles):
    """Spec ``AD_SPE``: one file per point, which has the n frames of the point.

    A cell has the shape ``(n, height, width)`` without axes of length 1. Files of the versions 2
    and 3 are read. Those with several regions of the sensor, or with metadata between frames, are
    refused. For the parameters, see :class:`~.sequences.PointFiles`.
    """

    specs = frozenset({"AD_SPE"})
    keyword = "point_number"

    def load(self, file: BinaryIO, roi: Roi, like: Shape | None = None) -> np.ndarray:
        header = self._header(file)
        axes = region_of(file, header.shape, roi, like)
        if not roi:
            file.seek(HEADER)
            whole = np.fromfile(file, header.dtype, prod(header.shape)).reshape(header.shape)
            return whole.astype(header.dtype.newbyteorder("="), copy=False)
        mapped = np.memmap(file, header.dtype, "r", HEADER, header.shape)
        return np.array(take_region(mapped, axes), header.dtype.newbyteorder("="))

    def look_in(self, file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
        header = self._header(file)
        return header.shape, header.dtype

    def stored_in(self, file: BinaryIO, path: str) -> StoredRows:
        header = self._header(file)
        state = identity(file.fileno())
        return StoredRows(path, state, header.shape, header.dtype, offset=HEADER)

    def _header(self, file: BinaryIO) -> _Header:
        header = _read_header(file)
        if header.frames != self._per_point:
            kind = FrameMissing if header.frames < self._per_point else FillError
            raise kind(
                f"{file.name!r} holds {header.frames} frames, where frame_per_point is "
                f"{self._per_point}"
            )
        return header


def _read_header(file: BinaryIO) -> _Header:
    """Read the header of an SPE file, and check that the file is as long as it says.

    Raises
    ------
    FillError
        If it is not an SPE file, is cut off, or has something else between or after the frames.
    """
    data = file.read(HEADER)
    if len(data) < HEADER:
        raise FillError("it is not an SPE file, or is cut off")

    def field(kind: str, offset: int) -> int:
        return struct.unpack_from(f"<{kind}", data, offset)[0]  # type: ignore[no-any-return]

    width, height = field("H", 42), field("H", 656)
    frames, number = field("i", 1446), field("h", 108)
    if number not in _TYPES or width < 1 or height < 1 or frames < 0:
        raise FillError(
            f"the SPE header declares {frames} frames of {(height, width)} with the type {number}"
        )
    header = _Header(frames, (height, width), np.dtype(_TYPES[number]))
    there = os.fstat(file.fileno()).st_size
    # Since version 3 a description in XML follows the frames; its place is 0 if it was not written.
    end = field("Q", 678) if field("f", 1992) >= 3 else 0
    claimed, left = frames * height * width * header.dtype.itemsize, (end or there) - HEADER
    if claimed > min(left, there - HEADER):
        raise FillError(
            f"the SPE header declares {frames} frames of {(height, width)}, {claimed:,} bytes, and "
            f"the file has only {max(0, min(left, there - HEADER)):,}"
        )
    if claimed < left:
        raise FillError(
            f"the SPE file has {left:,} bytes of data, and {claimed:,} of frames: several regions "
            "of the sensor, and metadata of frames, are not read"
        )
    return header
