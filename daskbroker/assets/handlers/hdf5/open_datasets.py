"""Open datasets of one file, whether found by HDF5 or by following links here."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import h5py
from h5py import h5d, h5p

from ....core.errors import FillError, FrameMissing
from ....core.file_identity import Identity, identity
from ....core.regular_files import open_regular
from ...files.readable import ANYWHERE, ReadableRoots
from .chunk_bytes import is_written
from .concatenation import MappedRows
from .hdf5_files import NoRows, open_dataset, open_file
from .links import LinkedFile, LinkedFiles
from .row_source import HDF5Rows, RowSource
from .virtual import VirtualRows

MAX_VIRTUAL_DEPTH = 8
"""Maximum depth of virtual datasets whose sources are virtual datasets."""


@dataclass(eq=False)
class _Entry:
    """An open dataset, and the identities of its files when it was opened or refreshed."""

    rows: HDF5Rows
    state: dict[str, Identity] = field(default_factory=dict)

    def look(self, path: str) -> dict[str, Identity]:
        """Return the present identities of its files, except that of ``path``.

        The cache of handlers checks that one itself.
        """
        return {name: identity(name) for name in {*self.rows.opened} - {path}}


class OpenDatasets:
    """The open datasets of one file by name. Threads may share it.

    Without readable roots HDF5 follows links and virtual datasets itself; with them
    :class:`~.links.LinkedFiles` does.

    Parameters
    ----------
    path
        Path of the file.
    swmr
        Whether a writer is expected to be at work.
    """

    def __init__(self, path: str, *, swmr: bool) -> None:
        self.path, self._swmr = path, swmr
        self._open: dict[str, _Entry] = {}
        self._lock = threading.Lock()

    def get(self, name: str, readable: ReadableRoots) -> HDF5Rows:
        """Return a dataset, with the rows that exist now.

        Raises
        ------
        FillError
            If there is no such dataset, it has no dimensions, or it leads outside the readable
            roots.
        OSError
            If there is no such file, or it is not an intact HDF5 file.
        """
        with self._lock:
            entry = self._open.get(name)
            if entry is not None and not self._is_current(entry):
                # HDF5 opens no file anew that is still open.
                self._open.clear()
                entry = None
            if entry is None:
                entry = self._open[name] = _Entry(
                    _open_rows(self.path, name, swmr=self._swmr, readable=readable)
                )
            return entry.rows

    def _is_current(self, entry: _Entry) -> bool:
        """Return whether the dataset's other files are unchanged or could be refreshed."""
        now = entry.look(self.path)
        opened = entry.rows.opened
        known = {name: entry.state.setdefault(name, opened[name]) for name in now}
        if now == known:
            return True
        # Device and inode: a file that was replaced cannot be refreshed.
        same = all((now[name] or ())[:2] == (known[name] or ())[:2] for name in now)
        if not same or not entry.rows.watched:
            return False
        entry.rows.refresh()
        entry.state = now
        return True

    def refresh(self) -> bool:
        """Take in rows that a writer added; return False if the file has to be opened anew."""
        with self._lock:
            watched = all(entry.rows.watched for entry in self._open.values())
            # Also after the writer has ended: HDF5 opens nothing anew that a thread still reads.
            if watched:
                for entry in self._open.values():
                    entry.rows.refresh()
            # What no such writer changed may be anywhere else in the file.
            return watched and _is_written(self.path)


def _is_written(path: str) -> bool:
    try:
        with open_regular(path, buffering=0) as file:
            return is_written(file.fileno())
    except OSError:
        return False


def _open_rows(path: str, name: str, *, swmr: bool, readable: ReadableRoots) -> HDF5Rows:
    if readable.roots is None:
        return _open_anywhere(
            open_file(path, swmr=swmr, readable=readable), name, swmr=swmr, depth=MAX_VIRTUAL_DEPTH
        )
    return _open_linked(
        LinkedFiles(path, swmr=swmr, readable=readable), None, name, MAX_VIRTUAL_DEPTH
    )


def _open_anywhere(file: h5py.File, name: str, *, swmr: bool, depth: int) -> HDF5Rows:
    """Open a dataset that HDF5 finds; no source of a virtual one may be missing.

    Raises
    ------
    FrameMissing
        If an external link leads to a file that is not there.
    """
    try:
        dataset = open_dataset(file, name)
    except FillError as error:
        dataset = _linked(file, name, error, swmr=swmr)
    plist = dataset.id.get_create_plist()
    whole = _rows_of(dataset, plist)
    if depth == 0 or plist.get_layout() != h5d.VIRTUAL:
        return whole
    try:
        files = LinkedFiles(str(dataset.file.filename), swmr=swmr, readable=ANYWHERE)
        parts = VirtualRows(
            *(files, files.first, dataset),
            lambda where, of: _open_anywhere(where.file, of, swmr=swmr, depth=depth - 1),
        )
    except FillError:  # a mapping that only HDF5 can read
        return whole
    # While mappings grow, files that are not there yet are not missing.
    return whole if parts.grows else MappedRows(whole, parts)


def _linked(file: h5py.File, name: str, error: FillError, *, swmr: bool) -> h5py.Dataset:
    """Return a dataset in a linked file that HDF5 does not open, as it is open in the other mode.

    Raises
    ------
    FrameMissing, OSError
        If the linked file is not there, or cannot be opened.
    FillError
        The given error, if there is no such dataset.
    """
    try:
        return LinkedFiles(str(file.filename), swmr=swmr, readable=ANYWHERE).find(name)[1]
    except (FrameMissing, OSError):
        raise
    except FillError:
        raise error from None


def _open_linked(files: LinkedFiles, start: LinkedFile | None, name: str, depth: int) -> HDF5Rows:
    """Open a dataset without HDF5 following any link or file name."""
    file, dataset = files.find(name, start)
    plist = dataset.id.get_create_plist()
    if plist.get_external_count():
        raise FillError(
            f"{file.path!r}: the dataset {name!r} has its values in "
            f"{plist.get_external(0)[0]!r}, as raw external storage, which is not read where "
            "readable roots are set"
        )
    if plist.get_layout() != h5d.VIRTUAL:
        return _rows_of(dataset, plist)
    if depth == 0:
        raise FillError(
            f"more than {MAX_VIRTUAL_DEPTH} virtual datasets refer from one to the next, at "
            f"{name!r}"
        )
    return VirtualRows(
        files, file, dataset, lambda where, of: _open_linked(files, where, of, depth - 1)
    )


def _rows_of(dataset: h5py.Dataset, plist: h5p.PropDCID) -> RowSource:
    if not dataset.shape:
        raise NoRows(f"the dataset {dataset.name!r} has no dimensions, so no rows of frames")
    return RowSource(dataset, plist)
