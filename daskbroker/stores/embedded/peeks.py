"""Table of what was found in detector files, which is added to an embedded store when needed.

Stores of older versions lack the table, and older versions ignore it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence

from ...core.peeks import Peek
from ..stored_text import storable
from .database import Database

__all__ = ["find_peeks", "list_peeks", "put_peeks"]

TABLE = """
CREATE TABLE IF NOT EXISTS peek (
    run TEXT NOT NULL, descriptor TEXT NOT NULL, key TEXT NOT NULL, sort TEXT NOT NULL,
    body TEXT NOT NULL, PRIMARY KEY (run, descriptor, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS peek_sort ON peek (sort)
"""
NAMES = "run, descriptor, key, sort, body"


def list_peeks(database: Database, runs: Sequence[str]) -> list[Peek]:
    """Return the peeks of some runs; none if the store lacks the table."""
    names = {storable(uid): uid for uid in runs}
    found = _select(database, "run IN (SELECT value FROM json_each(?))", [*names])
    return _peeks((names[run], *rest) for run, *rest in found)


def find_peeks(database: Database, sorts: Sequence[str]) -> list[Peek]:
    """Return one peek of each sort, as far as the store has one."""
    found = _select(database, "sort IN (SELECT value FROM json_each(?)) GROUP BY sort", list(sorts))
    return _peeks(found)


def put_peeks(database: Database, peeks: Sequence[Peek]) -> None:
    """Store peeks, replacing those of the same run, descriptor and data key."""
    with database.write() as connection:
        for statement in TABLE.split(";"):
            connection.execute(statement)
        connection.executemany(
            f"INSERT OR REPLACE INTO peek ({NAMES}) VALUES (?, ?, ?, ?, ?)",
            [
                (
                    storable(peek.run),
                    storable(peek.descriptor),
                    storable(peek.key),
                    peek.sort,
                    peek.body(),
                )
                for peek in peeks
            ],
        )


def _select(database: Database, where: str, values: list[str]) -> list[tuple[str, ...]]:
    with database.read() as connection:
        try:
            query = f"SELECT {NAMES} FROM peek WHERE {where}"
            return connection.execute(query, [json.dumps(values)]).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise


def _peeks(rows: Iterable[Sequence[str]]) -> list[Peek]:
    made = (Peek.of_body(*row) for row in rows)
    return [peek for peek in made if peek is not None]
