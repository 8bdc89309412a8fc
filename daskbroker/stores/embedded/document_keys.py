"""Noting which documents an embedded store has, so that each is stored once.

The table ``document_key`` has a number for each uid, unique in the run. Numbers are spread
evenly, so noting those of some documents changes as many leaves of the table. The numbers of
documents that wait in the journal are therefore held in memory, and noted together when these are
sealed. If several waiting documents have the same number, all of them have been noted.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np

from ...core.bounded_dict import BoundedDict
from ...core.chunks import from_ipc
from ...core.documents import equal, unpack
from ...core.errors import DuplicateUID, StoreDamaged
from ...core.layouts import LAYOUTS, Layout, cells, decode_rows
from .reader import EmbeddedReader, stored_keys
from .row_sequences import POSITIONS, RowSequence, one_row, owner_of
from .uid_keys import FEW, KEY_BITS, uid_key, uid_keys

MOST_NUMBERS = 2**18
"""Number of waiting documents, of all runs, above which a run that begins makes the others be read
again; a run of more than that is read again once it has twice as many. A number takes about 100
bytes of memory."""


@dataclass(slots=True)
class _Waiting:
    """What is known of the documents of one run that wait in the journal.

    Attributes
    ----------
    numbers
        Key in the journal of each document, by its number. Documents that another process has
        sealed meanwhile may be among them.
    ends
        Key in the journal of the last one that is known, by sequence.
    noted
        Whether the table may have numbers of the run.
    look
        Last look at the journal, see :attr:`RowSequence.look`.
    most
        Number of documents above which they are read again.
    """

    numbers: dict[int, int] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    noted: bool = False
    look: int = -1
    most: int = 0

    def add(self, sequence: int, begin: int, keys: Sequence[int]) -> None:
        """Add the numbers of documents of a sequence, which begin at a key in the journal."""
        end = begin + len(keys)
        self.ends[sequence] = end - 1
        self.numbers.update(zip(keys, range(begin, end)))


class DocumentKeys:
    """Notes of the stored documents; used inside a transaction of the writing connection."""

    def __init__(self, reader: EmbeddedReader) -> None:
        self._reader = reader
        self._waiting: BoundedDict[int, _Waiting] = BoundedDict()
        self._last_chunk: tuple[int, list[Any]] | None = None

    def refresh(self, connection: sqlite3.Connection, sequence: RowSequence) -> None:
        """Read the uids of documents that others have put into the journal of the run."""
        waiting = self._waiting.get(sequence.run_number)
        is_behind = waiting is None or waiting.look != sequence.look
        # Others may have sealed what is known of streams that this process does not write.
        if waiting is None or (is_behind and len(waiting.numbers) > waiting.most):
            if sum(len(one.numbers) for one in self._waiting.values()) > MOST_NUMBERS:
                self._waiting.clear()
            waiting = self._waiting[sequence.run_number] = _Waiting()
        if is_behind:
            is_new = waiting.look < 0
            _read_journal(connection, sequence.run_number, waiting)
            waiting.look = sequence.look
            if is_new:
                waiting.most = max(MOST_NUMBERS, 2 * len(waiting.numbers))

    def forget(self, run_number: int | None = None) -> None:
        """Drop what is known of the waiting documents of a run, or of all runs if None."""
        if run_number is None:
            self._waiting.clear()
        else:
            self._waiting.pop(run_number, None)

    def hold_page(
        self, connection: sqlite3.Connection, sequence: RowSequence, uids: Sequence[str]
    ) -> bool:
        """Claim the uids of a page that goes into the journal.

        Returns
        -------
        bool
            False, and nothing is claimed, if one of them may be stored.
        """
        keys = uid_keys(uids, sequence.layout.kind, sequence.run_number).tolist()
        waiting = self._waiting[sequence.run_number]
        # A number that is taken may be of the same uid or of another one: only a look at the
        # document tells, which is for single rows.
        if (
            len(set(keys)) < len(keys)
            or not waiting.numbers.keys().isdisjoint(keys)
            or (waiting.noted and _any_known(connection, keys))
        ):
            return False
        waiting.add(sequence.number, sequence.number * POSITIONS + sequence.next, keys)
        return True

    def claim_page(
        self, connection: sqlite3.Connection, sequence: RowSequence, uids: Sequence[str]
    ) -> bool:
        """Note the uids of a page that becomes chunks; return False if one may be stored."""
        keys = uid_keys(uids, sequence.layout.kind, sequence.run_number)
        waiting = self._waiting[sequence.run_number]
        if not waiting.numbers.keys().isdisjoint(keys.tolist()):
            return False
        waiting.noted = True
        # Usually all numbers are free, and one statement has noted all.
        if _insert_keys(connection, sequence.number, sequence.next, keys):
            return True
        return len(set(uids)) == len(uids) and self._claim_rest(connection, sequence, uids, keys)

    def claim_row(
        self,
        connection: sqlite3.Connection,
        sequence: RowSequence,
        row: Mapping[str, Any],
        position: int,
    ) -> bool:
        """Claim the uid of a document that goes into the journal at a position.

        Returns
        -------
        bool
            False if the same document is stored.

        Raises
        ------
        DuplicateUID
            If a different document of the run has its uid.
        """
        uid, kind = row[sequence.layout.uid], sequence.layout.kind
        key = uid_key(uid, kind, sequence.run_number)
        waiting = self._waiting[sequence.run_number]
        if key not in waiting.numbers and (not waiting.noted or _place_of(connection, key) is None):
            place = sequence.number * POSITIONS + position
            waiting.numbers[key] = waiting.ends[sequence.number] = place
            return True
        there = self._claim(connection, sequence, uid, key, position)
        if there is None:
            return True
        if equal(there, dict(row)):
            return False
        raise DuplicateUID(
            f"{kind} {uid!r}: a different {kind} of run {sequence.run!r} is stored under this uid"
        )

    def note(
        self, connection: sqlite3.Connection, sequence: RowSequence, first: int, uids: Sequence[str]
    ) -> list[int]:
        """Note the uids of documents in the journal that are about to be sealed.

        Returns
        -------
        list of int
            Their numbers, for :meth:`release` once the transaction has succeeded.
        """
        keys = uid_keys(uids, sequence.layout.kind, sequence.run_number)
        numbers: list[int] = keys.tolist()
        if not _insert_keys(connection, sequence.number, first, keys):
            for position, key in enumerate(numbers, first):
                _insert_key(connection, key, (sequence.number, position))
        return numbers

    def release(self, sequence: RowSequence, numbers: Iterable[int]) -> None:
        """Drop the numbers of documents that wait no longer."""
        waiting = self._waiting.get(sequence.run_number)
        if waiting is not None:
            waiting.noted = True
            for number in numbers:
                waiting.numbers.pop(number, None)

    # -- numbers that are taken --------------------------------------------------------------

    def _claim_rest(
        self,
        connection: sqlite3.Connection,
        sequence: RowSequence,
        uids: Sequence[str],
        keys: np.ndarray,
    ) -> bool:
        """Note uids of a page whose numbers were taken; return False if one is stored."""
        for position, (uid, key) in enumerate(zip(uids, keys.tolist()), sequence.next):
            # It was noted by this very page, before another of its numbers was found taken.
            if _place_of(connection, key) == (sequence.number, position):
                continue
            if self._claim(connection, sequence, uid, key, position, page=uids):
                return False
        return True

    def _claim(
        self,
        connection: sqlite3.Connection,
        sequence: RowSequence,
        uid: str,
        key: int,
        position: int,
        page: Sequence[str] = (),
    ) -> dict[str, Any] | None:
        """Note a uid and return None, or return the document of the run that has it.

        The uids of ``page`` are being noted before its rows are stored, from ``sequence.next`` on.
        """
        waiting = self._waiting[sequence.run_number]
        waiting.noted = True
        if (held := waiting.numbers.get(key)) is not None:  # unless a thread has just sealed it
            place = divmod(held, POSITIONS)
            there = self._row_at(connection, place)
            if there.get(sequence.layout.uid) == uid:
                return there
            # From now on the table tells the two documents apart.
            _insert_key(connection, key, place)
            waiting.numbers.pop(key, None)
        while (found := _place_of(connection, key)) is not None:
            # The row is of the page that is being stored, and not in the journal yet.
            if found[0] == sequence.number and 0 <= found[1] - sequence.next < len(page):
                there = {sequence.layout.uid: page[found[1] - sequence.next]}
            else:
                there = self._row_at(connection, found)
            if there.get(sequence.layout.uid) == uid:
                return there
            key += 1  # another document has the same number, so try the next one
        _insert_key(connection, key, (sequence.number, position))
        return None

    def _row_at(self, connection: sqlite3.Connection, place: tuple[int, int]) -> dict[str, Any]:
        """Return the document at a position of a sequence, wherever it is."""
        number, position = place
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


def _place_of(connection: sqlite3.Connection, key: int) -> tuple[int, int] | None:
    """Return sequence and position of the document that has a number in the table."""
    query = "SELECT sequence, position FROM document_key WHERE hash = ?"
    place: tuple[int, int] | None = connection.execute(query, (key,)).fetchone()
    return place


def _insert_key(connection: sqlite3.Connection, key: int, place: tuple[int, int]) -> None:
    """Note a document under the first number from ``key`` on that is free, if it is not noted."""
    while (found := _place_of(connection, key)) is not None:
        if found == place:
            return
        key += 1
    connection.execute("INSERT INTO document_key VALUES (?, ?, ?)", (key, *place))


def _insert_keys(connection: sqlite3.Connection, number: int, first: int, keys: np.ndarray) -> bool:
    """Note numbers of documents from a position of a sequence on; return if all were free.

    Numbers that were taken are left as they are.
    """
    positions = np.arange(first, first + len(keys))
    if len(keys) > FEW:  # each leaf of the table is changed once
        order = np.argsort(keys, kind="stable")
        keys, positions = keys[order], positions[order]
    before = connection.total_changes
    connection.executemany(
        "INSERT OR IGNORE INTO document_key VALUES (?, ?, ?)",
        zip(keys.tolist(), repeat(number), positions.tolist()),
    )
    return connection.total_changes - before == len(keys)


def _any_known(connection: sqlite3.Connection, keys: Sequence[int]) -> bool:
    query = "SELECT 1 FROM json_each(?) JOIN document_key ON hash = json_each.value LIMIT 1"
    return connection.execute(query, (json.dumps(keys),)).fetchone() is not None


def _read_journal(connection: sqlite3.Connection, run: int, waiting: _Waiting) -> None:
    """Add the documents of a run that are in the journal and not known yet."""
    if not waiting.noted:
        query = "SELECT 1 FROM document_key WHERE hash >= ? AND hash < ? LIMIT 1"
        ends = run << KEY_BITS, (run + 1) << KEY_BITS
        waiting.noted = connection.execute(query, ends).fetchone() is not None
    query = "SELECT id, kind FROM sequence WHERE run = ?"
    for sequence, kind in connection.execute(query, (run,)).fetchall():
        known = waiting.ends.get(sequence, sequence * POSITIONS - 1)
        with closing(
            connection.execute(
                "SELECT id, rows, body FROM journal WHERE id > ? AND id < ?",
                (known, (sequence + 1) * POSITIONS),
            )
        ) as entries:
            for first, rows, body in entries:
                # What is damaged is named where it is read. Other documents can be inserted.
                with suppress(StoreDamaged, TypeError, LookupError):
                    waiting.add(sequence, first, _keys_of(LAYOUTS[kind], run, rows, body))


def _keys_of(layout: Layout, run: int, rows: int | None, body: bytes) -> Sequence[int]:
    """Return the numbers of the documents in an entry of the journal."""
    if rows is None:
        return (uid_key(unpack(body)[layout.uid], layout.kind, run),)
    uids = cells(from_ipc(body, [layout.uid]), layout.uid)
    keys: list[int] = uid_keys(uids, layout.kind, run).tolist()
    return keys
