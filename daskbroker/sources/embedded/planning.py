"""Planning in an embedded store: from manifest and journal to a list of chunks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from ...core.chunks import Statistics
from ...core.documents import Document
from ...core.layouts import Layout
from ...core.planning import PlanBuilder
from .journal import waiting_tables
from .lanes import Lane, found_row
from .sealing import read_schema

__all__ = ["SequencePlanner", "numbers_of", "pieces"]

STORED = (
    "id, sequence, first, rows, bytes, seq_min, seq_max, time_min, time_max, "
    '"distinct", ordered, schema, path, offset, length'
)


class SequencePlanner:
    """Adds the chunks of sequences to a plan, each followed by what the journal still holds."""

    def __init__(
        self, connection: sqlite3.Connection, builder: PlanBuilder, layout: Layout
    ) -> None:
        self._connection = connection
        self._builder = builder
        self._layout = layout
        self._schemas: dict[int, int] = {}

    def add(self, owners: Iterable[tuple[int | None, Document]]) -> None:
        """Add sequences by number, each with the descriptor it belongs to, in their order."""
        owners = list(owners)
        numbers = [number for number, _ in owners if number is not None]
        chunks = self._chunk_rows(numbers)
        for place, (number, doc) in enumerate(owners):
            if number is not None:
                for chunk in chunks.get(number, ()):
                    self._add_sealed(place, chunk)
                self._add_tail(place, number, doc)

    def _chunk_rows(self, numbers: Sequence[int]) -> dict[int, list[tuple[Any, ...]]]:
        found: dict[int, list[tuple[Any, ...]]] = {}
        for some in pieces(numbers, 400):
            marks = ",".join("?" * len(some))
            query = (
                f"SELECT {STORED} FROM chunk WHERE sequence IN ({marks}) ORDER BY sequence, first"
            )
            for row in self._connection.execute(query, some):
                found.setdefault(row[1], []).append(row)
        return found

    def _add_sealed(self, place: int, chunk: tuple[Any, ...]) -> None:
        number, _, first, *facts, ordered, schema, path, offset, length = chunk
        rows, nbytes, low, high, begin, end, distinct = facts
        key = number if path is None else path if offset is None else (path, offset, length)
        self._builder.add_chunk(
            place, key, first, self._schema(schema),
            Statistics(rows, nbytes, low, high, _nan(begin), _nan(end), distinct, bool(ordered)),
        )  # fmt: skip

    def _schema(self, number: int) -> int:
        if number not in self._schemas:
            query = "SELECT body FROM chunk_schema WHERE id = ?"
            (body,) = found_row(self._connection, query, number)
            self._schemas[number] = self._builder.add_schema(read_schema(body))
        return self._schemas[number]

    def _add_tail(self, place: int, number: int, doc: Document) -> None:
        """The unsealed rows, as chunks that travel with the plan.

        All of the journal: a row that is there is in no chunk, whatever its position.
        """
        metadata = {"run": doc["run_start"], "kind": self._layout.kind}
        lane = Lane(number, self._layout, doc["uid"], doc["run_start"], 0, metadata)
        for first, table in waiting_tables(self._connection, lane):
            self._builder.add_table(place, first, table)


def numbers_of(connection: sqlite3.Connection, query: str, uids: Sequence[str]) -> dict[str, int]:
    """Numbers of sequences by uid; the query ends in ``IN``."""
    found: dict[str, int] = {}
    for some in pieces(uids, 400):
        marks = ",".join("?" * len(some))
        found.update(connection.execute(f"{query} ({marks})", some))
    return found


def pieces(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    """A sequence in pieces, as SQLite takes only so many parameters."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value
