"""A whole store in one append-only file: a model for a store of your own.

All documents are records in ``documents.log``, in the store's folder. The content of each run is
held in memory, as read from the log, together with records that other processes append. This suits
some millions of documents. An inserted document survives the death of the process. The log is
synced when a run stops, so stopped runs survive a loss of power as well. The file itself (locks,
incomplete records, forks) is a :class:`daskbroker.stores.record_file.RecordFile`.

An installed package registers its store as an entry point in ``pyproject.toml``::

    [project.entry-points."daskbroker.stores"]
    log = "log_store:open_log"

Then ``daskbroker.connect("log:///data/beamline")`` opens it, here and on workers.
``docs/writing-a-store.md`` walks through this file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from daskbroker.core.chunks import ChunkPlan, place_identity, to_ipc
from daskbroker.core.documents import ALL, Document, pack, unpack, unpack_document
from daskbroker.core.errors import ConfigError
from daskbroker.core.layouts import EVENT, LAYOUTS, Layout, chunk_metadata, encode_rows
from daskbroker.core.plan_builder import PlanBuilder, describe_chunk
from daskbroker.core.run_plan import run_owners, stream_of
from daskbroker.core.search import Search
from daskbroker.core.settings import setting
from daskbroker.stores.contract import (
    EventStore,
    HeaderPair,
    HeaderStore,
    Opened,
    is_repeated,
    new_rows,
)  # fmt: skip
from daskbroker.stores.record_file import RecordFile, RecordReader, Span


@dataclass
class Rows:
    """Events of a descriptor, or references of one kind of a run."""

    layout: Layout
    owner: Document
    chunks: list[tuple[Span, int, dict[str, Any]]] = field(default_factory=list)
    sealed: int = 0  # number of rows in chunks; later rows wait
    waiting: list[Span] = field(default_factory=list)
    waiting_bytes: int = 0


@dataclass
class Run:
    """Content of the log for a run, except start and stop."""

    descriptors: list[Document] = field(default_factory=list)
    rows: dict[tuple[str, str], Rows] = field(default_factory=dict)  # by kind and owner
    spans: dict[tuple[str, str], tuple[Span, int]] = field(default_factory=dict)  # kind, uid


class Log(RecordFile):
    """The log file and its content in memory."""

    def begin(self) -> None:
        self.headers: dict[str, HeaderPair] = {}
        self.runs: dict[str, Run] = {}
        self.descriptors: dict[str, Document] = {}
        self.rows_at = lru_cache(4)(lambda span: unpack(self.body(span)))

    def run(self, uid: str | None) -> Run:
        return self.runs.get(uid or "", Run())

    def row(self, run: str, kind: str, uid: str) -> Mapping[str, Any] | None:
        span, number = self.run(run).spans.get((kind, uid), (None, 0))
        return None if span is None else self.rows_at(span)[number]

    def take(self, note: Mapping[str, Any], span: Span) -> None:
        match note["is"]:
            case "start":
                start = unpack_document(self.body(span))
                self.headers[start["uid"]] = (start, None)
            case "stop":
                stop = unpack_document(self.body(span))
                self.headers[stop["run_start"]] = (self.headers[stop["run_start"]][0], stop)
            case "run":
                self.runs[note["uid"]] = Run()
            case "descriptor":
                doc = unpack_document(self.body(span))
                self.descriptors[doc["uid"]] = doc
                self.runs[doc["run_start"]].descriptors.append(doc)
            case "rows":
                run, kind, owner = self.runs[note["run"]], note["kind"], note["owner"]
                if (kind, owner) not in run.rows:
                    known = self.descriptors[owner] if kind == "event" else run_owners([owner])[0]
                    run.rows[kind, owner] = Rows(LAYOUTS[kind], known)
                run.rows[kind, owner].waiting.append(span)
                run.rows[kind, owner].waiting_bytes += span[1]
                run.spans |= {(kind, uid): (span, n) for n, uid in enumerate(note["uids"])}
            case "chunk":  # of all rows that waited
                rows = self.runs[note["run"]].rows[note["kind"], note["owner"]]
                rows.chunks.append((span, rows.sealed, note["description"]))
                rows.sealed += note["description"]["rows"]
                rows.waiting, rows.waiting_bytes = [], 0


class LogHeaderStore(HeaderStore):
    """Store of start and stop documents."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def insert_prepared(self, name: str, doc: Mapping[str, Any]) -> None:
        with self._log.writing():
            if self.is_new(name, doc):
                self._log.append({"is": name}, pack(doc), sync=name == "stop")

    def find_uid(self, uid: str) -> HeaderPair | None:
        with self._log.reading():
            return self._log.headers.get(uid)

    def find(
        self, search: Search, start: int = 0, stop: int | None = None, *, oldest_first: bool = False
    ) -> Iterator[HeaderPair]:
        with self._log.reading():
            pairs = sorted(self._log.headers.values(), key=lambda pair: pair[0]["time"])
        ordered = pairs if oldest_first else reversed(pairs)
        yield from islice((pair for pair in ordered if search.matches(*pair)), start, stop)


