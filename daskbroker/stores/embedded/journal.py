"""The journal of an embedded store: rows in order of insertion, each stored once, durably.

It keeps the rows of a sequence that are in no sealed chunk yet, by position: a single row as
msgpack, a page as a small chunk under the position of its first row, with its number of rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ...core.chunks import from_ipc, to_ipc
from ...core.documents import pack, unpack
from ...core.errors import StoreDamaged, StoreError
from ...core.layouts import Layout, encode_rows
from .document_keys import DocumentKeys
from .misplaced import move_misplaced
from .reader import EmbeddedReader
from .row_sequences import POSITIONS, RowSequence, sealed_end


class Journal:
    """Adds rows to sequences; used inside a transaction of the writing connection.

    The methods must be given the sequence that :meth:`refresh` returns in that transaction.
    """

    def __init__(self, reader: EmbeddedReader) -> None:
        self.claims = DocumentKeys(reader)
        self._version: tuple[sqlite3.Connection, int] | None = None
        self._look = 0
        self._known: dict[int, RowSequence] = {}

    def look_again(self) -> None:
        """Make the next refresh look at what others have stored, whoever they are."""
        self._version = None

    def refresh(self, connection: sqlite3.Connection, sequence: RowSequence) -> RowSequence:
        """Return the sequence with its present counters, which other processes may have changed."""
        # data_version changes if another connection has written; it can be compared only with
        # values of the same connection.
        version = connection, connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._look += 1
            self._version = version
        known = self._known.get(sequence.number)
        if known is None or known.look != self._look:
            known = self._known[sequence.number] = self._look_again(connection, sequence, known)
            known.look = self._look
        self.claims.refresh(connection, known)
        return known

    def _look_again(
        self, connection: sqlite3.Connection, sequence: RowSequence, known: RowSequence | None
    ) -> RowSequence:
        """Bring the counters of a sequence up to date, and return it.

        If no chunk was added to what is known, only new rows of the journal are looked at.
        """
        sealed = sealed_end(connection, sequence.number)
        if known is None or known.sealed != sealed:
            if known is not None:
                self.claims.forget(known.run_number)  # else it would grow as long as others seal
            known = sequence
            known.waiting_rows, known.waiting_bytes, known.next, known.sealed = 0, 0, 0, sealed
        low = sequence.number * POSITIONS
        rows, nbytes, begin, end = connection.execute(
            "SELECT total(coalesce(rows, 1)), total(length(body)), min(id), "
            "max(id + coalesce(rows, 1)) FROM journal WHERE id >= ? AND id < ?",
            (low + known.next, low + POSITIONS),
        ).fetchone()
        known.waiting_rows += int(rows)
        known.waiting_bytes += int(nbytes)
        known.next = max(known.next, sealed)
        if begin is not None:
            known.next = max(known.next, end - low)
            if begin - low < sealed:
                move_misplaced(connection, known, sealed)
                self.claims.forget(known.run_number)
        return known

    def forget(self, number: int | None = None) -> None:
        """Drop the known counters of a sequence, or of all if None, after a failed transaction."""
        if number is None:
            self._known.clear()
            self.claims.forget()
        else:
            self._known.pop(number, None)

    def append(
        self,
        connection: sqlite3.Connection,
        sequence: RowSequence,
        rows: Sequence[Mapping[str, Any]],
    ) -> int:
        """Add the rows that are not stored yet, and return their number.

        Raises
        ------
        DuplicateUID
            If a different document of the run has the same uid.
        StoreError
            If a sealed chunk has the sequence's next position.
        """
        check_next_position(sequence)
        position, added = sequence.next, 0
        size = 0
        low = sequence.number * POSITIONS
        for row in rows:
            if not self.claims.claim_row(connection, sequence, row, position):
                continue
            body = pack(_without_owner(sequence.layout, row))
            connection.execute("INSERT INTO journal VALUES (?, NULL, ?)", (low + position, body))
            size += len(body)
            position += 1
            added += 1
        sequence.next = position
        sequence.waiting_rows += added
        sequence.waiting_bytes += size
        return added

    def append_table(
        self, connection: sqlite3.Connection, sequence: RowSequence, table: pa.Table
    ) -> None:
        """Add a page, encoded as a chunk, whose uids have been claimed."""
        check_next_position(sequence)
        body = to_ipc(table)
        connection.execute(
            "INSERT INTO journal VALUES (?, ?, ?)",
            (sequence.number * POSITIONS + sequence.next, table.num_rows, body),
        )
        sequence.next += table.num_rows
        sequence.waiting_rows += table.num_rows
        sequence.waiting_bytes += len(body)


def check_next_position(sequence: RowSequence) -> None:
    """Refuse to store at a position that a sealed chunk has, where no reader expects a row.

    This is a safeguard: :meth:`Journal.refresh` looks where the chunks end if anybody has sealed.

    Raises
    ------
    StoreError
        If the next position is in a sealed chunk.
    """
    if sequence.next < sequence.sealed:
        raise StoreError(
            f"run {sequence.run!r}, {sequence.layout.kind} {sequence.next}: sealed chunks "
            f"hold all positions below {sequence.sealed}; nothing was stored. "
            "Inserting it again is safe"
        )


def waiting_tables(
    connection: sqlite3.Connection,
    sequence: RowSequence,
    first: int = 0,
    most_rows: int = POSITIONS,
    most_bytes: int = 2**63,
) -> Iterator[tuple[int, pa.Table]]:
    """Yield the journal's rows of a sequence, from a position on, as ``(position, table)``.

    It ends before the limits are exceeded, but after one entry at the earliest.
    """
    low = sequence.number * POSITIONS
    cursor = connection.execute(
        "SELECT id, rows, body FROM journal WHERE id >= ? AND id < ? ORDER BY id",
        (low + first, low + POSITIONS),
    )
    try:
        yield from encoded(cursor, sequence, most_rows, most_bytes)
    finally:  # else, while an error is kept, the connection keeps seeing its old state
        cursor.close()


def encoded(
    journal: Iterable[tuple[int, int | None, bytes]],
    sequence: RowSequence,
    most_rows: int = POSITIONS,
    most_bytes: int = 2**63,
) -> Iterator[tuple[int, pa.Table]]:
    """Encode rows ``(id, rows, body)`` of the journal, of one sequence, as ``(position, table)``.

    Consecutive single rows are encoded together. The limits are those of :func:`waiting_tables`.

    Raises
    ------
    StoreDamaged
        If an entry of the journal has changed.
    """
    try:
        yield from _encoded(journal, sequence, most_rows, most_bytes)
    except MemoryError:  # Arrow's is one of its exceptions, too
        raise
    # Only the bodies have checksums: the number of rows beside one may be wrong, or its type.
    except (pa.ArrowException, TypeError, AttributeError, LookupError) as error:
        raise StoreDamaged(f"an entry of the journal is damaged: {error}") from error


def _encoded(
    journal: Iterable[tuple[int, int | None, bytes]],
    sequence: RowSequence,
    most_rows: int,
    most_bytes: int,
) -> Iterator[tuple[int, pa.Table]]:
    low = sequence.number * POSITIONS
    singles: list[dict[str, Any]] = []
    begin, count, size = 0, 0, 0
    for number, rows, body in journal:
        count, size = count + (rows or 1), size + len(body)
        # The first entry is taken however large it is.
        if (count > most_rows or size > most_bytes) and count > (rows or 1):
            break
        if rows is not None and singles:
            yield begin, encode_rows(sequence.layout, singles, sequence.metadata)
            singles = []
        if rows is not None:
            yield number - low, from_ipc(body)
            continue
        if not singles:
            begin = number - low
        singles.append(unpack(body))
    if singles:
        yield begin, encode_rows(sequence.layout, singles, sequence.metadata)


def _without_owner(layout: Layout, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as the journal keeps it: without the owner, if the sequence implies it."""
    kept = dict(row)
    if not layout.mixed:
        kept.pop(layout.owner, None)
    return kept
