"""Handler of IMM files, which detectors for photon correlation at the APS write."""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from ...core.errors import FillError
from ...core.file_identity import identity
from ..files.readable import ReadableRoots
from ..files.sizes import check_cell
from ..regions import Axis, Roi, axes_of, shape_of, take_region
from .contract import Block, BlockHandler, Datums, FramesThere
from .frame_rows import Located, locate_events, one_dataset, read_events, whole_region
from .layout import frame_count
from .stored_frames import CellFrames, NoReference, StoredRows

HEADER = 1024
"""Bytes of the header of each frame, after which its values follow."""
SPARSE = 6
"""The format's number of frames of which only the pixels with photons are stored."""
MOST_PIXELS = 2**31
DARK = 16
"""Weight of the bytes of sparse frames where they are compared with memory: a frame of 4 million
pixels without photons is only a header."""
PIECE = 2**22
"""Bytes that are read at a time to search for zeros."""
FAR = 2**26
"""Bytes that are searched for another frame after one that seems to be the last."""


class _FrameHeader(NamedTuple):
    """Shape of a frame, bytes of a value, and number of the stored values."""

    sparse: bool
    frame: tuple[int, int]
    width: int
    values: int

    @property
    def payload(self) -> int:
        """Bytes of the values of the frame, and of the positions of its pixels if sparse."""
        return self.values * (self.width + 4 * self.sparse)


