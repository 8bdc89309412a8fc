"""Open HDF5 files, including those that are still written, and datasets in them by HDF5 itself."""

from __future__ import annotations

import os

import h5py
import hdf5plugin  # noqa: F401  (the import makes HDF5 know its filters)

from ....core.errors import FillError
from ....core.name_lists import listed
from ....core.regular_files import check_regular
from ...files.readable import ReadableRoots

DRIVER = "sec2"

MAX_NAMED_DATASETS = 8
"""Maximum number of datasets of a file that an error message names."""


class NoRows(FillError):
    """A dataset is a single value."""


def open_file(path: str, *, swmr: bool, readable: ReadableRoots) -> h5py.File:
    """Open a file for reading. It closes when its last object is dropped.

    Do not close it explicitly, as another thread may still be reading.

    Parameters
    ----------
    path
        Path of a regular file.
    swmr
        Whether a writer is expected to be at work (single writer, multiple readers). The other
        mode is tried as well: HDF5 does not let one process open a file in both.
    readable
        Folders below which the file must be. If roots are set, the path is checked, and so is the
        file that HDF5 then has open.

    Raises
    ------
    FillError
        If the file is outside the readable roots, or was replaced while it was opened.
    OSError
        If there is no such file, or it is not an intact HDF5 file.
    """
    if readable.roots is None:
        check_regular(path)
        return _open(path, swmr=swmr)
    with readable.open(path) as ours:
        file = _open(readable.check(path), swmr=swmr)
        theirs, known = os.fstat(file.id.get_vfd_handle()), os.fstat(ours.fileno())
        if (theirs.st_dev, theirs.st_ino) != (known.st_dev, known.st_ino):
            raise FillError(f"{path!r} was replaced while it was opened")
    return file


def _open(path: str, *, swmr: bool) -> h5py.File:
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
    """Return a dataset of an open file; HDF5 follows links on the way.

    Raises
    ------
    FillError
        If there is nothing of that name, or it is not a dataset.
    """
    try:
        dataset = file[name]
    except (KeyError, ValueError) as error:
        raise FillError(f"no dataset {name!r} in the file ({error}); {offer(file)}") from None
    if not isinstance(dataset, h5py.Dataset):
        raise FillError(f"{name!r} is a group of the file, not a dataset; {offer(file)}")
    return dataset


def offer(file: h5py.File) -> str:
    """Describe a file's datasets for an error message, without following links."""
    names: list[str] = []

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> bool | None:
        if isinstance(item, h5py.Dataset):
            names.append(f"/{name}")
        return len(names) >= MAX_NAMED_DATASETS or None

    file.visititems(visit)
    return f"it has {listed(map(repr, names), none='no datasets')}"
