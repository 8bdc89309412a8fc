"""Moving rows of the journal that are at positions of sealed chunks.

An earlier version could store such rows in a process that was forked while a run was written.
They are in no chunk, and no data are lost: they get new positions, after all others.
"""

from __future__ import annotations

import logging
import sqlite3

import numpy as np

from ...core.chunks import from_ipc
from ...core.documents import unpack
from ...core.layouts import cells
from .row_sequences import POSITIONS, RowSequence
from .uid_keys import uid_keys

logger = logging.getLogger(__name__)


def move_misplaced(connection: sqlite3.Connection, sequence: RowSequence, sealed: int) -> None:
    """Give the rows of a sequence before ``sealed`` new positions, from ``sequence.next`` on."""
    moved, low, column = 0, sequence.number * POSITIONS, sequence.layout.uid
    query = "SELECT id, rows, body FROM journal WHERE id >= ? AND id < ? ORDER BY id"
    for position, rows, body in connection.execute(query, (low, low + sealed)).fetchall():
        new = low + sequence.next
        connection.execute("UPDATE journal SET id = ? WHERE id = ?", (new, position))
        is_page = rows is not None
        uids = list(cells(from_ipc(body, [column]), column)) if is_page else [unpack(body)[column]]
        keys = uid_keys(uids, sequence.layout.kind, sequence.run_number)
        _note_moved(connection, sequence, keys, position - low)
        sequence.next += rows or 1
        moved += rows or 1
    stream = sequence.metadata.get("stream", sequence.layout.kind)
    logger.warning(
        "run %r, stream %r: moved %d rows of the journal to the end of the stream. An earlier "
        "version of daskbroker had stored them, in a forked process, at positions of sealed "
        "chunks. No row is lost, and nothing needs to be done",
        sequence.run, stream, moved,
    )  # fmt: skip


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
