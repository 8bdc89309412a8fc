"""Peeks, the stored facts about detector files, in a collection of daskbroker's own."""

from __future__ import annotations

from collections.abc import Sequence

from pymongo import ReplaceOne

from ...core.batches import batched
from ..journalled import PeekRow
from .database import PEEK_COLLECTION, Database

RUNS_AT_A_TIME = 5000
"""Maximum number of runs in one query."""
NAMES = ("run", "descriptor", "key", "sort", "body")


def select_peeks(database: Database, by: str, values: Sequence[str]) -> list[PeekRow]:
    """Return the rows of some runs, or one of each sort."""
    with database.errors():
        collection = database.collection(PEEK_COLLECTION)
        if by == "sort":
            sorts = (collection.find_one({"sort": sort}) for sort in values)
            found = [doc for doc in sorts if doc is not None]
        else:
            found = [
                doc
                for some in batched(values, RUNS_AT_A_TIME)
                for doc in collection.find({by: {"$in": some}})
            ]
    return [[str(doc.get(name)) for name in NAMES] for doc in found]


def replace_peeks(database: Database, rows: Sequence[PeekRow]) -> None:
    """Store rows, replacing previous ones, without waiting until they would survive a failover."""
    if database.read_only:
        return
    changes = []
    for row in rows:
        document = dict(zip(NAMES, row, strict=True))
        key = {name: document[name] for name in ("run", "descriptor", "key")}
        changes.append(ReplaceOne(key, document, upsert=True))
    # In this order, as a read does this too: its errors are of no insert.
    with database.errors(), database.limit():
        database.create_indexes([PEEK_COLLECTION])
        database.collection(PEEK_COLLECTION, sure=False).bulk_write(changes, ordered=False)
