"""How much is really stored of an HDF5 dataset, and what chunks may be."""

from __future__ import annotations

import os
from math import prod

import h5py
from h5py import h5d

from ...core.errors import FillError

__all__ = ["SizeOf", "check_chunk", "stored_elsewhere"]

SMALL_CHUNK = 256 * 2**20
"""Bytes that a chunk may always have: HDF5 decodes whole chunks, however little is asked."""


class SizeOf:
    """Tells the size of an open file; None if it is in memory, or in several parts."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file  # keeps the number open
        self._number = file.id.get_vfd_handle() if file.driver == "sec2" else None

    def __call__(self) -> int | None:
        return None if self._number is None else os.fstat(self._number).st_size


def stored_elsewhere(dataset: h5py.Dataset) -> int | None:
    """Bytes of the other files that hold a dataset's values; None where they are not known.

    Of a virtual dataset that HDF5 itself puts together, these are the files that it names, if
    all are there.
    """
    plist = dataset.id.get_create_plist()
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


def check_chunk(dataset: h5py.Dataset) -> None:
    """Refuse a dataset whose chunks are out of proportion to its rows.

    Raises
    ------
    FillError
    """
    if dataset.chunks is None:
        return
    itemsize = dataset.dtype.itemsize
    chunk, row = (prod(sides) * itemsize for sides in (dataset.chunks, dataset.shape[1:]))
    if chunk > max(SMALL_CHUNK, 2 * row):
        raise FillError(
            f"the dataset {dataset.name!r} has chunks of {dataset.chunks}, {chunk:,} bytes, for "
            f"rows of {row:,} bytes"
        )