class LogEventStore(EventStore):
    """Store of descriptors, events and references."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.reader = RecordReader(log.path, log.inode)

    @property
    def store_id(self) -> str:
        return self._log.id

    @property
    def is_in_place(self) -> bool:
        return self._log.is_in_place

    def put_run(self, uid: str) -> None:
        with self._log.writing():
            if uid not in self._log.runs:
                self._log.append({"is": "run", "uid": uid})

    def has_run(self, uid: str) -> bool:
        with self._log.reading():
            return uid in self._log.runs

    def current_run(self) -> str | None:
        with self._log.reading():
            return next(reversed(self._log.runs), None)

    def put_descriptor(self, doc: Mapping[str, Any]) -> None:
        with self._log.writing():
            if not is_repeated("descriptor", doc, self.find_descriptor(doc["uid"])):
                self._log.append({"is": "descriptor"}, pack(doc))

    def find_descriptor(self, uid: str) -> Document | None:
        with self._log.reading():
            return self._log.descriptors.get(uid)

    def list_descriptors(self, runs: Sequence[str], stream_name: Any = ALL) -> list[Document]:
        with self._log.reading():
            known = [self._log.run(uid).descriptors for uid in runs]
            found = [doc for docs in known for doc in sorted(docs, key=lambda doc: doc["time"])]
        return [doc for doc in found if stream_name is ALL or stream_of(doc) == stream_name]

    def find_asset_run(self, layout: Layout, uid: str, run: str | None) -> str | None:
        with self._log.reading():
            if (layout.kind, uid) in self._log.run(run).spans:
                return run
            newest_first = reversed(self._log.runs.items())
            return next((one for one, of in newest_first if (layout.kind, uid) in of.spans), None)

    def append(
        self, layout: Layout, owner: str, rows: Sequence[Mapping[str, Any]], run: str
    ) -> None:
        with self._log.writing():
            new = new_rows(layout, rows, lambda uid: self._log.row(run, layout.kind, uid))
            if new:
                uids = [row[layout.uid] for row in new]
                note = {"run": run, "kind": layout.kind, "owner": owner, "uids": uids}
                self._log.append({"is": "rows", **note}, pack(new))
                known = self._log.runs[run].rows[layout.kind, owner]
                if known.waiting_bytes >= setting("seal-bytes"):
                    self._seal(known)

    def seal(self, run: str | None = None, *, keep_journal: bool = False) -> int:
        """Seal the rows that wait; they stay in the log unused, whatever ``keep_journal`` is."""
        with self._log.writing():
            runs = list(self._log.runs) if run is None else [run]
            known = [rows for uid in runs for rows in self._log.run(uid).rows.values()]
            waiting = [rows for rows in known if rows.waiting]
            for rows in waiting:
                self._seal(rows)
            self._log.sync()
        return len(waiting)

    def _seal(self, rows: Rows) -> None:
        """Append a chunk of the waiting rows; called while the log is written."""
        table, owner = self._encoded(rows), rows.owner
        note = {"run": owner["run_start"], "kind": rows.layout.kind, "owner": owner["uid"]}
        description = describe_chunk(rows.layout, table)
        self._log.append({"is": "chunk", **note, "description": description}, to_ipc(table))

    def _encoded(self, rows: Rows) -> pa.Table:
        bodies = [self._log.body(span) for span in rows.waiting]
        documents = [doc for body in bodies for doc in unpack(body)]
        return encode_rows(rows.layout, documents, chunk_metadata(rows.layout, rows.owner))

    def plan_events(self, descriptors: Sequence[Document]) -> ChunkPlan:
        return self._plan(EVENT, descriptors)

    def plan_references(
        self, layouts: Sequence[Layout], runs: Sequence[str]
    ) -> dict[str, ChunkPlan]:
        return {layout.kind: self._plan(layout, run_owners(runs)) for layout in layouts}

    def _plan(self, layout: Layout, owners: Sequence[Document]) -> ChunkPlan:
        identity = place_identity(self._log.id, self._log.path)
        builder = PlanBuilder(self.reader, layout, identity, owners)
        with self._log.reading():
            for number, owner in enumerate(owners):
                rows = self._log.run(owner["run_start"]).rows.get((layout.kind, owner["uid"]))
                for chunk in rows.chunks if rows else ():
                    builder.add_described(number, *chunk)
                if rows and rows.waiting:
                    builder.add_table(number, rows.sealed, self._encoded(rows))
        return builder.plan()


def open_log(settings: Mapping[str, Any], *, create: bool = True) -> Opened:
    """Open ``log:///path/of/folder``; the entry point ``log`` names this function."""
    folder = Path(settings["uri"].removeprefix("log://"))
    if not folder.is_absolute():
        raise ConfigError(f"{settings['uri']}: a path is needed, log:///path/of/folder")
    log = Log(folder / "documents.log", create=create, read_only=settings["mode"] == "r")
    return Opened(LogHeaderStore(log), {"log": LogEventStore(log)})
