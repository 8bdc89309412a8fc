"""Start and stop documents in suitcase-mongo's layout "embedded", which is only read.

Collection ``header`` has one document per run. It holds the lists ``start`` and ``stop`` (of one
document each), ``descriptors`` and ``resources``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from pymongo import ASCENDING, DESCENDING

from ...core import advice
from ...core.bad_runs import BadRun, take_sound
from ...core.errors import StoreDamaged, StoreReadOnly
from ...core.search import Search
from ..contract import FoundHeader, HeaderPair, HeaderStore
from ..header_store import matching
from ..stored_text import storable
from .bson_documents import checked_from_bson
from .database import Database
from .filters import start_filter
from .own_cursor import OwnCursor

HEADER_PROJECTION = {"run_id": 1, "start": 1, "stop": 1}


def refuse_writing(database: Database) -> NoReturn:
    """Raise the error for an attempt to write this layout.

    Raises
    ------
    StoreReadOnly
        In any case.
    """
    raise StoreReadOnly(
        f"{database.label} has the layout 'embedded' of suitcase-mongo, which daskbroker only "
        f"reads; {advice.call('copy')} takes its runs to another store"
    )


class SuitcaseEmbeddedHeaderStore(HeaderStore):
    """Headers of a database in the layout "embedded".

    Parameters
    ----------
    database
        Databases of the store, shared with the event source.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._release = database.lease()
        self._bad: int | None = None

    def insert_prepared(self, name: str, doc: Mapping[str, Any]) -> None:
        """Raise StoreReadOnly, as this layout is only read."""
        refuse_writing(self._database)

    def find_uid(self, uid: str) -> HeaderPair | None:
        with self._database.errors():
            headers = self._database.collection("header")
            found = headers.find_one({"start.uid": storable(uid)}, HEADER_PROJECTION)
        pair = None if found is None else self._pair(found)
        if isinstance(pair, BadRun):
            raise pair.error()
        return pair

    def find_prefix(self, prefix: str, limit: int = 10) -> list[str]:
        begin = storable(prefix)
        query = {"start": {"$elemMatch": {"uid": {"$gte": begin, "$lt": begin + "\U0010ffff"}}}}
        with self._database.errors():
            found = self._database.collection("header").find(query, {"start.uid": 1})
            return [str(header_uid(doc)) for doc in found.sort("start.uid", 1).limit(limit)]

    def find(
        self, search: Search, start: int = 0, stop: int | None = None, *, oldest_first: bool = False
    ) -> Iterator[FoundHeader]:
        order = ASCENDING if oldest_first else DESCENDING
        with self._database.errors():
            cursor = self._database.collection("header").find(_filter(search), HEADER_PROJECTION)
            cursor = cursor.sort([("start.time", order), ("_id", order)]).allow_disk_use(True)
        found = self._pairs(cursor)
        yield from take_sound(matching(found, search), start, stop)

    def _pairs(self, cursor: Any) -> Iterator[FoundHeader]:
        with OwnCursor(cursor, self._database.label) as coming:
            while True:
                with self._database.errors():
                    found = next(coming, None)
                if found is None:
                    return
                yield self._pair(found)

    def _pair(self, stored: Mapping[str, Any]) -> FoundHeader:
        try:
            start = checked_from_bson("start", _only("start", stored))
            stop = _only("stop", stored)
            return start, None if stop is None else checked_from_bson("stop", stop)
        except StoreDamaged as error:
            where = f"{self._database.label}, header, _id {stored.get('_id')!r}"
            # suitcase-mongo finds the document of a run by `run_id`, which a lost start leaves.
            uid = header_uid(stored) or _uid(stored.get("run_id"))
            return BadRun(uid, str(error), where)

    def count(self, search: Search) -> int:
        """See :meth:`HeaderStore.count`.

        Bad runs are counted only once, as this layout is not written any more.
        """
        if search != Search():
            return super().count(search)
        if self._bad is None:
            self._bad = sum(isinstance(one, BadRun) for one in self.find(search))
        with self._database.errors():
            found = self._database.collection("header").count_documents(_filter(search))
        return found - self._bad

    def close(self) -> None:
        self._release()


def header_uid(header: Mapping[str, Any]) -> str | None:
    """Return the uid of the run in a document of ``header``; None if it has none."""
    starts = header.get("start")
    start = starts[0] if isinstance(starts, list) and starts else None
    return _uid(start.get("uid")) if isinstance(start, dict) else None


def _uid(stored: object) -> str | None:
    return stored if isinstance(stored, str) and stored else None


def _only(name: str, stored: Mapping[str, Any]) -> Any:
    """Return the one document in a list of a header.

    None for the stop of a run that was interrupted, which has ``[None]``.

    Raises
    ------
    StoreDamaged
        If there is no start, or the document is not a mapping.
    """
    listed = stored.get(name, [])
    listed = [doc for doc in listed if doc] if isinstance(listed, list) else [listed]
    if not listed and name == "stop":
        return None
    if not listed or not isinstance(listed[0], dict):
        raise StoreDamaged(f"its {name} document must be a mapping in a list, not {listed!r:.60}")
    return listed[0]


def _filter(search: Search) -> dict[str, Any]:
    """Return a filter that finds at least what the search requests."""
    return _below_start(start_filter(search, packed=False).query)


def _below_start(query: Mapping[str, Any]) -> dict[str, Any]:
    """Return a filter on start documents as one on documents that have them in a list."""
    below: dict[str, Any] = {}
    for key, value in query.items():
        if key.startswith("$"):
            below[key] = [_below_start(part) for part in value]
        else:
            below[f"start.{key}"] = value
    return below
