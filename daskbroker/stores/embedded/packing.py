"""Packs: files of many small chunks, so that thousands of tiny runs make few files.

A small chunk is first stored inside SQLite by the transaction that seals it. Once there are enough
of them, their Arrow bytes are written one after the other into a file, the pack, which workers
read by offset. As in sealing, the file is synced and renamed before the transaction that adds it
to the manifest and removes the bytes from SQLite.
"""

from __future__ import annotations

import sqlite3
import uuid
import zlib
from contextlib import suppress
from pathlib import Path

from ...core.durable_files import publish_file, sync_file
from ...core.errors import naming
from ...core.rounds import Rounds
from .database import CHUNK_FOLDER, Database

__all__ = [
    "CHUNK_FOLDER",
    "PACK_BYTES",
    "location_checksum",
    "pack_small_chunks",
    "size_of_small_chunks",
]

PACK_BYTES = 4 * 2**20
"""Maximum bytes of small chunks that stay in SQLite."""

LARGEST_PACK = 64 * 2**20
"""Maximum bytes of a pack."""


def pack_small_chunks(database: Database, allowed: int = 0) -> int:
    """Move small chunks from SQLite into packs if they have more than ``allowed`` bytes.

    Returns
    -------
    int
        Number of chunks moved.
    """
    moved = 0
    rounds = Rounds(f"packing small chunks in {database.root}")
    while True:
        with database.read() as connection:
            waiting = _waiting(connection, allowed)
        if not waiting:
            return moved
        rounds.check(waiting[0][0])
        path = _write(database, waiting)
        with database.write() as connection:
            moved += _note(connection, path.relative_to(database.root).as_posix(), waiting)


def location_checksum(path: str, offset: int, length: int) -> int:
    """Return what the location in a pack adds to the checksum of a chunk's row, if it has one."""
    return zlib.crc32(f"{path}:{offset}:{length}".encode())


def size_of_small_chunks(database: Database) -> int:
    """Return the bytes of the small chunks in SQLite; this looks at each of them."""
    with database.read() as connection:
        return _size(connection)


def _size(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT total(length(body)) FROM chunk_body").fetchone()
    return int(row[0])


def _waiting(connection: sqlite3.Connection, allowed: int) -> list[tuple[int, bytes]]:
    """Return key and bytes of the oldest small chunks, at most a pack; none if few wait."""
    total = _size(connection)
    if not total or total <= allowed:
        return []
    some: list[tuple[int, bytes]] = []
    size = 0
    for number, body in connection.execute("SELECT id, body FROM chunk_body ORDER BY id"):
        # A chunk that is larger than a pack is packed alone, or it would wait forever.
        if some and size + len(body) > LARGEST_PACK:
            break
        some.append((number, body))
        size += len(body)
    return some


def _write(database: Database, chunks: list[tuple[int, bytes]]) -> Path:
    folder = database.root / CHUNK_FOLDER
    name = f"pack-{uuid.uuid4().hex}.arrow"
    temporary = folder / f".{name}.part"
    with database.errors(), naming(temporary):
        database.check_in_place()
        database.folders.make(folder)
        try:
            with temporary.open("wb") as file:
                for _, body in chunks:
                    file.write(body)
                sync_file(file)
            publish_file(temporary, folder / name)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    return folder / name


def _note(connection: sqlite3.Connection, path: str, chunks: list[tuple[int, bytes]]) -> int:
    """Note the offsets of chunks in a pack, except for those that another process has moved."""
    moved, offset = 0, 0
    for number, body in chunks:
        place = path, offset, len(body)
        # If another process has moved a chunk, its body here is an unused part of the pack.
        done = connection.execute(
            "UPDATE chunk SET path = ?, offset = ?, length = ?, "
            "ordered = ordered + (ordered > 1) * ? WHERE id = ? AND path IS NULL",
            (*place, location_checksum(*place), number),
        )
        moved += done.rowcount
        offset += len(body)
        connection.execute("DELETE FROM chunk_body WHERE id = ?", (number,))
    return moved
