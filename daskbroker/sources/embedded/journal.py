"""The journal of an embedded store: rows as they come in, each stored once, durably.

A *sequence* holds documents in the order they came: the events of a descriptor, or what a run
has of one kind of references. A document's *position* is its place in the sequence. The journal
keeps the rows that no sealed chunk holds yet, under the key ``sequence * 2**36 + position``:
single rows as msgpack, a page as a small chunk, under the position of its first row and with
the number of its rows. Which documents there are is known by ``document_key``, by run and a
hash of kind and uid, so that a repeated one is noticed without reading chunks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from ...core.chunks import from_ipc, to_ipc
from ...core.documents import equal, pack, unpack
from ...core.errors import DuplicateUID, StoreDamaged
from ...core.layouts import EVENT, LAYOUTS, Layout, decode_rows, encode_rows
from .reader import EmbeddedReader, stored_keys

__all__ = ["POSITIONS", "Journal", "Lane", "waiting_tables"]

POSITIONS = 2**36


@dataclass(slots=True)
class Lane:
    """One sequence, as this process knows it.

    Attributes
    ----------
    number, layout, owner
        Its key in the store; what it holds; uid of the descriptor, of references that of the
        run.
    run, run_number
        Uid of the run, and its key in the store.
    next
        Position of the next row.
    waiting_rows, waiting_bytes
        What the journal holds of it, for deciding when to seal.
    metadata
        For the schema of its chunks.
    """

    number: int
    layout: Layout
    owner: str
    run: str
    run_number: int
    metadata: Mapping[str, str]
    next: int = 0
    waiting_rows: int = 0
    waiting_bytes: int = 0


class Journal:
    """Adds rows to sequences; used inside a transaction of the writing connection.

    What the methods take is the sequence as :meth:`refresh` gives it in that transaction.
    """

    def __init__(self, reader: EmbeddedReader) -> None:
        self._reader = reader
        self._version: int | None = None
        self._known: dict[int, Lane] = {}
        self._last_chunk: tuple[int, list[Any]] | None = None

    def refresh(self, connection: sqlite3.Connection, sequence: Lane) -> Lane:
        """The sequence with its counters as they are now, other processes' work included."""
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._known.clear()
            self._version = version
        known = self._known.get(sequence.number)
        if known is None:
            known = self._known[sequence.number] = sequence
            low = sequence.number * POSITIONS
            rows, nbytes, end = connection.execute(
                "SELECT total(coalesce(rows, 1)), total(length(body)), "
                "max(id + coalesce(rows, 1)) FROM journal WHERE id >= ? AND id < ?",
                (low, low + POSITIONS),
            ).fetchone()
            known.waiting_rows, known.waiting_bytes = int(rows), int(nbytes)
            known.next = sealed_end(connection, sequence.number)
            if end is not None:
                known.next = max(known.next, end - low)
        return known

    def forget(self, number: int | None = None) -> None:
        """Drop what is known of a sequence, or of all, after a transaction that failed."""
        if number is None:
            self._known.clear()
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
        """
        position, added = sequence.next, 0
        size = 0
        low = sequence.number * POSITIONS
        for row in rows:
            if not self._claim(connection, sequence, row, position):
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
        """Add a page that :meth:`claim_page` has claimed, encoded as a chunk."""
        body = to_ipc(table)
        connection.execute(
            "INSERT INTO journal VALUES (?, ?, ?)",
            (sequence.number * POSITIONS + sequence.next, table.num_rows, body),
        )
        sequence.next += table.num_rows
        sequence.waiting_rows += table.num_rows
        sequence.waiting_bytes += len(body)

    def claim_page(
        self, connection: sqlite3.Connection, sequence: Lane, uids: Sequence[str]
    ) -> bool:
        """Note that these uids are stored from the next position on; False if one is known."""
        before = connection.total_changes
        connection.executemany(
            "INSERT OR IGNORE INTO document_key VALUES (?, ?, ?)",
            sorted(
                (key, sequence.number, sequence.next + place)
                for place, key in enumerate(_keys(sequence, uids))
            ),
        )
        return connection.total_changes - before == len(uids)

    def _claim(
        self,
        connection: sqlite3.Connection,
        sequence: Lane,
        row: Mapping[str, Any],
        position: int,
    ) -> bool:
        """Note the row's uid; False if this very document is there already."""
        layout = sequence.layout
        uid = row[layout.uid]
        (key,) = _keys(sequence, [uid])
        while True:
            try:
                connection.execute(
                    "INSERT INTO document_key VALUES (?, ?, ?)", (key, sequence.number, position)
                )
                return True
            except sqlite3.IntegrityError:
                there = self._row_behind(connection, key, layout)
            if there[layout.uid] == uid:
                if equal(there, dict(row)):
                    return False
                raise DuplicateUID(
                    f"{layout.kind} {uid!r}: a different {layout.kind} of run {sequence.run!r} "
                    "is stored under this uid"
                )
            key += 1  # another document with the same hash: look further

    def _row_behind(
        self, connection: sqlite3.Connection, key: int, layout: Layout
    ) -> dict[str, Any]:
        number, position = found_row(
            connection, "SELECT sequence, position FROM document_key WHERE hash = ?", key
        )
        kind, owner = owner_of(connection, number)
        low = number * POSITIONS
        row = connection.execute(
            "SELECT id, rows, body FROM journal WHERE id >= ? AND id <= ? ORDER BY id DESC LIMIT 1",
            (low, low + position),
        ).fetchone()
        if row is not None and row[0] + (row[1] or 1) > low + position:
            first, rows, body = row
            if rows is None:
                there = unpack(body)
                return there if LAYOUTS[kind].mixed else {**there, LAYOUTS[kind].owner: owner}
            return self._decoded(-first, kind, owner, body)[low + position - first]
        chunk, first = found_row(
            connection,
            "SELECT id, first FROM chunk WHERE sequence = ? AND first <= ? "
            "ORDER BY first DESC LIMIT 1",
            number,
            position,
        )
        (place,) = stored_keys(connection, [chunk])
        return self._decoded(chunk, kind, owner, place)[position - first]

    def _decoded(self, number: int, kind: str, owner: str, key: Any) -> list[Any]:
        """The documents of a chunk; those of the last one are kept."""
        if self._last_chunk is None or self._last_chunk[0] != number:
            documents = decode_rows(LAYOUTS[kind], self._reader.read(key), owner)
            self._last_chunk = (number, documents)
        return self._last_chunk[1]


