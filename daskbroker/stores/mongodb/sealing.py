"""Sealing in MongoDB: rows leave the journal for immutable chunks, safely at any moment.

A sealer (1) finishes what another may have left: rows of chunks that are ``waiting`` are removed
from the journal, and the chunks are set to ``gone``; (2) reads rows from the journal, in the order
of time, and stores their columns; (3) publishes the chunk at the position where step 1 found the
end, as ``waiting``, or as ``kept`` if the journal is to stay; (4) removes the rows, whose uids are
remembered for a while (:mod:`.sealed_rows`), and sets the chunk to ``gone``.

If another sealer has published a chunk since step 1, step 3 fails on the unique key of sequence
and position. The columns are then discarded and everything begins again, so no row is ever in two
chunks. Each step is confirmed before the next one begins. A sealer that is killed leaves at worst
columns that no chunk names (:func:`sweep` removes them) or a chunk that the next sealer finishes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from bson.objectid import ObjectId
from bson.timestamp import Timestamp
from pymongo.client_session import ClientSession

from ...core import advice
from ...core.batches import batched
from ...core.documents import Document
from ...core.errors import StoreDamaged
from ...core.layouts import EVENT, decode_rows, encode_page, encode_rows, event_metadata
from ...core.page_parts import CHUNK_ROWS, page_parts
from ...core.rounds import Rounds
from ...core.stored_documents import encode_stored_rows
from ..journalled import ORPHAN_SECONDS
from ..stored_text import storable
from .chunk_store import (
    GONE,
    KEPT,
    WAITING,
    Manifest,
    TooLarge,
    check_manifest,
    check_sequence,
    chunks_of,
    discard,
    publish,
    read_uids,
    sealed_end,
    store_columns,
)
from .database import CHUNK_COLLECTION, COLUMN_COLLECTION, Database
from .journal import UIDS_AT_ONCE, event_from_bson, row_batches, unsealed
from .sealed_rows import mark_sealed, server_time

SEALED_BYTES = 8 * 2**20
"""Bytes of BSON after which a chunk is full; it may exceed this by a batch of the server."""

_log = logging.getLogger("daskbroker")


def seal_descriptor(database: Database, descriptor: Document, *, keep: bool = False) -> int:
    """Seal the journal rows of a descriptor and return the number of chunks that were made.

    Rows that arrive meanwhile are left for the next time. If ``keep``, rows stay in the journal.
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
        # Each round makes progress and may take as long as an insert. Rows that a failover can
        # lose are left: an insert of one that has not returned is repeated, and would store the
        # row twice.
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
        # A writer that is as fast as this sealer would otherwise keep it here forever.
        if done >= count:
            return made


def _finished(
    database: Database, owner: str, *, keep: bool, session: ClientSession
) -> list[Manifest]:
    """Return the chunks of a sequence, after removing rows that should have left the journal.

    Only chunks that no failover can lose count: a position after another one might be used twice.
    """
    chunks = chunks_of(database, owner, session)
    if session.operation_time is not None:
        chunks = chunks_of(database, owner, session, settled=True)
    check_sequence(database, chunks)
    for manifest in chunks:
        if manifest["journal"] == WAITING or (manifest["journal"] == KEPT and not keep):
            _remove_rows(database, manifest)
            manifest["journal"] = GONE
    return chunks


