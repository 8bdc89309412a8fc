"""Descriptors, events and references in a MongoDB store, in the layout of databroker."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain
from typing import Any

import pyarrow as pa

from ...core.bad_runs import BadRun
from ...core.batches import batched
from ...core.bounded_dict import BoundedDict
from ...core.chunks import ChunkPlan, chunk_label, damage_of
from ...core.clock import seconds_of
from ...core.documents import ALL, Document, StreamName
from ...core.errors import StoreDamaged
from ...core.external import datum_keys
from ...core.interrupts import in_own_context
from ...core.layouts import DATUM, EVENT, RESOURCE, Layout, cells
from ...core.plan_builder import PlanBuilder
from ...core.run_plan import is_of_stream, stream_of
from ...core.settings import setting
from ..already_stored import stored_descriptor
from ..journalled import JournalledEventStore, PeekRow
from ..spool.sender import flush_all
from ..stored_text import storable
from .bson_documents import RAW_CODEC, SIDE_FIELD, checked_from_bson, decoded_alike
from .checking import MongoChecks
from .database import CHUNK_COLLECTION, RUN_COLLECTION, Database
from .event_writer import EventWriter
from .indexes import has_later_indexes, warn_of_missing
from .journal_ranges import Range
from .peeks import RUNS_AT_A_TIME, replace_peeks, select_peeks
from .planning import EventPlanner
from .reader import MongoReader
from .reference_planning import ReferencePlanner
from .references import has_orphans, run_with_resource, store_reference
from .sealed_rows import remove_old_marks
from .sealing import page_tables, seal_descriptor, sweep
from .server_errors import inserting
from .single_documents import insert_single

NAMED = {"uid": {"$type": "string"}}
LOOK_FOR_INDEX_SECONDS = 60.0
"""Seconds until this process looks again for an index that was missing."""


class MongoEventStore(MongoChecks, JournalledEventStore):
    """Events in the journal (the layout of databroker) and in sealed chunks, in MongoDB.

    Parameters
    ----------
    database
        Databases of the store, shared with the header source.
    origin
        Key of a broker and name of its event source, as which the reader pickles; see
        :class:`MongoReader`.

    Notes
    -----
    With ``daskbroker.mongo-keep-journal`` sealed rows also stay in the journal, and pages are
    written to it, so that databroker reads everything that daskbroker inserts.
    """

    opens_on_workers = True
    least_page_rows = 1000

    def __init__(self, database: Database, origin: tuple[str, str] | None = None) -> None:
        self._database = database
        self._release = database.lease()
        self.reader = MongoReader(database.uri, database.assets_uri, database.read_only, origin)
        self._keep: bool = setting("mongo-keep-journal")
        super().__init__()

    def _begin(self) -> None:
        super()._begin()
        self._lock = threading.RLock()
        self._writer = EventWriter(self._database, self._seal_rows, self._seal_bytes)
        self._owners: BoundedDict[tuple[str, str, str | None], str] = BoundedDict()
        self._ranges_of_journals: BoundedDict[tuple[str, int, int], list[Range]] = BoundedDict()
        self._orphans: bool | None = None
        self._has_run_index = False
        self._look_for_run_index = 0.0

    @property
    def store_id(self) -> str:
        return self._database.store_id

    @property
    def is_noted(self) -> bool:
        return self._database.is_noted

    def insert_limit(self) -> AbstractContextManager[None]:
        return self._database.limit(insert=True)

    @in_own_context
    def insert_prepared(self, name: str, doc: Mapping[str, Any], *, run: str | None = None) -> None:
        super().insert_prepared(name, doc, run=run)

    def prepare_writing(self) -> None:
        self._database.prepare_writing()

    @property
    def format_version(self) -> int | None:
        return self._database.format_version

    def stored_bytes(self) -> int:
        return self._database.stored_bytes()

    # -- runs, descriptors -------------------------------------------------------------------

    def put_run(self, uid: str) -> None:
        self._database.prepare_writing()
        run = storable(uid)
        with self._database.errors():
            runs = self._database.collection(RUN_COLLECTION)
            runs.update_one({"uid": run}, {"$setOnInsert": {"uid": run}}, upsert=True)

    def _look_up_run(self, uid: str) -> bool | None:
        """Return True if a run is stored, else None. For a run of databroker its start counts."""
        query = {"uid": storable(uid)}
        with self._database.limit(), self._database.errors():
            # Without a store of headers beside it, a run of daskbroker has only its own document.
            for name in (RUN_COLLECTION, "run_start"):
                if self._database.collection(name).find_one(query, {"_id": 1}) is not None:
                    return True
        return None

    def current_run(self) -> str | None:
        newest: list[tuple[str, str]] = []
        with self._database.errors():
            for name in (RUN_COLLECTION, "run_start"):
                found = self._database.collection(name).find(NAMED, {"uid": 1})
                newest += [(str(d["_id"]), str(d["uid"])) for d in found.sort("_id", -1).limit(1)]
        return max(newest)[1] if newest else None

    def stop_run(self, uid: str) -> None:
        with inserting():
            self.seal(uid, keep_journal=self._keep)

    def put_descriptor(self, doc: Mapping[str, Any]) -> None:
        self._database.prepare_writing()
        same = {"uid": storable(doc["uid"])}
        insert_single(self._database, "descriptor", "event_descriptor", doc, same)
        self._descriptors[doc["uid"]] = Document(doc)

    def _look_up_descriptor(self, uid: str) -> Document | None:
        with self._database.errors():
            descriptors = self._database.collection("event_descriptor")
            doc = descriptors.find_one({"uid": storable(uid)})
        with damage_of(f"descriptor {uid!r}"):
            return None if doc is None else checked_from_bson("descriptor", doc)

    def list_descriptors(
        self, runs: Sequence[str], stream_name: StreamName = ALL
    ) -> Sequence[Document | BadRun]:
        order = {storable(uid): position for position, uid in enumerate(runs)}
        with self._database.errors():
            collection = self._database.collection("event_descriptor")
            warn_of_missing(collection, "run_start", self._database.label)
            raw = collection.with_options(codec_options=RAW_CODEC)
            coming = chain.from_iterable(
                raw.find({"run_start": {"$in": some}}, batch_size=RUNS_AT_A_TIME + 1)
                for some in batched(order, RUNS_AT_A_TIME)
            )
            found = list(decoded_alike(coming))
        found = [doc for doc in found if isinstance(doc["run_start"], str)]
        found.sort(key=lambda doc: (order[doc["run_start"]], seconds_of(doc), str(doc["_id"])))
        if stream_name is not ALL:
            found = [doc for doc in found if _may_be_of(doc, str(stream_name))]
        docs = [self._checked(doc, runs[order[doc["run_start"]]]) for doc in found]
        return [doc for doc in docs if is_of_stream(doc, stream_name)]

    def _checked(self, stored: dict[str, Any], run: str) -> Document | BadRun:
        """Return a descriptor that was found by the uid of its run, or a BadRun if damaged."""
        try:
            return checked_from_bson("descriptor", stored)
        except StoreDamaged as error:
            where = f"{self._database.label}, event_descriptor, _id {stored['_id']!r}"
            return BadRun(run, str(error), where)

    # -- references --------------------------------------------------------------------------

    def put_asset(self, layout: Layout, doc: Mapping[str, Any], run: str) -> None:
        self._database.prepare_writing()
        store_reference(self._database, layout, [doc], run)

    def find_asset_run(self, layout: Layout, uid: str, run: str | None) -> str | None:
        key = (layout.kind, uid, run)
        if key not in self._owners:
            found = run_with_resource(self._database, layout, uid, run)
            if found is None or (run is not None and found != run):
                return found  # not remembered: the given run may still get one of its own
            self._owners[key] = found
        return self._owners[key]

    # -- rows --------------------------------------------------------------------------------

    def append(
        self, layout: Layout, owner: str, rows: Sequence[Mapping[str, Any]], run: str
    ) -> None:
        self._database.prepare_writing()
        # References stay plain documents; only events are sealed.
        if layout is not EVENT:
            store_reference(self._database, layout, rows, run)
            return
        descriptor = stored_descriptor(self, owner)
        with self._lock:
            self._writer.append(descriptor, rows)
            if self._writer.is_full(descriptor["uid"]):
                self._seal_descriptor(descriptor, keep=self._keep)

    def _append_columns(
        self, layout: Layout, owner: str, page: Mapping[str, Any], run: str
    ) -> bool:
        # A page that must stay in the journal, for databroker, is stored row by row.
        if layout is not EVENT or self._keep:
            return False
        self._database.prepare_writing()
        descriptor = stored_descriptor(self, owner)
        tables = page_tables(descriptor, page)
        with self._lock:
            return self._writer.append_tables(descriptor, tables, page["uid"])

    def append_table(self, owner: str, table: pa.Table, run: str) -> None:
        if not self._keep:
            self._database.prepare_writing()
            descriptor = stored_descriptor(self, owner)
            uids = cells(table, EVENT.uid)
            with self._lock:
                # Some of its events are stored already, so they are compared one by one.
                if self._writer.append_tables(descriptor, [table], uids):
                    return
        super().append_table(owner, table, run)

    # -- planning ----------------------------------------------------------------------------

    def plan_events(self, descriptors: Sequence[Document]) -> ChunkPlan:
        flush_all(self._database.store_id)  # send what spools in this process hold for this store
        builder = PlanBuilder(self.reader, EVENT, self._database.identity, descriptors)
        EventPlanner(
            self._database,
            builder,
            descriptors,
            self._ranges_of_journals,
            finds_lost=self._lists_chunks_by_run(),
        ).add_all()
        return builder.plan()

    def _lists_chunks_by_run(self) -> bool:
        # Stores of earlier versions lack the index until `daskbroker index` has made it.
        if not self._has_run_index and time.monotonic() >= self._look_for_run_index:
            with self._database.errors():
                chunks = self._database.collection(CHUNK_COLLECTION)
                self._has_run_index = has_later_indexes(chunks)
            self._look_for_run_index = time.monotonic() + LOOK_FOR_INDEX_SECONDS
        return self._has_run_index

    def plan_references(
        self, layouts: Sequence[Layout], runs: Sequence[str]
    ) -> dict[str, ChunkPlan]:
        orphans = {RESOURCE, DATUM} & set(layouts) and self._has_orphans()
        planner = ReferencePlanner(
            self._database,
            self.reader,
            runs,
            self._runs_of_descriptors,
            partial(self._datum_ids, runs) if orphans else None,
        )
        return {layout.kind: planner.plan(layout) for layout in layouts}

    def _runs_of_descriptors(self, uids: set[str]) -> dict[str, str]:
        known = ((uid, self._descriptors.get(uid)) for uid in uids)
        named = {uid: str(doc["run_start"]) for uid, doc in known if doc is not None}
        unknown = [storable(uid) for uid in uids if uid not in named]
        # Most descriptors were inserted or read by this process.
        if unknown:
            with self._database.errors():
                found = self._database.collection("event_descriptor")
                for doc in found.find({"uid": {"$in": unknown}}):
                    if isinstance(doc["uid"], str) and isinstance(doc.get("run_start"), str):
                        named[doc["uid"]] = doc["run_start"]
        return named

    def _has_orphans(self) -> bool:
        # A query over all resources, so it is asked once.
        if self._orphans is None:
            self._orphans = has_orphans(self._database)
        return self._orphans

    def _datum_ids(self, runs: Sequence[str]) -> dict[str, set[str]]:
        """Return the texts in the external columns of each run's events, by uid of the run."""
        listed = self.list_descriptors(runs)
        descriptors = [d for d in listed if not isinstance(d, BadRun) and datum_keys(d)]
        columns = sorted({f"data:{key}" for d in descriptors for key in datum_keys(d)})
        plan = self.plan_events(descriptors)
        found: dict[str, set[str]] = {}
        owners = plan.records["descriptor"].tolist()
        for owner, table in zip(owners, self.reader.read_many(plan.keys, columns), strict=True):
            ids = found.setdefault(descriptors[owner]["run_start"], set())
            for column in table.columns:
                ids.update(one for one in column.to_pylist() if isinstance(one, str))
        return found

    # -- what detector files say -------------------------------------------------------------

    def _select_peeks(self, by: str, values: Sequence[str]) -> Iterable[PeekRow]:
        return select_peeks(self._database, by, values)

    def _replace_peeks(self, rows: Sequence[PeekRow]) -> None:
        replace_peeks(self._database, rows)

    # -- upkeep ------------------------------------------------------------------------------

    def seal(self, run: str | None = None, *, keep_journal: bool = False) -> int:
        """See :meth:`EventStore.seal`. Sealing all runs also removes what killed processes left."""
        self._database.prepare_writing()
        # Each run on its own, so that one that cannot be sealed does not stop the others.
        if run is None:
            runs = ((uid, uid) for uid in self._runs_to_seal())
            made = self._seal_each(
                runs, lambda uid: self.seal(uid, keep_journal=keep_journal), one_run=False
            )
            sweep(self._database)
            remove_old_marks(self._database)
            return made
        with self._lock:
            with self._database.limit():
                descriptors = self.list_descriptors([run])
            return self._seal_each(
                ((run, one) for one in descriptors),
                lambda one: self._seal_descriptor(one, keep=keep_journal),
                one_run=True,
            )

    def _runs_to_seal(self) -> list[str]:
        """Return the uids of runs with rows in the journal, including those of killed sealers."""
        with self._database.errors():
            events = self._database.collection("event")
            named = events.aggregate([{"$group": {"_id": "$descriptor"}}])
            # Other values are of no descriptor, and may mean something else in a query.
            uids = [doc["_id"] for doc in named if isinstance(doc["_id"], str)]
            descriptors = self._database.collection("event_descriptor")
            found = descriptors.find({"uid": {"$in": uids}}, {"run_start": 1}).sort("time", 1)
            runs = (doc.get("run_start") for doc in found)
            return list(dict.fromkeys(run for run in runs if isinstance(run, str)))

    def _seal_descriptor(self, descriptor: Document | BadRun, *, keep: bool) -> int:
        # The caller goes on with the other descriptors and then raises.
        if isinstance(descriptor, BadRun):
            raise descriptor.error()
        try:
            with damage_of(chunk_label(descriptor)):
                made = seal_descriptor(self._database, descriptor, keep=keep)
        finally:
            self._writer.forget(descriptor["uid"])
        remove_old_marks(self._database)
        return made

    def create_indexes(self) -> list[str]:
        """See :meth:`EventStore.create_indexes`. All collections of the store are covered."""
        return self._database.create_indexes()

    def close(self) -> None:
        self._release()


def _may_be_of(stored: Mapping[str, Any], stream: str) -> bool:
    """Return whether a stored descriptor is of a stream, or is too malformed to tell."""
    name = stored.get("name")
    return (
        SIDE_FIELD in stored
        or bool(name and not isinstance(name, str))
        or stream_of(stored) == stream
    )