class _Frames:
    """The rows of an IMM file: its complete frames.

    Parameters
    ----------
    path
        Path of the file.
    readable
        Limits which files may be opened.

    Raises
    ------
    FillError
        If it is not an IMM file, or its frames differ in shape or kind.
    """

    def __init__(self, path: str, readable: ReadableRoots) -> None:
        self.name, self._readable = path, readable
        with readable.open(path) as file:
            self._path, self._state = readable.check(path), identity(file.fileno())
            self._size = os.fstat(file.fileno()).st_size
            self._first = first = _header_at(file, 0)
            check_cell(first.frame, 4, self._size)
            self._table = _places(file, first, self._size)
        self.shape = (len(self._table), *first.frame)
        self._sparse = first.sparse
        # Photons of a pixel are stored in two bytes; as in area-detector-handlers they get four.
        self.dtype = np.dtype("<u4" if first.sparse else f"<u{first.width}")

    def stored(self, rows: np.ndarray | None = None) -> int | None:
        """Return the bytes of the frames, weighted; None if all their pixels are stored."""
        if not self._sparse:
            return None
        places = self._table if rows is None else self._table[rows]
        return DARK * (len(places) * HEADER + int(places[:, 1].sum()))

    def read(self, rows: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
        """Read a region of some rows; see :func:`~.hdf5.row_source.read_rows`."""
        out = np.empty((len(rows), *shape_of(axes)), self.dtype.newbyteorder("="))
        with self._readable.open(self.name) as file:
            for position, row in enumerate(rows.tolist()):
                load = self._pixels if self._sparse else self._mapped
                out[position] = take_region(load(file, row), axes)
        return out

    def _mapped(self, file: BinaryIO, row: int) -> np.ndarray:
        self._check_header(file, row)
        return np.memmap(file, self.dtype, "r", int(self._table[row, 0]), self.shape[1:])

    def _check_header(self, file: BinaryIO, row: int) -> None:
        """Check a frame of which only the place is known, as frames have one size."""
        _check_alike(_header_at(file, int(self._table[row, 0]) - HEADER), self._first, row)

    def _pixels(self, file: BinaryIO, row: int) -> np.ndarray:
        offset, size = self._table[row].tolist()
        count = size // 6
        file.seek(offset)
        data = file.read(size)
        if len(data) < size:
            raise FillError(f"frame {row} of the file is cut off")
        positions = np.frombuffer(data, "<u4", count)
        frame = np.zeros(self.shape[1:], self.dtype)
        if count and positions.max() >= frame.size:
            raise FillError(
                f"frame {row} of the file has a pixel {positions.max()}, outside of {frame.shape}"
            )
        frame.reshape(-1)[positions] = np.frombuffer(data, "<u2", count, 4 * count)
        return frame

    def locate(self, rows: np.ndarray) -> Located:
        """Return where some frames lie, unless they are sparse."""
        if self._sparse:
            raise NoReference(f"{self.name!r} has only the pixels with photons of each frame")
        with self._readable.open(self.name) as file:
            for row in np.unique(rows).tolist():
                self._check_header(file, row)
        table = np.zeros((len(self._table), 1, 1, 3), np.int64)
        table[:, 0, 0, :2] = self._table
        chunk = (1, *self.shape[1:])
        place = self._path, self._state, self.shape, self.dtype, chunk
        return one_dataset(StoredRows(*place, table=table), rows)


def _places(file: BinaryIO, first: _FrameHeader, size: int) -> np.ndarray:
    """Return offset and size of the values of each complete frame, ``(frames, 2)``.

    The last frame may be cut off, and zeros may follow, as after an aborted run.

    Raises
    ------
    FillError
        If a frame before the last one is damaged.
    """
    if not first.sparse:  # frames of one size; their headers are compared when they are read
        step = HEADER + first.payload
        begins = np.arange(HEADER, size - first.payload + 1, step)
        while len(begins) and _is_zero(file, int(begins[-1]) - HEADER, HEADER):
            begins = begins[:-1]
        return np.stack([begins, np.full_like(begins, first.payload)], axis=1)
    places = array("q")  # there may be as many frames as headers fit into the file
    at = 0
    while at + HEADER <= size:
        try:
            header = _header_at(file, at)
        except FillError:
            if at and _is_zero(file, at, size - at):
                break
            raise
        _check_alike(header, first, len(places) // 2)
        end = at + HEADER + header.payload
        if end > size:
            _check_last(file, at, first, len(places) // 2)
            break
        places.extend((at + HEADER, header.payload))
        at = end
    return np.array(places, np.int64).reshape(-1, 2)


def _is_zero(file: BinaryIO, begin: int, size: int) -> bool:
    """Return whether a part of the file has only zeros."""
    file.seek(begin)
    for left in range(size, 0, -PIECE):
        data = file.read(min(left, PIECE))
        if data.count(0) < len(data):
            return False
    return True


def _check_last(file: BinaryIO, at: int, first: _FrameHeader, number: int) -> None:
    """Check that no frame follows in what seems to be the last one, which the file's end cuts off.

    Raises
    ------
    FillError
        If there is one: then the number of values is wrong.
    """
    file.seek(at + HEADER)
    rest = file.read(min(first.frame[0] * first.frame[1] * 6, FAR))
    kind, shape = struct.pack("<i", SPARSE), struct.pack("<2i", *first.frame)
    found = rest.find(shape, 108)
    while found >= 0:
        if rest[found - 104 : found - 100] == kind:
            raise FillError(
                f"the header of frame {number}, at byte {at:,}, declares more values than the file "
                f"has, but another frame begins at byte {at + HEADER + found - 108:,}"
            )
        found = rest.find(shape, found + 1)


def _check_alike(header: _FrameHeader, first: _FrameHeader, number: int) -> None:
    if header[:3] != first[:3]:
        raise FillError(f"frame {number} of the file differs in shape or kind from the first")


def _header_at(file: BinaryIO, offset: int) -> _FrameHeader:
    """Read the header of a frame.

    Raises
    ------
    FillError
        If it makes no sense.
    """
    file.seek(offset)
    data = file.read(HEADER)
    if len(data) < HEADER:
        raise FillError("it is not an IMM file, or is cut off")
    (compression,) = struct.unpack_from("<i", data, 4)
    rows, columns, width = struct.unpack_from("<3i", data, 108)
    (count,) = struct.unpack_from("<I", data, 152)
    pixels, sparse = rows * columns, compression == SPARSE
    possible = count <= pixels if sparse else count == pixels and width in (2, 4)
    if rows < 1 or columns < 1 or pixels > MOST_PIXELS or not possible:
        raise FillError(
            f"it is not an IMM file, or of an unknown kind: the header at byte {offset:,} declares "
            f"a frame of {(rows, columns)} with {count} values of {width} bytes, compression "
            f"{compression}"
        )
    return _FrameHeader(sparse, (rows, columns), 2 if sparse else width, count)


class IMM(BlockHandler):
    """Spec ``IMM``: a file of frames, n of which are a cell.

    A datum has the keyword ``index``; its cell is ``frames[index * n : (index + 1) * n]``, of shape
    ``(n, height, width)``. It is uint32 if only the pixels with photons are stored.

    Parameters
    ----------
    path
        Path of the file.
    frames_per_point
        Number n of frames of a cell.
    """

    specs = frozenset({"IMM"})

    def __init__(self, path: str, /, frames_per_point: int) -> None:
        self._path = path
        self._per_point = frame_count(frames_per_point, "frames_per_point")
        self._known: _Frames | None = None

    def read(self, datums: Datums, roi: Roi = ()) -> Block:
        source, positions = self._frames(), datums.integers("index")
        axes = axes_of(roi, (self._per_point, *source.shape[1:]))
        return read_events(source, positions, self._per_point, axes, whole_region(source.shape))

    def cell_shape(self, datums: Datums) -> tuple[int, ...]:
        return (self._per_point, *self._frames().shape[1:])

    def cell_dtype(self, datums: Datums) -> np.dtype | None:
        return self._frames().dtype.newbyteorder("=")

    def frames_there(self, datums: Datums) -> FramesThere | None:
        frames = self._frames().shape[0]
        return FramesThere(frames, "index", self._per_point, option="frames_per_point")

    def frames_of(self, datums: Datums) -> CellFrames:
        source, positions = self._frames(), datums.integers("index")
        return locate_events(source, positions, self._per_point, whole_region(source.shape))

    def _frames(self) -> _Frames:
        if self._known is None:
            self._known = _Frames(self._path, self.readable)
        return self._known
