"""What is left in the journal of rows that a chunk holds: for a while, their uids.

A process looks once a second which events others have sealed. One that comes again within that
time is not among those that it knows, and would be stored twice if the journal had forgotten it,
whose unique index is what several processes share. So a row that leaves for a chunk leaves a
*mark*: a document of its uid alone, which also names the chunk. Marks have a descriptor that no
stream has, so nobody reads them as events, and the time at which they were made; the index on
(descriptor, time) has them in that order, and old ones are removed along it.

All times are the server's. A process that lingers between its look and its insert for so long that
a mark may have gone looks again afterwards; see :meth:`EventWriter.append`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from pymongo.errors import AutoReconnect

from .database import Database

__all__ = ["MARKS", "REMEMBERED_SECONDS", "chunk_of_mark", "mark_sealed", "remove_old_marks"]

MARKS = "daskbroker:sealed"
"""Marks have it where rows have the uid of their descriptor."""
REMEMBERED_SECONDS = 60.0
REMOVE_EVERY_SECONDS = 30.0
MOST_REMOVED = 20_000
"""So many are removed at a time: more than were made by then, in the time of an insert."""


def mark_sealed(database: Database, owner: str, uids: Sequence[str], chunk: str) -> None:
    """Leave marks for rows of a descriptor, as BSON has its uid and theirs; again does nothing.

    Twice, if the primary goes, as pymongo does not repeat that.
    """
    rows = {"uid": {"$in": list(uids)}, "descriptor": owner}
    now = {"$divide": [{"$toLong": "$$NOW"}, 1000.0]}
    mark = {"_id": "$_id", "uid": "$uid", "descriptor": {"$literal": MARKS}, "time": now}
    change = [{"$replaceWith": {**mark, "chunk": {"$literal": chunk}}}]
    events = database.collection("event")
    try:
        events.update_many(rows, change)
    except AutoReconnect:
        events.update_many(rows, change)


def chunk_of_mark(row: Mapping[str, Any]) -> str | None:
    """The chunk that has the row for which a mark stands; None of a row."""
    return str(row["chunk"]) if row.get("descriptor") == MARKS else None


def remove_old_marks(database: Database) -> None:
    """Remove the marks that nobody needs any more, unless this process has just done so."""
    if time.monotonic() - database.marks_removed < REMOVE_EVERY_SECONDS:
        return
    with database.errors(), database.limit():
        events = database.collection("event", sure=False)
        now = events.database.client.admin.command("hello")["localTime"].timestamp()
        old = {"descriptor": MARKS, "time": {"$lt": now - REMEMBERED_SECONDS}}
        most = list(events.find(old, {"time": 1}).sort("time").skip(MOST_REMOVED).limit(1))
        if most:  # the next time goes on; of one time are those of one command, which are fewer
            old["time"] = {"$lt": most[0]["time"]}
        events.delete_many(old)
    if not most:
        database.marks_removed = time.monotonic()
