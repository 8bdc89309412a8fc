"""The journal of an embedded store: rows as they come in, each stored once, durably.

A *sequence* holds documents in the order they came: the events of a descriptor, or what a run
has of one kind of references. A document's *position* is its place
in the sequence. The journal keeps the rows that no sealed chunk holds yet, under the key
``sequence * 2**36 + position``. Which documents there are is known by ``document_key``, a
hash of run, kind and uid, so that a repeated one is noticed without reading chunks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from ...core.chunks import EVENT, LAYOUTS, Layout, decode_rows
from ...core.documents import equal, pack, unpack
from ...core.errors import DuplicateUID
from .reader import EmbeddedReader, stored_keys

__all__ = ["POSITIONS", "Journal", "Lane"]

POSITIONS = 2**36


@dataclass(slots=True)
class Lane:
    """One sequence, as this process knows it.

    Attributes
    ----------
    number, layout, owner, run
        Its key in the store; what it holds; uid of the descriptor, of references that of the
        run; uid of the run.
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
    metadata: Mapping[str, str]
    next: int = 0
    waiting_rows: int = 0
    waiting_bytes: int = 0


class Journal:
    """Adds rows to sequences; used inside a transaction of the writing connection."""

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
            rows, nbytes, last = connection.execute(
                "SELECT count(*), total(length(body)), max(id) FROM journal "
                "WHERE id >= ? AND id < ?",
                (low, low + POSITIONS),
            ).fetchone()
            known.waiting_rows, known.waiting_bytes = rows, int(nbytes)
            known.next = sealed_end(connection, sequence.number)
            if last is not None:
                known.next = max(known.next, last - low + 1)
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
        state = self.refresh(connection, sequence)
        position, added = state.next, 0
        size = 0
        low = sequence.number * POSITIONS
        for row in rows:
            if not self._claim(connection, state, row, position):
                continue
            body = pack(_without_owner(sequence.layout, row))
            connection.execute("INSERT INTO journal VALUES (?, ?)", (low + position, body))
            size += len(body)
            position += 1
            added += 1
        state.next = position
        state.waiting_rows += added
        state.waiting_bytes += size
        return added

    def claim_page(
        self, connection: sqlite3.Connection, sequence: Lane, uids: Sequence[str]
    ) -> bool:
        """Note that these uids are stored from the next position on; False if one is known."""
        state = self.refresh(connection, sequence)
        before = connection.total_changes
        prefix = _prefix(state.run, state.layout)
        connection.executemany(
            "INSERT OR IGNORE INTO document_key VALUES (?, ?, ?)",
            (
                (_hash(prefix, uid), state.number, state.next + place)
                for place, uid in enumerate(uids)
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
        key = _hash(_prefix(sequence.run, layout), uid)
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
            key = (key + 1) % 2**63  # another document with the same hash: look further

    def _row_behind(
        self, connection: sqlite3.Connection, key: int, layout: Layout
    ) -> dict[str, Any]:
        number, position = connection.execute(
            "SELECT sequence, position FROM document_key WHERE hash = ?", (key,)
        ).fetchone()
        kind, owner = owner_of(connection, number)
        row = connection.execute(
            "SELECT body FROM journal WHERE id = ?", (number * POSITIONS + position,)
        ).fetchone()
        if row is not None:
            there = unpack(row[0])
            return there if LAYOUTS[kind].mixed else {**there, LAYOUTS[kind].owner: owner}
        chunk, first = connection.execute(
            "SELECT id, first FROM chunk WHERE sequence = ? AND first <= ? "
            "ORDER BY first DESC LIMIT 1",
            (number, position),
        ).fetchone()
        if self._last_chunk is None or self._last_chunk[0] != chunk:
            (place,) = stored_keys(connection, [chunk])
            table = self._reader.read(place)
            self._last_chunk = (chunk, decode_rows(LAYOUTS[kind], table, owner))
        return self._last_chunk[1][position - first]  # type: ignore[no-any-return]


def owner_of(connection: sqlite3.Connection, number: int) -> tuple[str, str]:
    """Kind of a sequence, and its owner's uid."""
    kind, owner = connection.execute(
        "SELECT kind, owner FROM sequence WHERE id = ?", (number,)
    ).fetchone()
    table = "descriptor" if kind == EVENT.kind else "run"
    return kind, connection.execute(f"SELECT uid FROM {table} WHERE id = ?", (owner,)).fetchone()[0]


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


def _prefix(run: str, layout: Layout) -> bytes:
    return f"{run}\0{layout.kind}\0".encode("utf8", "surrogatepass")


def _hash(prefix: bytes, uid: str) -> int:
    digest = blake2b(prefix + uid.encode("utf8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
