"""Opening HDF5 files, also those that are still written, and datasets in them by HDF5 itself."""

from __future__ import annotations

import os

import h5py
import hdf5plugin  # noqa: F401  (the import makes HDF5 know its filters)

from ....core.errors import FillError
from ....core.listing import listed
from ....core.regular import check_regular
from ...files.readable import ReadableRoots

DRIVER = "sec2"

__all__ = ["offer", "open_dataset", "open_file"]

SHOWN = 8
"""So many datasets of a file an error names."""


def open_file(path: str, swmr: bool, readable: ReadableRoots) -> h5py.File:
    """Open a file to read. It closes when the last object of it is dropped.

    It must not be closed while another thread reads.

    Parameters
    ----------
    path
        Of a regular file.
    swmr
        Expect a writer that is at work (single writer, multiple readers). Either way the other
        mode is tried too: HDF5 does not let one process open a file in both.
    readable
        Checked for the path, and once more for the file that HDF5 then has open, where roots
        are set.

    Raises
    ------
    FillError
        If the file is outside the readable roots.
    OSError
        If there is no such file, or it is no sound HDF5 file.
    """
    if readable.roots is None:
        check_regular(path)
        return _open(path, swmr)
    with readable.open(path) as ours:
        file = _open(readable.check(path), swmr)
        theirs, known = os.fstat(file.id.get_vfd_handle()), os.fstat(ours.fileno())
        if (theirs.st_dev, theirs.st_ino) != (known.st_dev, known.st_ino):
            raise FillError(f"{path!r} was replaced while it was opened")
    return file


def _open(path: str, swmr: bool) -> h5py.File:
    # The driver is HDF5's usual one, whatever the environment says: the others have no number of
    # an open file by which it could be looked at.
    try:
        return h5py.File(path, "r", swmr=swmr, driver=DRIVER)
    except FileNotFoundError:
        raise
    except OSError as error:
        try:
            return h5py.File(path, "r", swmr=not swmr, driver=DRIVER)
        except OSError:
            raise error from None


def open_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset of an open file, by whatever way HDF5 finds it.

    Raises
    ------
    FillError
        If there is none.
    """
    try:
        dataset = file[name]
    except (KeyError, ValueError) as error:
        raise FillError(f"no dataset {name!r} in the file ({error}); {offer(file)}") from None
    if not isinstance(dataset, h5py.Dataset):
        raise FillError(f"{name!r} is no dataset of the file but a group; {offer(file)}")
    return dataset


def offer(file: h5py.File) -> str:
    """What datasets a file has, without following links, as an error says it."""
    names: list[str] = []

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> bool | None:
        if isinstance(item, h5py.Dataset):
            names.append(f"/{name}")
        return len(names) >= SHOWN or None

    file.visititems(visit)
    return f"it has {listed(map(repr, names), none='no datasets')}"
