"""Sealed chunks in MongoDB: a manifest, and one binary per column.

Collection ``event_chunk`` has one document per chunk, its manifest. It holds the sequence (the uid
of the descriptor, as ``owner``), the position of its first row in the sequence, statistics, the
kinds of the columns, checksums of all that and of the kinds, and the state of its rows in the
journal: ``waiting`` to be removed, ``kept`` there for other readers, or ``gone``. Collection
``event_chunk_column`` has the columns as Arrow bytes, so that only the columns that are requested
are fetched, and the server's time at which each was stored. The columns of a small chunk are one
binary, named "".

Columns are stored before the manifest, whose insertion publishes the chunk at once. Sequence and
position are a unique key, so only one of two concurrent sealers succeeds.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, get_type_hints

import pyarrow as pa
from bson.binary import Binary
from bson.objectid import ObjectId
from bson.timestamp import Timestamp
from pymongo import ReadPreference
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from ...core.chunk_statistics import Statistics, statistics
from ...core.chunks import column_kinds, from_ipc, rows_alone, to_ipc
from ...core.column_kinds import ColumnKind, listed_kinds
from ...core.documents import from_json, to_json
from ...core.errors import BadDocument, StoreDamaged
from ...core.layouts import EVENT
from ...core.name_lists import listed
from ..stored_text import storable
from .bson_documents import MAX_DOCUMENT_BYTES, PLAIN_CODEC
from .database import CHUNK_COLLECTION, COLUMN_COLLECTION, Database
from .server_errors import DUPLICATE_KEY

ONE_BUFFER_BYTES = 64 * 2**10
"""Maximum bytes of a table whose columns are stored in one binary."""
PLAIN_BYTES = 32 * 2**10
"""Maximum bytes of a binary that is not compressed."""
WAITING, KEPT, GONE = "waiting", "kept", "gone"
"""States of a chunk's rows in the journal."""
COLUMN_PARTS = {"_id": 0, "chunk": 1, "column": 1, "body": 1}
DOCUMENTS_AT_ONCE = 5000
"""Size of the batches of columns; without it, the server sends 101 of them first."""
SERVER_NOW = Timestamp(0, 0)
"""Value in place of which the server stores its own time."""

Manifest = dict[str, Any]
"""A document of ``event_chunk``."""

_TYPES = {int: "q", float: "d", bool: "?"}
_PACKED = struct.Struct(f"<q{''.join(_TYPES[of] for of in get_type_hints(Statistics).values())}?")
_numbers = itemgetter("first", *Statistics._fields, "whole")
_names = itemgetter("_id", "owner", "run")
_SUMS = struct.Struct("<II")
"""Checksums of what never changes of a manifest: of its names and numbers, and of its schema."""


class TooLarge(BadDocument):
    """Raised if a column of a chunk is larger than a document of MongoDB may be."""


def store_columns(
    database: Database, owner: str, run: str, first: int, table: pa.Table, journal: str
) -> Manifest:
    """Store the columns of a chunk and return its manifest, which :func:`publish` then inserts.

    This waits until the columns are confirmed. Before the manifest is inserted another member may
    become primary, or the server may die and come back. Columns that were not confirmed could then
    be lost while the manifest is not.

    Parameters
    ----------
    database
        Databases of the store.
    owner, run
        Uids of the descriptor and of its run.
    first
        Position of the first row in the sequence.
    table
        Rows of the chunk.
    journal
        State of the rows in the journal: ``WAITING``, ``KEPT`` or ``GONE``.

    Raises
    ------
    TooLarge
        If a column has more bytes than MongoDB can hold.
    """
    chunk = str(ObjectId())
    whole = table.nbytes <= ONE_BUFFER_BYTES
    parts = {"": table} if whole else {name: table.select([name]) for name in table.column_names}
    pieces = {name: to_ipc(part, _compression(part)) for name, part in parts.items()}
    for name, body in pieces.items():
        if len(body) > MAX_DOCUMENT_BYTES:
            raise TooLarge(
                f"column {name!r} of {table.num_rows} events of descriptor {owner!r} has "
                f"{len(body):,} bytes; MongoDB holds {MAX_DOCUMENT_BYTES:,}"
            )
    documents = [
        {"chunk": chunk, "column": name, "place": place, "body": Binary(body), "stored": SERVER_NOW}
        for place, (name, body) in enumerate(pieces.items())
    ]
    with database.errors():
        database.collection(COLUMN_COLLECTION).insert_many(documents, ordered=False)
    kinds = {name: kind.to_list() for name, kind in column_kinds(table).items()}
    manifest = {
        "_id": chunk,
        "owner": storable(owner),
        "run": storable(run),
        "first": first,
        **statistics(EVENT, table)._asdict(),
        "whole": whole,
        "schema": to_json(kinds),
        "journal": journal,
    }
    manifest["checksums"] = _SUMS.pack(_sum_of_facts(manifest), _sum_of(manifest["schema"]))
    return manifest


