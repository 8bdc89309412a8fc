"""How much is really stored of an HDF5 dataset, and what chunks may be."""

from __future__ import annotations

import os
from math import prod

import h5py
from h5py import h5d, h5p

from ....core.errors import FillError

__all__ = ["check_chunk", "stored_elsewhere"]

SMALL_CHUNK = 256 * 2**20
"""Bytes that a chunk may always have: HDF5 decodes whole chunks, however little is asked."""


def stored_elsewhere(dataset: h5py.Dataset, plist: h5p.PropDCID) -> int | None:
    """Bytes of the other files that hold a dataset's values; None where they are not known.

    Of a virtual dataset that HDF5 itself puts together, these are the files that it names, if
    all are there.
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
    """Refuse a dataset whose chunks are out of proportion to its rows.

    Parameters
    ----------
    dataset, plist
        With the properties that it was made with.
    itemsize
        Of its dtype.

    Raises
    ------
    FillError
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
