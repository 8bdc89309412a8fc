"""Sealing: moving rows from the journal into immutable chunks, safely at any moment.

A large chunk is written to a temporary file, which is synced and renamed; its folder is synced,
and also the folder above if its own is new. Then one transaction adds the chunk to the manifest
and removes the rows from the journal. A process that is killed before that transaction leaves the
rows in the journal, and at worst a file that nothing names, which :func:`sweep` removes. A small
chunk goes into SQLite with the same transaction.
"""

from __future__ import annotations

import math
import os
import sqlite3
import struct
import threading
import time
import uuid
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...core.chunk_statistics import Statistics, statistics
from ...core.chunks import column_kinds, to_ipc
from ...core.column_kinds import ColumnKind, listed_kinds
from ...core.documents import from_json, to_json
from ...core.durable_files import publish_file, sync_file
from ...core.errors import StoreDamaged, naming
from ...core.file_names import file_name
from ...core.layouts import cells, encode_page, join_tables
from ...core.page_parts import CHUNK_BYTES, CHUNK_ROWS, page_parts
from ...core.rounds import Rounds
from ..journalled import ORPHAN_SECONDS
from .chunk_files import encoded_file
from .database import CHUNK_FOLDER, Database
from .journal import Journal, check_next_position, waiting_tables
from .row_sequences import POSITIONS, RowSequence, sealed_end

INLINE_BYTES = 64 * 2**10
"""Maximum bytes of a chunk that is kept inside SQLite."""
ENTRY = struct.Struct("<6q2d2q")
"""Row of table ``chunk`` as its checksum is computed."""


def seal_sequence(database: Database, journal: Journal, sequence: RowSequence) -> int:
    """Pack the rows that the journal holds of a sequence; return the number of chunks made."""
    database.bound_log()
    made = 0
    rounds = Rounds(
        f"sealing the {sequence.layout.kind}s of run {sequence.run!r} in {database.root}"
    )
    while True:
        with database.snapshot() as connection:
            waiting = list(waiting_tables(connection, sequence, 0, CHUNK_ROWS, CHUNK_BYTES))
            sealed = sealed_end(connection, sequence.number)
        if not waiting:
            return made
        rounds.check(waiting[0][0])
        if waiting[0][0] < sealed:  # rows at positions that chunks have; see misplaced.py
            with database.write() as connection:
                journal.forget(sequence.number)
                journal.refresh(connection, sequence)  # moves these rows behind all others
            continue
        table = join_tables(sequence.layout, [table for _, table in waiting], sequence.metadata)
        known, complete = _publish(database, journal, sequence, waiting[0][0], table)
        made += known
        if complete:
            return made


def seal_page(
    database: Database, sequence: RowSequence, page: Mapping[str, Any]
) -> list[tuple[pa.Table, Path | None]]:
    """Encode a large page as chunks and write their files; :func:`add_chunks` adds these.

    Returns
    -------
    list
        Chunk and temporary file of each part; None in place of a file for a small chunk.
    """
    written: list[tuple[pa.Table, Path | None]] = []
    try:
        for part in page_parts(sequence.layout, page):
            table = encode_page(sequence.layout, part, sequence.metadata)
            written.append((table, _write(database, sequence, table)))
    except BaseException:
        discard_files(written)
        raise
    return written


def discard_files(written: Iterable[tuple[pa.Table, Path | None]]) -> None:
    """Remove files of chunks that were not added; :func:`sweep` removes any that stay."""
    for _, path in written:
        if path is not None:
            with suppress(OSError):
                path.unlink()


# -- files -----------------------------------------------------------------------------------


def _write(database: Database, sequence: RowSequence, table: pa.Table) -> Path | None:
    """Write a chunk's file under a temporary name; None if the chunk is kept in SQLite."""
    # The first size takes no time to compute; the second is smaller if columns are slices.
    if table.get_total_buffer_size() <= INLINE_BYTES or table.nbytes <= INLINE_BYTES:
        return None
    folder = database.root / CHUNK_FOLDER / file_name(sequence.run)
    temporary = folder / f".{os.getpid()}-{threading.get_ident()}-{time.time_ns()}.part"
    # Texts other than uids often repeat, so a dictionary saves space.
    texts = [
        field.name
        for field in table.schema
        if pa.types.is_string(field.type) and field.name not in ("uid", "datum_id")
    ]
    with database.errors(), naming(temporary):
        database.check_in_place()
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


def _final_path(temporary: Path, sequence: RowSequence, first: int, rows: int) -> Path:
    stream = file_name(sequence.metadata.get("stream", sequence.layout.kind))
    # The random part makes the name unique, also among copies of the store. The number of rows
    # comes last, where the reader looks for it.
    return temporary.with_name(
        f"{stream}-{sequence.number}-{first}-{uuid.uuid4().hex[:12]}-{rows}.parquet"
    )


def sweep(database: Database) -> int:
    """Remove old files that no chunk names, left by killed processes; return their number."""
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
            # A file is named before the manifest has it, so a new one may be about to be added.
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > ORPHAN_SECONDS:
                    database.check_in_place()  # else it may be a file of another store
                    path.unlink()
                    removed += 1
    return removed


