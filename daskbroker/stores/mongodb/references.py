"""References of runs in MongoDB: resources, datums, stream_resources and stream_datums.

They stay plain documents in collections of their own, also after sealing, so that databroker and
ophyd's tools still find them. Datums do not name a run; they belong to the run of their resource.
A resource without ``run_start`` has its run noted under ``_daskbroker.run`` if daskbroker stored
it. The runs of older ones (some without ``uid``, referred to by their ``_id``) are found by the
datums that events name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pyarrow as pa
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.errors import DuplicateKeyError, WriteError

from ...core.batches import batched
from ...core.chunks import with_columns
from ...core.documents import equal
from ...core.errors import DuplicateUID, StoreDamaged
from ...core.layouts import DATUM, RESOURCE, STREAM_DATUM, Layout
from ...core.stored_documents import encode_stored_rows
from ..stored_text import storable
from .bson_documents import SIDE_FIELD, check_size, from_bson, sparse_bson, to_bson
from .bulk_inserts import insert_in_order
from .database import Database
from .indexes import FORMER_INDEXES, warn_of_missing
from .server_errors import REFUSED

UIDS_AT_ONCE = 2000
"""Maximum number of uids in one query."""
STREAM_DATUM_KEYS = ("uid", "stream_resource", "descriptor")


# -- insert ----------------------------------------------------------------------------------


def store_reference(
    database: Database, layout: Layout, docs: Sequence[Mapping[str, Any]], run: str
) -> None:
    """Store validated references of a run, except those that are stored already.

    Raises
    ------
    DuplicateUID
        If a different reference is stored under the same uid. Then none is stored, unless another
        process has stored it at this moment.
    """
    fresh = _not_stored(database, layout, docs, run)
    if not fresh:
        return
    encoded = [_encoded(layout, doc, run) for doc in fresh]
    label = f"{layout.kind} {fresh[0][layout.uid]!r}"
    with database.errors(label):
        insert_in_order(
            database.collection(layout.kind),
            fresh,
            encoded,
            partial(_not_stored, database, layout, run=run),
            partial(_store_one, database, layout, run),
        )


def _store_one(
    database: Database,
    layout: Layout,
    run: str,
    doc: Mapping[str, Any],
    encoded: RawBSONDocument,
    *,
    is_plain: bool = True,
) -> None:
    try:
        database.collection(layout.kind).insert_one(encoded)
    except DuplicateKeyError:  # another process may have stored the same document just now
        if _not_stored(database, layout, [doc], run):
            if layout.kind in FORMER_INDEXES:
                raise DuplicateUID(
                    f"{layout.kind} {doc[layout.uid]!r}: another run has one of this uid, which an "
                    f"index of an earlier version refuses; replace the index on "
                    f"the command line by `daskbroker index {database.label}`"
                ) from None
            raise
    except WriteError as error:
        # Only what the server cannot hold in its plain form is stored in another.
        if error.code not in REFUSED or not is_plain:
            raise
        sparse = sparse_bson(doc, _side_run(layout, doc, run))
        check_size(sparse, f"{layout.kind} {doc[layout.uid]!r}")
        _store_one(database, layout, run, doc, sparse, is_plain=False)


def _encoded(layout: Layout, doc: Mapping[str, Any], run: str) -> RawBSONDocument:
    label = f"{layout.kind} {doc[layout.uid]!r}"
    return check_size(to_bson(doc, _side_run(layout, doc, run)), label)


def _side_run(layout: Layout, doc: Mapping[str, Any], run: str) -> str | None:
    """Return the run to note beside a resource that does not name it, else None."""
    return run if layout.owner == "" and "run_start" not in doc else None


def _not_stored(
    database: Database, layout: Layout, docs: Sequence[Mapping[str, Any]], run: str
) -> list[Mapping[str, Any]]:
    """Return the documents of a run of which no equal ones are stored and confirmed.

    Raises
    ------
    DuplicateUID
        If a different document is stored under the uid of one.
    """
    fresh: list[Mapping[str, Any]] = []
    for some in batched(docs, UIDS_AT_ONCE):
        names = [_name(layout, doc) for doc in some]
        there = _stored(database, layout, names, run)
        for doc, name in zip(some, names, strict=True):
            found = there.get(name, ())
            if not found:
                fresh.append(doc)
            elif not any(equal(from_bson(one), dict(doc)) for one in found):
                raise DuplicateUID(
                    f"{layout.kind} {doc[layout.uid]!r}: a different {layout.kind} is stored under "
                    "this uid"
                )
    return fresh


def _keys(layout: Layout) -> tuple[str, ...]:
    """Return the keys by which a document of a run is found."""
    # Several runs may have a stream_datum of one uid.
    return STREAM_DATUM_KEYS if layout is STREAM_DATUM else (layout.uid,)


def _name(layout: Layout, doc: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(storable(str(doc.get(key))) for key in _keys(layout))


def _stored(
    database: Database, layout: Layout, names: Sequence[tuple[str, ...]], run: str
) -> dict[tuple[str, ...], list[Mapping[str, Any]]]:
    """Return the documents of a run that are stored and confirmed under some names."""
    texts = zip(*names, strict=True)
    query = {
        key: {"$in": list(dict.fromkeys(some))}
        for key, some in zip(_keys(layout), texts, strict=True)
    }
    with database.errors():
        collection = database.collection(layout.kind)
        warn_of_missing(collection, layout.uid, database.label)
        found = list(collection.find(query))
        if found:
            # A document that a failover may still lose does not count as stored.
            found = database.confirmed(layout.kind, query)
    there: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for one in found:
        # Several runs may have resources of one uid.
        if layout.owner or run_of_resource(one) == storable(run):
            there.setdefault(_name(layout, one), []).append(one)
    return there


def run_of_resource(stored: Mapping[str, Any]) -> str | None:
    """Return the uid of the run that a stored resource names; None if it names none."""
    side = stored.get(SIDE_FIELD)
    run = (side.get("run") if isinstance(side, dict) else None) or stored.get("run_start")
    return None if run is None else str(run)


def run_with_resource(database: Database, layout: Layout, uid: str, run: str | None) -> str | None:
    """Return the run of a resource: the given run if it has the resource, else the newest."""
    with database.errors():
        collection = database.collection(layout.kind)
        runs = [
            run_of_resource(doc)
            for doc in collection.find({"uid": storable(uid)}).sort("_id", -1).limit(50)
        ]
    known = [one for one in runs if one is not None]
    if run is not None and storable(run) in known:
        return run
    return known[0] if known else None


# -- read ------------------------------------------------------------------------------------


def resource_uids(database: Database, layout: Layout, run: str) -> list[str]:
    """Return the stored uids of the resources of a run."""
    with database.errors():
        collection = database.collection(layout.kind)
        warn_of_missing(collection, "run_start", database.label)
        found = collection.find(of_runs([storable(run)]), {"uid": 1}).sort("_id", 1)
        return list(dict.fromkeys(doc.get("uid", doc["_id"]) for doc in found))


def of_runs(runs: Sequence[str]) -> dict[str, Any]:
    """Return a filter for resources that name one of some runs, whose uids are as stored."""
    some = {"$in": list(runs)}
    return {"$or": [{"run_start": some}, {f"{SIDE_FIELD}.run": some}]}


def with_uid(layout: Layout, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored reference as it was given. An old resource without uid gets its ``_id``.

    Raises
    ------
    StoreDamaged
        If its uid is not text, or what is under ``_daskbroker`` is not valid.
    """
    doc = from_bson(stored)
    if layout.uid not in doc and not layout.owner:
        return {**doc, layout.uid: str(stored["_id"])}
    if not isinstance(doc.get(layout.uid), str):
        raise StoreDamaged(f"{layout.uid} must be text, not {doc.get(layout.uid)!r:.60}")
    return doc


