"""Sealing in MongoDB: rows leave the journal for immutable chunks, safely at any moment.

A sealer (1) finishes what another may have left: rows of chunks that are ``waiting`` are removed
from the journal, and the chunks marked ``gone``; (2) takes rows from the journal, in the order of
time, and stores their columns; (3) makes the chunk known at the position where step 1 found the
end, as ``waiting``, or as ``kept`` where the journal is to stay; (4) removes the rows, whose uids
are remembered for a while (:mod:`.sealed_rows`), and marks the chunk ``gone``. If another sealer
has made a chunk known since step 1, step 3 fails on the unique key of sequence and position, the
columns are thrown away, and all begins anew: so no row is ever in two chunks. Each step is sure
before the next one begins. Killed anywhere, a sealer leaves at worst columns that no chunk names
(:func:`sweep` removes them) or a chunk that the next one finishes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

import pyarrow as pa
from bson.objectid import ObjectId
from pymongo.client_session import ClientSession

from ...core.documents import Document
from ...core.layouts import EVENT, decode_rows, encode_page, encode_rows, event_metadata
from ...core.pages import CHUNK_ROWS, page_parts
from ...core.rounds import Rounds
from ...core.stored import encode_stored_rows
from .bson_documents import storable
from .chunk_store import (
    GONE,
    KEPT,
    WAITING,
    Manifest,
    TooLarge,
    chunks_of,
    discard,
    publish,
    read_uids,
    sealed_end,
    store_columns,
)
from .database import CHUNKS, COLUMNS, Database
from .journal import PIECE, event_from_bson, row_batches, unsealed
from .sealed_rows import mark_sealed

__all__ = ["page_tables", "seal_descriptor", "seal_rows", "seal_tables", "sweep"]

SEALED_BYTES = 8 * 2**20
"""Of BSON, about, in a chunk; a batch of the server's may come on top."""
ORPHAN_SECONDS = 3600.0


def seal_descriptor(database: Database, descriptor: Document, *, keep: bool = False) -> int:
    """Pack what the journal holds of a descriptor into chunks; how many were made.

    Rows that come while it works are left for the next time.
    """
    owner = descriptor["uid"]
    made, done = 0, 0
    with database.errors():
        query = {"descriptor": storable(owner)}
        count = database.collection("event").count_documents(query)
    if not count and not chunks_of(database, owner):
        return 0
    rounds = Rounds(f"sealing the events of descriptor {owner!r} in {database.label}")
    while True:
        # Each round is progress, and has the time of an insert. Rows that a failover may take
        # away are left: who inserts one again, as its insert has not returned, would have it twice.
        with database.limit(), database.session() as session:
            chunks = _finished(database, owner, keep=keep, session=session)
            rounds.check(sealed_end(chunks))
            rows = _next_rows(database, unsealed(database, owner, chunks), session)
            if not rows:
                return made
            published = seal_rows(
                database, descriptor, rows, sealed_end(chunks), KEPT if keep else WAITING
            )
            if not published:
                continue
            made += len(published)
            done += sum(manifest["rows"] for manifest in published)
            if not keep:
                for manifest in published:
                    _remove_rows(database, manifest)
        if done >= count:
            return made


def _finished(
    database: Database, owner: str, *, keep: bool, session: ClientSession
) -> list[Manifest]:
    """The chunks of a sequence, after removing rows that should have left the journal.

    Only chunks that are there to stay: a position after another one might be taken twice.
    """
    chunks = chunks_of(database, owner, session)
    if session.operation_time is not None:
        chunks = chunks_of(database, owner, session, settled=True)
    for manifest in chunks:
        if manifest["journal"] == WAITING or (manifest["journal"] == KEPT and not keep):
            _remove_rows(database, manifest)
            manifest["journal"] = GONE
    return chunks


