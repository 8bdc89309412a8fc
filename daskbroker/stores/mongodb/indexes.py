"""The indexes of a MongoDB store: those that suitcase-mongo makes, and daskbroker's own."""

from __future__ import annotations

import logging
from typing import Any

from pymongo import ASCENDING, DESCENDING, TEXT, IndexModel
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from .server_errors import INDEX_NOT_FOUND, NO_PERMISSION, NOT_OF_VIEWS

METADATA_INDEXES: dict[str, list[IndexModel]] = {
    "run_start": [
        IndexModel("uid", unique=True),
        IndexModel("scan_id"),
        IndexModel([("scan_id", DESCENDING), ("_id", DESCENDING)], unique=True),
        IndexModel([("time", ASCENDING), ("_id", DESCENDING)], unique=True),
        IndexModel([("time", DESCENDING), ("_id", DESCENDING)], unique=True),
        IndexModel([("time", DESCENDING), ("scan_id", DESCENDING)]),
        IndexModel([("$**", TEXT)]),
        IndexModel("data_session"),
        IndexModel("data_groups"),
    ],
    "run_stop": [
        IndexModel("run_start", unique=True),
        IndexModel("uid", unique=True),
        IndexModel([("time", DESCENDING)]),
        IndexModel([("$**", TEXT)]),
    ],
    "event_descriptor": [
        IndexModel("uid", unique=True),
        IndexModel([("run_start", DESCENDING), ("time", DESCENDING)]),
        IndexModel([("time", DESCENDING)]),
        IndexModel([("$**", TEXT)]),
    ],
    "event": [
        IndexModel("uid", unique=True),
        IndexModel([("descriptor", DESCENDING), ("time", ASCENDING)]),
    ],
}
ASSET_INDEXES: dict[str, list[IndexModel]] = {
    "resource": [
        IndexModel("uid"),
        IndexModel("resource_id"),
        IndexModel("run_start"),  # ours: databroker scans the collection
        IndexModel("_daskbroker.run", sparse=True),
    ],
    "datum": [IndexModel("datum_id", unique=True), IndexModel("resource")],
    "stream_resource": [
        IndexModel("uid"),
        IndexModel("run_start"),
        IndexModel("_daskbroker.run", sparse=True),
    ],
    "stream_datum": [
        # With the descriptor, as several runs may have the same uids of references.
        IndexModel(
            [("uid", ASCENDING), ("stream_resource", ASCENDING), ("descriptor", ASCENDING)],
            unique=True,
        ),
        IndexModel("stream_resource"),
    ],
}
OWN_INDEXES: dict[str, list[IndexModel]] = {
    "daskbroker_run": [IndexModel("uid", unique=True)],
    "daskbroker_peek": [
        IndexModel(
            [("run", ASCENDING), ("descriptor", ASCENDING), ("key", ASCENDING)], unique=True
        ),
        IndexModel("sort"),
    ],
    "event_chunk": [IndexModel([("owner", ASCENDING), ("first", ASCENDING)], unique=True)],
    "event_chunk_column": [IndexModel([("chunk", ASCENDING), ("column", ASCENDING)], unique=True)],
}
LATER_INDEXES: dict[str, list[IndexModel]] = {
    "event_chunk": [IndexModel([("run", ASCENDING), ("owner", ASCENDING)])],
}
"""Indexes that nothing needs which an older version does, for collections of our own.

Only new stores get them unasked: to make one in a large store may take longer than an insert may.
"""
FORMER_INDEXES = {"stream_datum": ["uid_1_stream_resource_1"]}
"""Names of unique indexes of earlier versions that refuse what is valid now."""

_log = logging.getLogger("daskbroker")
_warned: set[tuple[str, str]] = set()


def missing_indexes(collection: Collection[Any], *, later: bool) -> list[IndexModel]:
    """Return the models of the indexes that a collection lacks.

    Those of :data:`LATER_INDEXES` are among them only if ``later``, or if it has no documents.
    """
    there = [_keys(one["key"]) for one in collection.list_indexes()]
    wanted = {**METADATA_INDEXES, **ASSET_INDEXES, **OWN_INDEXES}[collection.name]
    missing = [model for model in wanted if _keys(model.document["key"]) not in there]
    new = LATER_INDEXES.get(collection.name, [])
    new = [model for model in new if _keys(model.document["key"]) not in there]
    if new and (later or collection.find_one({}, {"_id": 1}) is None):
        missing += new
    return missing


def has_later_indexes(collection: Collection[Any]) -> bool:
    """Return whether a collection is known to have all of its :data:`LATER_INDEXES`."""
    there = [_keys(keys) for keys in _indexes_to_read_by(collection)]
    return all(_keys(one.document["key"]) in there for one in LATER_INDEXES[collection.name])


def drop_former_indexes(collection: Collection[Any]) -> None:
    """Drop the indexes of :data:`FORMER_INDEXES` that a collection has."""
    former = FORMER_INDEXES.get(collection.name)
    for name in set(former) & set(collection.index_information()) if former else ():
        try:
            collection.drop_index(name)
        except OperationFailure as error:
            # Another process has just dropped it.
            if error.code != INDEX_NOT_FOUND:
                raise


def _indexes_to_read_by(collection: Collection[Any]) -> list[Any]:
    """Return the keys of the indexes of a collection; none of a view, or if they may not be listed.

    Views, which show part of a database to some users, use the indexes of their source.
    """
    try:
        return [one["key"] for one in collection.list_indexes()]
    except OperationFailure as error:
        if error.code not in (NOT_OF_VIEWS, *NO_PERMISSION):
            raise
        return []


def _keys(keys: Any) -> list[tuple[str, Any]]:
    # For a text index over everything the server lists its internal keys.
    found = [(name, order) for name, order in keys.items()]
    return [("text", 1)] if any(order == "text" for _, order in found) else found


def warn_of_missing(collection: Collection[Any], field: str, label: str) -> None:
    """Log, once per process, if a collection has no index that begins with a field of a query.

    A collection is ignored if it is empty, missing or a view, or if its indexes may not be listed.
    """
    key = (label, f"{collection.name}.{field}")
    if key in _warned:
        return
    _warned.add(key)
    first = [next(iter(keys), "") for keys in _indexes_to_read_by(collection)]
    if first and field not in first:
        _log.warning(
            "%s: collection %r has no index on %r, so a query reads all of its documents; "
            "create the missing indexes on the command line by `daskbroker index %s`",
            label, collection.name, field, label,
        )  # fmt: skip
