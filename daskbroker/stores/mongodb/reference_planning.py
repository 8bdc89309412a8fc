"""Planning of references in a MongoDB store, with few queries for any number of runs.

Resources and stream_resources travel with the plan, and so do the datums of runs that have few. If
a run has many datums, they are read in ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from ...core.batches import batched
from ...core.chunk_statistics import Statistics
from ...core.chunks import ChunkPlan, ChunkReader
from ...core.errors import StoreDamaged
from ...core.layouts import DATUM, LAYOUTS, RESOURCE, STREAM_DATUM, Layout
from ...core.plan_builder import PlanBuilder
from ...core.run_plan import run_owners
from ...core.stored_documents import encode_stored_rows
from ..stored_text import storable
from .bson_documents import was_object_id
from .database import CLASSIC, MANY, Database
from .indexes import warn_of_missing
from .references import of_runs, orphan_datums, orphan_resources, run_of_resource, with_uid

AT_A_TIME = 5000
"""Number of runs, or of resources, in one query."""
INLINE_DATUMS = 65_536
"""Maximum number of datums of a run that travel with the plan; more are read in ranges."""
RANGE_DATUMS = 16_384
"""Number of datums in a range."""
DATUM_BYTES = 100
"""Approximate bytes of a datum."""

DocumentsOfRuns = dict[str, list[dict[str, Any]]]
"""Documents by run."""


class ReferencePlanner:
    """Planner of the references of some runs.

    Parameters
    ----------
    database, reader
        Databases and reader of the store.
    runs
        Uids of the runs.
    run_of_descriptors
        Function that maps uids of descriptors to the uids of their runs.
    datum_ids
        Function that returns the texts in the external columns of each run's events. None if
        every resource names its run, so that these are not needed.
    """

    def __init__(
        self,
        database: Database,
        reader: ChunkReader,
        runs: Sequence[str],
        run_of_descriptors: Callable[[set[str]], Mapping[str, str]],
        datum_ids: Callable[[], Mapping[str, set[str]]] | None,
    ) -> None:
        self._database = database
        self._reader = reader
        self._runs = list(runs)
        self._by_name = {storable(run): run for run in runs}
        self._run_of_descriptors = run_of_descriptors
        self._datum_ids = datum_ids
        self._owned: dict[str, DocumentsOfRuns] = {}
        self._faults: dict[tuple[str, str], str] = {}

    def plan(self, layout: Layout) -> ChunkPlan:
        """Return the plan for one kind of references."""
        store = self._database.identity
        builder = PlanBuilder(self._reader, layout, store, run_owners(self._runs))
        docs = self._documents(layout)
        ranges = self._datum_ranges() if layout is DATUM else {}
        schema = builder.add_schema({})  # nobody asks for the kinds of references
        for number, run in enumerate(self._runs):
            first = 0
            for begin, end, rows in ranges.get(run, ()):
                facts = Statistics(rows, rows * DATUM_BYTES)
                builder.add_chunk(number, ("datum", run, begin, end), first, schema, facts)
                first += rows
            each_once = list({doc[layout.uid]: doc for doc in docs.get(run, ())}.values())
            try:
                if (run, layout.kind) in self._faults:
                    raise StoreDamaged(self._faults[run, layout.kind])
                if each_once:
                    metadata = {"run": run, "kind": layout.kind}
                    table = encode_stored_rows(layout, each_once, metadata)
                    builder.add_table(number, first, table)
            except StoreDamaged as error:
                builder.note_bad(number, str(error))
        return builder.plan()

    def _take(
        self,
        layout: Layout,
        documents: DocumentsOfRuns,
        runs: Iterable[str],
        doc: Mapping[str, Any],
    ) -> None:
        """Add a stored document for some runs, or note a fault if it is malformed."""
        try:
            taken = with_uid(layout, doc)
        except StoreDamaged as error:
            where = f"{self._database.label}, {layout.kind}, _id {doc['_id']!r}"
            for run in runs:
                self._faults.setdefault((run, layout.kind), f"{layout.kind}: {error} ({where})")
            return
        for run in runs:
            documents.setdefault(run, []).append(taken)

    def _documents(self, layout: Layout) -> DocumentsOfRuns:
        if layout is DATUM:
            return self._datums()
        if layout is STREAM_DATUM:
            return self._stream_datums()
        docs = self._owners(layout)
        if layout is RESOURCE:
            found: DocumentsOfRuns = {run: list(some) for run, some in docs.items()}
            for run, some in self._orphans[0].items():
                found.setdefault(run, []).extend(some)
            return found
        return docs

    def _find(
        self, layout: Layout, queries: Iterable[Mapping[str, Any]], shown: object = None
    ) -> Iterator[dict[str, Any]]:
        """Yield the stored documents that match each query, in the order of insertion."""
        for query in queries:
            with self._database.errors():
                collection = self._database.collection(layout.kind)
                warn_of_missing(collection, layout.owner or "run_start", self._database.label)
                yield from collection.find(query, shown).sort("_id", 1).allow_disk_use(True)

    # -- resources ---------------------------------------------------------------------------

    def _owners(self, layout: Layout) -> DocumentsOfRuns:
        """Return the resources or stream_resources that name their run."""
        if layout.kind not in self._owned:
            found: DocumentsOfRuns = {}
            for doc in self._find(layout, map(of_runs, batched(self._by_name, AT_A_TIME))):
                run = self._by_name.get(str(run_of_resource(doc)))
                self._take(layout, found, () if run is None else (run,), doc)
            self._owned[layout.kind] = found
        return self._owned[layout.kind]

    def _owner_queries(self, layout: Layout, runs: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Yield filters for what belongs to the resources of some runs. A run is not divided."""
        uids: dict[str, None] = {}
        owners = self._owners(LAYOUTS[layout.owner])
        for run in runs:
            uids.update((storable(doc["uid"]), None) for doc in owners.get(run, ()))
            if len(uids) >= AT_A_TIME:
                yield {layout.owner: {"$in": list(uids)}}
                uids = {}
        if uids:
            yield {layout.owner: {"$in": list(uids)}}

    def _runs_of_owners(self, layout: Layout) -> dict[str, list[str]]:
        """Return the runs of each resource by its stored uid: several if uids were reused."""
        runs: dict[str, list[str]] = {}
        for run, docs in self._owners(LAYOUTS[layout.owner]).items():
            for uid in dict.fromkeys(storable(doc["uid"]) for doc in docs):
                runs.setdefault(uid, []).append(run)
        return runs

    # -- datums ------------------------------------------------------------------------------

    def _datums(self) -> DocumentsOfRuns:
        few = [run for run in self._runs if run not in self._many]
        found: DocumentsOfRuns = {}
        for doc in self._find(DATUM, self._owner_queries(DATUM, few)):
            runs = self._runs_of(doc)
            self._take(DATUM, found, [run for run in runs if run not in self._many], doc)
        for run, docs in self._orphans[1].items():
            found.setdefault(run, []).extend(docs)
        return found

    def _runs_of(self, datum: Mapping[str, Any]) -> list[str]:
        """Return the runs that have the resource of a stored datum."""
        owner = datum.get(DATUM.owner)
        return self._resources.get(owner, []) if isinstance(owner, str) else []

    @cached_property
    def _resources(self) -> dict[str, list[str]]:
        return self._runs_of_owners(DATUM)

    @cached_property
    def _many(self) -> set[str]:
        """Runs with more than :data:`INLINE_DATUMS` datums."""
        counts: dict[str, int] = {}
        for query in self._owner_queries(DATUM, self._runs):
            stages = [
                {"$match": query},
                *(CLASSIC if len(query[DATUM.owner]["$in"]) > MANY else ()),
                {"$group": {"_id": f"${DATUM.owner}", "rows": {"$sum": 1}}},
            ]
            with self._database.errors():
                datums = self._database.collection(DATUM.kind)
                warn_of_missing(datums, DATUM.owner, self._database.label)
                for doc in datums.aggregate(stages):
                    for run in self._runs_of({DATUM.owner: doc["_id"]}):
                        counts[run] = counts.get(run, 0) + doc["rows"]
        return {run for run, rows in counts.items() if rows > INLINE_DATUMS}

    def _datum_ranges(self) -> dict[str, list[tuple[str, str, int]]]:
        """Return the ranges ``(first _id, last _id, rows)`` of the datums of runs with many.

        Only ``_id`` and resource of the datums are read, in the order of insertion.
        """
        ranges: dict[str, list[tuple[str, str, int]]] = {}
        queries = self._owner_queries(DATUM, self._many)
        for doc in self._find(DATUM, queries, {"_id": 1, DATUM.owner: 1}):
            number = str(doc["_id"])
            for run in self._many.intersection(self._runs_of(doc)):
                # Ranges are read by ObjectIds, so this datum would not be among them.
                if not was_object_id(doc["_id"]):
                    fault = f"datum, _id {number!r:.60}: its _id is no ObjectId"
                    self._faults.setdefault((run, DATUM.kind), fault)
                    continue
                so_far = ranges.setdefault(run, [])
                if not so_far or so_far[-1][2] == RANGE_DATUMS:
                    so_far.append((number, number, 1))
                else:
                    begin, _, rows = so_far[-1]
                    so_far[-1] = (begin, number, rows + 1)
        return ranges

    # -- stream_datums -----------------------------------------------------------------------

    def _stream_datums(self) -> DocumentsOfRuns:
        runs_of = self._runs_of_owners(STREAM_DATUM)
        docs = list(self._find(STREAM_DATUM, self._owner_queries(STREAM_DATUM, self._runs)))
        owners = [doc.get("descriptor") for doc in docs]
        named = self._run_of_descriptors({uid for uid in owners if isinstance(uid, str)})
        found: DocumentsOfRuns = {}
        for doc, owner in zip(docs, owners, strict=True):
            resource = doc.get(STREAM_DATUM.owner)
            having = runs_of.get(resource, []) if isinstance(resource, str) else []
            if isinstance(owner, str):
                having = [run for run in having if run == named.get(owner)]
            self._take(STREAM_DATUM, found, having, doc)
        return found

    # -- legacy ------------------------------------------------------------------------------

    @cached_property
    def _orphans(self) -> tuple[DocumentsOfRuns, DocumentsOfRuns]:
        """Resources that name no run, and their datums, by the runs whose events use them."""
        if self._datum_ids is None:
            return {}, {}
        of_run = self._datum_ids()
        datums = orphan_datums(self._database, set().union(*of_run.values()))
        resources = orphan_resources(
            self._database, {str(d.get("resource")) for d in datums.values()}
        )
        found_resources: DocumentsOfRuns = {}
        found_datums: DocumentsOfRuns = {}
        for run, ids in of_run.items():
            known = {doc["uid"] for doc in self._owners(RESOURCE).get(run, ())}
            mine = [datums[one] for one in ids if one in datums]
            mine = [doc for doc in mine if str(doc.get("resource")) not in known]
            used = dict.fromkeys(str(doc.get("resource")) for doc in mine)
            found_datums[run] = mine
            found_resources[run] = [resources[uid] for uid in used if uid in resources]
        return found_resources, found_datums
