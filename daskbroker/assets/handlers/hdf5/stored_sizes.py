"""Sizes of the stored parts of an HDF5 dataset, and limits of its chunks."""

from __future__ import annotations

import os
from math import prod

import h5py
import numpy as np
from h5py import h5d, h5p

from ....core.errors import FillError, FrameMissing

SMALL_CHUNK = 256 * 2**20
"""Maximum bytes of a chunk, independent of the rows: HDF5 decodes whole chunks even for one row."""


def stored_elsewhere(dataset: h5py.Dataset, plist: h5p.PropDCID) -> int | None:
    """Return the bytes of the other files that hold a dataset's values; None if unknown.

    For a virtual dataset or one in external storage these are the files that it names, if all of
    them exist.
    """
    if plist.get_layout() != h5d.VIRTUAL and not plist.get_external_count():
        return 0
    folder = os.path.dirname(dataset.file.filename)
    names: set[str | bytes] = set()
    if plist.get_layout() == h5d.VIRTUAL:
        count = range(plist.get_virtual_count())
        names = {plist.get_virtual_filename(number) for number in count} - {"."}
    names |= {plist.get_external(number)[0] for number in range(plist.get_external_count())}
    try:
        return sum(os.stat(os.path.join(folder, os.fsdecode(name))).st_size for name in names)
    except OSError:
        return None


def check_chunk(dataset: h5py.Dataset, plist: h5p.PropDCID, itemsize: int) -> None:
    """Check that the chunks of a dataset are not out of proportion to its rows.

    Parameters
    ----------
    dataset
        Open dataset.
    plist
        Its creation properties.
    itemsize
        Bytes of one of its elements.

    Raises
    ------
    FillError
        If a chunk has more than ``SMALL_CHUNK`` bytes and more than two rows have.
    """
    if plist.get_layout() != h5d.CHUNKED:
        return
    sides = plist.get_chunk()
    chunk, row = prod(sides) * itemsize, prod(dataset.shape[1:]) * itemsize
    if chunk > max(SMALL_CHUNK, 2 * row):
        raise FillError(
            f"the dataset {dataset.name!r} has chunks of {sides}, {chunk:,} bytes, for "
            f"rows of {row:,} bytes"
        )


class ExternalStorage:
    """The files of raw bytes in which a dataset has its values, one after the other.

    HDF5 gives zeros for what such a file is too short for.

    Parameters
    ----------
    dataset, plist, itemsize
        See :func:`check_chunk`.
    """

    def __init__(self, dataset: h5py.Dataset, plist: h5p.PropDCID, itemsize: int) -> None:
        self._name, self._row = dataset.name, prod(dataset.shape[1:]) * itemsize
        self._rest = dataset.shape[0] * self._row
        # HDF5 looks for names without a folder in the working directory.
        origin = os.path.dirname(os.path.abspath(dataset.file.filename))
        folder = os.environ.get("HDF5_EXTFILE_PREFIX", "").replace("${ORIGIN}", origin)
        parts = [plist.get_external(number) for number in range(plist.get_external_count())]
        self._parts = [(os.path.join(folder, os.fsdecode(name)), *at) for name, *at in parts]

    def check(self, rows: np.ndarray) -> None:
        """Check that the files have all bytes of some rows.

        Raises
        ------
        FrameMissing
            If a file is not there or too short.
        """
        begin, rest = 0, self._rest
        for path, offset, size in self._parts:
            size = min(size, rest)
            try:
                there = min(size, max(0, os.stat(path).st_size - offset))
            except FileNotFoundError:
                there = 0
            lost = (rows * self._row < begin + size) & ((rows + 1) * self._row > begin + there)
            if there < size and lost.any():
                raise FrameMissing(
                    f"the dataset {self._name!r} has its values in {path!r}, which is not there or "
                    f"too short for row {int(rows[lost][0])}"
                )
            begin, rest = begin + size, rest - size
