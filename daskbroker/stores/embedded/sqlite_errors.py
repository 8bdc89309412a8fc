"""Errors of SQLite and the file system, told as daskbroker's."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from ...core.errors import StoreDamaged, StoreError, StoreReadOnly, file_error, no_room
from .write_ahead import BUSY_SECONDS, log_of


class SqliteErrors:
    """Context in which errors of SQLite and the file system become daskbroker's.

    As a generator it would take a tenth of the time of a look-up.

    Parameters
    ----------
    path
        Path of the SQLite file, which is in the folder of the store.
    read_only
        Whether the store was opened to read only.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self._root, self._path = path.parent, path
        self._read_only = read_only

    def __enter__(self) -> None:
        return None

    def __exit__(self, exc_type: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, sqlite3.Error):
            raise self._translated(error) from error
        if isinstance(error, OSError) and not isinstance(error, StoreError):
            raise file_error(error, f"the store at {self._root}") from error

    def _translated(self, error: sqlite3.Error) -> StoreError:
        name = getattr(error, "sqlite_errorname", "") or ""
        text = str(error)
        if name.startswith("SQLITE_FULL") or (name.startswith("SQLITE_IOERR") and self._no_room()):
            return no_room(f"the store at {self._root}")
        if name.startswith("SQLITE_CANTOPEN") and self._read_only and log_of(self._path).exists():
            return StoreReadOnly(
                f"the store at {self._root} was not closed by its last writer, and this user may "
                f"not write there: it must be opened once by a user who may: {text}"
            )
        if name.startswith(("SQLITE_READONLY", "SQLITE_PERM")) or (
            name.startswith("SQLITE_CANTOPEN") and not os.access(self._root, os.W_OK)
        ):
            return StoreReadOnly(
                f"the store at {self._root} cannot be written; mode='r' opens it to read: {text}"
            )
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or "decode to UTF-8" in text:
            return StoreDamaged(f"{self._path} is damaged or no SQLite file: {text}")
        if name.startswith("SQLITE_BUSY"):
            return StoreError(
                f"the store at {self._root} was locked by another process for "
                f"{BUSY_SECONDS:.0f} s; try again: {text}"
            )
        return StoreError(f"the store at {self._root}: {self._path}: {text} ({name})")

    def _no_room(self) -> bool:
        try:
            state = os.statvfs(self._root)
        except OSError:
            return False
        if state.f_bavail * state.f_frsize < 1 << 16:
            return True
        import resource

        # A limit on the size of files has the same effect as a full disk.
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        return limit != resource.RLIM_INFINITY
