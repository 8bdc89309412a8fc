"""Follow names in HDF5 files link by link, so that HDF5 opens no file by itself.

If readable roots are set, each file that an external link or a virtual dataset names is looked for
where HDF5 would look, checked, and opened by its real path. HDF5 itself is only given single names
of objects in a file that is already open.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import h5py
from h5py import h5d, h5g, h5l, h5o

from ....core.errors import FillError, FrameMissing
from ...files.readable import ReadableRoots
from .hdf5_files import offer, open_file

MOST_LINKS = 16
"""Maximum number of links that are followed for one name, as in HDF5 itself."""
LINK_PREFIX = "HDF5_EXT_PREFIX"
VIRTUAL_PREFIX = "HDF5_VDS_PREFIX"


@dataclass(frozen=True, eq=False)
class LinkedFile:
    """An open file, and the folders in which files that it names are looked for.

    Attributes
    ----------
    file
        File, opened by its real path.
    folders
        Folder of the path under which it was found, then that of its real path if different.
    """

    file: h5py.File
    folders: tuple[str, ...]

    @property
    def path(self) -> str:
        """Real path of the file."""
        return str(self.file.filename)


class LinkedFiles:
    """A file and the files that names in it lead to, each opened once.

    Parameters
    ----------
    path, swmr
        Path of the first file, and mode of all; see :func:`~.hdf5_files.open_file`.
    readable
        Folders below which every file must be.
    """

    def __init__(self, path: str, *, swmr: bool, readable: ReadableRoots) -> None:
        self._swmr, self._readable = swmr, readable
        self._open: dict[str, LinkedFile] = {}
        self.first = self.open(path)

    def open(self, path: str) -> LinkedFile:
        """Return the file at a path; it is opened if it is not open yet."""
        real = self._readable.check(path)
        if real not in self._open:
            folders = dict.fromkeys(os.path.dirname(os.path.abspath(p)) for p in (path, real))
            file = open_file(path, swmr=self._swmr, readable=self._readable)
            self._open[real] = LinkedFile(file, tuple(folders))
        return self._open[real]

    def open_named(self, name: str, by: LinkedFile, prefix: str = LINK_PREFIX) -> LinkedFile:
        """Return a file that another file names.

        Parameters
        ----------
        name
            Name as recorded: an absolute path, or one relative to the other file's folder.
        by
            File that has the name.
        prefix
            Environment variable that lists further folders.

        Raises
        ------
        FrameMissing
            If there is no such file.
        FillError
            If it is outside the readable roots.
        """
        for path in _candidates(name, by, prefix):
            if os.path.lexists(path):
                return self.open(path)
        raise FrameMissing(f"{by.path!r} refers to the file {name!r}, which is not there")

    def find(self, name: str, start: LinkedFile | None = None) -> tuple[LinkedFile, h5py.Dataset]:
        """Find a dataset by its name; return the file that it is in, and the dataset.

        Parameters
        ----------
        name
            Path in the file, through any groups and links.
        start
            File to begin in; the first file if None.

        Raises
        ------
        FillError
            If there is no such dataset, a file is outside the readable roots, there are too many
            links, or a link is of a kind that cannot be followed.
        """
        file = start or self.first
        here, parts, followed = _root(file), deque(_steps_of(name)), 0
        while parts:
            part = parts.popleft()
            link = _link(file, here, part, name)
            if link.type == h5l.TYPE_HARD:
                here = h5o.open(here, part)
                continue
            followed += 1
            if followed > MOST_LINKS:
                raise FillError(
                    f"{file.path!r}: more than {MOST_LINKS} links lead from one to the next, at "
                    f"{name!r}"
                )
            if link.type == h5l.TYPE_SOFT:
                target = os.fsdecode(here.links.get_val(part))
                here = _root(file) if target.startswith("/") else here
            elif link.type == h5l.TYPE_EXTERNAL:
                named, target = map(os.fsdecode, here.links.get_val(part))
                file = self.open_named(named, file)
                here = _root(file)
            else:
                raise FillError(
                    f"{file.path!r}: the link {os.fsdecode(part)!r} is of a kind that libraries "
                    "define themselves; it is not followed where readable roots are set"
                )
            parts.extendleft(reversed(_steps_of(target)))
        if not isinstance(here, h5d.DatasetID):
            raise FillError(f"{name!r} is a group of the file, not a dataset; {offer(file.file)}")
        return file, h5py.Dataset(here)


def _root(file: LinkedFile) -> h5g.GroupID:
    return h5o.open(file.file.id, b"/")


def _steps_of(name: str) -> list[bytes]:
    if "\0" in name:
        raise FillError(f"the name {name!r} contains a null character")
    return [os.fsencode(part) for part in name.split("/") if part not in ("", ".")]


def _link(file: LinkedFile, here: h5o.ObjectID, part: bytes, name: str) -> h5l.LinkInfo:
    """Return the link of a name in a group, without following it."""
    try:
        return here.links.get_info(part)
    except (AttributeError, RuntimeError, KeyError):
        raise FillError(
            f"no dataset {name!r} in the file {file.path!r}: {os.fsdecode(part)!r} is not there; "
            f"{offer(file.file)}"
        ) from None


def _candidates(name: str, by: LinkedFile, prefix: str) -> Iterator[str]:
    """Yield the paths at which HDF5 looks for a file that another one names, in its order.

    If an absolute path does not exist, HDF5 looks for its last part.
    """
    if os.path.isabs(name):
        yield name
        name = os.path.basename(name)
    for folder in filter(None, os.environ.get(prefix, "").split(os.pathsep)):
        yield os.path.join(folder.replace("${ORIGIN}", by.folders[0]), name)
    yield os.path.join(by.folders[0], name)
    yield os.path.abspath(name)
    yield os.path.join(by.folders[-1], name)
