"""The journal of a MongoDB store: the collection ``event``, as databroker reads and writes it.

Rows are read in the order of (descriptor, time), which the index of suitcase-mongo gives. Rows of
equal time come in the order of insertion.

A row is in the journal, in a chunk, or in both, either for a moment or because the journal is
kept. A reader lists the chunks (M0), reads journal rows (J), and lists the chunks again (M). Rows
leave the journal only after their chunk is published, so nothing is missed with M. The rows of a
chunk that was ``gone`` in M0 had left the journal before J was read. The rows of any other chunk
of M are dropped from J by uid. So nothing is read twice either, whatever sealers, some of them
killed, have done meanwhile.

If the journal is kept, the chunks cover all rows up to the latest time in them. A count over the
index confirms this; otherwise rows that came late are found by uid.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import bson
import pyarrow as pa
from pymongo import CursorType
from pymongo.client_session import ClientSession

from ...core.chunks import rows_alone, with_columns
from ...core.codec import encode
from ...core.column_kinds import MISSING
from ...core.errors import StoreDamaged
from ...core.layouts import EVENT
from ...core.stored_documents import check_column, encode_stored_rows
from ..stored_text import storable
from .bson_documents import CODEC, PLAIN_CODEC, SIDE_FIELD, from_bson, is_simple
from .chunk_store import GONE, KEPT, Manifest, read_uids
from .database import Database

IN_TIME = [("time", 1)]
UIDS_AT_ONCE = 10_000
"""Maximum number of uids in one command."""
BATCH_ROWS = 1000
"""Rows of a batch, which fit a processor's cache: larger batches take three times as long."""
MAPPING_OF = {"data": "data", "ts": "timestamps"}
MAPPINGS = tuple(MAPPING_OF.values())


def unsealed(database: Database, owner: str, chunks: Sequence[Manifest]) -> dict[str, Any]:
    """Return a filter for the journal rows of a descriptor that kept chunks do not hold.

    Parameters
    ----------
    database
        Databases of the store.
    owner
        Uid of the descriptor.
    chunks
        Manifests of the descriptor's chunks.
    """
    query: dict[str, Any] = {"descriptor": storable(owner)}
    kept = [chunk for chunk in chunks if chunk["journal"] == KEPT]
    if not kept:
        return query
    latest = max(chunk["time_max"] for chunk in kept)
    covered = {**query, "time": {"$lte": latest}}
    later = {**query, "time": {"$not": {"$lte": latest}}}  # also what is no time
    with database.errors():
        events = database.collection("event")
        if events.count_documents(covered) == sum(chunk["rows"] for chunk in kept):
            return later
        uids = {storable(uid) for chunk in kept for uid in read_uids(database, chunk)}
        rows = events.with_options(codec_options=PLAIN_CODEC).find(covered, {"uid": 1})
        late = [row["_id"] for row in rows if row_uid(row) not in uids]
    return {"$or": [later, {**query, "_id": {"$in": late}}]}


def without_sealed(
    database: Database,
    rows: list[dict[str, Any]],
    before: Iterable[Manifest],
    after: Sequence[Manifest],
) -> list[dict[str, Any]]:
    """Return the rows of J that no chunk of M holds; see the module's documentation.

    Parameters
    ----------
    database
        Databases of the store.
    rows
        Journal rows J of one descriptor, with their uids. Rows of kept chunks may be left out.
    before, after
        Manifests M0 and M of the descriptor.
    """
    left = (GONE, KEPT)
    gone = {chunk["_id"] for chunk in before if chunk["journal"] in left}
    # After a failover J and M may be slightly older than M0. Such a chunk is not gone in M.
    gone &= {chunk["_id"] for chunk in after if chunk["journal"] in left}
    doubtful = [chunk for chunk in after if chunk["_id"] not in gone]
    if not doubtful or not rows:
        return rows
    sealed = {storable(uid) for chunk in doubtful for uid in read_uids(database, chunk)}
    return [row for row in rows if row_uid(row) not in sealed]