# -- manifest --------------------------------------------------------------------------------


def _publish(
    database: Database, journal: Journal, sequence: RowSequence, first: int, table: pa.Table
) -> tuple[int, bool]:
    """Add a chunk of journal rows to the manifest, and remove the rows from the journal.

    Returns
    -------
    tuple
        Number of chunks added, which is 0 if another process was first; and whether the journal
        has no more rows of the sequence.
    """
    temporary = _write(database, sequence, table)
    final = _move(database, temporary, sequence, first, table.num_rows)
    rows = table.num_rows
    low = sequence.number * POSITIONS + first
    with database.write() as connection:
        here = connection.execute(
            "SELECT total(coalesce(rows, 1)) FROM journal WHERE id >= ? AND id < ?",
            (low, low + rows),
        ).fetchone()[0]
        # Another process has sealed these rows since they were read.
        if here != rows or sealed_end(connection, sequence.number) > first:
            journal.forget(sequence.number)
            discard_files([(table, final)])
            return 0, False
        uids = cells(table, sequence.layout.uid)
        noted = journal.claims.note(connection, sequence, first, uids)
        add_chunk(connection, database, sequence, first, table, final)
        connection.execute("DELETE FROM journal WHERE id >= ? AND id < ?", (low, low + rows))
        journal.forget(sequence.number)
        more = connection.execute(
            "SELECT 1 FROM journal WHERE id >= ? AND id < ? LIMIT 1",
            (sequence.number * POSITIONS, (sequence.number + 1) * POSITIONS),
        ).fetchone()
    journal.claims.release(sequence, noted)
    return 1, more is None


def add_chunks(
    connection: sqlite3.Connection,
    database: Database,
    sequence: RowSequence,
    written: list[tuple[pa.Table, Path | None]],
) -> None:
    """Add the chunks of a page to the manifest, from the sequence's next position on."""
    check_next_position(sequence)
    for table, temporary in written:
        final = _move(database, temporary, sequence, sequence.next, table.num_rows)
        add_chunk(connection, database, sequence, sequence.next, table, final)
        sequence.next += table.num_rows
        sequence.sealed = sequence.next
    database.check_in_place()  # so that files and manifest are in the same folder


def _move(
    database: Database, temporary: Path | None, sequence: RowSequence, first: int, rows: int
) -> Path | None:
    if temporary is None:
        return None
    final = _final_path(temporary, sequence, first, rows)
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
    sequence: RowSequence,
    first: int,
    table: pa.Table,
    path: Path | None,
) -> None:
    """Add one row to the manifest, and the body of a small chunk, which has no ``path``."""
    facts = statistics(sequence.layout, table)
    schema = _schema_number(connection, table)
    # A checksum is as true as 1, which stores of earlier versions have.
    if facts.ordered:
        checksum = entry_checksum(sequence.number, first, facts, schema)
        facts = facts._replace(ordered=checksum)  # type: ignore[arg-type]
    file = None if path is None else path.relative_to(database.root).as_posix()
    row = (
        None,
        sequence.number,
        first,
        *facts,
        schema,
        file,
        None,
        None,
    )
    cursor = connection.execute(f"INSERT INTO chunk VALUES ({','.join('?' * len(row))})", row)
    if path is None:
        body = to_ipc(table)
        connection.execute("INSERT INTO chunk_body VALUES (?, ?)", (cursor.lastrowid, body))
        database.small_bytes += len(body)


def entry_checksum(sequence: int, first: int, facts: Statistics, schema: int) -> int:
    """Return the checksum of a row of table ``chunk``, which is at least 2.

    Rows of ordered chunks have it in column ``ordered``. Where the chunk is stored is not part of
    it; :func:`~.packing.location_checksum` is added when that changes.

    Raises
    ------
    struct.error
        If a value is not of its type.
    """
    # SQLite stores NaN as NULL, and -0.0 as 0.
    times = [math.nan if time != time else time + 0.0 for time in facts[4:6]]
    return 2 + zlib.crc32(ENTRY.pack(sequence, first, *facts[:4], *times, facts.distinct, schema))


def _schema_number(connection: sqlite3.Connection, table: pa.Table) -> int:
    """Return the key of a chunk's set of columns in table ``chunk_schema``, adding a new one."""
    body = _written_schema(tuple(column_kinds(table).items()))
    query = "SELECT id FROM chunk_schema WHERE body = ?"
    row = connection.execute(query, (body,)).fetchone()
    if row is None:
        insert = connection.execute("INSERT INTO chunk_schema VALUES (NULL, ?)", (body,))
        return int(insert.lastrowid or 0)
    return int(row[0])


@lru_cache(maxsize=1000)
def _written_schema(kinds: tuple[tuple[str, ColumnKind], ...]) -> str:
    return to_json({name: kind.to_list() for name, kind in kinds})


@lru_cache(maxsize=1000)
def read_schema(body: str) -> Mapping[str, ColumnKind]:
    """Decode the columns of a chunk as :func:`add_chunk` stores them.

    The mapping is cached, so it must not be changed. StoreDamaged is raised if the text is not
    valid.
    """
    try:
        return listed_kinds(from_json(body))
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreDamaged(f"the store's list of columns is damaged: {error}") from error
