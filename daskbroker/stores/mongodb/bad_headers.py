"""Which runs of a database cannot be read: found by the server, so that others can be counted.

The server looks for starts and stops that make no sense, once over all, then only among new
ones. As a rule there are none, and counts and offsets are the server's own.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from bson.codec_options import CodecOptions
from bson.objectid import ObjectId

from ...core.bad_runs import BadRun
from ..contract import FoundHeader
from .bson_documents import SIDE
from .database import LOOK_SECONDS, Database

__all__ = ["BadHeaders"]

COLLECTIONS = ("run_start", "run_stop")
OVERLAP = timedelta(days=1)
"""So much of what was looked at is looked at again, as clocks of writers differ."""
RAW: CodecOptions[dict[str, Any]] = CodecOptions()

_NUMBER = {"$gte": -sys.float_info.max, "$lte": sys.float_info.max, "$not": {"$type": "array"}}
_TEXT = {"$type": "string", "$ne": "", "$not": {"$type": "array"}}
_SIDE = {"$or": [{SIDE: {"$exists": False}}, {SIDE: None}, {SIDE: {"$type": "object"}}]}
SOUND = {
    "run_start": {"uid": _TEXT, **_SIDE},
    "run_stop": {"uid": _TEXT, "time": _NUMBER, "run_start": _TEXT, **_SIDE},
}
"""What :func:`daskbroker.core.stored.fault_of` asks for, as filters. What is packed is not seen."""


class BadHeaders:
    """The runs that cannot be read, as far as the server can tell.

    Parameters
    ----------
    database
        Of the store.
    find
        Runs, or what stands in for them, by a filter on their starts.
    """

    def __init__(
        self, database: Database, find: Callable[[dict[str, Any]], list[FoundHeader]]
    ) -> None:
        self._database = database
        self._find = find
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self._latest: dict[str, Any] = {}
        self._suspects: list[Any] = []

    def expect(self) -> None:
        """Somebody has come across a bad run: look again before others are counted."""
        self._looked = float("-inf")

    def left_out(self, query: dict[str, Any]) -> tuple[dict[str, Any], list[BadRun]]:
        """The filter for the runs that can be read, and those of the others that it finds."""
        with self._lock:
            if time.monotonic() - self._looked > LOOK_SECONDS:
                self._look()
                self._looked = time.monotonic()  # also after what it has come across itself
            suspects = list(self._suspects)
        if not suspects:
            return query, []
        found = self._find({"$and": [{"_id": {"$in": suspects}}, query]})
        bad = [one for one in found if isinstance(one, BadRun)]
        return {"$and": [query, {"_id": {"$nin": suspects}}]}, bad

    def _look(self) -> None:
        starts = self._new("run_start", "_id")
        runs = [uid for uid in self._new("run_stop", "run_start") if isinstance(uid, str)]
        if runs:
            query = {"uid": {"$in": runs}}
            starts += [doc["_id"] for doc in self._raw("run_start").find(query, {"_id": 1})]
        wanted = list({repr(one): one for one in [*self._suspects, *starts]}.values())
        if wanted and self._bad_among(wanted) < len(wanted):  # or it was put right meanwhile
            wanted = [one for one in wanted if self._bad_among([one])]
        self._suspects = wanted

    def _bad_among(self, numbers: list[Any]) -> int:
        return sum(isinstance(one, BadRun) for one in self._find({"_id": {"$in": numbers}}))

    def _new(self, name: str, field: str) -> list[Any]:
        """A field of the documents that make no sense, of those that came lately."""
        query: dict[str, Any] = {"$nor": [SOUND[name]]}
        collection = self._raw(name)
        with self._database.errors():
            after = self._latest.get(name)
            if after is not None:
                query = {"$and": [{"_id": {"$gte": after}}, query]}
            newest = collection.find_one({}, {"_id": 1}, sort=[("_id", -1)])
            found = [doc.get(field) for doc in collection.find(query, {field: 1})]
        latest = None if newest is None else newest["_id"]
        if isinstance(latest, ObjectId):
            self._latest[name] = ObjectId.from_datetime(latest.generation_time - OVERLAP)
        return found

    def _raw(self, name: str) -> Any:
        """A collection whose documents keep BSON's own types, such as ObjectId."""
        return self._database.collection(name).with_options(codec_options=RAW)
