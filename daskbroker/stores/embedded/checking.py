"""Looking for damage in the parts of an embedded store that plans and chunks do not show."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from ...core.chunks import from_ipc
from ...core.damage import Damage
from ...core.documents import Document, unpack, unpack_document
from ...core.errors import StoreDamaged
from ...core.layouts import LAYOUTS
from ...core.printable import shown
from ...core.run_plan import stream_of
from ...core.search import Search
from ..checking import MAX_DAMAGES, CheckedHeader, EventChecks, check_document, error_text
from ..stored_text import storable
from .database import FILE_NAME, Database
from .index import narrow
from .planning import HAS_TOO_FEW, TOO_FEW, lost_rows
from .row_sequences import POSITIONS, sealed_end
from .uid_keys import KEY_BITS

BATCH = 200
"""Number of rows read at a time; a long reading would keep SQLite from emptying its log."""

LOST = (
    ("the run of a descriptor", "descriptor", "run", "run"),
    ("the run of a reference", "asset", "run", "run"),
    ("the run of a sequence of documents", "sequence", "run", "run"),
    ("the sequence of a chunk", "chunk", "sequence", "sequence"),
    ("the sequence of a document that waits", "journal", f"id / {POSITIONS}", "sequence"),
    ("the columns of a chunk", "chunk", "schema", "chunk_schema"),
    ("the chunk of some bytes", "chunk_body", "id", "chunk"),
    ("the sequence of a document's number", "document_key", "sequence", "sequence"),
    ("the run of a word of the index", "word", "header", "header"),
    ("the run of a value of the index", "leaf", "header", "header"),
)
"""References between tables.

