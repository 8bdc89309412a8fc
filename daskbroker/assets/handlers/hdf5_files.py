"""Opening datasets of HDF5 files, also of files that are still written or point elsewhere."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

import h5py
import hdf5plugin  # noqa: F401  (the import makes HDF5 know its filters)

from ...core.errors import FillError
from ..readable import ReadableRoots

__all__ = ["open_dataset"]

DEPTH = 8
"""So many files may point on to each other."""
SHOWN = 8
"""So many datasets of a file an error names."""


def open_dataset(path: str, name: str, *, swmr: bool, readable: ReadableRoots) -> h5py.Dataset:
    """Open one dataset to read.

    Dropping the dataset closes the file; it must not be closed while another thread reads.

    Parameters
    ----------
    path, name
        The file, and the dataset in it.
    swmr
        Expect a writer that is at work (single writer, multiple readers). Either way the other
        mode is tried too: HDF5 does not let one process open a file in both.
    readable
        Checked for the file and, where roots are set, for the files that external links,
        virtual datasets and external storage name. Links of kinds that libraries define
        themselves cannot be checked.

    Raises
    ------
    FillError
        If there is no such dataset, or a file is outside the readable roots.
    OSError
        If there is no such file, or it is no sound HDF5 file.
    """
    file = _open_file(readable.check(path), swmr)
    if readable.roots is not None:
        _check_links(file, file, name, readable, DEPTH)
    try:
        dataset = file[name]
    except (KeyError, ValueError) as error:
        raise FillError(f"no dataset {name!r} in the file ({error}); {_offer(file)}") from None
    if not isinstance(dataset, h5py.Dataset):
        raise FillError(f"{name!r} is no dataset of the file but a group; {_offer(file)}")
    if readable.roots is not None:
        _check_storage(dataset, readable, DEPTH)
    return dataset


def _open_file(path: str, swmr: bool) -> h5py.File:
    try:
        return h5py.File(path, "r", swmr=swmr)
    except FileNotFoundError:
        raise
    except OSError as error:
        try:
            return h5py.File(path, "r", swmr=not swmr)
        except OSError:
            raise error from None


def _offer(file: h5py.File) -> str:
    names: list[str] = []

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> bool | None:
        if isinstance(item, h5py.Dataset):
            names.append(f"/{name}")
        return len(names) >= SHOWN or None

    file.visititems(visit)
    return f"it has {', '.join(map(repr, names)) or 'no datasets'}"


# -- what a file points to -------------------------------------------------------------------


def _check_links(
    file: h5py.File, start: h5py.Group, name: str, readable: ReadableRoots, depth: int
) -> None:
    """Check the files that the links on the way to an object lead to, before they are opened."""
    if depth == 0:
        raise FillError(f"links lead on more than {DEPTH} times, at {name!r}")
    here = file if name.startswith("/") else start
    for part in name.split("/"):
        if part in ("", ".") or not isinstance(here, h5py.Group):
            continue
        link = here.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            for path in _candidates(link.filename, here.file.filename):
                readable.check(path)
                _check_inside(path, link.path, readable, depth - 1)
        elif isinstance(link, h5py.SoftLink):
            _check_links(here.file, here, link.path, readable, depth - 1)
        found = here.get(part)
        if found is None:
            return
        readable.check(found.file.filename)
        here = found


def _check_inside(path: str, name: str, readable: ReadableRoots, depth: int) -> None:
    with h5py.File(path, "r") as file:
        _check_links(file, file, name, readable, depth)
        found = file.get(name)
        if isinstance(found, h5py.Dataset):
            _check_storage(found, readable, depth)


def _check_storage(dataset: h5py.Dataset, readable: ReadableRoots, depth: int) -> None:
    """Check the files that hold a dataset's values outside its own file."""
    if depth == 0:
        raise FillError(f"virtual datasets lead on more than {DEPTH} times, at {dataset.name!r}")
    for name, _, _ in dataset.external or ():
        for path in _candidates(os.fsdecode(name), dataset.file.filename):
            readable.check(path)
    for source in dataset.virtual_sources() if dataset.is_virtual else ():
        if source.file_name != ".":
            for path in _candidates(source.file_name, dataset.file.filename):
                readable.check(path)
                _check_inside(path, source.dset_name, readable, depth - 1)


def _candidates(name: str, parent: str) -> Iterator[str]:
    """Where HDF5 looks for a file that another one names; ``%b`` stands for any number."""
    for path in dict.fromkeys((os.path.join(os.path.dirname(parent), name), os.path.abspath(name))):
        if os.path.lexists(path):
            yield path
        elif "%b" in path:
            yield from glob.glob(glob.escape(path).replace("%b", "*"))
