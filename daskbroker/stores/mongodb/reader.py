"""Reading of chunks of a MongoDB store: sealed ones, ranges of its journal, datums and pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ...core.chunks import ChunkReader, with_columns
from ...core.clock import seconds_of
from ...core.errors import StoreDamaged, StoreError
from ...core.layouts import EVENT, decode_rows
from ...core.open_brokers import reader_of
from ...core.redaction import label_of
from ...core.stored_documents import encode_stored_rows
from ..stored_text import storable
from .bson_documents import from_bson
from .chunk_store import check_sequence, chunk_key, chunks_of, read_uids, stored_columns
from .database import Database
from .foreign_pages import read_page
from .journal import IN_TIME, event_columns, event_projection, row_batches, row_uid
from .references import datum_range

TOGETHER = 128
"""Maximum number of small chunks that are fetched by one query."""


def range_key(
    run: str, descriptor: str, begin: float, end: float, rows: int, position: int
) -> tuple[Any, ...]:
    """Return the key of a range of the journal.

    Parameters
    ----------
    run, descriptor
        Uids of the run and the descriptor.
    begin, end
        Times of the first and the last row.
    rows
        Number of rows when the plan was made.
    position
        Number of sealed rows of the descriptor when the plan was made.
    """
    return ("event", run, descriptor, begin, end, rows, position)


@dataclass(frozen=True)
class MongoReader(ChunkReader):
    """A reader of chunks by key, which pickles as the uris and connects when it reads.

    If it has an ``origin`` (key of a broker, name of its event source), it pickles as that. Such a
    broker was opened by the name of a configuration that holds a password, and each process that
    reads has that configuration.

    Keys are ``("chunk", _id, rows, whole)`` for a sealed chunk, ``("event", …)`` for a range of
    the journal (see :func:`range_key`), ``("datum", run, first, last)`` for a range of a run's
    datums, and those of :func:`daskbroker.stores.mongodb.foreign_pages.read_page`.
    """

    uri: str = field(repr=False)
    assets: str | None = field(default=None, repr=False)
    read_only: bool = False
    origin: tuple[str, str] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self.origin is not None:
            return (reader_of, self.origin)
        return (MongoReader, (self.uri, self.assets, self.read_only))

    def database(self) -> Database:
        """Return the databases with the connections of this process."""
        return Database.of(self.uri, self.assets, read_only=self.read_only)

    def read_stored(self, key: Any, columns: Sequence[str] | None) -> pa.Table:
        if key[0] == "chunk":
            return next(stored_columns(self.database(), [key], columns))
        if key[0] == "datum":
            return datum_range(self.database(), *key[1:], columns=columns)
        if key[0] in ("event_page", "datum_page"):
            return read_page(self.database(), key, columns)
        return _read_range(self.database(), key, columns)

    def is_final(self, key: Any) -> bool:
        return super().is_final(key) and key[0] not in ("event", "datum")

    def read_many(
        self, keys: Sequence[Any], columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """See :meth:`daskbroker.core.chunks.ChunkReader.read_many`; small chunks together."""
        waiting: list[Any] = []
        for key in keys:
            small = isinstance(key, tuple) and key[0] == "chunk" and key[3]
            if waiting and (not small or len(waiting) == TOGETHER):
                yield from stored_columns(self.database(), waiting, columns)
                waiting = []
            if small:
                waiting.append(key)
            else:
                yield self.read(key, columns)
        if waiting:
            yield from stored_columns(self.database(), waiting, columns)

    def __repr__(self) -> str:
        return f"<MongoReader {label_of(self.uri)}>"


def _read_range(
    database: Database, key: tuple[Any, ...], columns: Sequence[str] | None
) -> pa.Table:
    """Read a range of the journal; rows that were sealed since the plan come from their chunks."""
    _, run, descriptor, begin, end, rows, _ = key
    query = {"descriptor": storable(descriptor), "time": {"$gte": begin, "$lte": end}}
    batches = row_batches(database, query, event_projection(columns))
    metadata = {"run": run, "kind": EVENT.kind, "descriptor": descriptor}
    table = event_columns((some for some, _ in batches), columns, metadata)
    if table.num_rows == rows:
        return table
    return _merged_range(database, key, columns, metadata)


def chunks_in(database: Database, key: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Return the manifests of the chunks that may hold rows of a range."""
    _, _, descriptor, begin, end, _, _ = key
    chunks = chunks_of(database, descriptor)
    check_sequence(database, chunks)
    return [chunk for chunk in chunks if chunk["time_min"] <= end and chunk["time_max"] >= begin]


def _merged_range(
    database: Database,
    key: tuple[Any, ...],
    columns: Sequence[str] | None,
    metadata: dict[str, str],
) -> pa.Table:
    """Read the rows of a range that are still in the journal, or in chunks newer than the plan.

    Raises
    ------
    StoreDamaged
        If there are fewer rows than when the plan was made.
    StoreError
        If there are more.
    """
    _, run, descriptor, begin, end, rows, position = key
    query = {"descriptor": storable(descriptor), "time": {"$gte": begin, "$lte": end}}
    with database.errors():
        events = database.collection("event")
        # Before the chunks, so that rows that are sealed meanwhile are found in one of them.
        left = [from_bson(row) for row in events.find(query).sort(IN_TIME).allow_disk_use(True)]
    sealed: set[str] = set()
    docs: list[dict[str, Any]] = []
    for chunk in chunks_in(database, key):
        # The plan has this chunk, so its rows are only left out here.
        if chunk["first"] < position:
            sealed.update(read_uids(database, chunk))
            continue
        table = next(stored_columns(database, [chunk_key(chunk)], None))
        for doc in decode_rows(EVENT, table, descriptor):
            sealed.add(doc["uid"])
            if begin <= doc["time"] <= end:
                docs.append(doc)
    docs += [doc for doc in left if row_uid(doc) not in sealed]
    docs.sort(key=seconds_of)
    if len(docs) != rows:
        problem = StoreDamaged if len(docs) < rows else StoreError
        raise problem(
            f"run {run!r}, descriptor {descriptor!r}: {rows} events were found from "
            f"{begin} to {end}, now there are {len(docs)}; make the table or dataset again"
        )
    return with_columns(encode_stored_rows(EVENT, docs, metadata), columns)