def _compression(table: pa.Table) -> str | None:
    """Return the compression of a table for :func:`to_ipc`.

    Small ones have none: starting lz4 takes seven times as long as writing a small column.
    """
    return "lz4" if table.nbytes > PLAIN_BYTES else None


def _sum_of_facts(manifest: Manifest) -> int:
    return _sum_of("\0".join(_names(manifest)), zlib.crc32(_PACKED.pack(*_numbers(manifest))))


def _sum_of(text: str, begun: int = 0) -> int:
    return zlib.crc32(text.encode("utf8", "surrogatepass"), begun)


def check_manifest(database: Database, manifest: Manifest, *, schema: bool = True) -> None:
    """Check that a manifest is as it was stored; those of earlier versions have no checksums.

    Wrong statistics would leave rows out of a table, or give it another index, as chunks are not
    read to find out.

    Parameters
    ----------
    database
        Databases of the store.
    manifest
        Manifest as it was read.
    schema
        Whether its schema was read, too.

    Raises
    ------
    StoreDamaged
        If it was changed, or lacks a field.
    """
    problem = "its checksum is wrong"
    try:
        sums = [_sum_of_facts(manifest)]
        if schema:
            sums.append(_sum_of(manifest["schema"]))
        stored = manifest.get("checksums")
        is_unchanged = stored is None or [*_SUMS.unpack(stored)][: len(sums)] == sums
        if is_unchanged and manifest["journal"] in (WAITING, KEPT, GONE):
            return
    except (LookupError, TypeError, AttributeError, struct.error) as error:
        problem = f"{type(error).__name__}: {error}"
    raise StoreDamaged(
        f"{database.label}: the manifest of chunk {manifest.get('_id')} of run "
        f"{manifest.get('run')!r} is damaged: {problem}"
    )


def check_sequence(database: Database, chunks: Sequence[Manifest]) -> None:
    """Check that the chunks of a sequence, in order, follow each other from its beginning.

    For who reads or seals them. A writer adds its events after the last chunk, whatever is lost
    before it.

    Raises
    ------
    StoreDamaged
        If one is missing between them.
    """
    end = 0
    for manifest in chunks:
        if manifest["first"] != end:
            raise StoreDamaged(
                f"{database.label}: run {manifest['run']!r}, descriptor {manifest['owner']!r}: "
                f"chunk {manifest['_id']} begins at event {manifest['first']}, the one before it "
                f"ends at {end}; the manifest of a chunk between them is lost or damaged"
            )
        end += manifest["rows"]


def publish(database: Database, manifests: Sequence[Manifest]) -> bool:
    """Publish chunks by inserting their manifests.

    All manifests are inserted by one command, so that a page of several chunks appears at once.

    Returns
    -------
    bool
        False if another process has published a chunk at this position before. Then none of the
        chunks is published.
    """
    with database.errors():
        try:
            database.collection(CHUNK_COLLECTION).insert_many(manifests)
        except BulkWriteError as error:
            # The insert is ordered: if the first manifest is refused, none is published.
            codes = {one["code"] for one in error.details["writeErrors"]}
            if codes != {DUPLICATE_KEY} or error.details["nInserted"]:
                raise
            return False
    return True


def discard(database: Database, manifests: Sequence[Manifest]) -> None:
    """Remove the columns of chunks that were not published."""
    with database.errors():
        chunks = [manifest["_id"] for manifest in manifests]
        database.collection(COLUMN_COLLECTION).delete_many({"chunk": {"$in": chunks}})


def chunks_of(
    database: Database,
    owner: str,
    session: ClientSession | None = None,
    *,
    settled: bool = False,
) -> list[Manifest]:
    """Return the manifests of a sequence, without schemas, in the order of their positions.

    Parameters
    ----------
    database
        Databases of the store.
    owner
        Uid of the descriptor.
    session
        Session to read in.
    settled
        Whether to return only chunks that no failover can lose.

    Raises
    ------
    StoreDamaged
        If a manifest is damaged.
    """
    query = {"owner": storable(owner)}
    with database.errors():
        chunks = database.collection(CHUNK_COLLECTION, settled=settled)
        found = list(chunks.find(query, {"schema": 0}, session=session).sort("first", 1))
    for manifest in found:
        check_manifest(database, manifest, schema=False)
    return found


def confirmed_chunks(database: Database, owner: str) -> list[Manifest]:
    """Return the manifests of a sequence after waiting until no failover can lose them.

    They have their schemas and are in the order of their positions.
    """
    found = database.confirmed(CHUNK_COLLECTION, {"owner": storable(owner)})
    for manifest in found:
        check_manifest(database, manifest)
    return sorted(found, key=lambda chunk: int(chunk["first"]))


