"""Backup of an embedded store while it is written.

First SQLite copies the SQLite file as it is at one instant, while writers go on in the log. Then
the files that this copy names are copied. They never change, and a file that a chunk names is
never removed, so they are as they were at that instant; files written since are not named.

Everything is written into a folder beside the target and synced, and that folder is renamed, so
an interrupted backup cannot be mistaken for a complete one.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ...core.damage import Damage
from ...core.durable_files import make_folder, sync_file, sync_folder
from ...core.errors import (
    StoreDamaged,
    StoreError,
    StoreExists,
    file_error,
    is_of_process,
    no_room,
    process_error,
)
from ...core.unfinished import unfinished
from ..backing_up import BackupReport
from .database import FILE_NAME, Database

BATCH = 1000
"""Number of file names read from the copied database at a time."""
COPIED_BYTES = 2**20
"""Bytes of a file that are copied at a time."""
OF_TARGET = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_READONLY", "SQLITE_CANTOPEN")
"""Errors of SQLite that concern the target of a backup, and not the store."""


@dataclass(frozen=True, eq=False)
class EmbeddedBackup:
    """Backup source of an embedded store; see :class:`~daskbroker.stores.backing_up.BackupSource`.

    Attributes
    ----------
    database
        Database of the store.
    """

    database: Database

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EmbeddedBackup) and self.database is other.database

    def __hash__(self) -> int:
        return id(self.database)

    def back_up(self, folder: Path) -> BackupReport:
        """See :meth:`daskbroker.stores.backing_up.BackupSource.back_up`."""
        target = folder.expanduser().resolve()
        if os.path.lexists(folder) or os.path.lexists(target):
            raise StoreExists(f"{target} already exists; it was not changed")
        if target.is_relative_to(self.database.root):
            raise StoreError(f"{target} is inside of the store at {self.database.root}")
        temporary = unfinished(target)
        report = BackupReport(target)
        try:
            with _target_errors(target):
                make_folder(temporary)
            self._fill(temporary, report)
            if report.damages:  # of a store that was moved or deleted meanwhile, nothing is kept
                self.database.check_in_place()
            with _target_errors(target):
                _publish(temporary, target)
        except BaseException:
            with suppress(OSError):  # rmtree does not ignore errors of closing a folder
                shutil.rmtree(temporary, ignore_errors=True)
            raise
        return report

    def _fill(self, folder: Path, report: BackupReport) -> None:
        database = folder / FILE_NAME
        self._copy_database(database, report.folder)
        written = [database]
        folders = {folder}
        for name in self._named(database, report.folder):
            path = folder / name
            with _target_errors(report.folder):
                path.parent.mkdir(parents=True, exist_ok=True)
            if self._copy_file(name, path, report):
                written.append(path)
                folders.update((path.parent, path.parent.parent))
        with _target_errors(report.folder):
            for path in written:
                with path.open("rb") as file:
                    sync_file(file)
                report.bytes += path.stat().st_size
            for path in sorted(folders, reverse=True):  # a folder's content before its name
                sync_folder(path)
        report.files = len(written)

    def _copy_database(self, path: Path, folder: Path) -> None:
        """Copy the SQLite file as it is now; commits meanwhile do not restart the copying."""
        with (
            self.database.read() as source,
            _target_errors(folder),
            closing(sqlite3.connect(path, isolation_level=None)) as target,
        ):
            target.execute("PRAGMA synchronous=OFF")  # the whole file is synced afterwards
            target.execute("PRAGMA journal_mode=OFF")
            source.backup(target)

    def _named(self, copy: Path, folder: Path) -> Iterator[str]:
        """Yield the paths, below the store's folder, that the copied SQLite file names."""
        try:
            with closing(sqlite3.connect(f"{copy.as_uri()}?immutable=1", uri=True)) as connection:
                query = "SELECT DISTINCT path FROM chunk WHERE path IS NOT NULL"
                cursor = connection.execute(query)
                while rows := cursor.fetchmany(BATCH):
                    yield from (row[0] for row in rows)
        except sqlite3.DatabaseError as error:
            name = getattr(error, "sqlite_errorname", None) or ""
            if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):  # copied as it is
                raise StoreDamaged(
                    f"{self.database.path} is damaged, so the files of its chunks are not known: "
                    f"{error}"
                ) from error
            raise StoreError(
                f"the backup at {folder} cannot be read: {error} ({name}); the store is not "
                "concerned"
            ) from error

    def _copy_file(self, name: str, path: Path, report: BackupReport) -> bool:
        """Copy a file of chunks; if it is missing or unreadable, report that and return False."""
        origin = self.database.root / name
        try:
            with origin.open("rb") as reader, _target_errors(report.folder), path.open("xb") as to:
                while piece := _read(reader):
                    to.write(piece)
        except _Unreadable as error:
            path.unlink(missing_ok=True)
            problem = f"{origin} cannot be read: {error}"
            report.damages.append(Damage(problem, path=str(origin)))
            return False
        except StoreError:
            raise
        except OSError as error:
            if is_of_process(error):
                raise process_error(error, origin) from error
            problem = "is missing" if isinstance(error, FileNotFoundError) else str(error)
            report.damages.append(Damage(f"{origin} {problem}", path=str(origin)))
            return False
        return True


class _Unreadable(Exception):
    """A file of the store cannot be read any further."""


def _read(reader: BinaryIO) -> bytes:
    """Read the next piece of a file of the store.

    A separate exception tells its errors from those of the disk of the backup.
    """
    try:
        return reader.read(COPIED_BYTES)
    except OSError as error:
        if is_of_process(error):
            raise process_error(error, reader.name) from error
        raise _Unreadable(str(error)) from error


def _publish(temporary: Path, target: Path) -> None:
    """Give the finished folder its name, unless something is there already."""
    # mkdir fails if something is there, while a rename alone would replace an empty folder.
    target.mkdir()
    try:
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            target.rmdir()
        raise
    sync_folder(target.parent)


@contextmanager
def _target_errors(target: Path) -> Iterator[None]:
    """Turn errors at the target of a backup into daskbroker's; leave errors of the store."""
    try:
        yield
    except StoreError:
        raise
    except FileExistsError as error:
        raise StoreExists(f"{target}: {error}") from error
    except (OSError, sqlite3.Error) as error:
        name = getattr(error, "sqlite_errorname", None) or ""
        if isinstance(error, sqlite3.Error) and not name.startswith(OF_TARGET):
            raise  # of the store's own file
        where = f"the backup at {target}"
        if isinstance(error, OSError):
            problem: StoreError = file_error(error, where)
        elif name.startswith("SQLITE_FULL"):
            problem = no_room(where)
        else:
            problem = StoreError(f"{where} cannot be written: {error} ({name})")
        raise type(problem)(f"{problem.args[0]}; the store is not concerned") from error
