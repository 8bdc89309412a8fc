"""References of runs in MongoDB: resources, datums, and their kin of streams.

They stay plain documents in collections of their own, also after sealing, so databroker and
ophyd's tools go on finding them. Datums have no run, they have it by their resource. A resource
without ``run_start`` has it noted under ``_daskbroker.run`` if daskbroker stored it; of older
ones (some without ``uid``, referred to by their ``_id``) the events of a run tell by their datums.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
from bson.objectid import ObjectId
from pymongo.errors import DuplicateKeyError, WriteError

from ...core.chunks import present
from ...core.documents import Document, equal
from ...core.errors import DuplicateUID
from ...core.layouts import DATUM, LAYOUTS, RESOURCE, STREAM_RESOURCE, Layout, encode_rows
from .bson_documents import SIDE, check_size, from_bson, sparse_bson, storable, to_bson
from .database import REFUSED, Database
from .indexes import warn_of_missing

__all__ = [
    "datum_range",
    "datum_ranges",
    "find_run",
    "references_of",
    "resource_uids",
    "store_reference",
]

PIECE = 2000
RANGE_ROWS = 16_384
INLINE_DATUMS = 65_536
"""Up to so many datums of a run travel with the plan; more are read in ranges."""


# -- insert ----------------------------------------------------------------------------------


def store_reference(
    database: Database, layout: Layout, docs: Sequence[Mapping[str, Any]], run: str
) -> None:
    """Store checked references of a run, those that are there already left out.

    Raises
    ------
    DuplicateUID
        If a different one is stored under the same uid; then none is stored.
    """
    fresh = [doc for doc in docs if not _is_stored(database, layout, doc, run)]
    if not fresh:
        return
    encoded = [_encoded(layout, doc, run) for doc in fresh]
    label = f"{layout.kind} {fresh[0][layout.uid]!r}"
    with database.errors(label):
        collection = database.collection(layout.kind)
        try:
            if len(encoded) == 1:
                collection.insert_one(encoded[0])
            else:
                collection.insert_many(encoded)
        except DuplicateKeyError:
            for doc in fresh:
                if not _is_stored(database, layout, doc, run):
                    raise
        except WriteError as error:
            if error.code not in REFUSED:
                raise
            collection.insert_many(
                [check_size(sparse_bson(doc, _side_run(layout, doc, run)), label) for doc in fresh]
            )


def _encoded(layout: Layout, doc: Mapping[str, Any], run: str) -> Any:
    label = f"{layout.kind} {doc[layout.uid]!r}"
    return check_size(to_bson(doc, _side_run(layout, doc, run)), label)


def _side_run(layout: Layout, doc: Mapping[str, Any], run: str) -> str | None:
    """The run to note beside a document that does not name it."""
    return run if layout.owner == "" and "run_start" not in doc else None


def _is_stored(database: Database, layout: Layout, doc: Mapping[str, Any], run: str) -> bool:
    """Whether this very document of the run is there.

    Raises
    ------
    DuplicateUID
    """
    query: dict[str, Any] = {layout.uid: storable(doc[layout.uid])}
    if layout.kind == "stream_datum":
        query["stream_resource"] = storable(doc["stream_resource"])
    with database.errors():
        collection = database.collection(layout.kind)
        warn_of_missing(collection, layout.uid, database.label)
        found = list(collection.find(query))
        if found:
            found = database.confirmed(layout.kind, query)
    if layout.owner == "":
        found = [one for one in found if _run_of(one) == storable(run)]
    if not found:
        return False
    if any(equal(from_bson(one), dict(doc)) for one in found):
        return True
    raise DuplicateUID(
        f"{layout.kind} {doc[layout.uid]!r}: a different {layout.kind} is stored under this uid"
    )


def _run_of(found: Mapping[str, Any]) -> str | None:
    run = found.get(SIDE, {}).get("run") or found.get("run_start")
    return None if run is None else str(run)


def find_run(database: Database, layout: Layout, uid: str, run: str | None) -> str | None:
    """The run of a resource: the given one if it has it, else the newest that has."""
    with database.errors():
        collection = database.collection(layout.kind)
        runs = [
            _run_of(doc)
            for doc in collection.find({"uid": storable(uid)}).sort("_id", -1).limit(50)
        ]
    known = [one for one in runs if one is not None]
    if run is not None and storable(run) in known:
        return run
    return known[0] if known else None


# -- read ------------------------------------------------------------------------------------


def resource_uids(database: Database, layout: Layout, run: str) -> list[str]:
    """Uids, as stored, of the resources of a run."""
    with database.errors():
        collection = database.collection(layout.kind)
        warn_of_missing(collection, "run_start", database.label)
        found = collection.find(_of_run(run), {"uid": 1}).sort("_id", 1)
        return list(dict.fromkeys(doc.get("uid", doc["_id"]) for doc in found))


def _of_run(run: str) -> dict[str, Any]:
    return {"$or": [{"run_start": storable(run)}, {f"{SIDE}.run": storable(run)}]}


def references_of(
    database: Database, layout: Layout, run: str, descriptors: Sequence[Document]
) -> list[dict[str, Any]]:
    """A run's documents of one kind, in the order in which they came, each uid once.

    Parameters
    ----------
    descriptors
        Of the run, for those kinds that are found by them.
    """
    if layout in (RESOURCE, STREAM_RESOURCE):
        query = _of_run(run)
    else:
        owner = LAYOUTS[layout.owner]
        query = {layout.owner: {"$in": resource_uids(database, owner, run)}}
    if layout.kind == "stream_datum":
        query["descriptor"] = {"$in": [storable(d["uid"]) for d in descriptors]}
    with database.errors():
        collection = database.collection(layout.kind)
        if layout.owner:
            warn_of_missing(collection, layout.owner, database.label)
        found = list(collection.find(query).sort("_id", 1).allow_disk_use(True))
    docs = (_with_uid(layout, doc) for doc in found)
    return list({doc[layout.uid]: doc for doc in docs}.values())


def _with_uid(layout: Layout, found: Mapping[str, Any]) -> dict[str, Any]:
    doc = from_bson(found)
    return doc if layout.uid in doc else {**doc, layout.uid: str(found["_id"])}


# -- datums that are too many to travel with a plan --------------------------------------------


def datum_ranges(database: Database, run: str) -> list[tuple[str, str, int]]:
    """Ranges of a run's datums, as ``(first _id, last _id, rows)``; [] if they are few.

    The ``_id``s are walked in the order of insertion, nothing else is read.
    """
    query = {"resource": {"$in": resource_uids(database, RESOURCE, run)}}
    with database.errors():
        datums = database.collection(DATUM.kind)
        if datums.count_documents(query, limit=INLINE_DATUMS + 1) <= INLINE_DATUMS:
            return []
        cursor = datums.find(query, {"_id": 1}).sort("_id", 1).allow_disk_use(True)
        ranges = []
        while numbers := [doc["_id"] for doc in islice(cursor, RANGE_ROWS)]:
            ranges.append((numbers[0], numbers[-1], len(numbers)))
    return ranges


def datum_range(
    database: Database, run: str, first: str, last: str, *, columns: Sequence[str] | None
) -> pa.Table:
    """Read a range that :func:`datum_ranges` has found."""
    query = {
        "resource": {"$in": resource_uids(database, RESOURCE, run)},
        "_id": {"$gte": ObjectId(first), "$lte": ObjectId(last)},
    }
    with database.errors():
        docs = [from_bson(doc) for doc in database.collection(DATUM.kind).find(query).sort("_id")]
    table = encode_rows(DATUM, docs, {"run": run, "kind": DATUM.kind})
    return table if columns is None else table.select(present(table.schema, columns))


# -- legacy ----------------------------------------------------------------------------------


def has_orphans(database: Database) -> bool:
    """Whether some resources name no run."""
    nobody = {"run_start": {"$exists": False}, f"{SIDE}.run": {"$exists": False}}
    with database.errors():
        return database.collection(RESOURCE.kind).find_one(nobody, {"_id": 1}) is not None


def orphans_of(
    database: Database, datum_ids: Iterable[str], known: Iterable[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Resources and datums that events refer to, but for those of known resources.

    Parameters
    ----------
    datum_ids
        Values of the events' external keys; others than text do not refer to datums.
    known
        Uids of the resources that name the run.
    """
    skip = set(known)
    datums: list[dict[str, Any]] = []
    for some in _pieces(dict.fromkeys(datum_ids), PIECE):
        with database.errors():
            found = database.collection(DATUM.kind).find({"datum_id": {"$in": some}})
            datums.extend(doc for doc in map(from_bson, found) if doc["resource"] not in skip)
    wanted = dict.fromkeys(str(doc["resource"]) for doc in datums)
    resources: list[dict[str, Any]] = []
    for some in _pieces(wanted, PIECE):
        numbers = [ObjectId(uid) for uid in some if ObjectId.is_valid(uid)]
        query = {"$or": [{"uid": {"$in": some}}, {"_id": {"$in": numbers}}]}
        with database.errors():
            found = database.collection(RESOURCE.kind).find(query)
            resources.extend(_with_uid(RESOURCE, doc) for doc in found)
    return list({doc["uid"]: doc for doc in resources}.values()), datums


def _pieces(items: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
