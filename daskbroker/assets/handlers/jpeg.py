"""Handler of sequences of JPEG files."""

from __future__ import annotations

import struct
from typing import BinaryIO

import imagecodecs
import numpy as np

from ...core.errors import FillError
from ..files.sizes import check_cell
from ..regions import Roi, take_region
from ..shapes import Shape
from .sequences import FileSequence, StreamSequence, region_of

STARTS_OF_FRAME = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
END = b"\xff\xd9"
ALONE = {0x01, *range(0xD0, 0xD8)}
"""Markers that are not followed by a length."""


def jpeg_shape(data: bytes) -> tuple[int, ...]:
    """Return the shape in a JPEG image's header: ``(height, width)``, and channels if several.

    Raises
    ------
    FillError
        If it is not a JPEG image, has no size in its header, or does not have 8 bits per value.
    """
    if not data.startswith(b"\xff\xd8"):
        raise FillError("it is not a JPEG image")
    at = 2
    while at + 9 < len(data):
        marker = data[at + 1]
        if data[at] != 0xFF:
            break
        if marker in STARTS_OF_FRAME:
            # They come after two bytes of the marker and two of the segment's length.
            bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
            if bits == 8 and height and width:
                return (height, width) if channels == 1 else (height, width, channels)
            break
        filling = marker == 0xFF  # any number of these bytes may precede a marker
        at += 1 if filling else 2 if marker in ALONE else 2 + int.from_bytes(data[at + 2 : at + 4])
    raise FillError("the JPEG image has no size, or does not have 8 bits per sample")


class _JPEG(FileSequence):
    """Reads JPEG files: uint8, ``(height, width)`` if grey, else ``(height, width, channels)``.

    The four channels of CMYK are 0 where there is no ink, as in Pillow.
    """

    def load(self, file: BinaryIO, roi: Roi, like: Shape | None = None) -> np.ndarray:
        data = file.read()
        shape = jpeg_shape(data)
        axes = region_of(file, shape, roi, like)
        check_cell(shape, 1, len(data))
        if END not in data[len(data) // 2 :]:  # the decoder would fill up what is missing
            raise FillError("the JPEG image is cut off")
        whole = imagecodecs.jpeg8_decode(data)
        if whole.shape != shape:
            raise FillError(
                f"the JPEG image declares the shape {shape} and has the shape {whole.shape}"
            )
        part = take_region(whole, axes)
        # CMYK is inverted by Adobe's convention, which Pillow and other programs follow.
        return 255 - part if shape[2:] == (4,) else part

    def look_in(self, file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
        return jpeg_shape(file.read()), np.dtype(np.uint8)


class StreamJPEG(StreamSequence, _JPEG):
    """Mimetype ``multipart/related;type=image/jpeg``; see :class:`~.sequences.StreamSequence`."""

    specs = frozenset({"multipart/related;type=image/jpeg"})
