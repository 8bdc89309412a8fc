"""Marks: the uids of sealed rows, which stay in the journal for a while.

A process looks once a second for events that others have sealed. An event that is inserted again
within that time is not among those that the process knows. It would be stored twice if the journal
had forgotten it, as the unique index of the journal is what several processes share. So a row that
leaves for a chunk is replaced by a *mark*: a document with its uid and the chunk. Marks have a
descriptor that no stream has, so they are never read as events, and the time at which they were
made. The index on (descriptor, time) has them in that order, and old ones are removed along it.

All times are the server's. A process that takes so long between its look and its insert that a
mark may have been removed looks again afterwards; see :meth:`EventWriter.append`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from pymongo.collection import Collection
from pymongo.errors import AutoReconnect

from .database import Database

SEALED_MARK = "daskbroker:sealed"
"""Value of ``descriptor`` in marks, in place of the uid of a descriptor."""
MARK_SECONDS = 60.0
"""Minimum seconds that marks are kept."""
REMOVE_EVERY_SECONDS = 30.0
"""Seconds between two removals of old marks by a process."""
MOST_REMOVED = 20_000
"""Approximate maximum of marks removed at a time, so that it takes no longer than an insert may."""


def mark_sealed(database: Database, owner: str, uids: Sequence[str], chunk: str) -> None:
    """Replace the journal rows of a chunk by marks. Repeating it does no harm.

    If the primary goes away, the command is sent a second time, as pymongo does not retry it.

    Parameters
    ----------
    database
        Databases of the store.
    owner, uids
        Uids of the descriptor and of the rows, as stored.
    chunk
        The ``_id`` of the chunk that holds the rows.
    """
    rows = {"uid": {"$in": list(uids)}, "descriptor": owner}
    now = {"$divide": [{"$toLong": "$$NOW"}, 1000.0]}
    mark = {"_id": "$_id", "uid": "$uid", "descriptor": {"$literal": SEALED_MARK}, "time": now}
    change = [{"$replaceWith": {**mark, "chunk": {"$literal": chunk}}}]
    events = database.collection("event")
    try:
        events.update_many(rows, change)
    except AutoReconnect:
        events.update_many(rows, change)


def chunk_of_mark(row: Mapping[str, Any]) -> str | None:
    """Return the chunk that a mark names; None if the document is a row and not a mark."""
    return str(row["chunk"]) if row.get("descriptor") == SEALED_MARK else None


def remove_old_marks(database: Database) -> None:
    """Remove old marks, unless this process did so in the last :data:`REMOVE_EVERY_SECONDS`."""
    if time.monotonic() - database.marks_removed < REMOVE_EVERY_SECONDS:
        return
    with database.errors(), database.limit():
        events = database.collection("event", sure=False)
        old = {"descriptor": SEALED_MARK, "time": {"$lt": server_time(events) - MARK_SECONDS}}
        most = list(events.find(old, {"time": 1}).sort("time").skip(MOST_REMOVED).limit(1))
        # More are left for the next time. Marks of one command have the same time and are fewer
        # than this, so some are always removed.
        if most:
            old["time"] = {"$lt": most[0]["time"]}
        events.delete_many(old)
    if not most:
        database.marks_removed = time.monotonic()


def server_time(collection: Collection[Any]) -> float:
    """Return the time of the server, in seconds since 1970. Clocks of clients may be wrong."""
    return float(collection.database.client.admin.command("hello")["localTime"].timestamp())
