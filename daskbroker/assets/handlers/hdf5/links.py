"""Names in HDF5 files followed by ourselves, link by link, so that HDF5 opens no file by itself.

Where readable roots are set, each file that an external link or a virtual dataset names is looked
for where HDF5 would look, checked, and opened by its real path. HDF5 only ever gets single names,
of objects that lie in the file at hand.
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
from .files import offer, open_file

__all__ = ["LinkedFile", "LinkedFiles"]

MOST_LINKS = 16
"""So many links may lead on to each other, as in HDF5 itself."""
LINK_PREFIX = "HDF5_EXT_PREFIX"
VIRTUAL_PREFIX = "HDF5_VDS_PREFIX"


@dataclass(frozen=True, eq=False)
class LinkedFile:
    """An open file, and where files that it names are looked for.

    Attributes
    ----------
    file
        Opened by its real path.
    folders
        Of the name it was found under, then of its real path.
    """

    file: h5py.File
    folders: tuple[str, ...]

    @property
    def path(self) -> str:
        """The real path."""
        return str(self.file.filename)


class LinkedFiles:
    """A file, and those that names in it lead to, each opened once.

    Parameters
    ----------
    path, swmr
        Of the first; see :func:`~.files.open_file`.
    readable
        Checked for every file.
    """

    def __init__(self, path: str, swmr: bool, readable: ReadableRoots) -> None:
        self._swmr, self._readable = swmr, readable
        self._open: dict[str, LinkedFile] = {}
        self.first = self.open(path)

    def open(self, path: str) -> LinkedFile:
        """A file by its path."""
        real = self._readable.check(path)
        if real not in self._open:
            folders = dict.fromkeys(os.path.dirname(os.path.abspath(p)) for p in (path, real))
            file = open_file(path, self._swmr, self._readable)
            self._open[real] = LinkedFile(file, tuple(folders))
        return self._open[real]

    def open_named(self, name: str, by: LinkedFile, prefix: str = LINK_PREFIX) -> LinkedFile:
        """A file that another one names.

        Parameters
        ----------
        name
            As it is recorded: absolute, or relative to the other one's folder.
        by
            The other one.
        prefix
            Environment variable with further folders.

        Raises
        ------
        FillError
            If there is no such file, or it is outside the readable roots.
        """
        for path in _candidates(name, by, prefix):
            if os.path.lexists(path):
                return self.open(path)
        raise FrameMissing(f"{by.path!r} refers to the file {name!r}, which is not there")

    def find(self, name: str, start: LinkedFile | None = None) -> tuple[LinkedFile, h5py.Dataset]:
        """A dataset by its name, and the file that it is in.

        Parameters
        ----------
        name
            Path in the file, over any groups and links.
        start
            File to begin in; None: the first.

        Raises
        ------
        FillError
            If there is none, a file is outside the readable roots, or a link is of a kind that
            cannot be followed.
        """
        file = start or self.first
        here, parts, followed = _root(file), deque(_parts(name)), 0
        while parts:
            part = parts.popleft()
            link = _link(file, here, part, name)
            if link.type == h5l.TYPE_HARD:
                here = h5o.open(here, part)
                continue
            followed += 1
            if followed > MOST_LINKS:
                raise FillError(
                    f"{file.path!r}: links lead on more than {MOST_LINKS} times, at {name!r}"
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
            parts.extendleft(reversed(_parts(target)))
        if not isinstance(here, h5d.DatasetID):
            raise FillError(f"{name!r} is no dataset of the file but a group; {offer(file.file)}")
        return file, h5py.Dataset(here)


def _root(file: LinkedFile) -> h5g.GroupID:
    return h5o.open(file.file.id, b"/")


def _parts(name: str) -> list[bytes]:
    if "\0" in name:
        raise FillError(f"the name {name!r} has a null character")
    return [os.fsencode(part) for part in name.split("/") if part not in ("", ".")]


def _link(file: LinkedFile, here: h5o.ObjectID, part: bytes, name: str) -> h5l.LinkInfo:
    """What leads on from a group; the link itself, not what it leads to."""
    try:
        return here.links.get_info(part)
    except (AttributeError, RuntimeError, KeyError):
        raise FillError(
            f"no dataset {name!r} in the file {file.path!r}: {os.fsdecode(part)!r} is not there; "
            f"{offer(file.file)}"
        ) from None


def _candidates(name: str, by: LinkedFile, prefix: str) -> Iterator[str]:
    """Where HDF5 looks for a file that another one names, in its order.

    Of an absolute name that is not there it takes the last part.
    """
    if os.path.isabs(name):
        yield name
        name = os.path.basename(name)
    for folder in filter(None, os.environ.get(prefix, "").split(os.pathsep)):
        yield os.path.join(folder.replace("${ORIGIN}", by.folders[0]), name)
    yield os.path.join(by.folders[0], name)
    yield os.path.abspath(name)
    yield os.path.join(by.folders[-1], name)
