"""Start and stop documents in suitcase-mongo's layout "embedded"; to be read only.

Collection ``header`` has one document per run, with lists ``start`` and ``stop`` (of one document
each), ``descriptors`` and ``resources`` inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NoReturn

from pymongo import ASCENDING, DESCENDING

from ...core.errors import StoreReadOnly
from ...core.search import Search
from ..contract import HeaderPair, HeaderStore
from .bson_documents import document_from_bson, storable
from .database import Database, OwnCursor
from .filters import start_filter

__all__ = ["SuitcaseEmbeddedHeaderStore", "refuse_writing"]

SHOWN = {"start": 1, "stop": 1}


def refuse_writing(database: Database) -> NoReturn:
    """Say that this layout is not written.

    Raises
    ------
    StoreReadOnly
    """
    raise StoreReadOnly(
        f"{database.label} has the layout 'embedded' of suitcase-mongo, which daskbroker only "
        "reads; `daskbroker copy` takes its runs to another store"
    )


class SuitcaseEmbeddedHeaderStore(HeaderStore):
    """Headers of a database in the layout "embedded".

    Parameters
    ----------
    database
        Of the store, shared with the event source.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._release = database.lease()

    def insert_prepared(self, name: str, doc: Mapping[str, Any]) -> None:
        """See :meth:`HeaderStore.insert_prepared`; refused."""
        refuse_writing(self._database)

    def find_uid(self, uid: str) -> HeaderPair | None:
        """See :meth:`HeaderStore.find_uid`."""
        with self._database.errors():
            headers = self._database.collection("header")
            found = headers.find_one({"start.uid": storable(uid)}, SHOWN)
        return None if found is None else _pair(found)

    def find_prefix(self, prefix: str, limit: int = 10) -> list[str]:
        """See :meth:`HeaderStore.find_prefix`."""
        begin = storable(prefix)
        query = {"start": {"$elemMatch": {"uid": {"$gte": begin, "$lt": begin + "\U0010ffff"}}}}
        with self._database.errors():
            found = self._database.collection("header").find(query, {"start.uid": 1})
            return [doc["start"][0]["uid"] for doc in found.sort("start.uid", 1).limit(limit)]

    def find(
        self, search: Search, start: int = 0, stop: int | None = None, *, oldest_first: bool = False
    ) -> Iterator[HeaderPair]:
        """See :meth:`HeaderStore.find`."""
        order = ASCENDING if oldest_first else DESCENDING
        with self._database.errors():
            cursor = self._database.collection("header").find(_filter(search), SHOWN)
            cursor = cursor.sort([("start.time", order), ("_id", order)]).allow_disk_use(True)
        matching = (pair for pair in self._pairs(cursor) if search.matches(*pair))
        yield from islice(matching, start, stop)

    def _pairs(self, cursor: Any) -> Iterator[HeaderPair]:
        with OwnCursor(cursor, self._database.label) as coming:
            while True:
                with self._database.errors():
                    found = next(coming, None)
                if found is None:
                    return
                yield _pair(found)

    def count(self, search: Search) -> int:
        """See :meth:`HeaderStore.count`."""
        if search == Search():
            with self._database.errors():
                return self._database.collection("header").count_documents({})
        return sum(1 for _ in self.find(search))

    def close(self) -> None:
        """See :meth:`HeaderStore.close`."""
        self._release()


def _pair(found: Mapping[str, Any]) -> HeaderPair:
    stops = [stop for stop in found.get("stop", ()) if stop]  # [None] of a run that was cut short
    return document_from_bson(found["start"][0]), document_from_bson(stops[0]) if stops else None


def _filter(search: Search) -> dict[str, Any]:
    """A filter that finds at least what the search asks for."""
    begun: dict[str, Any] = {"start.0": {"$exists": True}}
    query = _below_start(start_filter(search, packed=False).query)
    return {"$and": [begun, query]} if query else begun


def _below_start(query: Mapping[str, Any]) -> dict[str, Any]:
    """A filter on start documents, for documents that have those in a list."""
    below: dict[str, Any] = {}
    for key, value in query.items():
        if key.startswith("$"):
            below[key] = [_below_start(part) for part in value]
        else:
            below[f"start.{key}"] = value
    return below
