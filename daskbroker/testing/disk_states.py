"""The states that a disk may be in after a loss of power, given the calls made before it.

By POSIX only what was synced must survive. The bytes of a file that was written and not synced
may be lost, and so may its name if its folder was not synced, or a folder whose own name was not.
Each unsynced part may also survive, independently of the others.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .call_recorder import Call

BLOCK = 4096


@dataclass(frozen=True)
class Loss:
    """Share of the unsynced data that survives.

    Attributes
    ----------
    bytes
        Share of the blocks of 4 KiB of each write.
    names
        Share of the changes of each folder: files made, renamed or removed.
    """

    bytes: float
    names: float

    def __str__(self) -> str:
        return f"{self.bytes:.0%} of unsynced blocks, {self.names:.0%} of unsynced names"


@dataclass
class _File:
    """Bytes on disk and unsynced changes ``(order, offset, data)``; data is None for a new size."""

    synced: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, int, bytes | None]] = field(default_factory=list)


@dataclass
class _Folder:
    """Names on disk and unsynced changes ``(order, {name: item or None})``."""

    synced: dict[str, _File | _Folder] = field(default_factory=dict)
    pending: list[tuple[int, dict[str, _File | _Folder | None]]] = field(default_factory=list)

    def now(self) -> dict[str, _File | _Folder]:
        return _renamed(self.synced, (change for _, change in self.pending))


class Disk:
    """Disk to which calls are applied one after the other.

    Parameters
    ----------
    root
        Path of a folder that exists and is durable.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._top = _Folder()
        self._inodes: dict[int, _File] = {}

    def apply(self, call: Call) -> None:
        """Apply a call."""
        order = call.ended
        if call.kind in ("create", "open"):
            self._open(call)
        elif call.kind == "write":
            self._file(call.inode).pending.append((order, call.offset, call.data))
        elif call.kind == "truncate":
            self._file(call.inode).pending.append((order, call.offset, None))
        elif call.kind == "sync":
            self._sync(call)
        elif call.kind == "mkdir":
            self._change(call.path, _Folder(), order)
        elif call.kind in ("unlink", "rmdir"):
            self._change(call.path, None, order)
        elif call.kind == "rename":
            self._rename(call)

    def give_up(self, path: str) -> None:
        """Drop what was written to a file and not synced, as after a failed sync."""
        found = self._find(path)
        if isinstance(found, _File):
            found.pending.clear()

    def _open(self, call: Call) -> None:
        if call.kind == "create":
            made = self._inodes[call.inode] = _File()  # numbers of removed files are used again
            self._change(call.path, made, call.ended)
        if call.offset == -1:
            self._file(call.inode).pending.append((call.ended, 0, None))

    def _sync(self, call: Call) -> None:
        found = self._find(call.path)
        if isinstance(found, _Folder):
            early = [change for order, change in found.pending if order < call.began]
            found.synced = _renamed(found.synced, early)
            found.pending = [item for item in found.pending if item[0] >= call.began]
            return
        file = self._file(call.inode)
        for _, offset, data in (item for item in file.pending if item[0] < call.began):
            _put(file.synced, offset, data)
        file.pending = [item for item in file.pending if item[0] >= call.began]

    def _rename(self, call: Call) -> None:
        what = self._find(call.path)
        above, name = os.path.split(call.path)
        new_above, new_name = os.path.split(call.other)
        if above == new_above:  # one step, on any file system
            self._folder(above).pending.append((call.ended, {name: None, new_name: what}))
        else:
            self._change(call.other, what, call.ended)
            self._change(call.path, None, call.ended)

    def _change(self, path: str, what: _File | _Folder | None, order: int) -> None:
        above, name = os.path.split(path)
        self._folder(above).pending.append((order, {name: what}))

    def _file(self, inode: int) -> _File:
        return self._inodes[inode]

    def _folder(self, path: str) -> _Folder:
        found = self._find(path)
        assert isinstance(found, _Folder), path
        return found

    def _find(self, path: str) -> _File | _Folder | None:
        found: _File | _Folder | None = self._top
        for name in Path(path).relative_to(self._root).parts:
            found = found.now().get(name) if isinstance(found, _Folder) else None
        return found

    # -- a state -----------------------------------------------------------------------------

    def write_state(self, target: Path, loss: Loss, choose: random.Random) -> None:
        """Write a folder with what survives; unsynced parts are chosen at random."""
        self._write_folder(self._top, target, loss, choose)

    def _write_folder(
        self, folder: _Folder, target: Path, loss: Loss, choose: random.Random
    ) -> None:
        target.mkdir(parents=True, exist_ok=True)
        kept = [change for _, change in folder.pending if choose.random() < loss.names]
        for name, what in _renamed(folder.synced, kept).items():
            if isinstance(what, _Folder):
                self._write_folder(what, target / name, loss, choose)
            elif not name.endswith("-shm"):  # SQLite makes it anew after a crash
                (target / name).write_bytes(_survived(what, loss, choose))


def _renamed(
    names: dict[str, _File | _Folder], changes: Iterable[dict[str, _File | _Folder | None]]
) -> dict[str, _File | _Folder]:
    """Return the names after some changes."""
    names = dict(names)
    for change in changes:
        for name, what in change.items():
            if what is None:
                names.pop(name, None)
            else:
                names[name] = what
    return names


def _survived(file: _File, loss: Loss, choose: random.Random) -> bytes:
    data = bytearray(file.synced)
    for _, offset, new in file.pending:
        if new is None:
            if choose.random() < loss.bytes:
                _put(data, offset, None)
            continue
        begin = 0
        while begin < len(new):  # blocks are those of the file
            end = min(len(new), begin + BLOCK - (offset + begin) % BLOCK)
            if choose.random() < loss.bytes:
                _put(data, offset + begin, new[begin:end])
            begin = end
    return bytes(data)


def _put(data: bytearray, offset: int, new: bytes | None) -> None:
    """Write data into bytes; change their size if data is None."""
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    if new is None:
        del data[offset:]
    else:
        data[offset : offset + len(new)] = new
