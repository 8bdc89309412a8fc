"""Start and stop documents in a MongoDB store: collections ``run_start`` and ``run_stop``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

from pymongo import ASCENDING, DESCENDING

from ...core.bad_runs import BadRun, take_sound
from ...core.errors import StoreDamaged
from ...core.interrupts import in_own_context
from ...core.search import Search
from ..checking import CheckedHeader
from ..contract import EventStore, FoundHeader, HeaderPair, HeaderStore, unknown_run
from ..header_store import MOST_READ_OVER, matching
from ..stored_text import storable
from .bad_headers import RAW, BadHeaders
from .bson_documents import checked_from_bson
from .checking import check_headers
from .database import Database
from .filters import Filter, query_filter, start_filter
from .indexes import warn_of_missing
from .own_cursor import OwnCursor
from .single_documents import insert_single

STOPS = "_daskbroker_stops"
WITH_STOP: dict[str, Any] = {
    "$lookup": {
        "from": "run_stop",
        "localField": "uid",
        "foreignField": "run_start",
        "as": STOPS,
    }
}
FIRST_BATCH = 8
"""Maximum number of runs found with their stops by one query, and the size of a first batch."""
BATCH = 200
"""Size of the second batch of runs, and of the cursor's batches if the runs are limited."""
STARTS_AT_ONCE = 1000
"""Size of the cursor's batches if all runs of a search may be wanted."""
MOST_STOPS_AT_ONCE = 5000
"""Size of the third and later batches of runs whose stops are looked up together."""
MOST_STOPS = 5000
"""Maximum number of runs, found by stops, that are looked up by uid; else all are searched."""


