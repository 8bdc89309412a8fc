"""Locate the bytes of TIFF images in their files, to make references to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tifffile

from ...core.file_identity import identity
from .stored_frames import Codec, NoReference, StoredRows
from .tiff_checks import frame_series, pages_of

CODECS: dict[int, tuple[Codec, ...]] = {
    1: (),
    8: ({"id": "zlib", "level": 6},),
    32946: ({"id": "zlib", "level": 6},),
    50000: ({"id": "zstd", "level": 3},),
}
"""Codecs by TIFF's number of a compression: none, deflate (two numbers), Zstandard."""


def stored_image(tiff: tifffile.TiffFile, path: str) -> StoredRows:
    """Return where the frames of a file lie, as one array.

    Raises
    ------
    NoReference
        If it is compressed or divided in a way that chunks of one size cannot describe.
    """
    some = frame_series(tiff)
    if len(some) > 1:
        return stored_pages(tiff, path)
    series = some[0]
    if series.dataoffset is not None:
        dtype = np.dtype(tiff.byteorder + series.dtype.char)
        state, shape = identity(path), tuple(series.shape)
        return StoredRows(path, state, shape, dtype, offset=int(series.dataoffset))
    pages = stored_pages(tiff, path)
    if pages.shape[1:] == tuple(series.shape):
        return pages.without([0])
    if pages.shape != tuple(series.shape):
        raise NoReference(f"the pages of {path!r} are not an array of {tuple(series.shape)}")
    return pages


def stored_pages(tiff: tifffile.TiffFile, path: str) -> StoredRows:
    """Return where the pages of the frames of a file lie, as rows.

    Raises
    ------
    NoReference
        If pages differ, or under the conditions of :func:`stored_image`.
    """
    pages = list(pages_of(frame_series(tiff)))
    found = [_page(page, path) for page in pages]
    if any(one[:3] != found[0][:3] for one in found):
        raise NoReference(f"the pages of {path!r} differ in shape or compression")
    (shape, chunk, codecs, _), key = found[0], pages[0]
    grid = [-(-size // side) for size, side in zip(shape, chunk)]
    table = np.array([one[3] for one in found], np.int64).reshape(len(pages), *grid, 3)
    dtype = np.dtype(tiff.byteorder + key.dtype.char)
    return StoredRows(
        *(path, identity(path), (len(pages), *shape), dtype, (1, *chunk)),
        codecs=codecs,
        table=table,
    )


def _page(page: Any, path: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[Codec, ...], Any]:
    """Return the shape of a page, the shape, codecs and byte ranges of its strips or tiles."""
    page = None if page is None else page.aspage()
    if page is None or page.samplesperpixel != 1 or page.imagedepth != 1:
        raise NoReference(f"{path!r} has pages that are missing, coloured or volumes")
    codecs = CODECS.get(int(page.compression))
    if codecs is None or page.predictor != 1 or page.fillorder != 1:
        name = getattr(page.compression, "name", page.compression)
        raise NoReference(f"{path!r} is compressed by {name} in a way for which there is no codec")
    if page.bitspersample != 8 * page.dtype.itemsize:
        raise NoReference(f"{path!r} has pixels of {page.bitspersample} bits")
    height, width = page.shape[-2:]
    rows = min(page.rowsperstrip, height)
    chunk = (page.tilelength, page.tilewidth) if page.is_tiled else (rows, width)
    if not page.is_tiled and height % rows:
        raise NoReference(f"{path!r} is divided into strips of {rows} lines, the last has fewer")
    parts = [(o, n, 0) for o, n in zip(page.dataoffsets, page.databytecounts)]
    if any(size == 0 for _, size, _ in parts):
        raise NoReference(f"{path!r} has parts that were never written")
    return (height, width), chunk, codecs, parts
