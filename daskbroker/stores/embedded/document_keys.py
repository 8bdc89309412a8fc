"""Noting which documents an embedded store has, so that each is stored once.

The table ``document_key`` has a number for each uid, unique in the run. Numbers are spread
evenly, so noting those of a page changes as many leaves of the table as the page has rows. The
numbers of pages that wait in the journal are therefore held in memory. They are noted together
when the pages are sealed, or as soon as a document is inserted that may be one of them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from ...core.chunks import from_ipc
from ...core.documents import equal, unpack
from ...core.errors import DuplicateUID
from ...core.layouts import LAYOUTS, cells, decode_rows
from .reader import EmbeddedReader, stored_keys
from .row_sequences import POSITIONS, RowSequence, one_row, owner_of
from .uid_keys import uid_key, uid_keys

MOST_RUNS = 200
"""Maximum number of runs of which the numbers of waiting pages are held in memory."""


class DocumentKeys:
    """Notes of the stored documents; used inside a transaction of the writing connection."""

    def __init__(self, reader: EmbeddedReader) -> None:
        self._reader = reader
        self._waiting: dict[int, set[int]] = {}
        self._last_chunk: tuple[int, list[Any]] | None = None

    def refresh(self, connection: sqlite3.Connection, sequence: RowSequence) -> None:
        """Read the uids of the run's pages that wait in the journal, unless they are known."""
        if sequence.run_number not in self._waiting:
            # All of them, as this is rare and they can be read again.
            if len(self._waiting) >= MOST_RUNS:
                self._waiting.clear()
            held = self._waiting[sequence.run_number] = set()
            for page, uids in _waiting_pages(connection, sequence, "run = ?", sequence.run_number):
                held.update(uid_keys(uids, page.layout.kind, sequence.run_number).tolist())

    def forget(self, sequence: RowSequence | None = None) -> None:
        """Drop the numbers held of waiting pages, of the sequence's run or of all runs if None."""
        if sequence is None:
            self._waiting.clear()
        else:
            self._waiting.pop(sequence.run_number, None)

    def hold_page(
        self, connection: sqlite3.Connection, sequence: RowSequence, uids: Sequence[str]
    ) -> bool:
        """Claim the uids of a page that goes into the journal; return False if one is stored."""
        keys = uid_keys(uids, sequence.layout.kind, sequence.run_number).tolist()
        fresh = set(keys)
        held = self._waiting[sequence.run_number]
        # A number that is taken may be of the same uid or of another one: only a look at it
        # tells.
        if len(fresh) < len(keys) or not held.isdisjoint(fresh) or _any_known(connection, keys):
            return self.claim_page(connection, sequence, uids)
        held |= fresh
        return True

    def claim_page(
        self, connection: sqlite3.Connection, sequence: RowSequence, uids: Sequence[str]
    ) -> bool:
        """Note uids as stored from the next position on; return False if one is stored."""
        keys = uid_keys(uids, sequence.layout.kind, sequence.run_number)
        # Pages that wait have noted their uids only in memory; now the table has to know them.
        if not self._waiting[sequence.run_number].isdisjoint(keys.tolist()):
            self._read_waiting(connection, sequence)
        if _insert_keys(connection, [(sequence, keys)]):
            return True
        return len(set(uids)) == len(uids) and self._claim_rest(connection, sequence, uids, keys)

    def claim_row(
        self,
        connection: sqlite3.Connection,
        sequence: RowSequence,
        row: Mapping[str, Any],
        position: int,
    ) -> bool:
        """Note a document as stored at a position; return False if the same one is stored.

        Raises
        ------
        DuplicateUID
            If a different document of the run has its uid.
        """
        uid = row[sequence.layout.uid]
        there = self._claim(connection, sequence, uid, position)
        if there is None:
            return True
        if equal(there, dict(row)):
            return False
        kind = sequence.layout.kind
        raise DuplicateUID(
            f"{kind} {uid!r}: a different {kind} of run {sequence.run!r} is stored under this uid"
        )

    def note_pages(
        self, connection: sqlite3.Connection, sequence: RowSequence, first: int, rows: int
    ) -> list[int]:
        """Note the uids of pages in a part of the journal that is about to be sealed.

        Returns
        -------
        list of int
            Their numbers, for :meth:`release` once the transaction has succeeded.
        """
        low = sequence.number * POSITIONS + first
        where = "sequence.id = ? AND journal.id >= ? AND journal.id < ?"
        held = self._waiting.get(sequence.run_number)
        try:
            return self._note(connection, sequence, where, sequence.number, low, low + rows)
        finally:
            # Other waiting pages were noted too. They are read again later, as this transaction
            # may still fail, or has failed already.
            if self._waiting.get(sequence.run_number) is not held:
                self.forget(sequence)

    def release(self, sequence: RowSequence, numbers: Sequence[int]) -> None:
        """Drop the numbers of pages that wait no longer. The run's other pages are not read again,
        as there may be thousands of sequences.
        """
        self._waiting.get(sequence.run_number, set()).difference_update(numbers)

    # -- numbers -----------------------------------------------------------------------------

    def _read_waiting(self, connection: sqlite3.Connection, sequence: RowSequence) -> None:
        """Note the uids of all waiting pages of the run."""
        self._waiting[sequence.run_number] = set()
        self._note(connection, sequence, "run = ?", sequence.run_number)

    def _note(
        self, connection: sqlite3.Connection, sequence: RowSequence, where: str, *values: int
    ) -> list[int]:
        """Note the uids of waiting pages, and return their numbers."""
        pages = [
            (page, uids, uid_keys(uids, page.layout.kind, page.run_number))
            for page, uids in _waiting_pages(connection, sequence, where, *values)
        ]
        # Usually all numbers were free, and one statement has noted all.
        if not _insert_keys(connection, [(page, keys) for page, _, keys in pages]):
            for page, uids, keys in pages:
                self._claim_rest(connection, page, uids, keys)
        return [number for *_, keys in pages for number in keys.tolist()]

    def _claim_rest(
        self,
        connection: sqlite3.Connection,
        sequence: RowSequence,
        uids: Sequence[str],
        keys: np.ndarray,
    ) -> bool:
        """Note uids of a page whose numbers were taken; return False if one is stored."""
        for index, key in enumerate(keys.tolist()):
            position = sequence.next + index
            # It was noted by this very page, before another of its numbers was found taken.
            if _positions_of(connection, key) == (sequence.number, position):
                continue
            if self._claim(connection, sequence, uids[index], position, page=uids):
                return False
        return True

    def _claim(
        self,
        connection: sqlite3.Connection,
        sequence: RowSequence,
        uid: str,
        position: int,
        page: Sequence[str] = (),
    ) -> dict[str, Any] | None:
        """Note a uid and return None, or return the document of the run that has it.

        The uids of ``page`` are being noted before its rows are stored, from ``sequence.next`` on.
        """
        key = uid_key(uid, sequence.layout.kind, sequence.run_number)
        # The table must have it before this uid is compared with what is there.
        if key in self._waiting.get(sequence.run_number, ()):
            self._read_waiting(connection, sequence)
        while True:
            try:
                connection.execute(
                    "INSERT INTO document_key VALUES (?, ?, ?)", (key, sequence.number, position)
                )
                return None
            except sqlite3.IntegrityError:
                there = self._row_behind(connection, key, sequence, page)
            if there[sequence.layout.uid] == uid:
                return there
            key += 1  # another document has the same number, so try the next one

    def _row_behind(
        self, connection: sqlite3.Connection, key: int, sequence: RowSequence, page: Sequence[str]
    ) -> dict[str, Any]:
        number, position = _positions_of(connection, key)
        # The row is of the page that is being stored, and not in the journal yet.
        if number == sequence.number and 0 <= position - sequence.next < len(page):
            return {sequence.layout.uid: page[position - sequence.next]}
        kind, owner = owner_of(connection, number)
        low = number * POSITIONS
        row = connection.execute(
            "SELECT id, rows, body FROM journal WHERE id >= ? AND id <= ? ORDER BY id DESC LIMIT 1",
            (low, low + position),
        ).fetchone()
        # The journal's last entry up to this position may be a page of several rows, which ends
        # before it.
        if row is not None and row[0] + (row[1] or 1) > low + position:
            first, rows, body = row
            if rows is None:
                there = unpack(body)
                return there if LAYOUTS[kind].mixed else {**there, LAYOUTS[kind].owner: owner}
            return self._decoded(-first, kind, owner, body)[low + position - first]
        chunk, first = one_row(
            connection,
            "SELECT id, first FROM chunk WHERE sequence = ? AND first <= ? "
            "ORDER BY first DESC LIMIT 1",
            number,
            position,
        )
        (index,) = stored_keys(connection, [chunk])
        return self._decoded(chunk, kind, owner, index)[position - first]

    def _decoded(self, number: int, kind: str, owner: str, key: Any) -> list[Any]:
        """Decode the documents of a chunk; those of the last chunk are cached."""
        # Repeated documents come in order, so the same chunk is looked into again and again.
        if self._last_chunk is None or self._last_chunk[0] != number:
            documents = decode_rows(LAYOUTS[kind], self._reader.read(key), owner)
            self._last_chunk = (number, documents)
        return self._last_chunk[1]


