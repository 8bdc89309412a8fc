"""The embedded store passes the public conformance suite."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from daskbroker.testing.conformance import BadRunConformance, BrokerConformance


class TestEmbedded(BrokerConformance):
    @pytest.fixture
    def store_place(self, tmp_path):
        return tmp_path / "store"


ROWS = {
    "start": "header, start, uid = ?",
    "stop": "header, stop, uid = ?",
    "descriptor": "descriptor, body, run = (SELECT id FROM run WHERE uid = ?)",
    "event": "journal, body, id / 68719476736 IN (SELECT sequence.id FROM sequence JOIN run "
    "ON run.id = sequence.run WHERE kind = 'event' AND run.uid = ?)",
}


class TestEmbeddedBadRuns(BadRunConformance):
    """A bit that flips in a row."""

    @pytest.fixture
    def store_place(self, tmp_path):
        return tmp_path / "store"

    @pytest.fixture
    def spoil(self, store_place):
        def spoil(kind, uid):
            table, column, where = ROWS[kind].split(", ", 2)
            with closing(sqlite3.connect(store_place / "daskbroker.sqlite")) as connection:
                query = f"SELECT id, {column} FROM {table} WHERE {where}"
                number, body = connection.execute(query, (uid,)).fetchone()
                changed = bytearray(body)
                changed[len(body) // 2] ^= 1
                connection.execute(
                    f"UPDATE {table} SET {column} = ? WHERE id = ?", (bytes(changed), number)
                )
                connection.commit()

        return spoil
