"""Copy detector files when runs are copied or exported.

A file goes below the new root under its whole old path (``/data/a.h5`` becomes
``<root>/data/a.h5``), so files of equal names stay apart and relative links between files stay
valid; the documents that refer to it are rewritten. A file is copied under a temporary name, read
back, compared by size and checksum, and only then renamed: every file under its final name is
complete, and an interrupted transfer can be resumed. Files and their names are synced before a
document that refers to them is passed on.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..core.documents import Document, NamedMapping
from ..core.durable_files import DurableFolders, make_folder, sync_file, sync_folder
from ..core.errors import FillError
from ..core.unfinished import remove_unfinished, unfinished
from .access import FileAccess
from .files.readable import ReadableRoots
from .files.resolving import ResolvedResource

READ_BYTES = 2**20
"""Bytes that are read at a time."""
_FIELD = re.compile(r"%[-+ 0#]*\d*(?:\.\d*)?[sdiu]|\{[^{}]*\}")


@dataclass
class FileTransfer:
    """Copies the detector files of runs below a new root.

    Attributes
    ----------
    root
        The new root, which is created if needed.
    access
        Root map and readable roots of the files to copy.
    copied, kept
        Number of files that were copied, and of files that were there already.
    bytes
        Total size of the copied files.
    """

    root: Path
    access: FileAccess
    copied: int = 0
    kept: int = 0
    bytes: int = 0
    _done: set[Path] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        self.root = Path(os.path.abspath(self.root))
        self._folders = DurableFolders(self.root)
        self._unsynced: set[Path] = set()
        self._cleared: set[Path] = set()

    def carry(self, stream: Iterable[NamedMapping]) -> Iterator[NamedMapping]:
        """Yield the documents lazily, rewriting each resource after its files are copied.

        Raises
        ------
        FillError
            If a file is missing, may not be read, or its copy differs from it.
        """
        for name, doc in stream:
            if name in ("resource", "stream_resource"):
                # Files come before the document that refers to them.
                self._copy_files(name, doc)
                doc = self.moved(name, doc)
            yield name, doc

    def moved(self, name: str, doc: Mapping[str, Any]) -> Document:
        """Return a resource or stream_resource rewritten for its files below the new root."""
        # Computed by its handler: nothing to copy and nothing to change.
        if not _has_files(doc):
            return Document(doc)
        target = self._target(Path(self._resolved(name, doc).path))
        relative = target.relative_to(self.root).as_posix()
        slash = "/" if str(doc.get("uri", "")).endswith("/") else ""
        changed = dict(doc)
        # Other programs read the uri first, so both forms must agree.
        if doc.get("uri"):
            changed["uri"] = f"file://localhost{quote(str(target))}{slash}"
        if name == "resource" or "root" in doc or "resource_path" in doc:
            changed |= {
                "root": str(self.root),
                "resource_path": relative,
                "path_semantics": "posix",
            }
        return Document(changed)

    def _resolved(self, name: str, doc: Mapping[str, Any]) -> ResolvedResource:
        where = f"run {doc.get('run_start', '')!r}"
        return self.access.resolve(doc, stream=name == "stream_resource", where=where)

    def _target(self, path: Path) -> Path:
        absolute = os.path.abspath(path)
        return self.root / absolute.lstrip("/").replace(":", "")

    # -- files -------------------------------------------------------------------------------

    def _copy_files(self, name: str, doc: Mapping[str, Any]) -> None:
        if not _has_files(doc):
            return
        resolved = self._resolved(name, doc)
        label = f"{name} {doc.get('uid')!r} of run {doc.get('run_start', '')!r}"
        try:
            found = list(files_of(resolved))
            # Without a file the copy of the run would refer to nothing.
            if not found:
                raise FillError(f"{label}: there is no file at {resolved.path!r} to copy")
            for path in found:
                for one in (path, *_linked(path, label, resolved.readable)):
                    self._copy(one, label, resolved.readable)
            # Before a document that refers to the files is passed on.
            for folder in self._unsynced:
                sync_folder(folder)
            self._unsynced.clear()
        except (OSError, ValueError) as error:  # ValueError: an impossible path, as with "\0"
            raise FillError(
                f"{label}: {resolved.path!r} cannot be copied below {str(self.root)!r}: {error}"
            ) from error

    def _copy(self, path: Path, label: str, readable: ReadableRoots) -> None:
        target = self._target(path)
        # Several resources often share a file.
        if target in self._done:
            return
        source = Path(readable.check(str(path)))
        if _is_copied(source, target):
            self.kept += 1
        else:
            make_folder(self.root)
            self._folders.make(target.parent)
            # Once for each folder, as it lists it.
            if target.parent not in self._cleared:
                remove_unfinished(target.parent)
                self._cleared.add(target.parent)
            self.bytes += _copy_checked(source, target, label)
            self.copied += 1
        # Kept files too: the process that copied one may have died before it synced the folder.
        self._unsynced.add(target.parent)
        self._done.add(target)


def _has_files(doc: Mapping[str, Any]) -> bool:
    """Return whether a resource has a path; the data of some is computed by their handlers."""
    return bool(doc.get("uri") or doc.get("resource_path"))


def files_of(resource: ResolvedResource) -> Iterator[Path]:
    """Yield the files of a resource.

    These are the file at its path; or if that is a folder, the files in it that the template can
    name; else all files of its folder whose names begin with its last part.
    """
    path = Path(resource.path)
    if path.is_file():
        yield path
    # A folder of files: only those that the template of the resource can name.
    elif path.is_dir():
        literals = _literals(resource.kwargs)
        yield from sorted(
            p for p in path.rglob("*") if p.is_file() and _is_made_of(p.name, literals)
        )
    # A path may also be the beginning of the names of its files.
    elif path.parent.is_dir():
        yield from sorted(p for p in path.parent.iterdir() if p.name.startswith(path.name))


def _literals(kwargs: Mapping[str, Any]) -> list[str]:
    """Return the texts between the fields of a template; without a template any name fits."""
    template = str(kwargs.get("template") or "").rsplit("/", 1)[-1]
    return _FIELD.split(template) if template else ["", ""]


def _is_made_of(name: str, literals: Sequence[str]) -> bool:
    """Return whether a template can make a name, if any text may stand for its fields.

    A regular expression is not used, as it would take forever as a template of many fields.
    """
    first, *middle = literals
    # No field: the template is one name.
    if not middle:
        return name == first
    last = middle.pop()
    if not name.startswith(first) or not name.endswith(last):
        return False
    position, end = len(first), len(name) - len(last)
    for literal in middle:
        found = name.find(literal, position, end)
        if found < 0:
            return False
        position = found + len(literal)
    return position <= end


def _linked(path: Path, label: str, readable: ReadableRoots) -> list[Path]:
    """Return the files that an HDF5 file refers to, and those that these refer to in turn.

    References are external links, virtual datasets and external storage.

    Raises
    ------
    FillError
        If a link is absolute, as it would lead from the copy to the original, a file is outside
        the readable roots, or a file is damaged so that its links cannot be read.
    """
    import h5py

    from .handlers.hdf5.hdf5_files import open_file

    found: dict[Path, None] = {}
    waiting = [path]
    while waiting:
        here = waiting.pop()
        readable.check(str(here))
        # Other files have no links.
        if not h5py.is_hdf5(here):
            continue
        try:
            # As handlers open it: HDF5 refuses a second way of opening while frames are being read.
            names = _names_in(open_file(str(here), swmr=False, readable=readable))
        except (RuntimeError, KeyError) as error:  # of h5py, for damage and reads that fail
            if isinstance(error, FillError):
                raise
            raise FillError(
                f"{label}: the links of {str(here)!r} to other files cannot be read: {error}"
            ) from error
        for name in names:
            # An absolute link would lead out of the copy, to the files it was made from.
            if os.path.isabs(name):
                raise FillError(
                    f"{label}: {str(here)!r} links to {name!r}; only relative links are valid "
                    "in a copy"
                )
            linked = here.parent / name
            # A missing file is missing in the copy, too; each is visited once, as links may go in
            # circles.
            if linked.is_file() and linked not in found:
                found[linked] = None
                waiting.append(linked)
    return list(found)


def _names_in(file: Any) -> set[str]:
    """Return the names of other files that an open HDF5 file has."""
    import h5py

    names: set[str] = set()

    def look(_: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        names.update(name for name, _, _ in item.external or ())
        if item.is_virtual:
            names.update(source.file_name for source in item.virtual_sources())

    def link(_: str, item: Any) -> None:
        if isinstance(item, h5py.ExternalLink):
            names.add(item.filename)

    file.visititems(look)
    file.visititems_links(link)
    return names - {".", ""}


# -- copying one file ------------------------------------------------------------------------


def _is_copied(source: Path, target: Path) -> bool:
    """Return whether a file was copied before, by its size and modification time.

    That is enough, as copies get their final name only after they were verified.
    """
    try:
        there, here = target.stat(), source.stat()
    # There is no copy yet.
    except OSError:
        return False
    return there.st_size == here.st_size and there.st_mtime_ns == here.st_mtime_ns


def _copy_checked(source: Path, target: Path, label: str) -> int:
    """Copy a file, read it back, compare, and rename it to ``target``; return its bytes.

    The name is not synced yet.
    """
    temporary = unfinished(target)
    try:
        with source.open("rb") as reader, temporary.open("wb") as writer:
            digest = _digest(reader, writer)
            writer.flush()
            # The copy is recognized by its time, so that is set before the sync.
            state = os.fstat(reader.fileno())
            os.utime(writer.fileno(), ns=(state.st_atime_ns, state.st_mtime_ns))
            sync_file(writer)
        with temporary.open("rb") as reader:
            # A disk that writes something else is noticed before the copy has its name.
            if _digest(reader) != digest:
                raise FillError(
                    f"{label}: the copy of {str(source)!r} differs from what was written"
                )
        shutil.copystat(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target.stat().st_size


def _digest(reader: Any, writer: Any = None) -> tuple[int, bytes]:
    """Return the size and checksum of what is read; copy it to ``writer`` if there is one."""
    digest, size = blake2b(digest_size=16), 0
    while piece := reader.read(READ_BYTES):
        digest.update(piece)
        size += len(piece)
        if writer is not None:
            writer.write(piece)
    return size, digest.digest()
