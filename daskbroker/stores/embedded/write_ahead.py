"""SQLite's write-ahead log, which lets others read while one connection writes."""

from __future__ import annotations

import random
import sqlite3
import time
from pathlib import Path

__all__ = ["BUSY_SECONDS", "LOG_ENDS", "log_ahead", "log_of"]

LOG_ENDS = ("-wal", "-shm")
"""Suffixes of the files of SQLite's write-ahead log."""
LOG_BYTES = 16 * 2**20
"""Size in bytes of the log at which SQLite copies it into the database."""
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
    page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.execute(f"PRAGMA wal_autocheckpoint={LOG_BYTES // page_bytes}")


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
