"""Planning in an embedded store: from manifest and journal to a list of chunks."""

from __future__ import annotations

import json
import math
import sqlite3
import struct
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from ...core.chunk_statistics import Statistics
from ...core.column_kinds import ColumnKind
from ...core.documents import Document
from ...core.errors import StoreDamaged
from ...core.layouts import EVENT, REFERENCES, Layout, chunk_metadata
from ...core.plan_builder import PlanBuilder
from ...core.printable import shown
from .format import COUNTED
from .journal import encoded
from .packing import location_checksum
from .row_sequences import POSITIONS, RowSequence
from .sealing import entry_checksum, read_schema

CHUNKS_SQL = (
    "SELECT schema, sequence, id, path, offset, length, first, "
    + ", ".join(f'"{name}"' for name in Statistics._fields)
    + " FROM chunk WHERE sequence {among} ORDER BY sequence, first"
)
WAITING_SQL = (
    "SELECT sequence.id, journal.id, rows, body FROM sequence CROSS JOIN journal ON "
    f"journal.id >= sequence.id * {POSITIONS} AND journal.id < (sequence.id + 1) * {POSITIONS} "
    "WHERE sequence.id {among} ORDER BY journal.id"
)


MOST_PARAMETERS = 4
"""Maximum number of values that are parameters of their own, so that few statements differ."""


