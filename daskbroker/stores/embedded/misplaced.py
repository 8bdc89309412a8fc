"""Moving rows of the journal that are at positions of sealed chunks.

An earlier version could store such rows in a process that was forked while a run was written.
They are in no chunk, and no data are lost: they get new positions, after all others.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator

import numpy as np

from ...core.chunks import from_ipc
from ...core.documents import unpack
from ...core.layouts import cells
from .row_sequences import POSITIONS, RowSequence
from .uid_keys import uid_keys

__all__ = ["move_misplaced"]

logger = logging.getLogger(__name__)


def move_misplaced(connection: sqlite3.Connection, sequence: RowSequence, sealed: int) -> None:
    """Give the rows of a sequence before ``sealed`` new positions, from ``sequence.next`` on."""
    moved = 0
    for position, rows, body in list(_rows_before(connection, sequence, sealed)):
        new = sequence.number * POSITIONS + sequence.next
        connection.execute("UPDATE journal SET id = ? WHERE id = ?", (new, position))
        old = position - sequence.number * POSITIONS
        uids = [unpack(body)[sequence.layout.uid]] if rows is None else _page_uids(sequence, body)
        keys = uid_keys(uids, sequence.layout.kind, sequence.run_number)
        _note_moved(connection, sequence, keys, old)
        sequence.next += rows or 1
        moved += rows or 1
    stream = sequence.metadata.get("stream", sequence.layout.kind)
    logger.warning(
        "run %r, stream %r: moved %d rows of the journal to the end of the stream. An earlier "
        "version of daskbroker had stored them, in a forked process, at positions of sealed "
        "chunks. No row is lost, and nothing needs to be done",
        sequence.run, stream, moved,
    )  # fmt: skip


def _rows_before(
    connection: sqlite3.Connection, sequence: RowSequence, sealed: int
) -> Iterator[tuple[int, int | None, bytes]]:
    low = sequence.number * POSITIONS
    query = "SELECT id, rows, body FROM journal WHERE id >= ? AND id < ? ORDER BY id"
    return connection.execute(query, (low, low + sealed))


def _page_uids(sequence: RowSequence, body: bytes) -> list[str]:
    return list(cells(from_ipc(body, [sequence.layout.uid]), sequence.layout.uid))


def _note_moved(
    connection: sqlite3.Connection, sequence: RowSequence, keys: np.ndarray, old: int
) -> None:
    """Update the positions in ``document_key``; the uids of a page may not be in it yet."""
    connection.executemany(
        "UPDATE document_key SET position = ? WHERE hash = ? AND sequence = ? AND position = ?",
        [
            (sequence.next + position, key, sequence.number, old + position)
            for position, key in enumerate(keys.tolist())
        ],
    )
