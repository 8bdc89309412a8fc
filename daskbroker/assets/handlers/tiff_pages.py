"""Handler of TIFF files of many pages, each of which is a frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from ...core.errors import FillError, FrameMissing
from ...core.file_identity import Identity, identity
from ...core.name_lists import listed
from ..files.readable import ReadableRoots
from ..regions import Axis, Roi, shape_of, take_region
from .contract import Block, Datums
from .frame_rows import ArrayRows, Located, Rows, one_dataset
from .stored_frames import CellFrames
from .stream_rows import StreamRows
from .tiff import opened_tiff
from .tiff_checks import check_pages, frame_series, pages_of, unlike_pages
from .tiff_stored import stored_pages


class StreamPages(StreamRows):
    """Mimetype ``image/tiff``: one file whose pages are the frames of all events.

    Parameters
    ----------
    file
        Path of the file.
    **others
        See :class:`~.stream_rows.StreamRows`.
    """

    specs = frozenset({"image/tiff"})

    def __init__(self, file: str, /, **others: Any) -> None:
        super().__init__(**others)
        self._path = file
        self._last: tuple[Identity, Rows] | None = None

    def source(self) -> Rows:
        """Return the pages as rows; the file is opened again if it changed."""
        found, state = self._last, identity(self.readable.check(self._path))
        if found is None or found[0] != state:
            found = state, _rows_of(self._path, self.readable)
            self._last = found
        return found[1]

    def read(self, datums: Datums, roi: Roi = ()) -> Block:
        with self._naming_unlike_pages():
            return super().read(datums, roi)

    def frames_of(self, datums: Datums) -> CellFrames:
        with self._naming_unlike_pages():
            return super().frames_of(datums)

    @contextmanager
    def _naming_unlike_pages(self) -> Iterator[None]:
        """Refuse frames that may be among pages of another shape or dtype, which are not lost."""
        try:
            yield
        except FrameMissing as error:
            with self.readable.open(self._path) as file, opened_tiff(file, self.readable) as tiff:
                unlike = unlike_pages(tiff)
            if not unlike:
                raise
            raise FillError(
                f"{error}. Further pages differ from these frames in shape or dtype, so they are "
                f"not read as frames: {listed(unlike)}"
            ) from None


def _rows_of(path: str, readable: ReadableRoots) -> Rows:
    with readable.open(path) as file, opened_tiff(file, readable) as tiff:
        some = frame_series(tiff)
        series, pages = some[0], pages_of(some)
        frame = tuple(series.keyframe.shape)
        size = tiff.filehandle.size
        count = series.size // max(1, series.keyframe.size)
        dtype = np.dtype(tiff.byteorder + series.dtype.char)
        # None if the pages are compressed or not contiguous; else the file can be mapped.
        if series.dataoffset is None or len(some) > 1:
            return _Pages(path, readable, (len(pages), *frame), dtype, size)
        mapped = np.memmap(file, dtype, "r", series.dataoffset, (count, *frame))
        return ArrayRows(mapped, path, size)


class _Pages:
    """The rows of a file whose pages are compressed or not contiguous."""

    def __init__(
        self,
        path: str,
        readable: ReadableRoots,
        shape: tuple[int, ...],
        dtype: np.dtype,
        stored: int,
    ) -> None:
        self.name, self.shape, self.dtype = path, shape, dtype
        self._readable, self._stored = readable, stored

    def stored(self, rows: np.ndarray | None = None) -> int | None:
        """Return the size of the whole file, in bytes."""
        return self._stored

    def read(self, rows: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
        """Read a region of some rows; see :func:`~.hdf5.row_source.read_rows`."""
        out = np.empty((len(rows), *shape_of(axes)), self.dtype.newbyteorder("="))
        with self._open() as file, opened_tiff(file, self._readable) as tiff:
            pages = pages_of(frame_series(tiff))
            for position, number in enumerate(rows.tolist()):
                page = pages[number]
                if page is None or tuple(page.shape) != self.shape[1:]:
                    raise FillError(f"page {number} of the file is missing or of another shape")
                check_pages(tiff, [page])
                out[position] = take_region(page.asarray(), axes)
        return out

    def locate(self, rows: np.ndarray) -> Located:
        """Return where some pages lie."""
        with self._open() as file, opened_tiff(file, self._readable) as tiff:
            return one_dataset(stored_pages(tiff, self._readable.check(self.name)), rows)

    def _open(self) -> AbstractContextManager[Any]:
        return self._readable.open(self.name)