def waiting_tables(
    connection: sqlite3.Connection,
    lane: Lane,
    first: int = 0,
    most_rows: int = POSITIONS,
    most_bytes: int = 2**63,
) -> Iterator[tuple[int, pa.Table]]:
    """What the journal holds of a sequence from a position on, as ``(position, table)``.

    Runs of single rows are encoded together. It ends where the limits are reached, but gives
    one row at least.
    """
    low = lane.number * POSITIONS
    singles: list[dict[str, Any]] = []
    begin, count, size = first, 0, 0
    cursor = connection.execute(
        "SELECT id, rows, body FROM journal WHERE id >= ? AND id < ? ORDER BY id",
        (low + first, low + POSITIONS),
    )
    for number, rows, body in cursor:
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
    cursor.close()
    if singles:
        yield begin, encode_rows(lane.layout, singles, lane.metadata)


def owner_of(connection: sqlite3.Connection, number: int) -> tuple[str, str]:
    """Kind of a sequence, and its owner's uid."""
    kind, owner = found_row(connection, "SELECT kind, owner FROM sequence WHERE id = ?", number)
    table = "descriptor" if kind == EVENT.kind else "run"
    return kind, found_row(connection, f"SELECT uid FROM {table} WHERE id = ?", owner)[0]


def found_row(connection: sqlite3.Connection, query: str, *values: Any) -> tuple[Any, ...]:
    """The row that another one refers to.

    Raises
    ------
    StoreDamaged
        If there is none.
    """
    row: tuple[Any, ...] | None = connection.execute(query, values).fetchone()
    if row is None:
        raise StoreDamaged(f"the store lacks the row of {values} that is wanted by: {query}")
    return row


def sealed_end(connection: sqlite3.Connection, number: int) -> int:
    """The position after the last one that a chunk holds."""
    row = connection.execute(
        "SELECT first + rows FROM chunk WHERE sequence = ? ORDER BY first DESC LIMIT 1", (number,)
    ).fetchone()
    return 0 if row is None else int(row[0])


def _without_owner(layout: Layout, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the journal keeps of a row: all but an owner that the sequence names."""
    if layout.mixed:
        return dict(row)
    return {key: value for key, value in row.items() if key != layout.owner}


def _keys(lane: Lane, uids: Sequence[str]) -> Iterator[int]:
    """Where ``document_key`` has these documents: close together for those of one run."""
    low = lane.run_number * POSITIONS
    empty = _empty_digest(lane.layout.kind)
    for uid in uids:
        digest = empty.copy()  # half the time of making one
        digest.update(uid.encode("utf8", "surrogatepass"))
        yield low + int.from_bytes(digest.digest(), "big") % POSITIONS


@cache
def _empty_digest(kind: str) -> blake2b:
    return blake2b(digest_size=8, person=kind.encode())
