"""Descriptors, events and references in suitcase-mongo's layout "embedded", which is only read.

Descriptors and resources are inside the documents of ``header``. Events and datums are in pages
(collections ``event`` and ``datum``). Each page is a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...core.bad_runs import BadRun
from ...core.chunk_statistics import Statistics
from ...core.chunks import ChunkPlan, damage_of
from ...core.clock import seconds_of
from ...core.column_kinds import ColumnKind
from ...core.damage import Damage
from ...core.documents import ALL, Document, StreamName
from ...core.errors import StoreDamaged
from ...core.layouts import DATUM, EVENT, RESOURCE, Layout
from ...core.plan_builder import PlanBuilder
from ...core.run_plan import is_of_stream, run_owners
from ...core.stored_documents import encode_stored_rows
from ..contract import EventStore
from ..stored_text import storable
from .bson_documents import checked_from_bson
from .checking import lost_references, path_in
from .database import Database
from .foreign_pages import page_key
from .journal_ranges import range_facts
from .reader import MongoReader
from .references import with_uid
from .suitcase_embedded_headers import header_uid, refuse_writing
from .value_types import depth_of, kind_of_types, type_of, value_of


class SuitcaseEmbeddedEventStore(EventStore):
    """Events of a database in the layout "embedded".

    Parameters
    ----------
    database
        Databases of the store, shared with the header source.
    origin
        Key of a broker and name of its event source, as which the reader pickles; see
        :class:`MongoReader`.
    """

    def __init__(self, database: Database, origin: tuple[str, str] | None = None) -> None:
        self._database = database
        self._release = database.lease()
        self.reader = MongoReader(database.uri, database.assets_uri, database.read_only, origin)

    @property
    def store_id(self) -> str:
        return self._database.store_id

    @property
    def format_version(self) -> int | None:
        return self._database.format_version

    def stored_bytes(self) -> int:
        return self._database.stored_bytes()

    def path_of(self, key: Any) -> str | None:
        return path_in(self._database, key[0].removesuffix("_page")) if _is_page(key) else None

    def tells_kinds(self, key: Any) -> bool:
        """See :meth:`EventStore.tells_kinds`. The kinds of a page are a guess."""
        return not _is_page(key)

    def check_rest(self) -> Iterator[Damage]:
        """See :meth:`EventStore.check_rest`. Finds pages of events of no stored descriptor."""
        return lost_references(self._database, "event", "descriptor", "header", "descriptors.uid")

    # -- what there is -----------------------------------------------------------------------

    def has_run(self, uid: str) -> bool:
        return bool(self._headers({"start.uid": storable(uid)}, {"_id": 1}))

    def current_run(self) -> str | None:
        with self._database.errors():
            begun = {"start.uid": {"$type": "string"}}
            found = self._database.collection("header").find(begun, {"start.uid": 1})
            newest = list(found.sort("_id", -1).limit(1))
        return header_uid(newest[0]) if newest else None

    def find_descriptor(self, uid: str) -> Document | None:
        found = self._headers({"descriptors.uid": storable(uid)}, {"descriptors.$": 1})
        with damage_of(f"descriptor {uid!r}"):
            return checked_from_bson("descriptor", found[0]["descriptors"][0]) if found else None

    def list_descriptors(
        self, runs: Sequence[str], stream_name: StreamName = ALL
    ) -> Sequence[Document | BadRun]:
        order = {storable(uid): position for position, uid in enumerate(runs)}
        query = {"start.uid": {"$in": list(order)}}
        found: list[tuple[int, float, Document | BadRun]] = []
        for header in self._headers(query, {"descriptors": 1, "start.uid": 1}):
            uid = header_uid(header)
            if uid in order:
                position = order[uid]
                docs = (
                    self._checked(doc, runs[position]) for doc in _listed(header, "descriptors")
                )
                found += [
                    (position, 0.0 if isinstance(d, BadRun) else seconds_of(d), d) for d in docs
                ]
        found.sort(key=lambda one: one[:2])
        return [doc for *_, doc in found if is_of_stream(doc, stream_name)]

    def _checked(self, doc: object, run: str) -> Document | BadRun:
        try:
            if not isinstance(doc, dict):
                raise StoreDamaged(f"a descriptor must be a mapping, not {doc!r:.60}")
            return checked_from_bson("descriptor", doc)
        except StoreDamaged as error:
            return BadRun(run, str(error), f"{self._database.label}, header")

    def find_asset_run(self, layout: Layout, uid: str, run: str | None) -> str | None:
        if layout is not RESOURCE:
            return None
        found = self._headers({"resources.uid": storable(uid)}, {"start.uid": 1})
        return header_uid(found[0]) if found else None

    def _headers(self, query: Mapping[str, Any], shown: Mapping[str, Any]) -> list[dict[str, Any]]:
        with self._database.errors():
            return list(self._database.collection("header").find(query, shown))

    # -- planning ----------------------------------------------------------------------------

    def plan_events(self, descriptors: Sequence[Document]) -> ChunkPlan:
        """See :meth:`EventStore.plan_events`. There is one query for each descriptor."""
        builder = PlanBuilder(self.reader, EVENT, self._database.identity, descriptors)
        for index, descriptor in enumerate(descriptors):
            first = 0
            for page in self._page_facts(descriptor):
                try:
                    facts = range_facts(page["t"], page["s"], page["b"])
                    key = page_key("event_page", descriptor["run_start"], page, facts.rows)
                except StoreDamaged as error:
                    builder.note_bad(index, str(error))
                    continue
                except (LookupError, TypeError, ValueError, OverflowError) as error:
                    builder.note_bad(index, f"event page, _id {page['_id']!r}: {error!r}")
                    continue
                schema = builder.add_schema(_kinds(descriptor, page["k"]))
                builder.add_chunk(index, key, first, schema, facts)
                first += facts.rows
        return builder.plan()

    def _page_facts(self, descriptor: Document) -> list[dict[str, Any]]:
        """Return times, ``seq_num``, size and types of a descriptor's pages in order, no data."""
        types = [
            _types_in(value_of(key), depth_of(claim))
            for key, claim in descriptor["data_keys"].items()
        ]
        shown = {"t": "$time", "s": "$seq_num", "b": {"$bsonSize": "$$ROOT"}, "k": types}
        with self._database.errors():
            pages = self._database.collection("event").aggregate(
                [
                    {"$match": {"descriptor": storable(descriptor["uid"])}},
                    {"$sort": {"last_index": 1}},
                    {"$project": shown},
                ],
                allowDiskUse=True,
            )
            return list(pages)

    def plan_references(
        self, layouts: Sequence[Layout], runs: Sequence[str]
    ) -> dict[str, ChunkPlan]:
        owners = run_owners(runs)
        store = self._database.identity
        builders = {
            layout.kind: PlanBuilder(self.reader, layout, store, owners) for layout in layouts
        }
        positions = {storable(run): position for position, run in enumerate(runs)}
        shown = {"resources": 1, "start.uid": 1}
        for header in self._headers({"start.uid": {"$in": list(positions)}}, shown):
            position = positions.get(header_uid(header) or "")
            if position is None:
                continue
            try:
                self._add_references(builders, position, runs[position], header)
            except StoreDamaged as error:
                for builder in builders.values():
                    builder.note_bad(position, str(error))
        return {kind: builder.plan() for kind, builder in builders.items()}

    def _add_references(
        self,
        builders: Mapping[str, PlanBuilder],
        owner: int,
        run: str,
        header: Mapping[str, Any],
    ) -> None:
        found = _listed(header, "resources")
        resources = [with_uid(RESOURCE, doc) for doc in found if isinstance(doc, dict)]
        if len(resources) < len(found):
            raise StoreDamaged("a resource of the run is not a mapping")
        if RESOURCE.kind in builders and resources:
            table = encode_stored_rows(RESOURCE, resources, {"run": run})
            builders[RESOURCE.kind].add_table(owner, 0, table)
        if DATUM.kind in builders and resources:
            uids = [storable(doc["uid"]) for doc in resources]
            self._add_datum_pages(builders[DATUM.kind], owner, run, uids)

    def _add_datum_pages(
        self, builder: PlanBuilder, owner: int, run: str, resources: list[str]
    ) -> None:
        rows = {"$cond": [{"$isArray": "$datum_id"}, {"$size": "$datum_id"}, -1]}
        shown = {"rows": rows, "size": {"$bsonSize": "$$ROOT"}}
        with self._database.errors():
            pages = self._database.collection("datum").aggregate(
                [
                    {"$match": {"resource": {"$in": resources}}},
                    {"$sort": {"resource": 1, "last_index": 1}},
                    {"$project": shown},
                ],
                allowDiskUse=True,
            )
            schema, first = builder.add_schema({}), 0  # nobody asks for the kinds of references
            for page in pages:
                if page["rows"] < 0:
                    raise StoreDamaged(f"datum page, _id {page['_id']!r}: lacks 'datum_id'")
                facts = Statistics(page["rows"], page["size"])
                key = page_key("datum_page", run, page)
                builder.add_chunk(owner, key, first, schema, facts)
                first += page["rows"]

    # -- upkeep ------------------------------------------------------------------------------

    def close(self) -> None:
        self._release()

    def _refuse(self, *_: Any, **__: Any) -> Any:
        refuse_writing(self._database)

    insert_prepared = put_run = stop_run = put_descriptor = put_asset = _refuse
    append = append_page = seal = _refuse


def _listed(header: Mapping[str, Any], name: str) -> list[Any]:
    found = header.get(name)
    return found if isinstance(found, list) else [] if found is None else [found]


def _types_in(values: object, depth: int) -> dict[str, Any]:
    """Return the expression for the distinct types in a column of a page."""
    cells = {"$cond": [{"$isArray": [values]}, values, []]}
    return {
        "$setUnion": [
            {"$map": {"input": cells, "as": "cell", "in": type_of("$$cell", depth)}},
            [],
        ]
    }


def _kinds(descriptor: Document, types: Sequence[Sequence[str]]) -> dict[str, ColumnKind]:
    kinds = {"seq_num": ColumnKind("int"), "time": ColumnKind("float"), "uid": ColumnKind("str")}
    for key, found in zip(descriptor["data_keys"], types, strict=True):
        if found:
            kinds[f"data:{key}"] = kind_of_types(set(found)) or ColumnKind("null", True)
            kinds[f"ts:{key}"] = ColumnKind("float", nulls=True)
    return kinds


def _is_page(key: object) -> bool:
    return isinstance(key, tuple)
