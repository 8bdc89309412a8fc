"""Handlers of sequences of CBF and EDF files, which the package fabio reads."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import md5
from importlib import import_module
from math import prod
from typing import Any, BinaryIO, ClassVar

import numpy as np

from ...core.errors import FillError
from ..files.sizes import check_cell
from ..regions import Roi, take_region
from ..shapes import Shape
from .sequences import FileSequence, PointSequence, StreamSequence, region_of

HEAD = 2**16
"""Bytes at the beginning of a file in which its header must end."""
_CBF = {
    "size": re.compile(rb"X-Binary-Size:\s*(\d+)", re.I),
    "fast": re.compile(rb"X-Binary-Size-Fastest-Dimension:\s*(\d+)", re.I),
    "slow": re.compile(rb"X-Binary-Size-Second-Dimension:\s*(\d+)", re.I),
}
_CBF_DIGEST = re.compile(rb"Content-MD5:\s*([A-Za-z0-9+/]{22}==)", re.I)
_CBF_START = b"\x0c\x1a\x04\xd5"
_CBF_TYPES = {b"8-bit": 1, b"16-bit": 2, b"32-bit": 4, b"64-bit": 8}
_EDF_ITEM = re.compile(rb"(\w+)\s*=\s*([^;]*?)\s*;")
_EDF_TYPES = {
    **{b"SignedByte": "i1", b"UnsignedByte": "u1", b"SignedShort": "i2", b"UnsignedShort": "u2"},
    **{b"SignedInteger": "i4", b"UnsignedInteger": "u4", b"SignedLong": "i4"},
    **{b"UnsignedLong": "u4", b"Signed64": "i8", b"Unsigned64": "u8"},
    **{b"FloatValue": "f4", b"Float": "f4", b"DoubleValue": "f8"},
}


def _reader(module: str, name: str) -> Callable[[], Any]:
    try:
        return getattr(import_module(f"fabio.{module}"), name)
    except ImportError:
        raise FillError(
            "CBF and EDF files are read by the package 'fabio', which is not installed here"
        ) from None


def _check_is_complete(begin: int, size: int, there: int) -> None:
    if begin + size > there:
        raise FillError(f"the image of {size:,} bytes is cut off: the file has {there:,}")


class _FabioFiles(FileSequence):
    """Reads files of one image each by a class of fabio."""

    reader: ClassVar[tuple[str, str]]
    options: ClassVar[dict[str, Any]] = {}

    def load(self, file: BinaryIO, roi: Roi, like: Shape | None = None) -> np.ndarray:
        shape, _ = self.look_in(file)
        axes = region_of(file, shape, roi, like)
        self.check_image(file)
        image = _reader(*self.reader)().read(file.name, **self.options)
        try:
            if image.nframes > 1:
                raise FillError(
                    f"the file has {image.nframes} images, and only files of one image are read; a "
                    "handler of your own can read them"
                )
            whole = np.asarray(image.data)
        finally:
            image.close()
        if whole.shape != shape:
            raise FillError(f"the header declares the shape {shape}, the image is {whole.shape}")
        native = whole.astype(whole.dtype.newbyteorder("="), copy=False)
        return take_region(native, axes)

    def check_image(self, file: BinaryIO) -> None:
        """Check what fabio does not; by default nothing."""


class _CBFFiles(_FabioFiles):
    """Reads CBF images."""

    reader = ("cbfimage", "CbfImage")
    options: ClassVar[dict[str, Any]] = {"check_MD5": False}

    def look_in(self, file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
        """Return the shape and dtype in the header, after checking that the file has all bytes."""
        head = file.read(HEAD)
        found = {name: pattern.search(head) for name, pattern in _CBF.items()}
        start = head.find(_CBF_START)
        if start < 0 or not all(found.values()):
            raise FillError("it is not a CBF image, or its header has no size")
        size, fast, slow = (int(match[1]) for match in found.values() if match)
        there = os.fstat(file.fileno()).st_size
        _check_is_complete(start + len(_CBF_START), size, there)
        kind = re.search(rb'Element-Type:\s*"?(un)?signed (\d+-bit)', head, re.I)
        width = _CBF_TYPES.get(kind[2].lower(), 4) if kind else 4
        check_cell((slow, fast), width, there)
        return (slow, fast), np.dtype(f"{'u' if kind and kind[1] else 'i'}{width}")

    def check_image(self, file: BinaryIO) -> None:
        """Check that the image has the checksum in its header, if any; fabio only logs it."""
        file.seek(0)
        head = file.read(HEAD)
        start, size = head.find(_CBF_START), _CBF["size"].search(head)
        told = _CBF_DIGEST.search(head, 0, start)
        if told and size:
            file.seek(start + len(_CBF_START))
            found = md5(file.read(int(size[1])), usedforsecurity=False).digest()
            if b64encode(found) != told[1]:
                raise FillError("the image is damaged: it does not have the checksum in its header")


class _EDFFiles(_FabioFiles):
    """Reads EDF images that are not compressed."""

    reader = ("edfimage", "EdfImage")

    def look_in(self, file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
        """Return the shape and dtype in the header, after checking that the file has all bytes."""
        head = file.read(HEAD)
        end = head.find(b"}")
        items = dict(_EDF_ITEM.findall(head[:end])) if head.lstrip().startswith(b"{") else {}
        dtype = _EDF_TYPES.get(items.get(b"DataType", b""))
        if dtype is None or end < 0 or b"Dim_1" not in items or b"Compression" in items:
            raise FillError("it is not an uncompressed EDF image, or its header has no size")
        shape = (int(items.get(b"Dim_2", b"1")), int(items[b"Dim_1"]))
        there, size = os.fstat(file.fileno()).st_size, prod(shape) * np.dtype(dtype).itemsize
        _check_is_complete(end + 1, size, there)
        return shape, np.dtype(dtype)


class AreaDetectorCBF(PointSequence, _CBFFiles):
    """Spec ``AD_CBF``: one file per frame; see :class:`~.sequences.PointSequence`.

    Parameters
    ----------
    path, template, filename, frame_per_point
        See :class:`~.sequences.PointFiles`.
    initial_number
        Number of the first file.
    """

    specs = frozenset({"AD_CBF"})

    def __init__(
        self,
        path: str,
        /,
        template: str,
        filename: str,
        frame_per_point: int = 1,
        initial_number: int = 1,
    ) -> None:
        super().__init__(path, template, filename, frame_per_point)
        self._initial = int(initial_number)

    def name(self, number: int) -> str:
        return super().name(self._initial + number)


class StreamCBF(StreamSequence, _CBFFiles):
    """Mimetype ``multipart/related;type=image/x-cbf``; see :class:`~.sequences.StreamSequence`."""

    specs = frozenset({"multipart/related;type=image/x-cbf"})


class StreamEDF(StreamSequence, _EDFFiles):
    """Mimetype ``multipart/related;type=image/x-edf``; see :class:`~.sequences.StreamSequence`."""

    specs = frozenset({"multipart/related;type=image/x-edf"})
