"""Handlers of files in NumPy's own format. Pickled objects are never read."""

from __future__ import annotations

import os
from math import prod
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.lib.format import (
    read_array_header_1_0,
    read_array_header_2_0,
    read_magic,
)

from ...core.errors import FillError, FrameMissing
from ...core.file_identity import identity
from ..regions import Roi, axes_of, shape_of, take_region
from ..shapes import Shape
from .contract import Block, Datums, FramesThere
from .frame_rows import cell_frames
from .sequences import DatumFiles, FileSequence, StreamSequence, region_of
from .stored_frames import CellFrames, NoReference, StoredRows


class _NPY(FileSequence):
    """Reads npy files; for a region the file is mapped, so only the needed pages are read."""

    def load(self, file: BinaryIO, roi: Roi, like: Shape | None = None) -> np.ndarray:
        shape, order, dtype = _header(file)
        axes = region_of(file, shape, roi, like)
        if not roi:
            whole = np.fromfile(file, dtype, prod(shape)).reshape(shape, order=order)
            return whole.astype(dtype.newbyteorder("="), copy=False)
        mapped = np.memmap(file, dtype, "r", file.tell(), shape, order)
        return np.array(take_region(mapped, axes), dtype.newbyteorder("="))

    def look_in(self, file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
        header = _header(file)
        return header.shape, header.dtype

    def stored_in(self, file: BinaryIO, path: str) -> StoredRows:
        shape, order, dtype = _header(file)
        if order != "C" or dtype.kind not in "biufc":
            raise NoReference(
                f"{path!r} has an array in Fortran order, or of elements other than numbers"
            )
        return StoredRows(path, identity(file.fileno()), shape, dtype, offset=file.tell())


class _Header(NamedTuple):
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype


def _header(file: BinaryIO) -> _Header:
    """Read the header of an npy file, and check that the file is long enough for its array.

    Raises
    ------
    FillError
        If the file has pickled objects or is too short.
    ValueError
        If it is not an npy file.
    """
    version = read_magic(file)
    read = read_array_header_1_0 if version == (1, 0) else read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise FillError("the file has pickled objects, which are never read")
    claimed, there = prod(shape) * dtype.itemsize, os.fstat(file.fileno()).st_size - file.tell()
    if claimed > there:
        raise FillError(
            f"the file declares an array of {shape}, {claimed:,} bytes, and has only {there:,}"
        )
    return _Header(shape, "F" if fortran else "C", dtype)


class SequenceNPY(DatumFiles, _NPY):
    """Specs ``NPY_SEQ`` and ``RWFS_NPY``: files ``<path>_<index>.npy``, each of which is a cell.

    Parameters
    ----------
    path
        Beginning of the file names.
    root
        Folder that a relative path refers to.
    """

    specs = frozenset({"NPY_SEQ", "RWFS_NPY"})
    keyword = "index"

    def __init__(self, path: str, /, root: str = "") -> None:
        self._stem = os.path.join(root, path)

    def name(self, number: int) -> str:
        return f"{self._stem}_{number}.npy"


class SingleNPY(_NPY):
    """Spec ``npy``: a file that is one cell. Datums have no keywords.

    Parameters
    ----------
    path
        Path of the file.
    mmap_mode
        Recorded by the writer; ignored.
    """

    specs = frozenset({"npy"})

    def __init__(self, path: str, /, mmap_mode: str | None = None) -> None:
        self._path = path

    def name(self, number: int) -> str:
        return self._path

    def read(self, datums: Datums, roi: Roi = ()) -> Block:
        if not datums.count:
            shape, dtype = self.look(0)
            return np.empty((0, *shape_of(axes_of(roi, shape))), dtype)
        cell = self.load_number(0, roi)
        return np.broadcast_to(cell, (datums.count, *cell.shape)).copy()

    def cell_shape(self, datums: Datums) -> tuple[int, ...]:
        return self.shape_of_number(0)

    def frames_of(self, datums: Datums) -> CellFrames:
        return self.whole_files(np.zeros(datums.count, np.int64))

    def first_file(self, datums: Datums) -> int | None:
        return 0


class FrameNPY(SingleNPY):
    """Spec ``npy_FRAMEWISE``: a file of frames, each of which is a cell.

    A datum has the keyword ``frame_no``. The parameters are those of :class:`SingleNPY`.
    """

    specs = frozenset({"npy_FRAMEWISE"})

    def read(self, datums: Datums, roi: Roi = ()) -> Block:
        positions, count = datums.integers("frame_no"), self.shape_of_number(0)[0]
        if len(positions) and positions.max() >= count:
            raise FrameMissing(f"there is no frame {positions.max()} among {count}")
        return self.load_number(0, (positions, *roi))

    def cell_shape(self, datums: Datums) -> tuple[int, ...]:
        return self.shape_of_number(0)[1:]

    def frames_there(self, datums: Datums) -> FramesThere | None:
        return FramesThere(self.shape_of_number(0)[0], "frame_no")

    def frames_of(self, datums: Datums) -> CellFrames:
        positions = datums.integers("frame_no")
        stored, _, _ = self.stored_files(np.zeros(1, np.int64))
        if len(positions) and positions.max() >= stored[0].shape[0]:
            raise NoReference(f"there is no frame {positions.max()} among {stored[0].shape[0]}")
        return cell_frames(stored, np.zeros_like(positions), positions, 1, has_axis=False)


class StreamNPY(StreamSequence, _NPY):
    """Mimetype ``multipart/related;type=application/x-npy``.

    It differs from :class:`~.sequences.StreamSequence` in two points: files are stacked by
    default, and without ``template`` they are named ``<path>_<index>.npy``.
    """

    specs = frozenset({"multipart/related;type=application/x-npy"})
    join = "stack"

    def name(self, number: int) -> str:
        return super().name(number) if self._template else f"{self._folder}_{number}.npy"
