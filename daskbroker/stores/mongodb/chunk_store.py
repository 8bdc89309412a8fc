"""Sealed chunks in MongoDB: a manifest, and one binary per column.

Collection ``event_chunk`` has one document per chunk: its sequence (the descriptor, as
``owner``), the position of its first row in it, statistics, the kinds of its columns, and where
its rows stand in the journal: ``waiting`` to be removed from it, ``kept`` there for other
readers, or ``gone``. Collection ``event_chunk_column`` has the columns as Arrow bytes, so that a
projection fetches only what it asks for; the columns of a small chunk are one binary, named "".

Columns are stored before the manifest's document, which makes the chunk known at once. Its
unique key, sequence and position, lets one of two sealers win.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import pyarrow as pa
from bson.binary import Binary
from bson.objectid import ObjectId
from pymongo import ReadPreference
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from ...core.chunks import Statistics, column_kinds, from_ipc, statistics, to_ipc
from ...core.codec import Kind, listed_kinds
from ...core.documents import from_json, to_json
from ...core.errors import BadDocument, StoreDamaged
from ...core.layouts import EVENT
from ...core.listing import listed
from .bson_documents import LARGEST, storable
from .database import CHUNKS, COLUMNS, Database

__all__ = [
    "GONE",
    "KEPT",
    "WAITING",
    "Manifest",
    "TooLarge",
    "chunk_key",
    "chunks_of",
    "confirmed_chunks",
    "discard",
    "facts_of",
    "kinds_of",
    "publish",
    "read_uids",
    "sealed_end",
    "store_columns",
    "stored_columns",
]

WHOLE_BYTES = 64 * 2**10
PLAIN_BYTES = 32 * 2**10
WAITING, KEPT, GONE = "waiting", "kept", "gone"
DUPLICATE_KEY = 11000

Manifest = dict[str, Any]
"""A document of ``event_chunk``."""


class TooLarge(BadDocument):
    """A column of a chunk is more than MongoDB can hold in a document."""


def store_columns(
    database: Database, owner: str, run: str, first: int, table: pa.Table, journal: str
) -> Manifest:
    """Store the columns of a chunk; :func:`publish` makes it known.

    They are sure before that: between the two another member may become primary, or the server
    die and come back, and what nobody waited for may be lost where the manifest is not.

    Raises
    ------
    TooLarge
    """
    chunk = str(ObjectId())
    whole = table.nbytes <= WHOLE_BYTES
    parts = {"": table} if whole else {name: table.select([name]) for name in table.column_names}
    pieces = {name: to_ipc(part, _compression(part)) for name, part in parts.items()}
    for name, body in pieces.items():
        if len(body) > LARGEST:
            raise TooLarge(
                f"column {name!r} of {table.num_rows} events of descriptor {owner!r} has "
                f"{len(body):,} bytes; MongoDB holds {LARGEST:,}"
            )
    documents = [
        {"chunk": chunk, "column": name, "place": place, "body": Binary(body)}
        for place, (name, body) in enumerate(pieces.items())
    ]
    with database.errors():
        database.collection(COLUMNS).insert_many(documents, ordered=False)
    kinds = {name: kind.to_list() for name, kind in column_kinds(table).items()}
    return {
        "_id": chunk,
        "owner": storable(owner),
        "run": storable(run),
        "first": first,
        **asdict(statistics(EVENT, table)),
        "whole": whole,
        "schema": to_json(kinds),
        "journal": journal,
    }


def _compression(table: pa.Table) -> str | None:
    """Starting lz4 takes seven times as long as to write a small column as it is."""
    return "lz4" if table.nbytes > PLAIN_BYTES else None


def publish(database: Database, manifests: Sequence[Manifest]) -> bool:
    """Make chunks known; False, and nothing is, if another process was first at this position.

    They go in one command, so that a page that is several chunks is there all at once.
    """
    with database.errors():
        try:
            database.collection(CHUNKS).insert_many(manifests)
        except BulkWriteError as error:
            codes = {one["code"] for one in error.details["writeErrors"]}
            if codes != {DUPLICATE_KEY} or error.details["nInserted"]:
                raise
            return False
    return True


def discard(database: Database, manifests: Sequence[Manifest]) -> None:
    """Remove the columns of chunks that were not made known."""
    with database.errors():
        chunks = [manifest["_id"] for manifest in manifests]
        database.collection(COLUMNS).delete_many({"chunk": {"$in": chunks}})


def chunks_of(
    database: Database,
    owner: str,
    session: ClientSession | None = None,
    *,
    settled: bool = False,
) -> list[Manifest]:
    """The chunks of a sequence, in the order of their positions."""
    query = {"owner": storable(owner)}
    with database.errors():
        chunks = database.collection(CHUNKS, settled=settled)
        found = chunks.find(query, {"schema": 0}, session=session)
        return list(found.sort("first", 1))


def confirmed_chunks(database: Database, owner: str) -> list[Manifest]:
    """As :func:`chunks_of`, but only those that no failover takes away any more."""
    found = database.confirmed(CHUNKS, {"owner": storable(owner)})
    return sorted(found, key=lambda chunk: int(chunk["first"]))


def sealed_end(chunks: Sequence[Manifest]) -> int:
    """The position after the last one that a chunk holds."""
    return int(chunks[-1]["first"] + chunks[-1]["rows"]) if chunks else 0


def chunk_key(manifest: Manifest) -> tuple[Any, ...]:
    """What a reader wants to know of a chunk."""
    return ("chunk", manifest["_id"], manifest["rows"], manifest["whole"])


def facts_of(manifest: Manifest) -> Statistics:
    """The statistics of a chunk."""
    return Statistics(**{name: manifest[name] for name in Statistics.__slots__})


@lru_cache(maxsize=1000)
def kinds_of(schema: str) -> dict[str, Kind]:
    """The kinds of a chunk's columns, from the manifest's text."""
    return listed_kinds(from_json(schema))


# -- reading ---------------------------------------------------------------------------------


def stored_columns(
    database: Database, keys: Sequence[tuple[Any, ...]], columns: Sequence[str] | None
) -> Iterator[pa.Table]:
    """Read chunks with one query: all of them, or only some columns, in the asked order.

    They are decoded one by one, as they are asked for. As chunks never change, any member may be
    asked; one that lags is no loss.

    Raises
    ------
    StoreDamaged
        Naming a chunk of which something is missing.
    """
    query: dict[str, Any] = {"chunk": {"$in": [key[1] for key in keys]}}
    if columns is not None:
        query["column"] = {"$in": ["", *columns]}
    collection = database.collection(COLUMNS, nearest=True)
    if collection.read_preference != ReadPreference.PRIMARY:
        try:
            tables = list(_found_columns(database, collection, query, keys, columns))
        except StoreDamaged:
            collection = database.collection(COLUMNS)
        else:
            yield from tables
            return
    yield from _found_columns(database, collection, query, keys, columns)


def _found_columns(
    database: Database,
    collection: Collection[dict[str, Any]],
    query: Mapping[str, Any],
    keys: Sequence[tuple[Any, ...]],
    columns: Sequence[str] | None,
) -> Iterator[pa.Table]:
    found: dict[str, dict[str, Any]] = {key[1]: {} for key in keys}
    with database.errors():
        for doc in collection.find(query).sort("place", 1):
            found[doc["chunk"]][doc["column"]] = doc.get("body")
    for key in keys:
        table = _assembled(database, key, found[key[1]], columns)
        if table.num_rows != key[2]:
            raise StoreDamaged(
                f"{database.label}, chunk {key[1]}: it has {table.num_rows:,} rows, not {key[2]:,}"
            )
        yield table


def _assembled(
    database: Database,
    key: tuple[Any, ...],
    bodies: dict[str, bytes],
    columns: Sequence[str] | None,
) -> pa.Table:
    _, chunk, rows, whole = key
    where = f"{database.label}, chunk {chunk}"
    if whole and "" in bodies:
        return _decoded(where, bodies[""], columns)
    if columns is None or len(bodies) < len(set(columns)):
        _check_complete(database, chunk, bodies, columns)
    names = [name for name in (bodies if columns is None else columns) if name in bodies]
    if not names:  # the number of rows still counts
        return pa.table({"": pa.nulls(rows)}).select([])
    parts = [_decoded(f"{where}, column {name!r}", bodies[name], None) for name in names]
    for name, part in zip(names, parts, strict=True):
        if part.num_rows != rows or part.column_names != [name]:
            raise StoreDamaged(f"{where}, column {name!r}: it holds something else")
    schema = pa.schema([part.schema.field(0) for part in parts], metadata=parts[0].schema.metadata)
    return pa.Table.from_arrays([part.column(0) for part in parts], schema=schema)


def _decoded(where: str, body: bytes, columns: Sequence[str] | None) -> pa.Table:
    try:
        return from_ipc(body, columns)
    except (pa.ArrowException, StoreDamaged) as error:
        raise StoreDamaged(f"{where}: {error}") from None


def _check_complete(
    database: Database, chunk: str, bodies: dict[str, bytes], columns: Sequence[str] | None
) -> None:
    """Tell columns that a chunk never had from those that are lost."""
    with database.errors():
        manifest = database.collection(CHUNKS).find_one({"_id": chunk}, {"schema": 1, "owner": 1})
    if manifest is None:
        raise StoreDamaged(
            f"the chunk {chunk} is gone from {database.label}; make the table or dataset anew"
        )
    kinds = kinds_of(manifest["schema"])
    wanted = kinds if columns is None else [name for name in columns if name in kinds]
    lost = [name for name in wanted if name not in bodies]
    if lost:
        raise StoreDamaged(
            f"{database.label}: chunk {chunk} of descriptor {manifest['owner']!r} lacks its "
            f"columns {listed(map(repr, lost))}"
        )


def read_uids(database: Database, manifest: Manifest) -> list[str]:
    """The uids of the events in a chunk."""
    table = next(stored_columns(database, [chunk_key(manifest)], [EVENT.uid]))
    return table.column(0).to_pylist()  # type: ignore[no-any-return]
