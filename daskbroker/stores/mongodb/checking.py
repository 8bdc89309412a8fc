"""Checks of a MongoDB store for damage that plans and chunks do not show.

Documents are checked one by one as they are stored, as other programs may have written them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from pymongo import DESCENDING

from ...core.batches import batched
from ...core.damage import Damage
from ...core.documents import Document
from ...core.errors import BadDocument, StoreDamaged
from ...core.layouts import DATUM, EVENT, RESOURCE, STREAM_DATUM, STREAM_RESOURCE, Layout
from ...core.run_plan import stream_of
from ...core.search import Search
from ...core.validate import check_keys, document_label
from ..checking import CheckedHeader, EventChecks, check_document, error_text
from ..stored_text import storable
from .bson_documents import foreign_values, from_bson
from .database import CHUNK_COLLECTION, COLUMN_COLLECTION, Database
from .filters import Filter
from .own_cursor import OwnCursor
from .references import of_runs
from .sealed_rows import SEALED_MARK

BATCH = 500
"""Number of documents, or of resources in a query, at a time."""

LOST = (
    ("run_stop", "run_start", "run_start", "uid"),
    ("event_descriptor", "run_start", "run_start", "uid"),
    ("event", "descriptor", "event_descriptor", "uid"),
    (CHUNK_COLLECTION, "owner", "event_descriptor", "uid"),
)
"""References to check, as (collection, field, collection referred to, field there)."""

Raw = Mapping[str, Any]


def path_in(database: Database, name: str) -> str:
    """Return the name of a collection for messages."""
    return f"{database.label}.{name}"


def _read(name: str, stored: Raw, into: list[Damage]) -> Document | None:
    """Return a stored document as it was given, or None if it cannot be read.

    Parameters
    ----------
    name
        Kind of the document.
    stored
        Document as stored.
    into
        List that damage is added to.
    """
    number = stored.get("_id")
    try:
        content = from_bson(stored)
        doc = Document(content)
        damage = check_document(name, doc) or _foreign(name, content)
    except (StoreDamaged, BadDocument) as error:
        into.append(Damage(f"{name} with _id {number!r}: {error}"))
        return None
    except Exception as error:  # a document of another program may hold anything
        into.append(Damage(f"{name} with _id {number!r} {error_text(error)}"))
        return None
    if damage is not None:
        into.append(damage if isinstance(doc.get("uid"), str) else _with_number(damage, number))
    return doc


def _foreign(name: str, content: Raw) -> Damage | None:
    """Return damage for the first value of a type that documents lack, which is shown as text."""
    for field, text in foreign_values(content):
        problem = f"holds a value that documents lack, shown as the text {text!r}"
        return Damage(f"{document_label(name, content)}.{field}: {problem}", key=field)
    return None


def _with_number(damage: Damage, number: object) -> Damage:
    """Return damage that names the ``_id``, by which a document without a uid can be found."""
    return Damage(f"{damage.problem} (its _id is {number!r})", key=damage.key)


# -- start and stop --------------------------------------------------------------------------


def check_headers(database: Database, narrowed: Filter, search: Search) -> Iterator[CheckedHeader]:
    """See :meth:`HeaderStore.check`."""
    with database.errors():
        starts = database.collection("run_start")
        cursor = starts.find(narrowed.query, batch_size=BATCH)
        cursor = cursor.sort([("time", DESCENDING), ("_id", DESCENDING)]).allow_disk_use(True)
    with OwnCursor(cursor, database.label) as found:
        while some := _next(database, found):
            stops = _stops(database, [doc.get("uid") for doc in some])
            for start in some:
                uid = start.get("uid")
                own = stops.get(uid, []) if isinstance(uid, str) else []
                checked = _header(database, start, own)
                sound = not checked.damages and checked.start is not None
                if not sound or narrowed.exact or search.matches(checked.start, checked.stop):  # type: ignore[arg-type]
                    yield checked


def _next(database: Database, cursor: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    with database.errors():
        return list(islice(cursor, BATCH))


def _stops(database: Database, uids: Sequence[Any]) -> dict[str, list[dict[str, Any]]]:
    stops: dict[str, list[dict[str, Any]]] = {}
    with database.errors():
        query = {"run_start": {"$in": [uid for uid in uids if isinstance(uid, str)]}}
        for doc in database.collection("run_stop").find(query):
            if isinstance(doc["run_start"], str):  # no list of which one item matches
                stops.setdefault(doc["run_start"], []).append(doc)
    return stops


def _header(database: Database, start: Raw, stops: Sequence[Raw]) -> CheckedHeader:
    found: list[Damage] = []
    doc = _read("start", start, found)
    damages = [damage.within(path=path_in(database, "run_start")) for damage in found]
    found = []
    read = [_read("stop", stop, found) for stop in stops]
    if len(stops) > 1:
        found.append(Damage(f"it has {len(stops)} stop documents"))
    damages += [damage.within(path=path_in(database, "run_stop")) for damage in found]
    named = (doc or start).get("uid")
    uid = named if isinstance(named, str) else None
    stop = next((one for one in read if one is not None), None)
    return CheckedHeader(uid, doc, stop, [damage.within(run=uid) for damage in damages])


# -- events ----------------------------------------------------------------------------------


def _check_each(
    database: Database, layout: Layout, query: Raw, descriptor: Document | None = None
) -> Iterator[Damage]:
    """Yield the damages of the documents that match a query.

    Parameters
    ----------
    database, layout, query
        Databases of the store, kind of the documents, and filter for them.
    descriptor
        Descriptor of the events. If given, their keys are compared with its data keys.
    """
    path = path_in(database, layout.kind)
    with database.errors():
        cursor = database.collection(layout.kind).find(query, batch_size=BATCH)
    with OwnCursor(cursor, database.label) as found:
        while some := _next(database, found):
            for raw in some:
                damages: list[Damage] = []
                doc = _read(layout.kind, raw, damages)
                if doc is not None and descriptor is not None and not damages:
                    damages += _undeclared(doc, descriptor)
                yield from (damage.within(path=path) for damage in damages)


def _undeclared(event: Document, descriptor: Document) -> Iterable[Damage]:
    known = descriptor["data_keys"].keys()
    for part in ("data", "timestamps"):
        try:
            check_keys(event[part], known, document_label("event", event), descriptor["uid"])
        except BadDocument as error:
            yield Damage(str(error))


def _lost(database: Database, name: str, field: str, target: str, key: str) -> Iterator[Any]:
    """Yield the distinct values of a field that no document of the target collection has."""
    pipeline: list[dict[str, Any]] = [
        {"$match": {field: {"$ne": SEALED_MARK}}},
        {"$group": {"_id": f"${field}"}},
        {"$lookup": {"from": target, "localField": "_id", "foreignField": key, "as": "found"}},
        # An item of a list is found, too, but a list refers to nothing.
        {"$match": {"$or": [{"found": []}, {"_id": {"$type": "array"}}]}},
        {"$project": {"_id": 1}},
    ]
    with (
        database.errors(),
        database.collection(name).aggregate(pipeline, allowDiskUse=True) as found,
    ):
        yield from (doc["_id"] for doc in found)


def lost_references(
    database: Database, name: str, field: str, target: str, key: str
) -> Iterator[Damage]:
    """Yield a damage for each value of a field that no document of the target collection has."""
    for value in _lost(database, name, field, target, key):
        # That of a run is reported with the run, see MongoChecks.list_runs.
        if name == "event_descriptor" and isinstance(value, str):
            continue
        problem = f"documents of {name} have the {field} {value!r}, which is not stored"
        yield Damage(problem, key=field, path=path_in(database, name))


class MongoChecks(EventChecks):
    """Checks of the events of a MongoDB store; see :class:`.EventChecks`."""

    _database: Database

    def list_runs(self) -> Iterator[str]:
        """See :meth:`EventStore.list_runs`. Only runs without a start matter, and are listed."""
        for run in _lost(self._database, "event_descriptor", "run_start", "run_start", "uid"):
            if isinstance(run, str):  # else it is no run, see check_rest
                yield run

    def check_descriptors(self, run: str) -> Iterator[Document | Damage]:
        """See :meth:`EventStore.check_descriptors`."""
        path = path_in(self._database, "event_descriptor")
        with self._database.errors():
            query = {"run_start": storable(run)}
            found = list(self._database.collection("event_descriptor").find(query).sort("time", 1))
        for raw in found:
            damages: list[Damage] = []
            doc = _read("descriptor", raw, damages)
            name = raw.get("name")
            stream = name if isinstance(name, str) else None
            yield from (damage.within(stream=stream, path=path) for damage in damages)
            if doc is not None and not damages:
                yield doc

    def check_journal(self, run: str, descriptors: Sequence[Document]) -> Iterator[Damage]:
        for descriptor in descriptors:
            query = {"descriptor": storable(descriptor["uid"])}
            for damage in _check_each(self._database, EVENT, query, descriptor):
                yield damage.within(stream=stream_of(descriptor))
        for resource, datum in ((RESOURCE, DATUM), (STREAM_RESOURCE, STREAM_DATUM)):
            with self._database.errors():
                shown = {"uid": 1, "resource_id": 1, "_daskbroker": 1}
                owners = self._database.collection(resource.kind).find(
                    of_runs([storable(run)]), shown
                )
                uids = [storable(str(doc.get(resource.uid, doc["_id"]))) for doc in owners]
            for some in batched(uids, BATCH):
                yield from _check_each(self._database, datum, {datum.owner: {"$in": some}})

    def check_rest(self) -> Iterator[Damage]:
        """See :meth:`EventStore.check_rest`. Finds references to documents that are not stored."""
        for name, field, target, key in LOST:
            yield from lost_references(self._database, name, field, target, key)

    def path_of(self, key: Any) -> str | None:
        if not isinstance(key, tuple):  # rows inside the plan, from any of the journals
            return None
        return path_in(self._database, COLUMN_COLLECTION if key[0] == "chunk" else key[0])

    def tells_kinds(self, key: Any) -> bool:
        """See :meth:`EventStore.tells_kinds`. The kinds of a range of the journal are a guess."""
        return isinstance(key, tuple) and key[0] == "chunk"
