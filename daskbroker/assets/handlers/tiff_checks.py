"""What a TIFF file claims, before tifffile takes memory for it or opens other files."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterable
from math import prod
from typing import Any

import tifffile

from ...core.errors import FillError
from ..files.sizes import check_cell
from .jpeg import jpeg_shape

__all__ = ["check_image", "check_pages", "names_others"]

INFLATED: dict[int, Callable[[], Any]] = {
    8: zlib.decompressobj,
    32946: zlib.decompressobj,
    34925: lzma.LZMADecompressor,
}
"""Compressions whose size shows only while they are undone, and what undoes them in steps."""
RATIO = {8: 1032, 32946: 1032, 34925: 8192}
JPEG = 7
BOUNDED = {1, 5, JPEG, 32773, 34926, 50000}
"""Plain, LZW, JPEG, PackBits and Zstd: tifffile tells their decoders how much is to come out, or
it is looked for before."""
SLACK = 256 * 2**20
"""Bytes that a segment may have beyond the image: tiles reach over its edge."""
STEP = 2**20


def names_others(tiff: tifffile.TiffFile) -> bool:
    """Whether a file's metadata names other files that have a part of the image.

    It may in OME-TIFF, Micro-Manager and NDTiff. The file was opened with ``_multifile=False``.
    """
    if tiff.is_ndtiff:
        return True
    if tiff.is_mmstack:
        return bool(tiff.series[0].kind == "mmstack" and None in tiff.series[0]._pages)
    # Where tifffile may open no other file, an OME series that needs some falls back to these.
    return bool(tiff.is_ome and tiff.series[0].kind in ("generic", "imagej"))


def check_image(tiff: tifffile.TiffFile, series: Any) -> None:
    """Refuse an image that is larger than its file can hold, or whose parts are.

    Raises
    ------
    FillError
    """
    check_cell(series.shape, series.dtype.itemsize, tiff.filehandle.size)
    check_pages(tiff, series.pages)


def check_pages(tiff: tifffile.TiffFile, pages: Iterable[Any]) -> None:
    """Refuse pages that are compressed in a way whose size is not known beforehand, or too large.

    Raises
    ------
    FillError
    """
    for page in pages:
        if page is None:
            continue
        if page.compression not in BOUNDED and page.compression not in INFLATED:
            name = getattr(page.compression, "name", page.compression)
            raise FillError(f"the image is compressed by {name}, which is not read")
        check_cell(page.shape, page.dtype.itemsize, tiff.filehandle.size)
        if page.compression in INFLATED:
            _check_segments(tiff, page)
        elif page.compression == JPEG:
            _check_jpegs(tiff, page)


def _check_segments(tiff: tifffile.TiffFile, page: Any) -> None:
    file, most = tiff.filehandle, page.nbytes + SLACK
    for offset, count in zip(page.dataoffsets, page.databytecounts):
        if count * RATIO[page.compression] > most:
            file.seek(offset)
            _check_inflated(INFLATED[page.compression](), file.read(min(count, file.size)), most)


def _check_jpegs(tiff: tifffile.TiffFile, page: Any) -> None:
    """JPEG has sizes of its own, which its decoder believes."""
    file, most = tiff.filehandle, page.nbytes + SLACK
    for offset, count in zip(page.dataoffsets, page.databytecounts):
        file.seek(offset)
        shape = jpeg_shape(file.read(min(count, file.size)))
        if prod(shape) > most:
            raise FillError(f"a part of the image is a JPEG image of {shape}")


def _check_inflated(inflate: Any, data: bytes, most: int) -> None:
    """Undo a compression step by step, and keep nothing."""
    size, waiting = 0, data
    while waiting and not inflate.eof:
        found = len(inflate.decompress(waiting, STEP))
        size += found
        if size > most:
            raise FillError(f"a part of the image unpacks to more than {most:,} bytes")
        waiting = getattr(inflate, "unconsumed_tail", b"")
        if not found and not waiting:
            return