def sealed_end(chunks: Sequence[Manifest]) -> int:
    """Return the position after the last row of some chunks in order; 0 if there are none."""
    return int(chunks[-1]["first"] + chunks[-1]["rows"]) if chunks else 0


def chunk_key(manifest: Manifest) -> tuple[Any, ...]:
    """Return the key by which :class:`~.reader.MongoReader` reads a chunk."""
    return ("chunk", manifest["_id"], manifest["rows"], manifest["whole"])


def statistics_of(manifest: Manifest) -> Statistics:
    """Return the statistics of a chunk."""
    return Statistics(**{name: manifest[name] for name in Statistics._fields})


@lru_cache(maxsize=1000)
def kinds_of(schema: str) -> dict[str, ColumnKind]:
    """Return the kinds of a chunk's columns, parsed from the JSON text in its manifest."""
    return listed_kinds(from_json(schema))


# -- reading ---------------------------------------------------------------------------------


def stored_columns(
    database: Database, keys: Sequence[tuple[Any, ...]], columns: Sequence[str] | None
) -> Iterator[pa.Table]:
    """Read chunks with one query and yield their tables in the order of the keys.

    Tables are decoded one by one as they are consumed. As chunks never change, any member may be
    asked. If one lags behind, the primary is asked again.

    Parameters
    ----------
    database
        Databases of the store.
    keys
        Keys of the chunks; see :func:`chunk_key`.
    columns
        Names of the columns. Those that a chunk never had are left out. All columns if None.

    Raises
    ------
    StoreDamaged
        If a part of a chunk is missing or damaged. The message names the chunk.
    """
    query: dict[str, Any] = {"chunk": {"$in": [key[1] for key in keys]}}
    if columns is not None:
        query["column"] = {"$in": ["", *columns]}
    collection = database.collection(COLUMN_COLLECTION, nearest=True)
    if collection.read_preference != ReadPreference.PRIMARY:
        try:
            tables = list(_read_columns(database, collection, query, keys, columns))
        except StoreDamaged:
            collection = database.collection(COLUMN_COLLECTION)
        else:
            yield from tables
            return
    yield from _read_columns(database, collection, query, keys, columns)


def _read_columns(
    database: Database,
    collection: Collection[dict[str, Any]],
    query: Mapping[str, Any],
    keys: Sequence[tuple[Any, ...]],
    columns: Sequence[str] | None,
) -> Iterator[pa.Table]:
    found: dict[str, dict[str, Any]] = {key[1]: {} for key in keys}
    with database.errors():
        # Decoders in Python would take twice as long as all the rest.
        plain = collection.with_options(codec_options=PLAIN_CODEC)
        for doc in plain.find(query, COLUMN_PARTS, batch_size=DOCUMENTS_AT_ONCE).sort("place", 1):
            try:
                found[doc["chunk"]][doc["column"]] = doc.get("body")
            except (LookupError, TypeError):
                continue  # malformed, so the column is missing
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
    if not names:
        return rows_alone(rows)
    parts = [_decoded(f"{where}, column {name!r}", bodies[name], None) for name in names]
    for name, part in zip(names, parts, strict=True):
        if part.num_rows != rows or part.column_names != [name]:
            raise StoreDamaged(f"{where}, column {name!r}: it has other rows or columns")
    schema = pa.schema([part.schema.field(0) for part in parts], metadata=parts[0].schema.metadata)
    return pa.Table.from_arrays([part.column(0) for part in parts], schema=schema)


def _decoded(where: str, body: bytes, columns: Sequence[str] | None) -> pa.Table:
    try:
        return from_ipc(body, columns)
    except MemoryError:  # Arrow's is one of its exceptions, too
        raise
    except (pa.ArrowException, StoreDamaged) as error:
        raise StoreDamaged(f"{where}: {error}") from None


def _check_complete(
    database: Database, chunk: str, bodies: dict[str, bytes], columns: Sequence[str] | None
) -> None:
    """Raise StoreDamaged if columns of a chunk are lost; those that it never had are ignored."""
    with database.errors():
        manifest = database.collection(CHUNK_COLLECTION).find_one(
            {"_id": chunk}, {"schema": 1, "owner": 1}
        )
    if manifest is None:
        raise StoreDamaged(
            f"the chunk {chunk} no longer exists in {database.label}; "
            "make the table or dataset again"
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
    """Return the uids of the events in a chunk, in the order of its rows."""
    table = next(stored_columns(database, [chunk_key(manifest)], [EVENT.uid]))
    return table.column(0).to_pylist()
