"""Start and stop documents in an embedded store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from itertools import chain, islice, repeat
from typing import Any

from ...core.documents import pack, unpack, unpack_document
from ...core.search import Search
from ..contract import HeaderPair, HeaderStore, is_repeated, unknown_run
from .database import Database, plain_text
from .index import Narrowed, index_document, narrow

__all__ = ["EmbeddedHeaderStore"]

BATCHES = (8, 200, 5000)
"""So many rows are read by the first query, the second, and each one after that."""
BATCH_BYTES = 8 * 2**20
"""A batch ends where its documents exceed this."""


class EmbeddedHeaderStore(HeaderStore):
    """Headers in SQLite.

    Parameters
    ----------
    database
        Of the store, shared with the event source.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def insert_prepared(self, name: str, doc: Mapping[str, Any]) -> None:
        """See :meth:`HeaderStore.insert_prepared`."""
        with self._database.write() as connection:
            if name == "start":
                self._insert_start(connection, doc)
            else:
                self._insert_stop(connection, doc)

    def _insert_start(self, connection: sqlite3.Connection, doc: Mapping[str, Any]) -> None:
        uid = plain_text(doc["uid"])
        row = connection.execute("SELECT start FROM header WHERE uid = ?", (uid,)).fetchone()
        if is_repeated("start", doc, None if row is None else unpack(row[0])):
            return
        scan_id = doc.get("scan_id")
        small = type(scan_id) is int and abs(scan_id) < 2**63
        cursor = connection.execute(
            "INSERT INTO header VALUES (NULL, ?, ?, ?, ?, NULL)",
            (uid, doc["time"], scan_id if small else None, pack(doc)),
        )
        index_document(connection, "start", int(cursor.lastrowid or 0), doc)

    def _insert_stop(self, connection: sqlite3.Connection, doc: Mapping[str, Any]) -> None:
        run = doc["run_start"]
        row = connection.execute(
            "SELECT id, stop FROM header WHERE uid = ?", (plain_text(run),)
        ).fetchone()
        if row is None:
            raise unknown_run("stop", doc, run)
        number, body = row
        if is_repeated("stop", doc, None if body is None else unpack(body)):
            return
        connection.execute("UPDATE header SET stop = ? WHERE id = ?", (pack(doc), number))
        index_document(connection, "stop", number, doc)

    def find_uid(self, uid: str) -> HeaderPair | None:
        """See :meth:`HeaderStore.find_uid`."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT start, stop FROM header WHERE uid = ?", (plain_text(uid),)
            ).fetchone()
        return None if row is None else _pair(row)

    def find_prefix(self, prefix: str, limit: int = 10) -> list[str]:
        """See :meth:`HeaderStore.find_prefix`."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT uid FROM header WHERE uid >= ? AND uid < ? ORDER BY uid LIMIT ?",
                (plain_text(prefix), plain_text(prefix) + "\U0010ffff", limit),
            ).fetchall()
        return [row[0] for row in rows]

    def find(
        self, search: Search, start: int = 0, stop: int | None = None, *, oldest_first: bool = False
    ) -> Iterator[HeaderPair]:
        """See :meth:`HeaderStore.find`."""
        with self._database.read() as connection:
            narrowed = narrow(connection, search)
        most = None if stop is None else max(0, stop - start)
        if narrowed.exact:
            rows = self._pages(narrowed, start, most, oldest_first)
            yield from islice(map(_pair, rows), most)
        else:
            pairs = map(_pair, self._pages(narrowed, 0, None, oldest_first))
            found = (pair for pair in pairs if search.matches(*pair))
            yield from islice(found, start, None if most is None else start + most)

    def _pages(
        self, narrowed: Narrowed, offset: int, most: int | None, oldest_first: bool
    ) -> Iterator[tuple[Any, ...]]:
        """Rows in batches that begin small, each continued from the last row of the one before.

        ``most`` is the number of rows that the caller will take at most.
        """
        order, sign = ("ASC", ">") if oldest_first else ("DESC", "<")
        after: tuple[float, int] | None = None
        where = narrowed.where
        for batch in chain(BATCHES, repeat(BATCHES[-1])):
            size = batch if most is None else min(batch, most)
            clause = where if after is None else f"({where}) AND (time, id) {sign} (?, ?)"
            values = [*narrowed.parameters, *(after or ()), size, offset if after is None else 0]
            with self._database.read() as connection:
                cursor = connection.execute(
                    f"SELECT start, stop, time, id FROM header WHERE {clause} "
                    f"ORDER BY time {order}, id {order} LIMIT ? OFFSET ?",
                    values,
                )
                rows: list[tuple[Any, ...]] = []
                nbytes = 0
                while nbytes <= BATCH_BYTES and (some := cursor.fetchmany(BATCHES[1])):
                    rows += some
                    nbytes += sum(len(row[0]) for row in some)
                cursor.close()
            yield from rows
            if len(rows) < size and nbytes <= BATCH_BYTES:
                return
            after = rows[-1][2:]

    def count(self, search: Search) -> int:
        """See :meth:`HeaderStore.count`."""
        with self._database.read() as connection:
            narrowed = narrow(connection, search)
            if narrowed.exact:
                return int(
                    connection.execute(
                        f"SELECT count(*) FROM header WHERE {narrowed.where}", narrowed.parameters
                    ).fetchone()[0]
                )
        return super().count(search)

    def close(self) -> None:
        """See :meth:`HeaderStore.close`."""
        self._database.close()


def _pair(row: tuple[Any, ...]) -> HeaderPair:
    start, stop = row[:2]
    return unpack_document(start), None if stop is None else unpack_document(stop)