Each has the text for a lost row, the table and what in it refers, and the table referred to."""


# -- start and stop --------------------------------------------------------------------------


def check_headers(database: Database, search: Search) -> Iterator[CheckedHeader]:
    """See :meth:`HeaderStore.check`."""
    with database.read() as connection:
        narrowed = narrow(connection, search)
    last: tuple[float, int] | None = None
    while True:
        where = narrowed.where if last is None else f"({narrowed.where}) AND (time, id) < (?, ?)"
        with database.read() as connection:
            rows = connection.execute(
                "SELECT time, id, uid, start, stop, "
                "(SELECT stopped FROM run WHERE run.uid = header.uid) "
                f"FROM header WHERE {where} "
                "ORDER BY time DESC, id DESC LIMIT ?",
                [*narrowed.parameters, *(last or ()), BATCH],
            ).fetchall()
        for row in rows:
            checked = _checked_header(str(database.path), row)
            # What cannot be read cannot be compared with the search; the damage is reported.
            if (
                checked.damages
                or narrowed.exact
                or checked.start is None
                or search.matches(checked.start, checked.stop)
            ):
                yield checked
        if len(rows) < BATCH:
            return
        last = rows[-1][:2]


def _checked_header(path: str, row: tuple[Any, ...]) -> CheckedHeader:
    time, _, uid, start, stop, stopped = row
    damages: list[Damage] = []
    docs: dict[str, Document | None] = {}
    for name, key, body in (("start", "uid", start), ("stop", "run_start", stop)):
        docs[name] = None if body is None else _document(name, body, damages)
        found = docs[name]
        if found is not None and storable(str(found.get(key))) != uid:
            damages.append(Damage(f"its {name} document is of another run, {found.get(key)!r}"))
    known = docs["start"]
    if known is not None and known.get("time") != time:
        damages.append(Damage(f"it is listed with the time {shown(time)}", key="time"))
    if stop is None and stopped:
        damages.append(Damage("its stop document is not stored, though its events have ended"))
    damages = [damage.within(run=uid, path=path) for damage in damages]
    name = uid if known is None else str(known.get("uid", uid))
    return CheckedHeader(name, known, docs["stop"], damages)


def _document(name: str, body: bytes, damages: list[Damage]) -> Document | None:
    """Decode and check a document, adding to ``damages``; return None if it cannot be read."""
    try:
        doc = unpack_document(body)
    except StoreDamaged as error:
        damages.append(Damage(f"its {name} document: {error}"))
        return None
    wrong = check_document(name, doc)
    if wrong is not None:
        damages.append(wrong)
    return doc


# -- events ----------------------------------------------------------------------------------


def _damaged_rows(connection: sqlite3.Connection, number: int, kind: str) -> Iterator[str]:
    """Yield the rows of a sequence that the journal lacks, and those that cannot be read."""
    low = number * POSITIONS
    expected = sealed_end(connection, number)
    rows = connection.execute(
        "SELECT id - ?, rows, body FROM journal WHERE id >= ? AND id < ? ORDER BY id",
        (low, low, low + POSITIONS),
    )
    for position, count, body in rows:
        if position > expected:
            yield f"the {kind}s {expected:,} to {position - 1:,} are missing"
        problem = _problem(kind, count, body)
        if problem is not None:
            yield f"{kind} {position:,}: {problem}"
        expected = max(expected, position + (count or 1))


def _problem(kind: str, rows: int | None, body: bytes) -> str | None:
    """Return what is wrong with a row of the journal, or None."""
    try:
        if rows is None:
            uid = _mapping(unpack(body)).get(LAYOUTS[kind].uid)
            return None if isinstance(uid, str) else "it has no uid"
        found = from_ipc(body).num_rows
        return None if found == rows else f"it has {found:,} rows, not {rows:,}"
    except StoreDamaged as error:
        return str(error)
    except MemoryError:  # it says nothing about the row
        raise
    except Exception as error:  # bytes with a valid checksum may still not be a document
        return error_text(error)


def _noted_ends(connection: sqlite3.Connection, run: int) -> dict[int, int]:
    """Return the position after the last document that is noted as stored, by sequence of a run."""
    query = (
        "SELECT sequence, max(position) + 1 FROM document_key WHERE hash >= ? AND hash < ? "
        "GROUP BY sequence"
    )
    return dict(connection.execute(query, (run << KEY_BITS, (run + 1) << KEY_BITS)))


def _end(connection: sqlite3.Connection, number: int) -> int:
    """Return the position after the last document of a sequence that is there."""
    low = number * POSITIONS
    query = "SELECT max(id + coalesce(rows, 1)) FROM journal WHERE id >= ? AND id < ?"
    waiting = connection.execute(query, (low, low + POSITIONS)).fetchone()[0]
    return max(sealed_end(connection, number), 0 if waiting is None else waiting - low)


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise StoreDamaged(f"a document is a mapping, not {type(value).__name__}")
    return value


def _lost(connection: sqlite3.Connection, table: str, column: str, target: str) -> int:
    query = f"SELECT count(*) FROM {table} WHERE {column} NOT IN (SELECT id FROM {target})"
    return int(connection.execute(query).fetchone()[0])


class EmbeddedChecks(EventChecks):
    """Checks of the events of an embedded store; see :class:`.EventChecks`."""

    _database: Database

    def list_runs(self) -> Iterator[str]:
        last = 0
        while True:
            with self._database.read() as connection:
                rows = connection.execute(
                    "SELECT id, uid FROM run WHERE id > ? AND typeof(uid) = 'text' AND EXISTS "
                    "(SELECT 1 FROM descriptor WHERE run = run.id) ORDER BY id LIMIT ?",
                    (last, BATCH),
                ).fetchall()
            yield from (uid for _, uid in rows)
            if len(rows) < BATCH:
                return
            last = rows[-1][0]

    def check_descriptors(self, run: str) -> Iterator[Document | Damage]:
        """See :meth:`EventStore.check_descriptors`."""
        path = str(self._database.path)
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT descriptor.uid, stream, body, {HAS_TOO_FEW} "
                "FROM run JOIN descriptor ON run = run.id "
                "WHERE run.uid = ? ORDER BY descriptor.time, descriptor.id",
                (storable(run),),
            ).fetchall()
            lost = lost_rows(connection, [storable(run)])
        too_few = [TOO_FEW] if any(row[3] for row in rows) else []
        yield from (Damage(problem, path=path) for problem in [*lost.values(), *too_few])
        for uid, stream, body, _ in rows:
            damages: list[Damage] = []
            doc = _document("descriptor", body, damages)
            for damage in damages:
                problem = damage.problem.replace("its descriptor", f"its descriptor {uid!r}", 1)
                yield Damage(problem, stream=stream, path=path)
            if doc is None or damages:
                continue
            told_by = (storable(doc["uid"]), doc["run_start"], storable(stream_of(doc)))
            if told_by != (uid, run, stream):
                yield Damage(f"descriptor {uid!r} holds another one", stream=stream, path=path)
            else:
                yield doc

    def check_journal(self, run: str, descriptors: Sequence[Document]) -> Iterator[Damage]:
        path = str(self._database.path)
        with self._database.read() as connection:
            sequences = connection.execute(
                "SELECT run.id, sequence.id, kind, stream FROM run "
                "JOIN sequence ON sequence.run = run.id "
                "LEFT JOIN descriptor ON kind = 'event' AND descriptor.id = owner "
                "WHERE run.uid = ? AND sequence.id < ?",  # others are damaged, and have no rows
                (storable(run), 2**63 // POSITIONS),
            ).fetchall()
            # Before the rows, of which there are only more later.
            ends = _noted_ends(connection, sequences[0][0]) if sequences else {}
        for _, number, kind, stream in sequences:
            # In one snapshot, as rows may be sealed meanwhile; there are never many.
            with self._database.snapshot() as connection:
                damages = list(islice(_damaged_rows(connection, number, kind), MAX_DAMAGES))
                lost = ends.get(number, 0) - _end(connection, number)
            if lost > 0:
                damages.append(f"the last {lost:,} of its {kind}s are not there")
            for problem in damages:
                yield Damage(problem, stream=stream, path=path)

    def check_rest(self) -> Iterator[Damage]:
        """See :meth:`EventStore.check_rest`: SQLite's own check, and references between its tables.

        Each of these has its own reading, so that a writer's log can be emptied in between.
        """
        path = str(self._database.path)
        with self._database.read() as connection:
            lines = connection.execute(f"PRAGMA integrity_check({MAX_DAMAGES})").fetchall()
        # Not within the reading, which only this thread can end.
        for (line,) in lines:
            if line != "ok":
                yield Damage(f"SQLite says: {line}", path=path)
        for what, table, column, target in LOST:
            with self._database.read() as connection:
                lost = _lost(connection, table, column, target)
            if lost:
                problem = f"{what} is not there, of {lost:,} rows of {table}"
                yield Damage(problem, key=column.split()[0], path=path)

    def path_of(self, key: Any) -> str | None:
        # Rows inside of a plan, of no file.
        if isinstance(key, range):
            return None
        name = key if isinstance(key, str) else key[0] if isinstance(key, tuple) else FILE_NAME
        return str(self._database.root / name)