def _next_rows(
    database: Database, query: Mapping[str, Any], session: ClientSession
) -> list[dict[str, Any]]:
    """Return the first confirmed rows of the journal, as many as a chunk shall hold.

    The session is that in which the chunks were listed, so that no row is seen that has left for
    one of them.
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
    """Publish rows as chunks: more than one if a column would be too large for a document.

    Parameters
    ----------
    database
        Databases of the store.
    descriptor
        Descriptor of the rows.
    rows
        Events as stored.
    first
        Position of the first row in the sequence.
    journal
        State of the rows in the journal; see :mod:`.chunk_store`.

    Returns
    -------
    list
        Manifests of the chunks. Empty if another sealer was first at this position.

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
    """Publish each table as a chunk, from a position on; one that is too large is cut in halves.

    Parameters, return value and errors are those of :func:`seal_rows`.
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
    # If this raises, the chunks may be published all the same, so their columns have to stay.
    if publish(database, manifests):
        return manifests
    discard(database, manifests)
    return []


def _halves(table: pa.Table) -> list[pa.Table]:
    """Cut a table in two. Each half is encoded again, as notes on columns describe all rows."""
    docs = decode_rows(EVENT, table, "")
    half = len(docs) // 2
    notes = (table.schema.metadata or {}).get(b"daskbroker", b"{}")
    metadata = json.loads(notes)
    return [encode_rows(EVENT, part, metadata) for part in (docs[:half], docs[half:])]


def page_tables(descriptor: Document, page: Mapping[str, Any]) -> list[pa.Table]:
    """Return the tables of the chunks that an event page becomes."""
    metadata = event_metadata(descriptor)
    return [encode_page(EVENT, part, metadata) for part in page_parts(EVENT, page)]


def _remove_rows(database: Database, manifest: Manifest) -> None:
    """Remove the rows of a chunk from the journal, and set the chunk to ``gone``.

    The removal is confirmed first, as rows that came back would be read twice. The note itself is
    not waited for: if it is lost, the next sealer does this again.
    """
    uids = [storable(uid) for uid in read_uids(database, manifest)]
    with database.errors():
        for some in batched(uids, UIDS_AT_ONCE):
            mark_sealed(database, manifest["owner"], some, manifest["_id"])
        chunks = database.collection(CHUNK_COLLECTION, sure=False)
        chunks.update_one({"_id": manifest["_id"]}, {"$set": {"journal": GONE}})


def sweep(database: Database) -> int:
    """Remove old columns that no chunk names, left by killed processes; return how many.

    If a manifest is damaged, or a chunk has no columns, they may be of it. Then none is removed.
    """
    removed = 0
    with database.errors():
        columns = database.collection(COLUMN_COLLECTION)
        # Columns are stored before the manifest that names them, so new ones may be of a chunk
        # that is about to be published.
        aged = _stored_before(server_time(columns) - ORPHAN_SECONDS)
        known = {doc["_id"] for doc in database.collection(CHUNK_COLLECTION).find({}, {"_id": 1})}
        groups = columns.aggregate([{"$group": {"_id": "$chunk"}}])
        stored = {doc["_id"] for doc in groups if isinstance(doc["_id"], str)}
        nameless = [one for one in stored - known if ObjectId.is_valid(one)]
        old: list[str] = []
        for some in batched(nameless, UIDS_AT_ONCE):
            old += columns.distinct("chunk", {"chunk": {"$in": some}, **aged})
        if not old:
            return 0
        if not known <= stored or not _are_sound(database):
            _log.warning(
                "%s: columns of %d chunks that do not exist are kept, as other chunks are damaged; "
                "%s lists these",
                database.label,
                len(old),
                advice.call("check"),
            )
            return 0
        for some in batched(old, UIDS_AT_ONCE):
            removed += columns.delete_many({"chunk": {"$in": some}}).deleted_count
    return removed


def _stored_before(moment: float) -> dict[str, Any]:
    """Return a filter for columns that were stored before a time of the server.

    Those that an earlier version has stored lack that time; then the id of their chunk has it by
    the clock of the client.
    """
    seconds = int(moment)
    oldest = str(ObjectId.from_datetime(datetime.fromtimestamp(seconds, UTC)))
    by_client = {"stored": {"$exists": False}, "chunk": {"$lt": oldest}}
    return {"$or": [{"stored": {"$lt": Timestamp(seconds, 0)}}, by_client]}


def _are_sound(database: Database) -> bool:
    manifests = database.collection(CHUNK_COLLECTION).find({}, {"schema": 0})
    try:
        for manifest in manifests:
            check_manifest(database, manifest, schema=False)
    except StoreDamaged:
        return False
    return True
