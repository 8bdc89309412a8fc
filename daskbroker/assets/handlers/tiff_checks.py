"""Check what a TIFF file claims, before tifffile allocates memory for it or opens other files."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

import tifffile

from ...core.errors import FillError
from ..files.sizes import check_cell
from .jpeg import jpeg_shape

INFLATED: dict[int, Callable[[], Any]] = {
    8: zlib.decompressobj,
    32946: zlib.decompressobj,
    34925: lzma.LZMADecompressor,
}
"""Compressions whose unpacked size is only known by unpacking, and decompressors that work in
steps."""
# Maximum ratio of unpacked to packed bytes; parts that stay below the limit even at this ratio are
# not tried out.
RATIO = {8: 1032, 32946: 1032, 34925: 8192}
JPEG = 7
BOUNDED = {1, 5, JPEG, 32773, 34926, 50000}
"""Compressions of bounded size: none, LZW, JPEG, PackBits and Zstd. Either tifffile tells the
decoder how much must come out, or the size is checked before (JPEG)."""
SLACK = 256 * 2**20
"""Maximum bytes that an unpacked part may have beyond the image, as tiles extend over its edge."""
STEP = 2**20


def names_others(tiff: tifffile.TiffFile) -> bool:
    """Return whether a file's metadata names other files that have a part of the image.

    This is possible in OME-TIFF, Micro-Manager and NDTiff. The file must have been opened with
    ``_multifile=False``.
    """
    if tiff.is_ndtiff:
        return True
    if tiff.is_mmstack:
        return bool(tiff.series[0].kind == "mmstack" and None in tiff.series[0]._pages)
    # Where tifffile may open no other file, an OME series that needs some falls back to these.
    return bool(tiff.is_ome and tiff.series[0].kind in ("generic", "imagej"))


def frame_series(tiff: tifffile.TiffFile) -> Sequence[Any]:
    """Return the series that have a file's frames: the first one, as tifffile calls it, or all.

    All do if each is one page like the others: tifffile counts pages that a program appended one by
    one as images of their own.
    """
    some = tiff.series
    first = some[0]
    alike = len(some) > 1 and all(
        one.kind in ("shaped", "generic")
        and one.shape == first.shape == tuple(one.keyframe.shape)
        and one.dtype == first.dtype
        for one in some
    )
    return some if alike else [first]


def pages_of(some: Sequence[Any]) -> Sequence[Any]:
    """Return the pages of series."""
    return some[0].pages if len(some) == 1 else [page for one in some for page in one.pages]


def unlike_pages(tiff: tifffile.TiffFile) -> list[str]:
    """Describe the images beside the frames, other than previews of reduced size."""
    frames = frame_series(tiff)
    return [
        f"page {one.keyframe.index} of {tuple(one.shape)}, {one.dtype}"
        for one in tiff.series
        if one not in frames and not one.keyframe.is_reduced
    ]


def check_image(tiff: tifffile.TiffFile, series: Any) -> None:
    """Check that neither an image nor any of its parts is larger than its file can hold.

    Raises
    ------
    FillError
        If the image or a part is too large, missing, or compressed in a way that is not read.
    """
    check_cell(series.shape, series.dtype.itemsize, tiff.filehandle.size)
    check_pages(tiff, series.pages)


def check_pages(tiff: tifffile.TiffFile, pages: Iterable[Any]) -> None:
    """Check that the unpacked size of pages is known beforehand and that the file can hold it.

    Raises
    ------
    FillError
        If a page or a part of it is too large, or is compressed in a way that is not read, or if a
        page is None, in whose place tifffile would give zeros.
    """
    for page in pages:
        if page is None:
            raise FillError(
                "a part of the image is missing, or is in another file that cannot be read"
            )
        if page.compression not in BOUNDED and page.compression not in INFLATED:
            name = getattr(page.compression, "name", page.compression)
            raise FillError(f"the image is compressed by {name}, which is not supported")
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
    """Check the sizes in the headers of JPEG parts, which the decoder trusts."""
    file, most = tiff.filehandle, page.nbytes + SLACK
    for offset, count in zip(page.dataoffsets, page.databytecounts):
        file.seek(offset)
        shape = jpeg_shape(file.read(min(count, file.size)))
        if prod(shape) > most:
            raise FillError(f"a part of the image is a JPEG image of {shape}")


def _check_inflated(inflate: Any, data: bytes, most: int) -> None:
    """Unpack in steps of ``STEP`` bytes, keeping nothing; raise if more than ``most`` come out."""
    size, waiting = 0, data
    while waiting and not inflate.eof:
        found = len(inflate.decompress(waiting, STEP))
        size += found
        if size > most:
            raise FillError(f"a part of the image decompresses to more than {most:,} bytes")
        waiting = getattr(inflate, "unconsumed_tail", b"")
        if not found and not waiting:
            return
