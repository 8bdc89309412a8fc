"""SQLite's write-ahead log, which lets others read while one connection writes."""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from pathlib import Path

LOG_ENDS = ("-wal", "-shm")
"""Suffixes of the files of SQLite's write-ahead log."""
LOG_BYTES = 16 * 2**20
"""Size in bytes of the log at which SQLite copies it into the database."""
LEAST_LOG_BYTES = 256 * 2**10
"""This size where there is hardly any room; a shorter log is copied too often."""
SHARE_OF_ROOM = 8
"""Fraction of the room on the disk, as its divisor, that the log may take.

The database grows when the log is copied into it, at most by the size of the log."""
BUSY_SECONDS = 60.0
"""Maximum seconds to wait for another process that writes."""


def log_of(path: Path) -> Path:
    """Return the path of the log of an SQLite file."""
    return path.with_name(path.name + LOG_ENDS[0])


def log_ahead(connection: sqlite3.Connection) -> None:
    """Set up write-ahead logging, which lets others read while this connection writes.

    The mode is kept in the file itself; the other settings are the connection's.
    """
    _keep_log(connection)
    connection.execute("PRAGMA synchronous=NORMAL")


def bound_log(connection: sqlite3.Connection, folder: Path, known: int = 0) -> int:
    """Set the size at which a connection copies the log into the database, and return it.

    It is less on a disk with little room. There a log that may grow until the disk is full can
    no longer be copied, as the database needs room to grow, and so it can never be used again
    from its beginning.

    Parameters
    ----------
    connection
        Connection that writes.
    folder
        Folder of the log.
    known
        Size that is set already; 0 if it is not known.
    """
    try:
        room = shutil.disk_usage(folder).free
    except OSError:  # the folder was moved, which the next transaction tells
        return known
    share = 1 << max(0, (room // SHARE_OF_ROOM).bit_length() - 1)  # so that it rarely changes
    wanted = min(LOG_BYTES, max(LEAST_LOG_BYTES, share))
    if wanted != known:
        page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
        connection.execute(f"PRAGMA wal_autocheckpoint={wanted // page_bytes}")
    return wanted


def rewind_log(connection: sqlite3.Connection) -> bool:
    """Copy the log into the database, without waiting for others; return whether all was copied.

    The next transaction then begins at the start of the log, unless a reader still needs the log
    as it was. SQLite syncs the log before, and the database after, so a loss of power at any
    moment loses nothing that was durable.
    """
    busy, pages, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return not busy and 0 < pages == copied


def _keep_log(connection: sqlite3.Connection) -> None:
    """Switch to a write-ahead log.

    The first time, this changes the file. SQLite's own timeout does not apply to that while
    others open the file, so it is retried here for :data:`BUSY_SECONDS`.
    """
    patience = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > patience:
                raise
        time.sleep(random.uniform(0.001, 0.02))
