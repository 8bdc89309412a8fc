"""Runs of a database that cannot be read, found by the server so that the others can be counted.

The server looks for malformed starts and stops, once in all documents and then only in new ones.
Usually there are none, and the server's own counts and offsets can be used.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from bson.codec_options import CodecOptions
from bson.objectid import ObjectId

from ...core.bad_runs import BadRun
from ..contract import FoundHeader
from ..stored_text import storable
from .bson_documents import SIDE_FIELD
from .database import LOOK_SECONDS, Database

OVERLAP = timedelta(days=1)
"""Age of documents that are looked at again: ``_id``s have the clocks of writers, which differ."""
RAW: CodecOptions[dict[str, Any]] = CodecOptions()

_NUMBER = {"$gte": -sys.float_info.max, "$lte": sys.float_info.max, "$not": {"$type": "array"}}
_TEXT = {"$type": "string", "$ne": "", "$not": {"$type": "array"}}
_PACKED = f"{SIDE_FIELD}.packed"
_SIDE = {
    "$or": [
        {SIDE_FIELD: {"$exists": False}},
        {SIDE_FIELD: None},
        {
            SIDE_FIELD: {"$type": "object"},
            "$or": [{_PACKED: {"$exists": False}}, {_PACKED: {"$type": "binData"}}],
        },
    ]
}
SOUND_HEADERS = {
    "run_start": {"uid": _TEXT, **_SIDE},
    "run_stop": {"uid": _TEXT, "time": _NUMBER, "run_start": _TEXT, **_SIDE},
}
"""Filters for what :func:`~daskbroker.core.stored_documents.fault_of` requires.

Packed values are not seen: a run with one that is damaged is counted until somebody has read it.
"""


class BadHeaders:
    """The runs that cannot be read, as far as the server can tell.

    Parameters
    ----------
    database
        Databases of the store.
    find
        Function that returns the headers for a filter on start documents, with a
        :class:`~daskbroker.core.bad_runs.BadRun` for each run that cannot be read.
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
        self._met: set[str] = set()

    def expect(self, uid: str | None) -> None:
        """Look again at the next call of :meth:`left_out`, as a bad run was found meanwhile."""
        self._looked = float("-inf")
        if uid is not None:
            self._met.add(uid)

    def left_out(self, query: dict[str, Any]) -> tuple[dict[str, Any], list[BadRun]]:
        """Return a query narrowed to the runs that can be read, and the bad runs that it finds.

        The server is asked for new bad runs if the last look is more than
        :data:`~.database.LOOK_SECONDS` ago.

        Parameters
        ----------
        query
            Filter on start documents.
        """
        with self._lock:
            if time.monotonic() - self._looked > LOOK_SECONDS:
                self._look()
                # Set after the look, which itself calls expect() for the bad runs that it finds.
                self._looked = time.monotonic()
            suspects = list(self._suspects)
        if not suspects:
            return query, []
        found = self._find({"$and": [{"_id": {"$in": suspects}}, query]})
        bad = [one for one in found if isinstance(one, BadRun)]
        return {"$and": [query, {"_id": {"$nin": suspects}}]}, bad

    def _look(self) -> None:
        starts = self._new("run_start", "_id")
        met, self._met = self._met, set()
        runs = [uid for uid in self._new("run_stop", "run_start") if isinstance(uid, str)]
        runs += [storable(uid) for uid in met]
        if runs:
            query = {"uid": {"$in": runs}}
            starts += [doc["_id"] for doc in self._raw("run_start").find(query, {"_id": 1})]
        wanted = list({repr(one): one for one in [*self._suspects, *starts]}.values())
        # Usually one query confirms all of them. One by one only if some have been repaired.
        if wanted and self._bad_among(wanted) < len(wanted):
            wanted = [one for one in wanted if self._bad_among([one])]
        self._suspects = wanted

    def _bad_among(self, numbers: list[Any]) -> int:
        return sum(isinstance(one, BadRun) for one in self._find({"_id": {"$in": numbers}}))

    def _new(self, name: str, field: str) -> list[Any]:
        """Return a field of each malformed document that is new since the last look."""
        query: dict[str, Any] = {"$nor": [SOUND_HEADERS[name]]}
        collection = self._raw(name)
        with self._database.errors():
            after = self._latest.get(name)
            if after is not None:
                query = {"$and": [{"_id": {"$gte": after}}, query]}
            newest = collection.find_one({}, {"_id": 1}, sort=[("_id", -1)])
            found = [doc.get(field) for doc in collection.find(query, {field: 1})]
        latest = None if newest is None else newest["_id"]
        if isinstance(latest, ObjectId):
            # A writer whose clock is far ahead would hide what others write from then on.
            written = min(latest.generation_time, datetime.now(UTC))
            self._latest[name] = ObjectId.from_datetime(written - OVERLAP)
        return found

    def _raw(self, name: str) -> Any:
        """Return a collection whose documents keep BSON's own types, such as ObjectId."""
        return self._database.collection(name).with_options(codec_options=RAW)
