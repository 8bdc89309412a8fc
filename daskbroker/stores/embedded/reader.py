"""Reader of an embedded store's chunks: Parquet files, packs, and small chunks in SQLite."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...core.batches import batched
from ...core.chunks import ChunkReader, damaged, from_ipc
from ...core.errors import (
    StoreDamaged,
    StoreError,
    StoreNotFound,
    is_of_process,
    process_error,
    seen_from,
)
from .chunk_files import read_file
from .database import FILE_NAME, Database
from .packing import pack_small_chunks

TRAVELLING_BYTES = 64 * 2**10
"""Maximum bytes of small chunks in SQLite that are sent to workers before these are packed."""

LOST = b""
"""Key in place of the bytes of a chunk that are not there."""

Stored = str | tuple[str, int, int] | bytes
"""A key that any process can read: a path, a location in a pack, or the bytes of the chunk."""


@dataclass(frozen=True)
class EmbeddedReader(ChunkReader):
    """Reader of chunks by key.

    The store's own keys are the path of a Parquet file below the store's folder;
    ``(path, offset, length)`` of a chunk in a pack; or the number of a small chunk, which is
    looked up in SQLite, so that only a process on the store's machine may use it.
    """

    root: str
    """Folder of the store."""
    read_only: bool = False
    """Whether the store was opened to read only."""
    identity: str = ""
    """Identity of the store; a replacement has other chunks under the same numbers."""

    def read(self, key: Any, columns: Sequence[str] | None = None) -> pa.Table:
        try:
            return super().read(key, columns)
        except StoreDamaged as error:
            if not isinstance(key, bytes):
                raise
            # The bytes come from SQLite, at the latest when the plan was made.
            path = str(Path(self.root, FILE_NAME))
            if key == LOST:
                raise StoreDamaged(f"{path} lacks the bytes of the chunk") from None
            raise damaged(path, error) from (error.__cause__ or error)

    def read_stored(self, key: Any, columns: Sequence[str] | None) -> pa.Table:
        if isinstance(key, str):
            return self._read_file(key, columns)
        if isinstance(key, tuple):
            path, offset, length = key
            return self._read_packed(path, offset, length, columns)
        return self.read(self._look_up([key])[0], columns)

    def read_many(
        self, keys: Sequence[Any], columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """See :meth:`daskbroker.core.chunks.ChunkReader.read_many`; one query for all numbers."""
        return super().read_many(self._located(keys), columns)

    def _located(self, keys: Sequence[Any]) -> Sequence[Any]:
        """Replace each key that is a number by the location or the bytes of its chunk."""
        numbers = [key for key in keys if isinstance(key, int)]
        if not numbers:
            return keys
        found = dict(zip(numbers, self._look_up(numbers), strict=True))
        return [found[key] if isinstance(key, int) else key for key in keys]

    def _read_file(self, key: str, columns: Sequence[str] | None) -> pa.Table:
        path = Path(self.root, key)
        try:
            return read_file(path, columns, _rows_in(key))
        except OSError as error:
            raise self._unreadable(path, error) from None

    def _read_packed(
        self, key: str, offset: int, length: int, columns: Sequence[str] | None
    ) -> pa.Table:
        path = os.path.join(self.root, key)  # a Path for each of many small chunks takes longer
        try:
            body = _bytes_at(path, offset, length)
        except OSError as error:
            raise self._unreadable(path, error) from None
        try:
            return from_ipc(body, columns)
        except StoreDamaged as error:
            raise StoreDamaged(f"{path}, from byte {offset:,}: {error}") from None

    def _unreadable(self, path: str | Path, error: OSError) -> StoreError:
        if is_of_process(error):
            return process_error(error, path)
        if not isinstance(error, FileNotFoundError):
            return StoreDamaged(f"{path} cannot be read{seen_from()}: {error}")
        if Database.is_other(self.root, read_only=self.read_only, identity=self.identity):
            return self._replaced()
        if Path(self.root).is_dir():
            return StoreDamaged(f"{path} is missing{seen_from()}")
        return StoreNotFound(
            f"the store's folder {self.root} does not exist{seen_from()}; workers read the store's "
            "files themselves, so they must all see it under the same path"
        )

    def _replaced(self) -> StoreError:
        return StoreError(
            f"the store at {self.root} was replaced by another one; open it again, and make the "
            "table or dataset again"
        )

    def _look_up(self, numbers: Sequence[int]) -> list[Stored]:
        database = self._database
        if database.identity != self.identity:
            raise self._replaced()
        with database.read() as connection:
            return stored_keys(connection, numbers)

    @property
    def _database(self) -> Database:
        return Database.reading(self.root, read_only=self.read_only)

    def portable_keys(self, keys: Sequence[Any]) -> Sequence[Any]:
        """Replace the numbers of small chunks by their location in a pack or their bytes.

        Workers never open the SQLite file, which is not safe over network file systems. Small
        chunks are packed first if there are many in SQLite, so that few bytes travel.
        """
        if not self.read_only and any(isinstance(key, int) for key in keys):
            # If there is no room, or the store cannot be written, the bytes travel.
            with suppress(StoreError):
                pack_small_chunks(self._database, TRAVELLING_BYTES)
        return self._located(keys)


def _rows_in(key: str) -> int | None:
    """Return the number of rows that the name of a chunk's file states, or None."""
    rows = key.removesuffix(".parquet").rpartition("-")[2]
    return int(rows) if rows.isdecimal() else None


def _bytes_at(path: str, offset: int, length: int) -> bytes:
    """Read a part of a file; shorter than ``length`` if the file ends before."""
    handle = os.open(path, os.O_RDONLY)
    try:
        # pread allocates what it is asked for, which may be a damaged number.
        most = max(0, os.fstat(handle).st_size - offset)
        return os.pread(handle, min(length, most), offset)
    finally:
        os.close(handle)


def stored_keys(connection: sqlite3.Connection, numbers: Sequence[int]) -> list[Stored]:
    """Return the paths, locations in packs, or bytes of chunks by number, in the given order.

    A chunk that the store lacks is :data:`LOST`, so that the error comes when it is read, and not
    with the others.
    """
    found: dict[int, Stored] = {}
    for some in batched(numbers, 500):
        rows = connection.execute(
            "SELECT chunk.id, path, offset, length, body FROM chunk LEFT JOIN chunk_body "
            f"ON chunk_body.id = chunk.id WHERE chunk.id IN ({','.join('?' * len(some))})",
            some,
        )
        for number, path, offset, length, body in rows:
            if path is not None:
                found[number] = path if offset is None else (path, offset, length)
            elif isinstance(body, bytes):  # a number would be taken for that of another chunk
                found[number] = body
    return [LOST if (key := found.get(number)) is None else key for number in numbers]
