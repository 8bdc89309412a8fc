"""The journal of an embedded store: rows as they come in, each stored once, durably.

It keeps the rows of a sequence that no sealed chunk holds yet, by position: single rows as
msgpack, a page as a small chunk, under the position of its first row and with the number of its
rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ...core.chunks import from_ipc, to_ipc
from ...core.documents import pack, unpack
from ...core.errors import StoreError
from ...core.layouts import Layout, encode_rows
from .claims import Claims
from .lanes import POSITIONS, Lane, sealed_end
from .misplaced import move_misplaced
from .reader import EmbeddedReader

__all__ = ["Journal", "check_place", "encoded", "waiting_tables"]


class Journal:
    """Adds rows to sequences; used inside a transaction of the writing connection.

    What the methods take is the sequence as :meth:`refresh` gives it in that transaction.
    """

    def __init__(self, reader: EmbeddedReader) -> None:
        self.claims = Claims(reader)
        self._version: tuple[sqlite3.Connection, int] | None = None
        self._known: dict[int, Lane] = {}

    def refresh(self, connection: sqlite3.Connection, sequence: Lane) -> Lane:
        """The sequence with its counters as they are now, other processes' work included."""
        # The number means something only beside those of the same connection.
        version = connection, connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self.forget()
            self._version = version
        known = self._known.get(sequence.number)
        if known is None:
            known = self._known[sequence.number] = sequence
            low = sequence.number * POSITIONS
            rows, nbytes, begin, end = connection.execute(
                "SELECT total(coalesce(rows, 1)), total(length(body)), min(id), "
                "max(id + coalesce(rows, 1)) FROM journal WHERE id >= ? AND id < ?",
                (low, low + POSITIONS),
            ).fetchone()
            known.waiting_rows, known.waiting_bytes = int(rows), int(nbytes)
            known.sealed = known.next = sealed_end(connection, sequence.number)
            if begin is not None:
                known.next = max(known.sealed, end - low)
                if begin - low < known.sealed:
                    move_misplaced(connection, known, known.sealed)
        self.claims.refresh(connection, known)
        return known

    def forget(self, number: int | None = None) -> None:
        """Drop what is known of a sequence, or of all, after a transaction that failed."""
        if number is None:
            self._known.clear()
            self.claims.forget()
        else:
            self._known.pop(number, None)

    def append(
        self, connection: sqlite3.Connection, sequence: Lane, rows: Sequence[Mapping[str, Any]]
    ) -> int:
        """Add rows that are not there yet; how many were added.

        Raises
        ------
        DuplicateUID
            If a different document has the same uid in this run.
        StoreError
            If a sealed chunk has the sequence's next position.
        """
        check_place(sequence)
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

    def append_table(self, connection: sqlite3.Connection, sequence: Lane, table: pa.Table) -> None:
        """Add a page whose uids are claimed, encoded as a chunk."""
        check_place(sequence)
        body = to_ipc(table)
        connection.execute(
            "INSERT INTO journal VALUES (?, ?, ?)",
            (sequence.number * POSITIONS + sequence.next, table.num_rows, body),
        )
        sequence.next += table.num_rows
        sequence.waiting_rows += table.num_rows
        sequence.waiting_bytes += len(body)


def check_place(sequence: Lane) -> None:
    """Refuse to store at a position that a sealed chunk has, where no reader expects a row.

    :meth:`Journal.refresh` has looked where the chunks end, unless nobody has sealed since.

    Raises
    ------
    StoreError
    """
    if sequence.next < sequence.sealed:
        raise StoreError(
            f"run {sequence.run!r}, {sequence.layout.kind} {sequence.next}: sealed chunks "
            f"hold all positions below {sequence.sealed}; nothing was stored. "
            "Inserting it again is safe"
        )


def waiting_tables(
    connection: sqlite3.Connection,
    lane: Lane,
    first: int = 0,
    most_rows: int = POSITIONS,
    most_bytes: int = 2**63,
) -> Iterator[tuple[int, pa.Table]]:
    """What the journal holds of a sequence from a position on, as ``(position, table)``.

    It ends where the limits are reached, but gives one row at least.
    """
    low = lane.number * POSITIONS
    cursor = connection.execute(
        "SELECT id, rows, body FROM journal WHERE id >= ? AND id < ? ORDER BY id",
        (low + first, low + POSITIONS),
    )
    try:
        yield from encoded(cursor, lane, most_rows, most_bytes)
    finally:  # else the connection goes on to see what there was, as long as an error is kept
        cursor.close()


def encoded(
    journal: Iterable[tuple[int, int | None, bytes]],
    lane: Lane,
    most_rows: int = POSITIONS,
    most_bytes: int = 2**63,
) -> Iterator[tuple[int, pa.Table]]:
    """Rows of the journal, ``(id, rows, body)`` of one sequence, as :func:`waiting_tables` does.

    Runs of single rows are encoded together.
    """
    low = lane.number * POSITIONS
    singles: list[dict[str, Any]] = []
    begin, count, size = 0, 0, 0
    for number, rows, body in journal:
        count, size = count + (rows or 1), size + len(body)
        if (count > most_rows or size > most_bytes) and count > (rows or 1):
            break
        if rows is not None and singles:
            yield begin, encode_rows(lane.layout, singles, lane.metadata)
            singles = []
        if rows is not None:
            yield number - low, from_ipc(body)
            continue
        if not singles:
            begin = number - low
        singles.append(unpack(body))
    if singles:
        yield begin, encode_rows(lane.layout, singles, lane.metadata)


def _without_owner(layout: Layout, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the journal keeps of a row: all but an owner that the sequence names."""
    if layout.mixed:
        return dict(row)
    return {key: value for key, value in row.items() if key != layout.owner}