class MongoHeaderStore(HeaderStore):
    """Headers in MongoDB, laid out as suitcase-mongo "normalized" does.

    Parameters
    ----------
    database
        Databases of the store, shared with the event source.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._release = database.lease()
        self._bad = BadHeaders(database, self._pairs_of)

    # -- insert ------------------------------------------------------------------------------

    def insert_limit(self) -> AbstractContextManager[None]:
        return self._database.limit(insert=True)

    @in_own_context
    def insert_with(self, name: str, doc: Mapping[str, Any], stores: Sequence[EventStore]) -> None:
        super().insert_with(name, doc, stores)

    @in_own_context
    def insert_prepared(self, name: str, doc: Mapping[str, Any]) -> None:
        with self._database.limit(insert=True):
            self._database.prepare_writing()
            self._insert_prepared(name, doc)

    def _insert_prepared(self, name: str, doc: Mapping[str, Any]) -> None:
        if name == "start":
            insert_single(self._database, name, "run_start", doc, {"uid": storable(doc["uid"])})
            return
        run = storable(doc["run_start"])
        with self._database.errors():
            known = self._database.collection("run_start").find_one({"uid": run}, {"_id": 1})
        if known is None:
            raise unknown_run(name, doc, doc["run_start"])
        same = {"$or": [{"run_start": run}, {"uid": doc["uid"]}]}
        insert_single(self._database, name, "run_stop", doc, same)

    # -- look up -----------------------------------------------------------------------------

    def find_uid(self, uid: str) -> HeaderPair | None:
        with self._database.errors():
            starts = self._database.collection("run_start")
            warn_of_missing(starts, "uid", self._database.label)
            with starts.aggregate([{"$match": {"uid": storable(uid)}}, WITH_STOP]) as found:
                pair = next(map(self._pair, found), None)
        if isinstance(pair, BadRun):
            raise pair.error()
        return pair

    def find_prefix(self, prefix: str, limit: int = 10) -> list[str]:
        begin = storable(prefix)
        query = {"uid": {"$gte": begin, "$lt": begin + "\U0010ffff"}}
        with self._database.errors():
            found = self._database.collection("run_start").find(query, {"uid": 1}).sort("uid")
            return [doc["uid"] for doc in found.limit(limit) if isinstance(doc["uid"], str)]

    def _with_stops(self, starts: list[dict[str, Any]]) -> Iterator[FoundHeader]:
        uids = [start["uid"] for start in starts if isinstance(start.get("uid"), str)]
        with self._database.errors():
            # Without a batch size, the server sends 101 documents first.
            found = self._database.collection("run_stop").find(
                {"run_start": {"$in": uids}}, batch_size=len(uids) + 1
            )
            stops = {doc["run_start"]: doc for doc in found if isinstance(doc["run_start"], str)}
        for start in starts:
            uid = start.get("uid")
            yield self._checked(start, stops.get(uid) if isinstance(uid, str) else None)

    def _pair(self, stored: dict[str, Any]) -> FoundHeader:
        """Return the header of a start document that was found by :data:`WITH_STOP`."""
        # The server also joins a stop whose `run_start` is a list with the uid in it.
        stops = [stop for stop in stored.pop(STOPS) if isinstance(stop.get("run_start"), str)]
        # Several stops are of databases that another program has written; the last one counts.
        return self._checked(stored, stops[-1] if stops else None)

    def _checked(self, start: dict[str, Any], stop: dict[str, Any] | None) -> FoundHeader:
        at_hand, name = start, "start"
        try:
            first = checked_from_bson("start", start)
            # A run in progress.
            if stop is None:
                return first, None
            at_hand, name = stop, "stop"
            return first, checked_from_bson("stop", stop)
        except StoreDamaged as error:
            found = start.get("uid")
            uid = found if isinstance(found, str) and found else None
            where = f"{self._database.label}, run_{name}, _id {at_hand.get('_id')!r}"
            self._bad.expect(uid)
            return BadRun(uid, str(error), where)

    # -- search ------------------------------------------------------------------------------

    def find(
        self, search: Search, start: int = 0, stop: int | None = None, *, oldest_first: bool = False
    ) -> Iterator[FoundHeader]:
        if stop is not None and stop <= start:
            return
        narrowed = self._narrow(search)
        # The server finds more than what matches, so all runs are read and matched.
        if not narrowed.exact:
            found = self._pairs(narrowed.query, 0, None, oldest_first=oldest_first)
            yield from take_sound(matching(found, search), start, stop)
            return
        query, offset = narrowed.query, 0
        # Few runs are read faster than the server skips them.
        if start > MOST_READ_OVER:
            offset = self._offset_of(query, start, oldest_first=oldest_first)
            start, stop = 0, None if stop is None else stop - start
        yield from take_sound(
            self._enough(query, offset, stop, oldest_first=oldest_first), start, stop
        )

    def _offset_of(self, query: dict[str, Any], position: int, *, oldest_first: bool) -> int:
        """Return how many runs, bad ones included, come before a position among the others."""
        sound, bad = self._bad.left_out(query)
        # Then the server's own skip counts the same runs.
        if not bad:
            return position
        order = ASCENDING if oldest_first else DESCENDING
        along = [("time", order), ("_id", order)]
        with self._database.errors():
            starts = self._database.collection("run_start").with_options(codec_options=RAW)
            found = starts.find(sound, {"_id": 1}).sort(along).skip(position - 1).limit(1)
            last = next(iter(found.allow_disk_use(True)), None)
            # The position is behind the last run.
            if last is None:
                return position + len(bad)
            some = {"$or": [{"_id": last["_id"]}, {"$nor": [sound]}]}
            left = starts.find({"$and": [query, some]}, {"_id": 1}).sort(along)
            positions = [doc["_id"] for doc in left.allow_disk_use(True)]
        return position + positions.index(last["_id"])

    def _enough(
        self, query: dict[str, Any], offset: int, wanted: int | None, *, oldest_first: bool
    ) -> Iterator[FoundHeader]:
        """Yield runs until ``wanted`` of them can be read. One query is enough if all can be."""
        while True:
            seen = bad = 0
            for one in self._pairs(query, offset, wanted, oldest_first=oldest_first):
                seen += 1
                bad += isinstance(one, BadRun)
                yield one
            # As many as were wanted came, or no more are stored.
            if wanted is None or seen < wanted or not bad:
                return
            # Runs that could not be read are made up for by the next ones.
            offset, wanted = offset + seen, max(bad, BATCH)

    def _pairs_of(self, query: dict[str, Any]) -> list[FoundHeader]:
        with self._database.errors():
            found = self._database.collection("run_start").aggregate([{"$match": query}, WITH_STOP])
            return list(map(self._pair, found))

    def _few(
        self, query: dict[str, Any], offset: int, limit: int, order: Mapping[str, int]
    ) -> list[FoundHeader]:
        """Return runs with their stops, found by one query."""
        pipeline: list[dict[str, Any]] = [{"$match": query}, {"$sort": order}]
        pipeline += [{"$skip": offset}] if offset else []
        pipeline += [{"$limit": limit}, WITH_STOP]
        with self._database.errors():
            starts = self._database.collection("run_start")
            warn_of_missing(starts, "time", self._database.label)
            with starts.aggregate(pipeline, allowDiskUse=True) as found:
                return list(map(self._pair, found))

    def _pairs(
        self, query: dict[str, Any], offset: int, limit: int | None, *, oldest_first: bool
    ) -> Iterator[FoundHeader]:
        """Yield runs, whose stops are looked up in batches that begin small and grow."""
        order = ASCENDING if oldest_first else DESCENDING
        # A list of a few runs, as most programs show, takes one query with the stops in it.
        if limit is not None and limit <= FIRST_BATCH:
            yield from self._few(query, offset, limit, {"time": order, "_id": order})
            return
        size = FIRST_BATCH if limit is None else min(limit, BATCH)
        with self._database.errors():
            starts = self._database.collection("run_start")
            warn_of_missing(starts, "time", self._database.label)
            at_once = STARTS_AT_ONCE if limit is None else BATCH
            cursor = starts.find(query, batch_size=at_once).sort([("time", order), ("_id", order)])
            cursor = cursor.skip(offset).limit(limit or 0).allow_disk_use(True)
        with OwnCursor(cursor, self._database.label) as found:
            while True:
                with self._database.errors():
                    some = list(islice(found, size))
                yield from self._with_stops(some) if some else ()
                # The cursor is exhausted.
                if len(some) < size:
                    return
                size = MOST_STOPS_AT_ONCE if size >= BATCH else BATCH

    def _narrow(self, search: Search) -> Filter:
        narrowed = start_filter(search, packed=self._database.has_packed())
        if not search.stop:
            return narrowed
        query = query_filter(search.stop).query
        # A query that the server cannot express narrows nothing.
        if query:
            with self._database.errors():
                stops = self._database.collection("run_stop")
                # Packed stops may match, too; their runs are matched afterwards.
                if self._database.has_packed():
                    query = {"$or": [query, {"_daskbroker.packed": {"$exists": True}}]}
                found = list(stops.find(query, {"run_start": 1}).limit(MOST_STOPS + 1))
            # More uids would make a query larger than the search that they narrow.
            if len(found) <= MOST_STOPS:
                # Other values are of no run, and may mean something else in a query.
                runs = [uid for doc in found if isinstance(uid := doc.get("run_start"), str)]
                both = [{"uid": {"$in": runs}}, *([narrowed.query] if narrowed.query else [])]
                return Filter({"$and": both}, exact=False)
        return narrowed

    def count(self, search: Search) -> int:
        narrowed = self._narrow(search)
        if not narrowed.exact:
            return super().count(search)
        query, _ = self._bad.left_out(narrowed.query)
        with self._database.errors():
            return self._database.collection("run_start").count_documents(query)

    # -- upkeep ------------------------------------------------------------------------------

    def check(self, search: Search) -> Iterator[CheckedHeader]:
        return check_headers(self._database, self._narrow(search), search)

    def create_indexes(self) -> list[str]:
        """See :meth:`HeaderStore.create_indexes`. All collections of the store are covered."""
        return self._database.create_indexes()

    def close(self) -> None:
        self._release()
