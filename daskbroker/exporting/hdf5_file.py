"""HDF5 files that can be closed after the disk has refused a write.

HDF5 keeps metadata in memory until a file is closed. If the disk is full by then, or fails, the
file cannot be closed, and the process dies of a segmentation fault, at once or at its end. Here
HDF5 writes through a Python object, which reports at most one failure to HDF5 and drops all later
writes. So HDF5 can always close the file, and the error is raised afterwards.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPORTED_BYTES = 2**16
"""Minimum bytes of a write whose failure is reported to HDF5.

These are data, and the program that writes them stops. Smaller ones may be metadata that HDF5
writes from its cache, and if these fail, HDF5 cannot continue."""


@contextmanager
def hdf5_file(path: Path) -> Iterator[io.RawIOBase]:
    """Give a new file for HDF5 to write to, as an object that h5py, h5netcdf and xarray take.

    Raises
    ------
    OSError
        If the file could not be written wholly, with its path, at the end of the block.
    """
    with _LenientFile(path) as file:
        try:
            yield file
        except Exception as error:
            if file.failure is not None:
                raise file.failure from error
            raise
        if file.failure is not None:
            raise file.failure


class _LenientFile(io.FileIO):
    """A file whose first failed write is kept in ``failure``; all later ones are dropped."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while len(rest) and self.failure is None:
                done = super().write(rest)
                if not done:
                    raise OSError(errno.EIO, "nothing was written")
                rest = rest[done:]
        except OSError as error:
            self._note(error)
            if size >= REPORTED_BYTES:
                raise
        if len(rest):
            self.seek(len(rest), os.SEEK_CUR)
        return size

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self._note(error)
            return size or 0

    def _note(self, error: OSError) -> None:
        if error.filename is None:
            error.filename = os.fspath(self.name)
        self.failure = self.failure or error
