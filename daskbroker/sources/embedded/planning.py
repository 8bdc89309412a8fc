"""Planning in an embedded store: from manifest and journal to a list of chunks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ...core.chunks import (
    CHUNK_RECORD,
    ChunkPlan,
    Layout,
    column_kinds,
    encode_rows,
    ranges_table,
    statistics,
    to_ipc,
)
from ...core.documents import Document, unpack
from .database import Database
from .journal import POSITIONS
from .reader import EmbeddedReader
from .sealing import read_schema

__all__ = ["PlanBuilder", "merged", "numbers_of", "pieces"]


class PlanBuilder:
    """Collects the lines of a plan from the manifest and the journal."""

    def __init__(self, database: Database, reader: EmbeddedReader, layout: Layout) -> None:
        self._database = database
        self._reader = reader
        self._layout = layout
        self._descriptors: list[Document] = []
        self._schemas: list[Mapping[str, Any]] = []
        self._schema_places: dict[Any, int] = {}
        self._records: list[tuple[Any, ...]] = []
        self._keys: list[Any] = []

    def add(
        self, connection: sqlite3.Connection, owners: Iterable[tuple[int | None, Document]]
    ) -> None:
        """Add the chunks of sequences, each followed by what the journal still holds."""
        owners = list(owners)
        base = len(self._descriptors)
        self._descriptors.extend(doc for _, doc in owners)
        numbers = [number for number, _ in owners if number is not None]
        chunks = _chunk_rows(connection, numbers)
        for place, (number, doc) in enumerate(owners):
            if number is None:
                continue
            end = 0
            for chunk in chunks.get(number, ()):
                end = self._add_sealed(connection, base + place, chunk)
            self._add_tail(connection, base + place, number, doc, end)

    def _add_sealed(
        self, connection: sqlite3.Connection, place: int, chunk: tuple[Any, ...]
    ) -> int:
        (
            identity,
            _,
            first,
            rows,
            nbytes,
            low,
            high,
            begin,
            end,
            distinct,
            ordered,
            schema,
            path,
        ) = chunk
        record = (
            place, self._schema(connection, schema), first, rows, nbytes, low, high,
            _nan(begin), _nan(end), distinct, bool(ordered),
        )  # fmt: skip
        self._records.append(record)
        self._keys.append(path if path is not None else identity)
        return int(first + rows)

    def _schema(self, connection: sqlite3.Connection, number: int) -> int:
        if number not in self._schema_places:
            body = connection.execute(
                "SELECT body FROM chunk_schema WHERE id = ?", (number,)
            ).fetchone()[0]
            self._schema_places[number] = len(self._schemas)
            self._schemas.append(read_schema(body))
        return self._schema_places[number]

    def _add_tail(
        self, connection: sqlite3.Connection, place: int, number: int, doc: Document, end: int
    ) -> None:
        """The unsealed rows, encoded as a chunk of their own that travels with the plan."""
        low = number * POSITIONS
        bodies = connection.execute(
            "SELECT body FROM journal WHERE id >= ? AND id < ? ORDER BY id",
            (low + end, low + POSITIONS),
        ).fetchall()
        if not bodies:
            return
        metadata = {"run": doc.get("run_start", ""), self._layout.owner: doc["uid"]}
        rows = [unpack(body[0]) for body in bodies]
        self._add_table(place, end, encode_rows(self._layout, rows, metadata))

    def _add_table(self, place: int, first: int, table: Any, key: Any = None) -> None:
        facts = statistics(self._layout, table)
        self._schemas.append(column_kinds(table))
        record = (
            place, len(self._schemas) - 1, first, facts.rows, facts.bytes, facts.seq_min,
            facts.seq_max, facts.time_min, facts.time_max, facts.distinct, facts.ordered,
        )  # fmt: skip
        self._records.append(record)
        self._keys.append(to_ipc(table) if key is None else key)

    def add_range(self, descriptor: Document, first: int, last: int) -> None:
        """Events that only stream_datum tell of."""
        place = next(i for i, d in enumerate(self._descriptors) if d["uid"] == descriptor["uid"])
        self._add_table(place, first, ranges_table(first, last), key=(first, last))

    def plan(self) -> ChunkPlan:
        """What was added, in the order of the descriptors."""
        records = np.array(self._records, dtype=CHUNK_RECORD)
        order = np.argsort(records["descriptor"], kind="stable")
        return ChunkPlan(
            reader=self._reader,
            descriptors=tuple(self._descriptors),
            schemas=tuple(self._schemas),
            records=records[order],
            keys=tuple(self._keys[place] for place in order.tolist()),
            store=self._database.store_id,
        )


def _chunk_rows(
    connection: sqlite3.Connection, numbers: Sequence[int]
) -> dict[int, list[tuple[Any, ...]]]:
    found: dict[int, list[tuple[Any, ...]]] = {}
    for some in pieces(numbers, 400):
        marks = ",".join("?" * len(some))
        for row in connection.execute(
            f"SELECT * FROM chunk WHERE sequence IN ({marks}) ORDER BY sequence, first", some
        ):
            found.setdefault(row[1], []).append(row)
    return found


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


def merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Union of half-open ranges."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value
