"""Sequences of an embedded store: documents in order of insertion.

A sequence holds the events of a descriptor, or the references of one kind of a run. The *position*
of a document is its index in the sequence.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...core.errors import StoreDamaged
from ...core.layouts import EVENT, Layout

POSITIONS = 2**36
"""Positions per sequence; a row of the journal has the key ``sequence * POSITIONS + position``."""


@dataclass(slots=True)
class RowSequence:
    """One sequence, as this process knows it.

    Attributes
    ----------
    number
        Key of the sequence in the store.
    layout
        Layout of its documents.
    owner
        Uid of the descriptor for events, or of the run for references.
    run, run_number
        Uid of the run, and its key in the store.
    metadata
        Metadata of the schema of its chunks.
    next
        Position of the next row.
    sealed
        Position after the last row that a chunk holds.
    waiting_rows, waiting_bytes
        Number and bytes of the rows in the journal, which decide when to seal.
    look
        Number of the last look at what other processes have stored.
    """

    number: int
    layout: Layout
    owner: str
    run: str
    run_number: int
    metadata: Mapping[str, str]
    next: int = 0
    sealed: int = 0
    waiting_rows: int = 0
    waiting_bytes: int = 0
    look: int = 0


def owner_of(connection: sqlite3.Connection, number: int) -> tuple[str, str]:
    """Return the kind of a sequence, and the uid of its owner."""
    kind, owner = one_row(connection, "SELECT kind, owner FROM sequence WHERE id = ?", number)
    table = "descriptor" if kind == EVENT.kind else "run"
    return kind, one_row(connection, f"SELECT uid FROM {table} WHERE id = ?", owner)[0]


def one_row(connection: sqlite3.Connection, query: str, *values: Any) -> tuple[Any, ...]:
    """Return the row of a query, to which another row refers.

    Raises
    ------
    StoreDamaged
        If there is no such row.
    """
    row: tuple[Any, ...] | None = connection.execute(query, values).fetchone()
    if row is None:
        raise StoreDamaged(
            f"the store has no row for {values}, although others refer to it: {query}"
        )
    return row


def sealed_end(connection: sqlite3.Connection, number: int) -> int:
    """Return the position after the last row that a chunk holds; 0 if there is no chunk."""
    row = connection.execute(
        "SELECT first + rows FROM chunk WHERE sequence = ? ORDER BY first DESC LIMIT 1", (number,)
    ).fetchone()
    return 0 if row is None else int(row[0])
