"""The SQLite file of a store as it is opened: checked, or given the tables of a new store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ...core.durable_files import sync_folder
from ...core.errors import StoreDamaged, StoreNotFound
from ...core.formats import check_format
from .format import APPLICATION_ID, FORMAT_VERSION, create_tables
from .write_ahead import log_ahead

PAGE_BYTES = 2048
"""Size in bytes of the database's pages in new stores.

A commit logs whole pages, and each document is a commit. A short run of 13 documents logs 198 KB
with SQLite's default of 4096, 104 KB with 2048, and 65 KB with 1024. Inserting pages of 1,000
events takes 15 % longer with 1024, and equally long with the other two."""


def check_or_create(connection: sqlite3.Connection, path: Path, *, read_only: bool) -> None:
    """Check that a file is the SQLite file of a store, or make its tables if it is empty.

    Parameters
    ----------
    connection
        Connection to the file that has changed nothing yet.
    path
        Path of the file.
    read_only
        Whether to make nothing.

    Raises
    ------
    StoreNotFound
        If the file is empty and may not be written.
    StoreDamaged
        If its tables are not daskbroker's.
    StoreVersion
        If their format is newer than the known one.
    """
    with _transaction(connection, "BEGIN"):
        made = _is_made(connection, path)
    if not read_only:
        log_ahead(connection)
    if made:
        return
    if read_only:
        raise StoreNotFound(f"the store at {path.parent} is empty")
    _sync_names(path.parent)
    with _transaction(connection, "BEGIN IMMEDIATE"):
        if not _is_made(connection, path):  # another process may have been first
            create_tables(connection)


def remove_if_empty(path: Path) -> bool:
    """Remove the SQLite file of a store that this process has closed, if the store has no run.

    Parameters
    ----------
    path
        Path of the file. Its folder stays.

    Returns
    -------
    bool
        Whether it was removed. If another process has the store open, it stays.
    """
    with (
        suppress(sqlite3.Error),  # another process has it open, or it is gone or damaged
        closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=0)) as connection,
    ):
        if _has_run(connection):
            return False  # before its mode is changed: a store with runs keeps its log
        # Only the last connection may end the mode with a log. The log is removed, too.
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("BEGIN EXCLUSIVE")
        if not _has_run(connection):  # another process may have inserted one meanwhile
            path.unlink()
            return True
    return False


def _has_run(connection: sqlite3.Connection) -> bool:
    query = "SELECT 1 FROM header UNION ALL SELECT 1 FROM run"
    return connection.execute(query).fetchone() is not None


def _sync_names(root: Path) -> None:
    """Sync the names of the file and of the folder, before the store counts as made.

    This is done even if another process has made them, as it may have died before it synced.
    """
    sync_folder(root)
    with suppress(PermissionError):  # a folder made by others, which we may not read
        sync_folder(root.parent)


def _is_made(connection: sqlite3.Connection, path: Path) -> bool:
    """Return whether the file has daskbroker's tables; called within one transaction.

    Raises
    ------
    StoreDamaged
        If its tables are not daskbroker's.
    StoreVersion
        If their format is newer than the known one.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    owner = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and owner != APPLICATION_ID:
        raise StoreDamaged(f"{path} is an SQLite file, but not one of daskbroker")
    if tables:
        check_format(f"the store at {path.parent}", version, FORMAT_VERSION)
    return bool(tables)


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    try:
        connection.execute(begin)
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
