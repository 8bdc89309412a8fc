"""Descriptors, events and references in an embedded store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dask
import numpy as np

from ...core.chunks import (
    CHUNK_RECORD,
    DATUM,
    EVENT,
    STREAM_DATUM,
    ChunkPlan,
    Layout,
    column_kinds,
    encode_rows,
    ranges_table,
    rows_of_page,
    statistics,
    to_ipc,
)
from ...core.documents import ALL, Document, equal, pack, unpack
from ...core.errors import DuplicateUID
from ..base import EventSource, stream_of
from .database import Database
from .journal import POSITIONS, Journal, Lane
from .reader import EmbeddedReader
from .sealing import add_chunks, is_large, read_schema, seal_lane, seal_page, sweep

__all__ = ["EmbeddedEventSource"]

MOST_REMEMBERED = 2000


class EmbeddedEventSource(EventSource):
    """Events in the journal (SQLite) and in sealed chunks (Parquet, small ones in SQLite).

    Parameters
    ----------
    database
        Of the store, shared with the header source.

    Notes
    -----
    The journal of a descriptor is sealed when it has ``daskbroker.seal-rows`` rows or
    ``daskbroker.seal-bytes`` bytes (dask's configuration, read when the store is opened), and
    when the run stops.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.reader = EmbeddedReader(str(database.root), database.read_only)
        self._journal = Journal(self.reader)
        self._seal_rows = int(dask.config.get("daskbroker.seal-rows", 16_384))
        self._seal_bytes = int(dask.config.get("daskbroker.seal-bytes", 16 * 2**20))
        self._descriptors: dict[str, Document] = {}
        self._lanes: dict[tuple[str, str, str], Lane] = {}
        self._runs: dict[str, int] = {}

    # -- runs, descriptors, assets -----------------------------------------------------------

    def put_run(self, uid: str) -> None:
        """See :meth:`EventSource.put_run`."""
        with self._database.write() as connection:
            connection.execute("INSERT OR IGNORE INTO run VALUES (NULL, ?, 0)", (_text(uid),))

    def has_run(self, uid: str) -> bool:
        """See :meth:`EventSource.has_run`."""
        return self._run_number(uid) is not None

    def _run_number(self, uid: str) -> int | None:
        if uid not in self._runs:
            with self._database.read() as connection:
                row = connection.execute(
                    "SELECT id FROM run WHERE uid = ?", (_text(uid),)
                ).fetchone()
            if row is None:
                return None
            _remember(self._runs, uid, row[0])
        return self._runs[uid]

    def current_run(self) -> str | None:
        """See :meth:`EventSource.current_run`."""
        with self._database.read() as connection:
            row = connection.execute("SELECT uid FROM run ORDER BY id DESC LIMIT 1").fetchone()
        return None if row is None else str(row[0])

    def stop_run(self, uid: str) -> None:
        """See :meth:`EventSource.stop_run`."""
        self.seal(uid)
        with self._database.write() as connection:
            connection.execute("UPDATE run SET stopped = 1 WHERE uid = ?", (_text(uid),))

    def put_descriptor(self, doc: Mapping[str, Any]) -> None:
        """See :meth:`EventSource.put_descriptor`."""
        uid = doc["uid"]
        with self._database.write() as connection:
            row = connection.execute(
                "SELECT body FROM descriptor WHERE uid = ?", (_text(uid),)
            ).fetchone()
            if row is None:
                connection.execute(
                    "INSERT INTO descriptor VALUES (NULL, ?, ?, ?, ?, ?)",
                    (
                        _text(uid),
                        self._run_number(doc["run_start"]),
                        _text(stream_of(doc)),
                        doc["time"],
                        pack(doc),
                    ),
                )
            elif not equal(unpack(row[0]), doc):
                raise DuplicateUID(f"descriptor {uid!r}: a different one is stored under this uid")

    def find_descriptor(self, uid: str) -> Document | None:
        """See :meth:`EventSource.find_descriptor`."""
        found = self._descriptors.get(uid)
        if found is None:
            with self._database.read() as connection:
                row = connection.execute(
                    "SELECT body FROM descriptor WHERE uid = ?", (_text(uid),)
                ).fetchone()
            if row is None:
                return None
            found = Document(unpack(row[0]))
            _remember(self._descriptors, uid, found)
        return found

    def put_asset(self, name: str, doc: Mapping[str, Any], run: str) -> None:
        """See :meth:`EventSource.put_asset`."""
        key = (self._run_number(run), name, _text(doc["uid"]))
        with self._database.write() as connection:
            row = connection.execute(
                "SELECT body FROM asset WHERE run = ? AND kind = ? AND uid = ?", key
            ).fetchone()
            if row is None:
                connection.execute("INSERT INTO asset VALUES (NULL, ?, ?, ?, ?)", (*key, pack(doc)))
            elif not equal(unpack(row[0]), doc):
                raise DuplicateUID(
                    f"{name} {doc['uid']!r}: a different one of run {run!r} is stored under "
                    "this uid"
                )

    def find_asset_run(self, name: str, uid: str, run: str | None) -> str | None:
        """See :meth:`EventSource.find_asset_run`."""
        number = None if run is None else self._run_number(run)
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT run.uid FROM asset JOIN run ON run.id = asset.run "
                "WHERE asset.uid = ? AND kind = ? "
                "ORDER BY asset.run = ? DESC, asset.id DESC LIMIT 1",
                (_text(uid), name, number),
            ).fetchone()
        return None if row is None else str(row[0])

    # -- rows --------------------------------------------------------------------------------

    def append(
        self, layout: Layout, owner: str, rows: Sequence[Mapping[str, Any]], run: str
    ) -> None:
        """See :meth:`EventSource.append`."""
        with self._writing(layout, owner, run) as (connection, lane):
            self._journal.append(connection, lane, rows)
        state = lane
        if state.waiting_rows >= self._seal_rows or state.waiting_bytes >= self._seal_bytes:
            seal_lane(self._database, self._journal, lane)

    def append_page(self, layout: Layout, page: Mapping[str, Any], run: str) -> None:
        """See :meth:`EventSource.append_page`."""
        owner = page[layout.owner]
        if not is_large(layout, page):
            self.append(layout, owner, rows_of_page(layout, page), run)
            return
        with self._writing(layout, owner, run) as (_, lane):
            pass
        seal_lane(self._database, self._journal, lane)
        written = seal_page(self._database, self._journal, lane, page)
        try:
            with self._writing(layout, owner, run) as (connection, lane):
                if lane.waiting_rows or not self._journal.claim_page(
                    connection, lane, page[layout.uid]
                ):
                    raise _RowByRow
                add_chunks(connection, self._database, lane, written)
        except _RowByRow:
            for _, temporary in written:
                if temporary is not None:
                    temporary.unlink(missing_ok=True)
            self.append(layout, owner, rows_of_page(layout, page), run)

    def _writing(self, layout: Layout, owner: str, run: str) -> _Writing:
        return _Writing(self, layout, owner, run)

    def _lane(self, connection: sqlite3.Connection, layout: Layout, owner: str, run: str) -> Lane:
        """The sequence of an owner, made at its first row."""
        key = (layout.kind, owner, run)
        if key not in self._lanes:
            number = self._run_number(run)
            if layout is EVENT:
                found = connection.execute(
                    "SELECT id FROM descriptor WHERE uid = ?", (_text(owner),)
                ).fetchone()
            else:
                found = connection.execute(
                    "SELECT id FROM asset WHERE run = ? AND kind = ? AND uid = ?",
                    (number, layout.owner, _text(owner)),
                ).fetchone()
            values = (layout.kind, found[0], number)
            connection.execute("INSERT OR IGNORE INTO sequence VALUES (NULL, ?, ?, ?)", values)
            row = connection.execute(
                "SELECT id FROM sequence WHERE kind = ? AND owner = ?", values[:2]
            ).fetchone()
            metadata = {"run": run, layout.owner: owner, "kind": layout.kind}
            if layout is EVENT:
                metadata["stream"] = stream_of(self.find_descriptor(owner) or {})
            _remember(self._lanes, key, Lane(row[0], layout, owner, run, metadata))
        return self._lanes[key]

    # -- reading -----------------------------------------------------------------------------

    def list_descriptors(self, runs: Sequence[str], stream_name: Any = ALL) -> list[Document]:
        """See :meth:`EventSource.list_descriptors`."""
        order = {_text(uid): place for place, uid in enumerate(runs)}
        rows: list[tuple[str, bytes]] = []
        with self._database.read() as connection:
            for some in _pieces(list(order), 400):
                marks = ",".join("?" * len(some))
                query = (
                    "SELECT run.uid, descriptor.body FROM run JOIN descriptor "
                    f"ON descriptor.run = run.id WHERE run.uid IN ({marks})"
                )
                values = list(some)
                if stream_name is not ALL:
                    query += " AND stream = ?"
                    values.append(_text(str(stream_name)))
                query += " ORDER BY descriptor.time, descriptor.id"
                rows.extend(connection.execute(query, values))
        rows.sort(key=lambda row: order[row[0]])
        return [Document(unpack(body)) for _, body in rows]

    def list_assets(self, run: str) -> list[tuple[str, Document]]:
        """See :meth:`EventSource.list_assets`."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT kind, body FROM asset WHERE run = ? ORDER BY id", (self._run_number(run),)
            ).fetchall()
        return [(kind, Document(unpack(body))) for kind, body in rows]

    def plan(self, descriptors: Sequence[Document]) -> ChunkPlan:
        """See :meth:`EventSource.plan`."""
        with self._database.snapshot() as connection:
            numbers = _numbers(
                connection,
                "SELECT descriptor.uid, sequence.id FROM descriptor JOIN sequence ON "
                "sequence.kind = 'event' AND sequence.owner = descriptor.id "
                "WHERE descriptor.uid IN",
                [_text(d["uid"]) for d in descriptors],
            )
            owners = [(numbers.get(_text(d["uid"])), d) for d in descriptors]
            builder = _PlanBuilder(self._database, self.reader, EVENT)
            builder.add(connection, owners)
        without = [d for number, d in owners if number is None]
        for descriptor, first, last in self._only_referenced(without):
            builder.add_range(descriptor, first, last)
        return builder.plan()

    def _only_referenced(self, descriptors: Sequence[Document]) -> list[tuple[Document, int, int]]:
        """Of descriptors without events, the ranges of seq_num that stream_datum tell of."""
        external = [
            d
            for d in descriptors
            if any(str(k.get("external", "")).startswith("STREAM") for k in d["data_keys"].values())
        ]
        ranges: list[tuple[Document, int, int]] = []
        for run in dict.fromkeys(d["run_start"] for d in external):
            plan = self.plan_references(STREAM_DATUM, run)
            names = ["descriptor", "seq_nums:start", "seq_nums:stop"]
            tables = [plan.read(place, names) for place in range(len(plan))]
            rows = [
                row for table in tables for row in zip(*table.to_pydict().values(), strict=True)
            ]
            for descriptor in external:
                if descriptor["run_start"] == run:
                    spans = [(a, b) for uid, a, b in rows if uid == descriptor["uid"] and b > a]
                    ranges.extend((descriptor, a, b) for a, b in _merged(spans))
        return ranges

    def plan_references(self, layout: Layout, run: str) -> ChunkPlan:
        """See :meth:`EventSource.plan_references`."""
        with self._database.snapshot() as connection:
            rows = connection.execute(
                "SELECT sequence.id, asset.body FROM sequence JOIN asset ON asset.id = "
                "sequence.owner WHERE sequence.run = ? AND sequence.kind = ? ORDER BY asset.id",
                (self._run_number(run), layout.kind),
            ).fetchall()
            builder = _PlanBuilder(self._database, self.reader, layout)
            builder.add(connection, [(number, Document(unpack(body))) for number, body in rows])
        return builder.plan()

    # -- upkeep ------------------------------------------------------------------------------

    def seal(self, run: str | None = None) -> int:
        """See :meth:`EventSource.seal`. Sealing all also sweeps what killed processes left."""
        where, values = ("", []) if run is None else ("AND run.uid = ?", [_text(run)])
        low = f"sequence.id * {POSITIONS}"
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT sequence.kind, run.uid, coalesce(descriptor.uid, asset.uid) FROM sequence "
                "JOIN run ON run.id = sequence.run "
                "LEFT JOIN descriptor ON sequence.kind = 'event' AND descriptor.id = owner "
                "LEFT JOIN asset ON sequence.kind != 'event' AND asset.id = owner "
                f"WHERE EXISTS (SELECT 1 FROM journal WHERE id >= {low} AND id < {low} + "
                f"{POSITIONS}) {where}",
                values,
            ).fetchall()
        made = 0
        layouts = {layout.kind: layout for layout in _LAYOUTS}
        for kind, uid, owner in rows:
            with self._writing(layouts[kind], owner, uid) as (_, lane):
                pass
            made += seal_lane(self._database, self._journal, lane)
        if run is None:
            sweep(self._database)
        return made

    def close(self) -> None:
        """See :meth:`EventSource.close`."""
        self._database.close()


class _RowByRow(Exception):
    """A page has rows that are stored already: compare them one by one."""


class _Writing:
    """A transaction on one sequence, whose counters are forgotten if it fails."""

    def __init__(self, source: EmbeddedEventSource, layout: Layout, owner: str, run: str) -> None:
        self._source = source
        self._what = (layout, owner, run)
        self._transaction = source._database.write()

    def __enter__(self) -> tuple[sqlite3.Connection, Lane]:
        connection = self._transaction.__enter__()
        try:
            lane = self._source._lane(connection, *self._what)
            return connection, self._source._journal.refresh(connection, lane)
        except BaseException as error:
            self._forget()
            self._transaction.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(self, *exception: Any) -> None:
        if exception[0] is not None:
            self._forget()
        try:
            self._transaction.__exit__(*exception)
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        # The number of a new sequence, and positions counted up, are gone with the rollback.
        self._source._lanes.clear()
        self._source._journal.forget()


class _PlanBuilder:
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


_LAYOUTS = (EVENT, DATUM, STREAM_DATUM)


def _chunk_rows(
    connection: sqlite3.Connection, numbers: Sequence[int]
) -> dict[int, list[tuple[Any, ...]]]:
    found: dict[int, list[tuple[Any, ...]]] = {}
    for some in _pieces(numbers, 400):
        marks = ",".join("?" * len(some))
        for row in connection.execute(
            f"SELECT * FROM chunk WHERE sequence IN ({marks}) ORDER BY sequence, first", some
        ):
            found.setdefault(row[1], []).append(row)
    return found


def _numbers(connection: sqlite3.Connection, query: str, uids: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for some in _pieces(uids, 400):
        marks = ",".join("?" * len(some))
        found.update(connection.execute(f"{query} ({marks})", some))
    return found


def _pieces(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Union of half-open ranges."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def _remember(known: dict[Any, Any], key: Any, value: Any) -> None:
    if len(known) >= MOST_REMEMBERED:
        known.pop(next(iter(known)), None)
    known[key] = value


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _text(uid: str) -> str:
    return uid.encode("utf8", "backslashreplace").decode()
