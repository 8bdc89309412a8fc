"""Sealing: rows leave the journal for immutable chunks, safely at any moment.

A large chunk is written to a temporary file, synced, renamed, its folder synced, and the folder
above where that one is new; then one transaction adds the chunk to the manifest and removes the
rows from the journal. Killed before that transaction, a process leaves the rows in the journal
and at worst a file that nothing names, which :func:`sweep` removes. A small chunk goes into
SQLite with the same transaction.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...core.chunks import Statistics, column_kinds, statistics, to_ipc
from ...core.codec import Kind, listed_kinds
from ...core.documents import from_json, to_json
from ...core.durable_files import publish_file, sync_file
from ...core.errors import StoreDamaged, naming
from ...core.file_names import file_name
from ...core.layouts import encode_page, join_tables
from ...core.pages import CHUNK_BYTES, CHUNK_ROWS, page_parts
from ...core.rounds import Rounds
from .chunk_files import encoded_file
from .database import CHUNK_FOLDER, Database
from .journal import Journal, check_place, waiting_tables
from .lanes import POSITIONS, Lane, sealed_end

__all__ = ["seal_lane", "seal_page", "sweep"]

INLINE_BYTES = 64 * 2**10
ORPHAN_SECONDS = 3600.0


def seal_lane(database: Database, journal: Journal, lane: Lane) -> int:
    """Pack what the journal holds of a sequence into chunks; how many were made."""
    made = 0
    rounds = Rounds(f"sealing the {lane.layout.kind}s of run {lane.run!r} in {database.root}")
    while True:
        with database.snapshot() as connection:
            waiting = list(waiting_tables(connection, lane, 0, CHUNK_ROWS, CHUNK_BYTES))
            sealed = sealed_end(connection, lane.number)
        if not waiting:
            return made
        rounds.check(waiting[0][0])
        if waiting[0][0] < sealed:  # a chunk's file might have the name of another one
            with database.write() as connection:
                journal.forget(lane.number)
                journal.refresh(connection, lane)  # moves them
            continue
        table = join_tables(lane.layout, [table for _, table in waiting], lane.metadata)
        known, complete = _publish(database, journal, lane, waiting[0][0], table)
        made += known
        if complete:
            return made


def seal_page(
    database: Database, journal: Journal, lane: Lane, page: Mapping[str, Any]
) -> list[tuple[pa.Table, Path | None]]:
    """Encode a large page and write its files; :func:`add_chunks` makes them known."""
    written: list[tuple[pa.Table, Path | None]] = []
    try:
        for part in page_parts(lane.layout, page):
            table = encode_page(lane.layout, part, lane.metadata)
            written.append((table, _write(database, lane, table)))
    except BaseException:
        discard_files(written)
        raise
    return written


def discard_files(written: Iterable[tuple[pa.Table, Path | None]]) -> None:
    """Remove files that no chunk names; what stays is swept later."""
    for _, path in written:
        if path is not None:
            with suppress(OSError):
                path.unlink()


# -- files -----------------------------------------------------------------------------------


def _write(database: Database, lane: Lane, table: pa.Table) -> Path | None:
    """Write a chunk's file under a temporary name; None for a chunk to keep in SQLite."""
    # Of both sizes, the first takes no time; where columns are slices, the second is the smaller.
    if table.get_total_buffer_size() <= INLINE_BYTES or table.nbytes <= INLINE_BYTES:
        return None
    folder = database.root / CHUNK_FOLDER / file_name(lane.run)
    temporary = folder / f".{os.getpid()}-{threading.get_ident()}-{time.time_ns()}.part"
    texts = [
        field.name
        for field in table.schema
        if pa.types.is_string(field.type) and field.name not in ("uid", "datum_id")
    ]
    with database.errors(), naming(temporary):
        database.check_place()
        database.folders.make(folder)
        try:
            with temporary.open("wb") as file:
                file.writelines(encoded_file(table, texts))
                sync_file(file)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    return temporary


def _final_path(temporary: Path, lane: Lane, first: int, rows: int) -> Path:
    stream = file_name(lane.metadata.get("stream", lane.layout.kind))
    # No other file has this name, in a copy of the store neither. The rows come last (see reader).
    return temporary.with_name(
        f"{stream}-{lane.number}-{first}-{uuid.uuid4().hex[:12]}-{rows}.parquet"
    )


