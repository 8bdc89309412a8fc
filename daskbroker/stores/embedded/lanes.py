"""Sequences of an embedded store: documents in the order they came.

A sequence holds the events of a descriptor, or what a run has of one kind of references. A
document's *position* is its place in the sequence.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...core.errors import StoreDamaged
from ...core.layouts import EVENT, Layout

__all__ = ["POSITIONS", "Lane", "found_row", "owner_of", "sealed_end"]

POSITIONS = 2**36
"""Rows of the journal have the key ``sequence * POSITIONS + position``."""


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
    sealed
        Position after the last row that a chunk holds.
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
    sealed: int = 0
    waiting_rows: int = 0
    waiting_bytes: int = 0


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
