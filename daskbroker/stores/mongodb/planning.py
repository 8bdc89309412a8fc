"""Planning in a MongoDB store: from manifests and journal to a list of chunks.

One query finds, for all descriptors, the number of rows in the journal and the chunks. Short
journals are read by a second query, for all descriptors together, and travel with the plan. A long
journal is cut into ranges by a query of its own, and is later read in these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from pymongo.client_session import ClientSession

from ...core.chunks import column_kinds
from ...core.clock import seconds_of
from ...core.documents import Document
from ...core.errors import StoreDamaged
from ...core.joined_kinds import joined_kinds
from ...core.layouts import EVENT, event_metadata
from ...core.plan_builder import PlanBuilder
from ...core.rounds import Rounds
from ...core.stored_documents import encode_stored_rows
from ..stored_text import storable
from .bson_documents import ROWS_FIELD, SIDE_FIELD
from .chunk_store import (
    KEPT,
    WAITING,
    Manifest,
    check_manifest,
    check_sequence,
    chunk_key,
    kinds_of,
    sealed_end,
    statistics_of,
)
from .database import CHUNK_COLLECTION, CLASSIC, MANY, Database
from .indexes import warn_of_missing
from .journal import BATCH_ROWS, IN_TIME, event_columns, event_from_bson, unsealed, without_sealed
from .journal_ranges import RANGE_ROWS, SOUND_EVENTS, OddEvent, Range, cut_ranges, facts_projection
from .reader import range_key

INLINE_BYTES = 8 * 2**20
"""Maximum estimated bytes of a journal that is read for the plan; a larger one is cut in ranges."""
TOGETHER = 20_000
"""Number of rows of short journals after which a query is sent for them."""


@dataclass
class _Stream:
    """State of one descriptor while it is planned.

    Attributes
    ----------
    descriptor, number
        The descriptor, and its index in the plan.
    journal
        Number of its rows in the journal.
    chunks
        Manifests of its chunks.
    filter
        Filter for its journal rows that kept chunks do not hold.
    """

    descriptor: Document
    number: int
    journal: int = 0
    chunks: list[Manifest] = field(default_factory=list)
    filter: dict[str, Any] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """Approximate number of journal rows to read: those that no kept chunk holds."""
        kept = sum(chunk["rows"] for chunk in self.chunks if chunk["journal"] == KEPT)
        return self.journal - kept

    @property
    def run(self) -> str:
        """Uid of the run."""
        return str(self.descriptor["run_start"])

    @property
    def may_lack_chunks(self) -> bool:
        """Whether more chunks are likely than were found: there are none, or large ones.

        To look for more takes little time beside reading these.
        """
        if not self.chunks:
            return not self.journal
        return len(self.chunks) > 1 or int(self.chunks[0]["rows"]) > BATCH_ROWS

    @property
    def is_long(self) -> bool:
        """Whether the journal is to be read in ranges."""
        estimate = self.waiting * _row_bytes(self.descriptor)
        return self.waiting > RANGE_ROWS or (self.waiting > 1 and estimate > INLINE_BYTES)


class EventPlanner:
    """Planner of the events of some descriptors.

    Parameters
    ----------
    database
        Databases of the store.
    builder
        Builder of the plan, which chunks are added to.
    descriptors
        Descriptors to plan.
    known
        Ranges that were cut before, by uid of the descriptor, number of journal rows and position
        after the last chunk. New ones are added to it.
    finds_lost
        Whether to look for chunks whose descriptor is not stored, along the index on their runs.
    """

    def __init__(
        self,
        database: Database,
        builder: PlanBuilder,
        descriptors: Sequence[Document],
        known: dict[tuple[str, int, int], list[Range]],
        *,
        finds_lost: bool = False,
    ) -> None:
        self._database = database
        self._builder = builder
        self._known = known
        self._finds_lost = finds_lost
        self._streams: dict[str, _Stream] = {}
        for number, descriptor in enumerate(descriptors):
            self._add_stream(descriptor, number)
        self._schemas: dict[str, int] = {}

    def _add_stream(self, descriptor: Document, number: int) -> None:
        uid = storable(descriptor["uid"])
        known = self._streams.get(uid)
        # Without the unique index another program may have stored a uid twice. The events name
        # only the uid, so they are given to the first run.
        if known is not None and known.descriptor["run_start"] != descriptor["run_start"]:
            run = known.descriptor["run_start"]
            self._builder.note_bad(number, f"its descriptor has the uid {uid!r} of one of {run!r}")
        else:
            self._streams[uid] = _Stream(descriptor, number)

    def add_all(self) -> None:
        """Add the chunks of all descriptors, and the rows still in the journal, to the plan."""
        with self._database.session() as session:
            self._look(session)
            if self._finds_lost:
                self._find_lost()
            self._database.settle(session)
            self._add_streams(session)

    def _add_streams(self, session: ClientSession) -> None:
        short, count = [], 0
        for stream in self._streams.values():
            with self._noted(stream):
                # Most streams of stopped runs are sealed: they need no further query.
                if stream.waiting == 0:
                    self._add_sealed(stream)
                    continue
                stream.filter = unsealed(self._database, stream.descriptor["uid"], stream.chunks)
                if stream.is_long:
                    self._add_long(stream, session)
                    continue
                short.append(stream)
                count += stream.waiting
            # One query holds many short journals, but its rows are in memory at once.
            if count > TOGETHER:
                self._add_short(short, session)
                short, count = [], 0
        if short:
            self._add_short(short, session)

    @contextmanager
    def _noted(self, stream: _Stream) -> Iterator[None]:
        """Return a context in which a stream that cannot be read only makes its run a bad one."""
        try:
            yield
        except StoreDamaged as error:
            self._builder.note_bad(stream.number, str(error))

    def _look(self, session: ClientSession) -> None:
        """Count journal rows and list chunks with one query, in this order."""
        uids = list(self._streams)
        with self._database.errors():
            events = self._database.collection("event")
            warn_of_missing(events, "descriptor", self._database.label)
            found = events.aggregate(
                [
                    {"$match": {"descriptor": {"$in": uids}}},
                    *(CLASSIC if len(uids) > MANY else ()),
                    {"$group": {"_id": "$descriptor", "rows": {"$sum": 1}}},
                    {"$project": {"_id": 0, "descriptor": "$_id", "journal": "$rows"}},
                    _chunks_stage(uids),
                ],
                batchSize=BATCH_ROWS,
                session=session,
            )
            for doc in found:
                # The query yields counts of the journal first, then manifests.
                if "owner" in doc:
                    stream = self._streams[doc["owner"]]
                    self._add_manifest(stream, stream.chunks, doc)
                elif isinstance(doc["descriptor"], str):
                    self._streams[doc["descriptor"]].journal = doc["journal"]
                else:  # a list of which one item matches
                    for uid in self._streams.keys() & set(map(str, doc["descriptor"])):
                        number = self._streams[uid].number
                        self._builder.note_bad(number, "events whose descriptor is a list")

    def _find_lost(self) -> None:
        """Note the runs of chunks whose owner is no descriptor, as that of a damaged manifest.

        Chunks are found by their owners, so such a chunk would only be missing.
        """
        doubtful = [stream for stream in self._streams.values() if stream.may_lack_chunks]
        # Most streams are short and have their one chunk.
        if not doubtful:
            return
        numbers = {storable(stream.run): stream.number for stream in doubtful}
        known = [uid for uid, stream in self._streams.items() if storable(stream.run) in numbers]
        with self._database.errors():
            chunks = self._database.collection(CHUNK_COLLECTION)
            for doc in chunks.aggregate(_without_descriptor(list(numbers), known)):
                if isinstance(doc["run"], str):  # no list of which one item matches
                    problem = f"a chunk of descriptor {doc['lost']!r}, which is not stored"
                    self._builder.note_bad(numbers[doc["run"]], problem)

    def _add_manifest(self, stream: _Stream, chunks: list[Manifest], manifest: Manifest) -> None:
        with self._noted(stream):
            check_manifest(self._database, manifest)
            chunks.append(manifest)

    def _add_sealed(self, stream: _Stream) -> None:
        chunks = _ordered(stream.chunks)
        check_sequence(self._database, chunks)
        for chunk in chunks:
            text = chunk["schema"]
            # Most chunks of a stream have the same columns, and so the same text.
            if text not in self._schemas:
                self._schemas[text] = self._builder.add_schema(kinds_of(text))
            self._builder.add_chunk(
                stream.number,
                chunk_key(chunk),
                chunk["first"],
                self._schemas[text],
                statistics_of(chunk),
            )

    def _add_short(self, streams: Sequence[_Stream], session: ClientSession) -> None:
        """Read the journals of some descriptors, then list their chunks, with one query."""
        rows: dict[str, list[dict[str, Any]]] = {}
        after: dict[str, list[Manifest]] = {}
        uids = [storable(stream.descriptor["uid"]) for stream in streams]
        with self._database.errors():
            found = self._database.collection("event", settled=True).aggregate(
                [{"$match": _any_of(streams)}, _chunks_stage(uids)],
                batchSize=TOGETHER,
                session=session,
            )
            for doc in found:
                if "owner" in doc:
                    after.setdefault(doc["owner"], []).append(doc)
                elif isinstance(doc["descriptor"], str):
                    rows.setdefault(doc["descriptor"], []).append(doc)
        for stream, uid in zip(streams, uids, strict=True):
            sound: list[Manifest] = []
            for manifest in after.get(uid, ()):
                self._add_manifest(stream, sound, manifest)
            before, stream.chunks = stream.chunks, _ordered(sound)
            with self._noted(stream):
                self._add_rows(stream, rows.get(uid, []), before)

    def _add_rows(
        self, stream: _Stream, rows: list[dict[str, Any]], before: Sequence[Manifest]
    ) -> None:
        """Add the chunks of a stream, and the journal rows that none of them holds."""
        left = without_sealed(self._database, rows, before, stream.chunks)
        self._add_sealed(stream)
        # All rows were sealed while the query ran.
        if left:
            # The journal has no positions: its rows are in the order of their times.
            left.sort(key=lambda row: (seconds_of(row), str(row["_id"])))
            table = event_columns([left], None, event_metadata(stream.descriptor))
            self._builder.add_table(stream.number, sealed_end(stream.chunks), table)

    # -- long journals -----------------------------------------------------------------------

    def _add_long(self, stream: _Stream, session: ClientSession) -> None:
        key = (stream.descriptor["uid"], stream.journal, sealed_end(stream.chunks))
        ranges = self._known.get(key)
        if ranges is None:
            ranges = self._settled_ranges(stream, session)
            # If rows were sealed meanwhile, the ranges do not belong to this key.
            if sealed_end(stream.chunks) == key[2]:
                self._known[key] = ranges
        self._add_sealed(stream)
        position = first = sealed_end(stream.chunks)
        uids = (stream.descriptor["run_start"], stream.descriptor["uid"])
        for one in ranges:
            rows_key = range_key(*uids, one.begin, one.end, one.facts.rows, position)
            schema = self._builder.add_schema(one.kinds)
            self._builder.add_chunk(stream.number, rows_key, first, schema, one.facts)
            first += one.facts.rows

    def _settled_ranges(self, stream: _Stream, session: ClientSession) -> list[Range]:
        """Cut the journal into ranges; repeated as long as a sealer moves rows meanwhile."""
        uid = stream.descriptor["uid"]
        rounds = Rounds(f"planning the events of descriptor {uid!r} in {self._database.label}")
        while True:
            rounds.check(len(stream.chunks))
            ranges, after = self._walk(stream, session)
            for manifest in after:
                check_manifest(self._database, manifest)
            before, stream.chunks = stream.chunks, _ordered(after)
            # No sealer has moved rows between the two lists, so ranges and chunks fit each other.
            if {c["_id"] for c in before} == {c["_id"] for c in after}:
                return [self._with_packed(stream, one) for one in ranges]

    def _walk(self, stream: _Stream, session: ClientSession) -> tuple[list[Range], list[Manifest]]:
        """Return the ranges found by one pass over the rows, and the chunks listed after it."""
        doubtful = [c for c in stream.chunks if c["journal"] == WAITING]
        after: list[Manifest] = []
        descriptor = stream.descriptor
        stage = facts_projection(descriptor) | ({"uid": 1} if doubtful else {})
        with self._database.errors(), self._named(stream):
            found = self._database.collection("event", settled=True).aggregate(
                [
                    {"$match": stream.filter},
                    {"$sort": dict(IN_TIME)},
                    {"$project": stage},
                    _chunks_stage([storable(descriptor["uid"])]),
                ],
                batchSize=BATCH_ROWS,
                allowDiskUse=True,
                session=session,
            )
            rows = self._rows_of(found, after, doubtful)
            ranges = list(cut_ranges(rows, descriptor["data_keys"]))
        return ranges, after

    @contextmanager
    def _named(self, stream: _Stream) -> Iterator[None]:
        """Return a context in which the error for a malformed event names the event and fault."""
        try:
            yield
        except OddEvent as error:
            odd = self._database.collection("event").find_one(
                {**stream.filter, "$nor": [SOUND_EVENTS]}
            )
            # Encoding it raises the error that names its field.
            if odd is not None:
                metadata = event_metadata(stream.descriptor)
                encode_stored_rows(EVENT, [event_from_bson(odd)], metadata, [odd["_id"]])
            raise StoreDamaged(str(error)) from None

    def _rows_of(
        self, cursor: Any, after: list[Manifest], doubtful: Sequence[Manifest]
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows, except those of chunks that are waiting; add manifests to ``after``."""
        batch: list[dict[str, Any]] = []
        while batch := list(islice(cursor, RANGE_ROWS)):
            after.extend(doc for doc in batch if "owner" in doc)
            rows = [doc for doc in batch if "owner" not in doc]
            yield from without_sealed(self._database, rows, (), doubtful)

    def _with_packed(self, stream: _Stream, one: Range) -> Range:
        """Return a range whose kinds also cover the rows that the server cannot tell them of."""
        # The server knows the types of all rows.
        if not one.packed:
            return one
        times = {"time": {"$gte": one.begin, "$lte": one.end}}
        noted = {
            "$or": [{f"{SIDE_FIELD}.{key}": {"$exists": True}} for key in ("packed", ROWS_FIELD)]
        }
        query = {"$and": [stream.filter, times, noted]}
        with self._database.errors():
            rows = list(self._database.collection("event").find(query))
        table = event_columns([rows], None, event_metadata(stream.descriptor))
        found = column_kinds(table)
        return replace(one, kinds=joined_kinds(one.kinds, found) if one.kinds else dict(found))