def _next_rows(
    database: Database, query: Mapping[str, Any], session: ClientSession
) -> list[dict[str, Any]]:
    """The first rows of the journal, as many as a chunk shall hold, of those that stay.

    In the session in which the chunks were listed: so no row is seen that has left for one.
    """
    rows: list[dict[str, Any]] = []
    size = 0
    batches = row_batches(database, query, None, limit=CHUNK_ROWS, session=session)
    with closing(batches):
        for some, nbytes in batches:
            rows.extend(some)
            size += nbytes
            if size >= SEALED_BYTES:
                break
    return rows


def seal_rows(
    database: Database,
    descriptor: Document,
    rows: Sequence[Mapping[str, Any]],
    first: int,
    journal: str,
) -> list[Manifest]:
    """Make chunks of rows, more than one where a column would be too large for a document.

    Returns the chunks; none, if another sealer was first.

    Raises
    ------
    TooLarge
        If a column of a single row is too large.
    """
    docs = list(map(event_from_bson, rows))
    table = encode_stored_rows(EVENT, docs, event_metadata(descriptor))
    return seal_tables(database, descriptor, [table], first, journal)


def seal_tables(
    database: Database,
    descriptor: Document,
    tables: Sequence[pa.Table],
    first: int,
    journal: str,
) -> list[Manifest]:
    """Make each table a chunk, from a position on; two, and so on, where it does not fit.

    Returns and raises as :func:`seal_rows`.
    """
    pieces = list(tables)
    manifests: list[Manifest] = []
    try:
        while pieces:
            piece = pieces.pop(0)
            try:
                manifest = store_columns(
                    database, descriptor["uid"], descriptor["run_start"], first, piece, journal
                )
            except TooLarge:
                if piece.num_rows < 2:
                    raise
                pieces[:0] = _halves(piece)
                continue
            manifests.append(manifest)
            first += piece.num_rows
    except BaseException:
        discard(database, manifests)
        raise
    # Where this fails, the chunks may be known all the same: their columns have to stay.
    if publish(database, manifests):
        return manifests
    discard(database, manifests)
    return []


def _halves(table: pa.Table) -> list[pa.Table]:
    """A chunk cut in two, each encoded anew, as the notes of columns tell of all rows."""
    docs = decode_rows(EVENT, table, "")
    half = len(docs) // 2
    notes = (table.schema.metadata or {}).get(b"daskbroker", b"{}")
    metadata = json.loads(notes)
    return [encode_rows(EVENT, part, metadata) for part in (docs[:half], docs[half:])]


def page_tables(descriptor: Document, page: Mapping[str, Any]) -> list[pa.Table]:
    """A page as the chunks that it becomes."""
    metadata = event_metadata(descriptor)
    return [encode_page(EVENT, part, metadata) for part in page_parts(EVENT, page)]


def _remove_rows(database: Database, manifest: Manifest) -> None:
    """Remove a chunk's rows from the journal, and note that; the next sealer would do it too.

    That they are gone is sure before it is noted, as rows that came back would be read twice.
    """
    uids = [storable(uid) for uid in read_uids(database, manifest)]
    with database.errors():
        for begin in range(0, len(uids), PIECE):
            some = uids[begin : begin + PIECE]
            mark_sealed(database, manifest["owner"], some, manifest["_id"])
        chunks = database.collection(CHUNKS, sure=False)
        chunks.update_one({"_id": manifest["_id"]}, {"$set": {"journal": GONE}})


def sweep(database: Database) -> int:
    """Remove old columns that no chunk names, left by processes that were killed; how many."""
    latest = int(time.time() - ORPHAN_SECONDS)
    removed = 0
    with database.errors():
        columns = database.collection(COLUMNS)
        known = {doc["_id"] for doc in database.collection(CHUNKS).find({}, {"_id": 1})}
        stored = columns.aggregate([{"$group": {"_id": "$chunk"}}])
        lost = (doc["_id"] for doc in stored if doc["_id"] not in known)
        old = (one for one in lost if ObjectId(one).generation_time.timestamp() < latest)
        while some := list(islice(old, PIECE)):
            removed += columns.delete_many({"chunk": {"$in": some}}).deleted_count
    return removed
