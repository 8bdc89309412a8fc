"""Table of what was found in detector files, which is added to an embedded store when needed.

Stores of older versions lack the table, and older versions ignore it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from ..journalled import PeekRow
from .database import Database

TABLE = """
CREATE TABLE IF NOT EXISTS peek (
    run TEXT NOT NULL, descriptor TEXT NOT NULL, key TEXT NOT NULL, sort TEXT NOT NULL,
    body TEXT NOT NULL, PRIMARY KEY (run, descriptor, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS peek_sort ON peek (sort)
"""
NAMES = "run, descriptor, key, sort, body"


def select_peeks(database: Database, by: str, values: Sequence[str]) -> list[PeekRow]:
    """Return the rows of some runs, or one of each sort; none if the store lacks the table."""
    query = f"SELECT {NAMES} FROM peek WHERE {by} IN (SELECT value FROM json_each(?))"
    if by == "sort":
        query += " GROUP BY sort"
    with database.read() as connection:
        try:
            return connection.execute(query, [json.dumps(list(values))]).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise


def replace_peeks(database: Database, rows: Sequence[PeekRow]) -> None:
    """Store rows, replacing those of the same run, descriptor and data key."""
    if database.read_only:
        return
    with database.write() as connection:
        for statement in TABLE.split(";"):
            connection.execute(statement)
        connection.executemany(
            f"INSERT OR REPLACE INTO peek ({NAMES}) VALUES (?, ?, ?, ?, ?)", rows
        )