def datum_range(
    database: Database, run: str, first: str, last: str, *, columns: Sequence[str] | None
) -> pa.Table:
    """Read a range of a run's datums as a table, from the first to the last ``_id``."""
    query = {
        "resource": {"$in": resource_uids(database, RESOURCE, run)},
        "_id": {"$gte": ObjectId(first), "$lte": ObjectId(last)},
    }
    with database.errors():
        found = database.collection(DATUM.kind).find(query).sort("_id")
        docs = [with_uid(DATUM, doc) for doc in found]
    table = encode_stored_rows(DATUM, docs, {"run": run, "kind": DATUM.kind})
    return with_columns(table, columns)


# -- legacy ----------------------------------------------------------------------------------


def has_orphans(database: Database) -> bool:
    """Return whether any resource does not name its run."""
    nobody = {"run_start": {"$exists": False}, f"{SIDE_FIELD}.run": {"$exists": False}}
    with database.errors():
        return database.collection(RESOURCE.kind).find_one(nobody, {"_id": 1}) is not None


def orphan_datums(database: Database, datum_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the stored datums among some, by datum_id; malformed ones are left out."""
    found: dict[str, dict[str, Any]] = {}
    for some in batched(datum_ids, UIDS_AT_ONCE):
        with database.errors():
            for doc in database.collection(DATUM.kind).find({"datum_id": {"$in": some}}):
                with suppress(StoreDamaged):  # treated as missing
                    datum = with_uid(DATUM, doc)
                    found[datum[DATUM.uid]] = datum
    return found


def orphan_resources(database: Database, uids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the stored resources among some, by uid, or by ``_id`` if they have no uid."""
    found: dict[str, dict[str, Any]] = {}
    for some in batched(uids, UIDS_AT_ONCE):
        numbers = [ObjectId(uid) for uid in some if ObjectId.is_valid(uid)]
        query = {"$or": [{"uid": {"$in": some}}, {"_id": {"$in": numbers}}]}
        with database.errors():
            for doc in database.collection(RESOURCE.kind).find(query):
                with suppress(StoreDamaged):
                    resource = with_uid(RESOURCE, doc)
                    found[resource["uid"]] = resource
    return found