def among(values: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """Return SQL for "one of these values" and its parameters.

    Many values become one parameter, a JSON text.
    """
    if len(values) <= MOST_PARAMETERS:
        return f"IN ({','.join('?' * len(values))})", tuple(values)
    return "IN (SELECT value FROM json_each(?))", (json.dumps(list(values)),)


SEALED = (
    "(SELECT total((SELECT first + rows FROM chunk WHERE chunk.sequence = sequence.id "
    "ORDER BY first DESC LIMIT 1)) FROM sequence WHERE sequence.run = run.id)"
)
"""SQL for the number of sealed documents of a run."""

HAS_TOO_FEW = f"stopped - {COUNTED} > {SEALED}"
"""SQL for whether a run has fewer documents than when it stopped."""
TOO_FEW = "events or other documents are not there that it had when it stopped"

# The events of a run may also be in another store. It is lost here only if some row leads to a run
# that is not there, or a run has lost its name. CASE looks for these, in all rows, only if needed.
LOST_ROWS = (
    "SELECT DISTINCT run.uid, NULL, "
    "'there are events whose descriptor is not stored, or documents of no known kind', "
    "NULL, NULL, NULL, NULL FROM run JOIN sequence ON sequence.run = run.id WHERE kind NOT IN ("
    + ", ".join(repr(layout.kind) for layout in REFERENCES)
    + ") AND NOT (kind = 'event' AND EXISTS "
    "(SELECT 1 FROM descriptor WHERE descriptor.id = owner AND descriptor.run = run.id)) "
    "AND run.uid {among} UNION ALL "
    "SELECT uid, NULL, 'the list of runs lacks it, so its events are not found', "
    "NULL, NULL, NULL, NULL FROM header "
    "WHERE CASE WHEN EXISTS (SELECT 1 FROM run WHERE run.uid = header.uid) THEN 0 "
    "WHEN EXISTS (SELECT 1 FROM descriptor WHERE run NOT IN (SELECT id FROM run)) THEN 1 "
    "ELSE EXISTS (SELECT 1 FROM run WHERE uid NOT IN (SELECT uid FROM header)) END "
    "AND uid {among}"
)
"""SQL for runs with documents to which no row leads any more: uid and what is wrong, as the first
and third column of a list of descriptors, whose last column is not NULL. It has
the uids twice."""


class PlannedSequence(NamedTuple):
    """A sequence, and the plan to which its chunks are added.

    Attributes
    ----------
    number, layout
        Key of the sequence in the store, and layout of its documents.
    builder
        Builder of the plan.
    owner_number
        Index of the sequence's descriptor or owner in the plan.
    owner
        Descriptor of events, or owner of references.
    """

    number: int
    layout: Layout
    builder: PlanBuilder
    owner_number: int
    owner: Document


def add_sequences(connection: sqlite3.Connection, sequences: Sequence[PlannedSequence]) -> None:
    """Add the chunks of sequences to their plans, followed by the rows in the journal.

    The number of statements does not depend on the number of sequences. The connection should be
    that of a snapshot, so that all statements see the same state.
    """
    if not sequences:
        return
    by_number = {sequence.number: sequence for sequence in sequences}
    condition, numbers = among(list(by_number))
    chunks = connection.execute(CHUNKS_SQL.format(among=condition), numbers).fetchall()
    waiting: dict[int, list[tuple[Any, ...]]] = {}
    for number, *row in connection.execute(WAITING_SQL.format(among=condition), numbers):
        waiting.setdefault(number, []).append(tuple(row))
    schemas = _Schemas(connection, chunks, by_number)
    bad = _add_all_sealed(by_number, chunks, schemas)
    for number, rows in waiting.items():
        try:
            if number not in bad:
                _add_tail(by_number[number], rows)
        except StoreDamaged as error:
            bad[number] = error
    for number, damage in bad.items():  # only these runs are bad
        sequence = by_number[number]
        sequence.builder.note_bad(sequence.owner_number, f"{sequence.layout.kind}s: {damage}")


def _add_all_sealed(
    sequences: Mapping[int, PlannedSequence], chunks: Sequence[tuple[Any, ...]], schemas: _Schemas
) -> dict[int, StoreDamaged]:
    """Add the chunks of all sequences, in order; return what is damaged, by sequence."""
    bad: dict[int, StoreDamaged] = {}
    last = end = 0
    for chunk in chunks:  # no list for each sequence: there may be thousands
        number, first, rows = chunk[1], chunk[6], chunk[7]
        if number != last:
            last, end = number, 0
        try:
            if not bad or number not in bad:
                # These rows have no checksum; one that is lost or changed leaves a gap.
                if first != end:
                    raise StoreDamaged(
                        f"chunks are missing or changed: one begins at {shown(first)}, not {end:,}"
                    )
                _add_sealed(sequences[number], chunk, schemas)
                end += rows
        except StoreDamaged as error:
            bad[number] = error
        except (TypeError, struct.error) as error:
            bad[number] = StoreDamaged(f"the list of its chunks: {error}")
    return bad


class _Schemas:
    """Numbers of schemas in plans by their keys in the store, all fetched by one query."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        chunks: Sequence[tuple[Any, ...]],
        sequences: Mapping[int, PlannedSequence],
    ) -> None:
        # A key of another type is of a damaged row, and found to be missing.
        wanted = {
            key
            for key, number, *_ in chunks
            if type(key) is int and sequences[number].layout is EVENT
        }
        self._bodies: dict[int, str] = {}
        if wanted:
            condition, numbers = among(sorted(wanted))
            query = f"SELECT id, body FROM chunk_schema WHERE id {condition}"
            self._bodies = dict(connection.execute(query, numbers))
        self._known: dict[tuple[int, int], int] = {}

    def of(self, sequence: PlannedSequence, number: int) -> int:
        """Return the number of a schema in the sequence's plan.

        The kinds of references are never used, so these share an empty schema.
        """
        # Plans of references have no use for columns, so one schema serves all their chunks.
        key = (id(sequence.builder), number if sequence.layout is EVENT else 0)
        if key not in self._known:
            kinds: Mapping[str, ColumnKind] = {}
            if sequence.layout is EVENT:
                if number not in self._bodies:
                    raise StoreDamaged(
                        f"the store lacks the list of columns number {shown(number)}"
                    )
                kinds = read_schema(self._bodies[number])
            self._known[key] = sequence.builder.add_schema(kinds)
        return self._known[key]


def _add_sealed(sequence: PlannedSequence, chunk: tuple[Any, ...], schemas: _Schemas) -> None:
    schema, _, number, path, offset, length, first, *row = chunk
    key = _key(number, path, offset, length)
    # SQLite stores NaN as NULL.
    if None in row:
        row = [math.nan if value is None else value for value in row]
    facts = Statistics._make(row)
    if facts.ordered > 1:  # else it has none
        located = location_checksum(*key) if type(key) is tuple else 0
        # An earlier version that packs a chunk adds nothing.
        if facts.ordered - entry_checksum(sequence.number, first, facts, schema) not in (
            located,
            0,
        ):
            raise StoreDamaged(f"the list of its chunks: the checksum of row {number} is wrong")
    sequence.builder.add_chunk(
        sequence.owner_number, key, first, schemas.of(sequence, schema), facts
    )


def _key(number: int, path: Any, offset: Any, length: Any) -> int | str | tuple[str, int, int]:
    """Return the key by which the reader reads a chunk."""
    if path is None:
        return number
    if type(path) is str:
        if type(offset) is type(length) is int:
            return path, offset, length
        if offset is None:
            return path
    raise StoreDamaged(f"the list of its chunks: one is at {shown((path, offset, length))}")


def _add_tail(sequence: PlannedSequence, journal: Sequence[tuple[int, int | None, bytes]]) -> None:
    """Add the unsealed rows of a sequence, as chunks that are carried in the plan.

    All rows of the journal are added: they are in no chunk, whatever their position.
    """
    owner = sequence.owner
    metadata = chunk_metadata(sequence.layout, owner)
    rows = RowSequence(
        sequence.number, sequence.layout, owner["uid"], owner["run_start"], 0, metadata
    )
    for position, table in encoded(journal, rows):
        sequence.builder.add_table(sequence.owner_number, position, table)


def lost_rows(connection: sqlite3.Connection, runs: Collection[str]) -> dict[str, str]:
    """Return what is wrong with those runs that have documents to which no row leads any more."""
    if not runs:
        return {}
    condition, values = among(list(runs))
    found = connection.execute(LOST_ROWS.format(among=condition), values * 2)
    return {run: reason for run, _, reason, *_ in found}