def event_from_bson(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of an event as :func:`from_bson` does; an error names the event."""
    try:
        return from_bson(stored)
    except StoreDamaged as error:
        name = stored.get("uid") or stored.get("_id")
        raise StoreDamaged(f"event {name!r}: {error}") from None


def row_uid(row: Mapping[str, Any]) -> str | None:
    """Return the uid of a row as it is stored; None if it is not text."""
    uid = row.get("uid")
    return uid if isinstance(uid, str) else None


def row_batches(
    database: Database,
    query: Mapping[str, Any],
    projection: Mapping[str, int] | None,
    *,
    limit: int = 0,
    session: ClientSession | None = None,
) -> Generator[tuple[list[dict[str, Any]], int], None, None]:
    """Yield journal rows in the order of time, in the server's batches, with the bytes of each.

    A batch is decoded at once, which is a quarter quicker than row by row. The server sends the
    next batches unasked meanwhile, unless it is a ``mongos`` or there is a limit.

    Parameters
    ----------
    database
        Databases of the store.
    query, projection
        Filter for the rows, and fields to fetch. All fields if None.
    limit
        Maximum number of rows. All rows if 0.
    session
        Session to read in. If given, only rows that no failover can lose are read.
    """
    with database.errors():
        events = database.collection("event", settled=session is not None)
        shown = {"_id": 0, **(projection or {})}
        # The server then sends batch after batch, which neither a mongos nor a limit allows.
        unasked = not limit and not events.database.client.is_mongos
        kind = CursorType.EXHAUST if unasked else CursorType.NON_TAILABLE
        cursor: Any = events.find_raw_batches(
            query, shown, batch_size=BATCH_ROWS, limit=limit, cursor_type=kind, session=session
        )
        with cursor.sort(IN_TIME).allow_disk_use(True) as batches:
            for data in batches:
                yield bson.decode_all(data, CODEC), len(data)


# -- rows to columns -------------------------------------------------------------------------


def event_projection(columns: Sequence[str] | None) -> dict[str, int] | None:
    """Return the projection for the fields that columns are made of; None for all fields."""
    if columns is None:
        return None
    wanted = {SIDE_FIELD, "time", "uid"}
    for name in columns:
        prefix, _, key = name.partition(":")
        part = MAPPING_OF.get(prefix)
        if name in EVENT.columns:
            wanted.add(name)
        elif part is not None:
            wanted.add(f"{part}.{key}" if is_simple(key) else part)
        else:
            return None
    # MongoDB refuses a projection of a mapping together with one of its keys.
    whole = wanted & set(MAPPINGS)
    return {name: 1 for name in wanted if name in whole or name.partition(".")[0] not in whole}


def event_columns(
    batches: Iterable[Sequence[Mapping[str, Any]]],
    columns: Sequence[str] | None,
    metadata: Mapping[str, str],
) -> pa.Table:
    """Return journal rows as the table of a chunk, or only some columns of it.

    Parameters
    ----------
    batches
        Batches of rows as found with :func:`event_projection`.
    columns
        Physical names of the columns. Those that no row has are left out. All columns if None.
    metadata
        Metadata of the table's schema.

    Raises
    ------
    StoreDamaged
        If an event is malformed.
    """
    if columns is None or not all(name in EVENT.columns or ":" in name for name in columns):
        found = [row for batch in batches for row in batch]
        if not found:
            return pa.table({})
        positions = [row.get("_id") for row in found]
        table = encode_stored_rows(EVENT, list(map(event_from_bson, found)), metadata, positions)
        return with_columns(table, columns)
    try:
        count, cells = _collected(batches, columns)
    except (AttributeError, TypeError) as error:
        raise StoreDamaged(f"events of descriptor {metadata['descriptor']!r}: {error}") from error
    arrays, fields = [], []
    for name, values in cells.items():
        if any(value is not MISSING for value in values):
            column = encode(values)
            check_column(name, column.kind)
            arrays.append(column.array)
            fields.append(column.arrow_field(name))
    if not arrays:
        return rows_alone(count)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _collected(
    batches: Iterable[Sequence[Mapping[str, Any]]], columns: Sequence[str]
) -> tuple[int, dict[str, list[Any]]]:
    """Return the number of rows and the cells of each column.

    Each batch is handled as a whole while it is in the processor's cache.
    """
    cells: dict[str, list[Any]] = {name: [] for name in columns}
    positions = [(name, *name.partition(":")[::2]) for name in columns]
    count = 0
    for batch in batches:
        count += len(batch)
        rows = [event_from_bson(row) if SIDE_FIELD in row else row for row in batch]
        parts = {part: [row.get(part, {}) for row in rows] for part in MAPPINGS}
        for name, prefix, key in positions:
            part = MAPPING_OF.get(prefix)
            cells[name] += _cells(rows, name) if part is None else _cells(parts[part], key)
    return count, cells


def _cells(mappings: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    try:
        return list(map(itemgetter(key), mappings))  # takes a quarter of the time of get()
    except KeyError:
        return [mapping.get(key, MISSING) for mapping in mappings]
