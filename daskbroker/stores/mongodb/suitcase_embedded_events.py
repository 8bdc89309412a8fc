"""Descriptors, events and references in suitcase-mongo's layout "embedded"; to be read only.

Descriptors and resources are inside the documents of ``header``, events and datums in pages
(collections ``event`` and ``datum``). A page is a chunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...core.chunks import ChunkPlan, Statistics
from ...core.clock import seconds_of
from ...core.codec import Kind
from ...core.documents import ALL, Document
from ...core.layouts import DATUM, EVENT, RESOURCE, Layout, encode_rows
from ...core.planning import PlanBuilder
from ...core.run_plan import run_owners, stream_of
from ..contract import EventStore
from .bson_documents import document_from_bson, from_bson, storable
from .checking import path_in
from .database import Database
from .reader import MongoReader
from .suitcase_embedded_headers import refuse_writing
from .survey import is_array, kind_of, range_facts, type_of, value_of

__all__ = ["SuitcaseEmbeddedEventStore"]


class SuitcaseEmbeddedEventStore(EventStore):
    """Events of a database in the layout "embedded".

    Parameters
    ----------
    database
        Of the store, shared with the header source.
    origin
        What the reader pickles as; see :class:`MongoReader`.
    """

    def __init__(self, database: Database, origin: tuple[str, str] | None = None) -> None:
        self._database = database
        self._release = database.lease()
        self.reader = MongoReader(database.uri, database.assets_uri, database.read_only, origin)

    @property
    def store_id(self) -> str:
        """See :attr:`EventStore.store_id`."""
        return self._database.store_id

    def path_of(self, key: Any) -> str | None:
        """See :meth:`EventStore.path_of`."""
        return path_in(self._database, key[0].removesuffix("_page")) if _is_page(key) else None

    def tells_kinds(self, key: Any) -> bool:
        """See :meth:`EventStore.tells_kinds`; it looks at one page only."""
        return not _is_page(key)

    # -- what there is -----------------------------------------------------------------------

    def has_run(self, uid: str) -> bool:
        """See :meth:`EventStore.has_run`."""
        return bool(self._headers({"start.uid": storable(uid)}, {"_id": 1}))

    def current_run(self) -> str | None:
        """See :meth:`EventStore.current_run`."""
        with self._database.errors():
            found = self._database.collection("header").find({}, {"start.uid": 1})
            newest = list(found.sort("_id", -1).limit(1))
        return newest[0]["start"][0]["uid"] if newest else None

    def find_descriptor(self, uid: str) -> Document | None:
        """See :meth:`EventStore.find_descriptor`."""
        found = self._headers({"descriptors.uid": storable(uid)}, {"descriptors.$": 1})
        return document_from_bson(found[0]["descriptors"][0]) if found else None

    def list_descriptors(self, runs: Sequence[str], stream_name: Any = ALL) -> list[Document]:
        """See :meth:`EventStore.list_descriptors`."""
        order = {storable(uid): place for place, uid in enumerate(runs)}
        query = {"start.uid": {"$in": list(order)}}
        docs = [
            document_from_bson(doc)
            for header in self._headers(query, {"descriptors": 1})
            for doc in header.get("descriptors", ())
        ]
        docs.sort(key=lambda d: (order[storable(d["run_start"])], seconds_of(d)))
        return [d for d in docs if stream_name is ALL or stream_of(d) == str(stream_name)]

    def find_asset_run(self, layout: Layout, uid: str, run: str | None) -> str | None:
        """See :meth:`EventStore.find_asset_run`."""
        if layout is not RESOURCE:
            return None
        found = self._headers({"resources.uid": storable(uid)}, {"start.uid": 1})
        return found[0]["start"][0]["uid"] if found else None

    def _headers(self, query: Mapping[str, Any], shown: Mapping[str, Any]) -> list[dict[str, Any]]:
        with self._database.errors():
            return list(self._database.collection("header").find(query, shown))

    # -- planning ----------------------------------------------------------------------------

    def plan_events(self, descriptors: Sequence[Document]) -> ChunkPlan:
        """See :meth:`EventStore.plan_events`; one query per descriptor."""
        builder = PlanBuilder(self.reader, EVENT, self._database.identity, descriptors)
        for place, descriptor in enumerate(descriptors):
            first = 0
            for page in self._survey(descriptor):
                facts = range_facts(page["t"], page["s"], page["b"])
                schema = builder.add_schema(_kinds(descriptor, page["k"]))
                key = ("event_page", descriptor["run_start"], page["_id"], facts.rows)
                builder.add_chunk(place, key, first, schema, facts)
                first += facts.rows
        return builder.plan()

    def _survey(self, descriptor: Document) -> list[dict[str, Any]]:
        """What there is to know of the pages of a descriptor, in order, without their data."""
        types = [
            _types_in(value_of(key), array=is_array(claim))
            for key, claim in descriptor["data_keys"].items()
        ]
        told = {"t": "$time", "s": "$seq_num", "b": {"$bsonSize": "$$ROOT"}, "k": types}
        with self._database.errors():
            pages = self._database.collection("event").aggregate(
                [
                    {"$match": {"descriptor": storable(descriptor["uid"])}},
                    {"$sort": {"last_index": 1}},
                    {"$project": told},
                ],
                allowDiskUse=True,
            )
            return list(pages)

    def plan_references(
        self, layouts: Sequence[Layout], runs: Sequence[str]
    ) -> dict[str, ChunkPlan]:
        """See :meth:`EventStore.plan_references`."""
        owners = run_owners(runs)
        store = self._database.identity
        builders = {
            layout.kind: PlanBuilder(self.reader, layout, store, owners) for layout in layouts
        }
        places = {storable(run): place for place, run in enumerate(runs)}
        shown = {"resources": 1, "start.uid": 1}
        for header in self._headers({"start.uid": {"$in": list(places)}}, shown):
            place = places[header["start"][0]["uid"]]
            resources = [from_bson(doc) for doc in header.get("resources", ())]
            if RESOURCE in layouts and resources:
                table = encode_rows(RESOURCE, resources, {"run": runs[place]})
                builders[RESOURCE.kind].add_table(place, 0, table)
            if DATUM in layouts and resources:
                uids = [storable(doc["uid"]) for doc in resources]
                self._add_datum_pages(builders[DATUM.kind], place, runs[place], uids)
        return {kind: builder.plan() for kind, builder in builders.items()}

    def _add_datum_pages(
        self, builder: PlanBuilder, place: int, run: str, resources: list[str]
    ) -> None:
        told = {"rows": {"$size": "$datum_id"}, "size": {"$bsonSize": "$$ROOT"}}
        with self._database.errors():
            pages = self._database.collection("datum").aggregate(
                [
                    {"$match": {"resource": {"$in": resources}}},
                    {"$sort": {"resource": 1, "last_index": 1}},
                    {"$project": told},
                ],
                allowDiskUse=True,
            )
            schema, first = builder.add_schema({}), 0  # nobody asks for the kinds of references
            for page in pages:
                facts = Statistics(page["rows"], page["size"])
                builder.add_chunk(place, ("datum_page", run, page["_id"]), first, schema, facts)
                first += page["rows"]

    # -- upkeep ------------------------------------------------------------------------------

    def close(self) -> None:
        """See :meth:`EventStore.close`."""
        self._release()

    def _refuse(self, *_: Any, **__: Any) -> Any:
        refuse_writing(self._database)

    insert_prepared = put_run = stop_run = put_descriptor = put_asset = _refuse
    append = append_page = seal = _refuse


def _types_in(values: Any, *, array: bool) -> dict[str, Any]:
    """The expression for the different types in a column of a page."""
    cells = {"$ifNull": [values, []]}
    return {
        "$setUnion": [
            {"$map": {"input": cells, "as": "cell", "in": type_of("$$cell", array=array)}},
            [],
        ]
    }


def _kinds(descriptor: Document, types: Sequence[Sequence[str]]) -> dict[str, Kind]:
    kinds = {"seq_num": Kind("int"), "time": Kind("float"), "uid": Kind("str")}
    for key, found in zip(descriptor["data_keys"], types, strict=True):
        if found:
            kinds[f"data:{key}"] = kind_of(set(found)) or Kind("null", True)
            kinds[f"ts:{key}"] = Kind("float", nulls=True)
    return kinds


def _is_page(key: Any) -> bool:
    return isinstance(key, tuple)
