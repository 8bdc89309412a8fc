"""Tables of an embedded store's SQLite file, and the numbers that identify their format."""

from __future__ import annotations

import sqlite3
import uuid
from typing import get_type_hints

from ...core.chunk_statistics import Statistics

FORMAT_VERSION = 1
APPLICATION_ID = 0x6461736B  # "dask"

ENDED, STOPPED, COUNTED = 1, 2, 3
"""Values of ``run.stopped``: all events are sealed, or also the stop is stored.

From the third on, the number of documents that are sealed is added to it. It and the second are of
one transaction with the stop; stores of earlier versions have only the first two.
"""

# SQLite stores NaN as NULL. `ordered` is 0, or 1, or above it a checksum of the chunk's row: see
# entry_checksum in sealing.py.
_TYPES = {int: "INTEGER NOT NULL", bool: "INTEGER NOT NULL", float: "REAL"}
STATISTICS = ", ".join(f'"{name}" {_TYPES[of]}' for name, of in get_type_hints(Statistics).items())

FORMAT = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE header (
    id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, time REAL NOT NULL, scan_id INTEGER,
    start BLOB NOT NULL, stop BLOB
);
CREATE INDEX header_time ON header (time, id);
CREATE INDEX header_scan_id ON header (scan_id, time, id);
CREATE TABLE leaf (
    part TEXT NOT NULL, path TEXT NOT NULL, value NOT NULL, header INTEGER NOT NULL,
    PRIMARY KEY (part, path, value, header)
) WITHOUT ROWID;
CREATE TABLE word (
    word TEXT NOT NULL, header INTEGER NOT NULL, PRIMARY KEY (word, header)
) WITHOUT ROWID;

CREATE TABLE run (id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, stopped INTEGER NOT NULL);
CREATE TABLE descriptor (
    id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, run INTEGER NOT NULL, stream TEXT NOT NULL,
    time REAL NOT NULL, body BLOB NOT NULL
);
CREATE INDEX descriptor_run ON descriptor (run, stream);
CREATE TABLE asset (
    id INTEGER PRIMARY KEY, uid TEXT NOT NULL, kind TEXT NOT NULL, run INTEGER NOT NULL,
    UNIQUE (uid, kind, run)
);

CREATE TABLE sequence (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, owner INTEGER NOT NULL, run INTEGER NOT NULL,
    UNIQUE (kind, owner)
);
CREATE INDEX sequence_run ON sequence (run, kind);
CREATE TABLE journal (id INTEGER PRIMARY KEY, rows INTEGER, body BLOB NOT NULL);
CREATE TABLE document_key (
    hash INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, position INTEGER NOT NULL
);
CREATE TABLE chunk_schema (id INTEGER PRIMARY KEY, body TEXT NOT NULL UNIQUE);
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, first INTEGER NOT NULL, {STATISTICS},
    schema INTEGER NOT NULL, path TEXT, offset INTEGER, length INTEGER,
    UNIQUE (sequence, first)
);
CREATE TABLE chunk_body (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
"""


def create_tables(connection: sqlite3.Connection) -> None:
    """Create the tables of a new store, and its id, within a transaction."""
    for statement in FORMAT.split(";\n"):
        if statement.strip():
            connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('store_id', ?)", (uuid.uuid4().hex,))
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")