def _chunks_stage(uids: Sequence[str]) -> dict[str, Any]:
    """Return the stage that appends the manifests of some descriptors to the previous results."""
    pipeline = [{"$match": {"owner": {"$in": list(uids)}}}]
    return {"$unionWith": {"coll": CHUNK_COLLECTION, "pipeline": pipeline}}


def _without_descriptor(runs: Sequence[str], known: Sequence[str]) -> list[dict[str, Any]]:
    """Return the pipeline for the owners of chunks of some runs that are no stored descriptors."""
    stored = {
        "from": "event_descriptor",
        "localField": "lost",
        "foreignField": "uid",
        "as": "found",
    }
    return [
        {"$match": {"run": {"$in": list(runs)}, "owner": {"$nin": list(known)}}},
        {"$group": {"_id": {"run": "$run", "lost": "$owner"}}},
        {"$project": {"_id": 0, "run": "$_id.run", "lost": {"$ifNull": ["$_id.lost", None]}}},
        {"$lookup": stored},
        {"$match": {"found": []}},
    ]


def _any_of(streams: Sequence[_Stream]) -> dict[str, Any]:
    plain = [s.filter["descriptor"] for s in streams if s.filter.keys() == {"descriptor"}]
    others = [s.filter for s in streams if s.filter.keys() != {"descriptor"}]
    # One $in uses the index on the descriptor; an $or is needed only for further conditions.
    if not others:
        return {"descriptor": {"$in": plain}}
    return {"$or": [{"descriptor": {"$in": plain}}, *others]}


def _ordered(chunks: Sequence[Manifest]) -> list[Manifest]:
    return sorted(chunks, key=lambda chunk: chunk["first"])


def _row_bytes(descriptor: Mapping[str, Any]) -> int:
    """Return the estimated bytes of an event, by the shapes in its descriptor."""
    total = 200
    for claim in descriptor["data_keys"].values():
        cells = 1
        # External cells are references, whatever shape their frames have.
        if not claim.get("external"):
            for size in claim.get("shape") or ():
                cells *= max(size, 1) if isinstance(size, int) else 1
        total += 40 + 12 * cells
    return total