def _positions_of(connection: sqlite3.Connection, key: int) -> tuple[Any, ...]:
    query = "SELECT sequence, position FROM document_key WHERE hash = ?"
    return one_row(connection, query, key)


def _insert_keys(
    connection: sqlite3.Connection, pages: Sequence[tuple[RowSequence, np.ndarray]]
) -> bool:
    """Note numbers of documents, of each page from its ``next`` on; return if all were free.

    Numbers that were taken are left as they are.
    """
    if not pages:
        return True
    keys = np.concatenate([some for _, some in pages])
    numbers = np.concatenate([np.full(len(some), sequence.number) for sequence, some in pages])
    positions = np.concatenate([sequence.next + np.arange(len(some)) for sequence, some in pages])
    order = np.argsort(keys, kind="stable")  # each leaf of the table is changed once
    before = connection.total_changes
    connection.executemany(
        "INSERT OR IGNORE INTO document_key VALUES (?, ?, ?)",
        zip(keys[order].tolist(), numbers[order].tolist(), positions[order].tolist()),
    )
    return connection.total_changes - before == len(keys)


def _any_known(connection: sqlite3.Connection, keys: Sequence[int]) -> bool:
    query = "SELECT 1 FROM json_each(?) JOIN document_key ON hash = json_each.value LIMIT 1"
    return connection.execute(query, (json.dumps(keys),)).fetchone() is not None


def _waiting_pages(
    connection: sqlite3.Connection, sequence: RowSequence, where: str, *values: int
) -> Iterator[tuple[RowSequence, Sequence[str]]]:
    """Yield pages in the journal, each as a sequence whose ``next`` is its begin, with its uids."""
    found = connection.execute(
        "SELECT kind, sequence.id, journal.id, body FROM sequence JOIN journal ON "
        f"journal.id >= sequence.id * {POSITIONS} AND journal.id < (sequence.id + 1) * {POSITIONS} "
        f"WHERE rows IS NOT NULL AND {where}",
        values,
    )
    try:
        for kind, number, position, body in found:
            layout = LAYOUTS[kind]
            page = replace(
                sequence, layout=layout, number=number, next=position - number * POSITIONS
            )
            yield page, cells(from_ipc(body, [layout.uid]), layout.uid)
    finally:
        # After an interrupt the collector of garbage ends this, perhaps after the connection.
        with suppress(sqlite3.ProgrammingError):
            found.close()