def sweep(database: Database) -> int:
    """Remove old files that no chunk names, left by processes that were killed; how many."""
    folder = database.root / CHUNK_FOLDER
    if database.read_only or not folder.is_dir():
        return 0
    with database.read() as connection:
        known = {
            row[0] for row in connection.execute("SELECT path FROM chunk WHERE path IS NOT NULL")
        }
    removed = 0
    with database.errors():
        for path in folder.rglob("*"):
            if (
                path.suffix not in (".part", ".parquet", ".arrow")
                or str(path.relative_to(database.root)) in known
            ):
                continue
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > ORPHAN_SECONDS:
                    database.check_place()  # or it may be a file of another store
                    path.unlink()
                    removed += 1
    return removed


# -- manifest --------------------------------------------------------------------------------


def _publish(
    database: Database, journal: Journal, lane: Lane, first: int, table: pa.Table
) -> tuple[int, bool]:
    """Make a chunk of journal rows known, and drop the rows.

    Returns
    -------
    tuple
        How many chunks were made known, none if another process was first; and whether the
        journal has no more rows of the sequence.
    """
    temporary = _write(database, lane, table)
    final = _move(database, temporary, lane, first, table.num_rows)
    rows = table.num_rows
    low = lane.number * POSITIONS + first
    with database.write() as connection:
        here = connection.execute(
            "SELECT total(coalesce(rows, 1)) FROM journal WHERE id >= ? AND id < ?",
            (low, low + rows),
        ).fetchone()[0]
        if here != rows or sealed_end(connection, lane.number) > first:
            journal.forget(lane.number)
            discard_files([(table, final)])
            return 0, False
        journal.claims.note_pages(connection, lane, first, rows)
        add_chunk(connection, database, lane, first, table, final)
        connection.execute("DELETE FROM journal WHERE id >= ? AND id < ?", (low, low + rows))
        journal.forget(lane.number)
        more = connection.execute(
            "SELECT 1 FROM journal WHERE id >= ? AND id < ? LIMIT 1",
            (lane.number * POSITIONS, (lane.number + 1) * POSITIONS),
        ).fetchone()
    return 1, more is None


def add_chunks(
    connection: sqlite3.Connection,
    database: Database,
    lane: Lane,
    written: list[tuple[pa.Table, Path | None]],
) -> None:
    """Make the chunks of a page known, from the sequence's next position on."""
    check_place(lane)
    for table, temporary in written:
        final = _move(database, temporary, lane, lane.next, table.num_rows)
        add_chunk(connection, database, lane, lane.next, table, final)
        lane.next += table.num_rows
        lane.sealed = lane.next
    database.check_place()  # the files are where the manifest is


def _move(
    database: Database, temporary: Path | None, lane: Lane, first: int, rows: int
) -> Path | None:
    if temporary is None:
        return None
    final = _final_path(temporary, lane, first, rows)
    with database.errors(), naming(final):
        try:
            publish_file(temporary, final)
        except BaseException:
            with suppress(OSError):
                final.unlink()
            raise
    return final


def add_chunk(
    connection: sqlite3.Connection,
    database: Database,
    lane: Lane,
    first: int,
    table: pa.Table,
    path: Path | None,
) -> None:
    """One row of the manifest, with the chunk's body where it is small."""
    facts = statistics(lane.layout, table)
    place = None if path is None else path.relative_to(database.root).as_posix()
    cursor = connection.execute(
        "INSERT INTO chunk VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
        (lane.number, first, *_as_row(facts), _schema_number(connection, table), place),
    )
    if path is None:
        body = to_ipc(table)
        connection.execute("INSERT INTO chunk_body VALUES (?, ?)", (cursor.lastrowid, body))
        database.small_bytes += len(body)


def _as_row(facts: Statistics) -> tuple[Any, ...]:
    return (
        facts.rows, facts.bytes, facts.seq_min, facts.seq_max, facts.time_min, facts.time_max,
        facts.distinct, int(facts.ordered),
    )  # fmt: skip


def _schema_number(connection: sqlite3.Connection, table: pa.Table) -> int:
    """The number of this set of columns in the table of those that occur."""
    body = _written_schema(tuple(column_kinds(table).items()))
    query = "SELECT id FROM chunk_schema WHERE body = ?"
    row = connection.execute(query, (body,)).fetchone()
    if row is None:
        insert = connection.execute("INSERT INTO chunk_schema VALUES (NULL, ?)", (body,))
        return int(insert.lastrowid or 0)
    return int(row[0])


@lru_cache(maxsize=1000)
def _written_schema(kinds: tuple[tuple[str, Kind], ...]) -> str:
    return to_json({name: kind.to_list() for name, kind in kinds})


@lru_cache(maxsize=1000)
def read_schema(body: str) -> Mapping[str, Kind]:
    """The inverse of what :func:`add_chunk` stores of a chunk's columns; not to be changed."""
    try:
        return listed_kinds(from_json(body))
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreDamaged(f"the store's list of columns is damaged: {error}") from error
