"""Peeks, the stored facts about detector files, in a collection of daskbroker's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pymongo import ReplaceOne

from ...core.batches import batched
from ...core.peeks import Peek
from ..stored_text import storable
from .database import PEEK_COLLECTION, Database

__all__ = ["RUNS_AT_A_TIME", "find_peeks", "list_peeks", "put_peeks"]

RUNS_AT_A_TIME = 5000
"""Maximum number of runs in one query."""


def list_peeks(database: Database, runs: Sequence[str]) -> list[Peek]:
    """Return the peeks of some runs."""
    names = {storable(uid): uid for uid in runs}
    with database.errors():
        collection = database.collection(PEEK_COLLECTION)
        found = [
            {**doc, "run": names[doc["run"]]}
            for some in batched(names, RUNS_AT_A_TIME)
            for doc in collection.find({"run": {"$in": some}})
        ]
    return _peeks(found)


def find_peeks(database: Database, sorts: Sequence[str]) -> list[Peek]:
    """Return one stored peek for each of the given sorts that has any."""
    with database.errors():
        collection = database.collection(PEEK_COLLECTION)
        found = [collection.find_one({"sort": sort}) for sort in sorts]
    return _peeks(doc for doc in found if doc is not None)


def put_peeks(database: Database, peeks: Sequence[Peek]) -> None:
    """Store peeks, replacing previous ones, without waiting until they would survive a failover."""
    changes = []
    for peek in peeks:
        key = _key_of(peek)
        document = {**key, "sort": peek.sort, "body": peek.body()}
        changes.append(ReplaceOne(key, document, upsert=True))
    # In this order, as a read does this too: its errors are of no insert.
    with database.errors(), database.limit():
        database.create_indexes([PEEK_COLLECTION])
        database.collection(PEEK_COLLECTION, sure=False).bulk_write(changes, ordered=False)


def _key_of(peek: Peek) -> dict[str, str]:
    names = {"run": peek.run, "descriptor": peek.descriptor, "key": peek.key}
    return {name: storable(value) for name, value in names.items()}


def _peeks(documents: Iterable[Mapping[str, Any]]) -> list[Peek]:
    names = ("run", "descriptor", "key", "sort", "body")
    made = (Peek.of_body(*(str(doc.get(name)) for name in names)) for doc in documents)
    return [peek for peek in made if peek is not None]
