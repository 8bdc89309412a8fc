"""Start and stop documents in an embedded store."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import chain, repeat
from operator import itemgetter
from typing import Any

from ...core.bad_runs import BadRun, take_sound
from ...core.checksum import without_checksum
from ...core.documents import pack, unpack, unpack_document
from ...core.errors import StoreDamaged
from ...core.printable import shown
from ...core.search import Search
from ..backing_up import BackupSource
from ..checking import CheckedHeader
from ..contract import EventStore, FoundHeader, HeaderPair, HeaderStore, is_repeated, unknown_run
from ..full_disk import repeat_if_full
from ..header_store import MOST_READ_OVER, matching
from ..stored_text import storable
from .backup import EmbeddedBackup
from .checking import check_headers
from .database import Database
from .events import EmbeddedEventStore
from .format import STOPPED
from .index import STOP, Narrowed, index_later, narrow

BATCHES = (8, 200, 5000)
"""Number of rows that the first query reads, the second, and each one after that."""
BATCH_BYTES = 8 * 2**20
"""Bytes of start documents at which a batch ends early."""
TIME = struct.Struct(">d")
"""A time as documents hold it."""
LOOKED_AT = 20_000
"""Maximum number of rows whose checksums are verified at a time before runs are counted."""


class EmbeddedHeaderStore(HeaderStore):
    """Store of start and stop documents in SQLite.

    Parameters
    ----------
    database
        Database of the store, shared with the event store.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._looked = 0
        self._bad: dict[int, BadRun] = {}

    def insert_prepared(self, name: str, doc: Mapping[str, Any]) -> None:
        repeat_if_full(self._database.make_room, self._insert_prepared, name, doc)

    def _insert_prepared(self, name: str, doc: Mapping[str, Any]) -> None:
        with self._database.write(durable=name == "stop") as connection:
            if name == "start":
                self._insert_start(connection, doc)
            else:
                self._insert_stop(connection, doc)

    def insert_with(self, name: str, doc: Mapping[str, Any], stores: Sequence[EventStore]) -> None:
        """See :meth:`HeaderStore.insert_with`; one transaction if all is in one database."""
        store = stores[0] if len(stores) == 1 else None
        if not (isinstance(store, EmbeddedEventStore) and store.is_in(self._database)):
            super().insert_with(name, doc, stores)
        else:
            repeat_if_full(self._database.make_room, self._insert_both, name, doc, store)

    def _insert_both(self, name: str, doc: Mapping[str, Any], store: EmbeddedEventStore) -> None:
        if name == "start":
            with self._database.write() as connection:
                is_new = self._insert_start(connection, doc)
                number = store.add_run(connection, doc["uid"]) if is_new else None
            store.know_run(doc["uid"], number)
        else:
            run = doc["run_start"]
            if not store.has_run(run):
                raise unknown_run("stop", doc, run)
            # Sealing has transactions of its own, so it comes before that of the stop.
            store.seal(run)
            with self._database.write(durable=True) as connection:
                store.end_run(connection, run, with_stop=True)
                self._insert_stop(connection, doc)

    def one_sync(self, *, batch: bool = False) -> AbstractContextManager[None]:
        log = self._database.log
        return nullcontext() if batch and not log.interval else log.once()

    def _insert_start(self, connection: sqlite3.Connection, doc: Mapping[str, Any]) -> bool:
        """Store a start; return whether it is new."""
        uid = storable(doc["uid"])
        row = connection.execute("SELECT start FROM header WHERE uid = ?", (uid,)).fetchone()
        # The same start again is no error, so that an interrupted insert can be repeated.
        if is_repeated("start", doc, None if row is None else unpack(row[0])):
            return False
        scan_id = doc.get("scan_id")
        small = type(scan_id) is int and abs(scan_id) < 2**63  # the integers that SQLite can hold
        cursor = connection.execute(
            "INSERT INTO header VALUES (NULL, ?, ?, ?, ?, NULL)",
            (uid, doc["time"], scan_id if small else None, pack(doc)),
        )
        index_later(connection, "start", int(cursor.lastrowid or 0))
        return True

    def _insert_stop(self, connection: sqlite3.Connection, doc: Mapping[str, Any]) -> None:
        run = doc["run_start"]
        row = connection.execute(
            "SELECT id, stop FROM header WHERE uid = ?", (storable(run),)
        ).fetchone()
        if row is None:
            raise unknown_run("stop", doc, run)
        number, body = row
        if is_repeated("stop", doc, None if body is None else unpack(body)):
            return
        connection.execute("UPDATE header SET stop = ? WHERE id = ?", (pack(doc), number))
        index_later(connection, "stop", number)

    def find_uid(self, uid: str) -> HeaderPair | None:
        with self._database.read() as connection:
            row = connection.execute(
                f"SELECT start, {STOP}, time FROM header WHERE uid = ?", (storable(uid),)
            ).fetchone()
        if row is None:
            return None
        try:
            pair = _pair(row)
            if storable(pair[0]["uid"]) != storable(uid):
                raise StoreDamaged(f"its start document is of another run, {pair[0]['uid']!r}")
            return pair
        except StoreDamaged as error:
            damage = _damage(*row) or str(error)
            raise BadRun(uid, damage, str(self._database.path)).error() from error

    def has_uid(self, uid: str) -> bool:
        with self._database.read() as connection:
            query = "SELECT 1 FROM header WHERE uid = ?"
            return connection.execute(query, (storable(uid),)).fetchone() is not None

    def find_prefix(self, prefix: str, limit: int = 10) -> list[str]:
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT uid FROM header WHERE uid >= ? AND uid < ? ORDER BY uid LIMIT ?",
                (storable(prefix), storable(prefix) + "\U0010ffff", limit),
            ).fetchall()
        return [row[0] for row in rows]

    def find(
        self, search: Search, start: int = 0, stop: int | None = None, *, oldest_first: bool = False
    ) -> Iterator[FoundHeader]:
        with self._database.read() as connection:
            narrowed = narrow(connection, search)
        if not narrowed.exact:  # positions count matching runs only, so each must be read
            found = self._pairs(self._pages(narrowed, 0, None, oldest_first=oldest_first))
            yield from take_sound(matching(found, search), start, stop)
            return
        offset = 0
        # Few runs are read faster than their position is found by the index.
        if start > MOST_READ_OVER:
            offset = self._offset_of(narrowed, start, oldest_first=oldest_first)
            start, stop = 0, None if stop is None else stop - start
        rows = self._pages(narrowed, offset, stop, oldest_first=oldest_first)
        yield from take_sound(self._pairs(rows), start, stop)

    def _offset_of(self, narrowed: Narrowed, position: int, *, oldest_first: bool) -> int:
        """Return how many rows, bad ones included, come before a position among the others."""
        sound, bad = self._without_bad(narrowed)
        # Without runs that cannot be read, positions are row numbers.
        if not bad:
            return position
        order, sign = ("ASC", "<") if oldest_first else ("DESC", ">")
        with self._database.read() as connection:
            last = connection.execute(
                f"SELECT time, id FROM header WHERE {sound.where} "
                f"ORDER BY time {order}, id {order} LIMIT 1 OFFSET ?",
                [*sound.parameters, position - 1],
            ).fetchone()
            # The position is behind the last run.
            if last is None:
                return position + len(bad)
            query = (
                f"SELECT count(*) FROM header WHERE ({narrowed.where}) AND (time, id) {sign} (?, ?)"
            )
            before = connection.execute(query, [*narrowed.parameters, *last]).fetchone()[0]
        return int(before) + 1

    def _pairs(self, rows: Iterator[tuple[Any, ...]]) -> Iterator[FoundHeader]:
        for row in rows:
            try:
                yield _pair(row)
            # It is yielded in place of the run; what is done with it is the reader's choice.
            except StoreDamaged:
                yield self._note_bad(*row)

    def _note_bad(self, start: bytes, stop: bytes | None, time: float, number: int) -> BadRun:
        """Remember that a row cannot be read, and return the BadRun for it."""
        with self._database.read() as connection:
            row = connection.execute("SELECT uid FROM header WHERE id = ?", (number,)).fetchone()
        uid = None if row is None else str(row[0])
        bad = self._bad[number] = BadRun(uid, _damage(start, stop, time), str(self._database.path))
        return bad

    def _pages(
        self, narrowed: Narrowed, offset: int, most: int | None, *, oldest_first: bool
    ) -> Iterator[tuple[Any, ...]]:
        """Yield rows ``(start, stop, time, id)``, read in batches of increasing size.

        Each batch continues after the last row of the one before, so rows that are inserted
        meanwhile shift none.

        Parameters
        ----------
        narrowed
            Clause that selects the rows.
        offset
            Number of rows to skip.
        most
            Number of rows that the caller will take if all can be read; None if not known.
        oldest_first
            Whether to reverse the order, which is newest first.
        """
        order, sign = ("ASC", ">") if oldest_first else ("DESC", "<")
        after: tuple[float, int] | None = None
        where = narrowed.where
        for batch in chain(BATCHES, repeat(BATCHES[-1])):
            size = batch if most is None or after is not None else min(batch, most)
            clause = where if after is None else f"({where}) AND (time, id) {sign} (?, ?)"
            values = [*narrowed.parameters, *(after or ()), size, offset if after is None else 0]
            with self._database.read() as connection:
                cursor = connection.execute(
                    f"SELECT start, {STOP}, time, id FROM header WHERE {clause} "
                    f"ORDER BY time {order}, id {order} LIMIT ? OFFSET ?",
                    values,
                )
                rows: list[tuple[Any, ...]] = []
                nbytes = 0
                while nbytes <= BATCH_BYTES and (some := cursor.fetchmany(BATCHES[1])):
                    rows += some
                    # A start that has no length is damaged, as is found when it is decoded.
                    with suppress(TypeError):
                        nbytes += sum(map(len, map(itemgetter(0), some)))
                cursor.close()
            yield from rows
            # A batch that ended early by its bytes is not the last one.
            if len(rows) < size and nbytes <= BATCH_BYTES:
                return
            after = rows[-1][2:]

    def count(self, search: Search) -> int:
        """See :meth:`HeaderStore.count`; by the index, less the runs :meth:`_look` found bad."""
        with self._database.read() as connection:
            narrowed = narrow(connection, search)
        # The index finds more than what matches, so each run is read.
        if not narrowed.exact:
            return super().count(search)
        narrowed, _ = self._without_bad(narrowed)
        query = f"SELECT count(*) FROM header WHERE {narrowed.where}"
        with self._database.read() as connection:
            return int(connection.execute(query, narrowed.parameters).fetchone()[0])

    # -- what cannot be read -----------------------------------------------------------------

    def _without_bad(self, narrowed: Narrowed) -> tuple[Narrowed, list[BadRun]]:
        """Exclude known bad runs from a clause; return it and the bad runs it would have found."""
        self._look()
        if not self._bad:
            return narrowed, []
        numbers = json.dumps(list(self._bad))
        these = "(SELECT value FROM json_each(?))"
        query = f"SELECT id FROM header WHERE ({narrowed.where}) AND id IN {these}"
        with self._database.read() as connection:
            found = connection.execute(query, [*narrowed.parameters, numbers]).fetchall()
        where = f"({narrowed.where}) AND id NOT IN {these}"
        bad = [self._bad[number] for (number,) in found if number in self._bad]
        return Narrowed(where, [*narrowed.parameters, numbers], exact=True), bad

    def _look(self) -> None:
        """Verify the checksums of rows that are new to this process, and of known bad ones.

        Each row is verified once, and only the newest :data:`LOOKED_AT` at a time. In a store of
        more runs, a bad run that no reading has come across may therefore be counted.
        """
        with self._database.read() as connection:
            newest = connection.execute("SELECT max(id) FROM header").fetchone()[0] or 0
            # Known bad rows are verified again, as a restored file may have mended them.
            if newest == self._looked and not self._bad:
                return
            # A store that is opened for the first time would be read as a whole.
            first = max(self._looked, newest - LOOKED_AT)
            query = f"SELECT start, {STOP}, time, id FROM header WHERE id > ? OR id IN "
            rows = connection.execute(
                f"{query}(SELECT value FROM json_each(?))", (first, json.dumps(list(self._bad)))
            )
            damaged = [row for row in rows if _damage(*row[:3])]
        self._bad = {}
        for row in damaged:
            self._note_bad(*row)
        self._looked = newest

    def check(self, search: Search) -> Iterator[CheckedHeader]:
        return check_headers(self._database, search)

    @property
    def backup_source(self) -> BackupSource:  # type: ignore[override]
        """See :attr:`HeaderStore.backup_source`."""
        return EmbeddedBackup(self._database)

    def close(self) -> None:
        self._database.close()


def _damage(start: bytes, stop: bytes | None, time: float) -> str:
    """Return what is wrong with a row; empty if nothing is."""
    try:
        without_checksum(start, "its start document")
        if stop is not None:
            without_checksum(_not_lost(stop), "its stop document")
        # Most have these bytes; decoding all that are new would take ten times longer.
        if type(time) is not float or TIME.pack(time) not in start:
            _pair((start, stop, time))
    except StoreDamaged as error:
        return str(error)
    return ""


def _pair(row: tuple[Any, ...]) -> HeaderPair:
    """Decode ``(start, stop, time)``; more values are not looked at."""
    start = unpack_document(row[0])
    # It has no checksum, and decides where the run is in every list.
    if start["time"] != row[2] and float(start["time"]) != row[2]:
        raise StoreDamaged(f"its row has the time {shown(row[2])}, its start {start['time']!r}")
    return start, None if row[1] is None else unpack_document(_not_lost(row[1]))


def _not_lost(stop: bytes | int) -> bytes:
    if stop == STOPPED:  # see STOP
        raise StoreDamaged("its stop document is not stored, though its events have ended")
    return stop  # type: ignore[return-value]
