"""Entries of a spool: the events of one insert each, how they are joined, and how they are sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa

from ...core.chunks import from_ipc, to_ipc
from ...core.documents import pack, unpack
from ...core.errors import BadDocument
from ...core.layouts import EVENT, decode_rows, encode_rows, join_tables


class Entry(NamedTuple):
    """Events of one insert: rows of a descriptor, or a page encoded as a table.

    Attributes
    ----------
    owner
        Uid of the descriptor.
    rows
        Events; empty if ``table`` is given.
    table
        Page of events, encoded as a chunk; or None.
    """

    owner: str
    rows: Sequence[Mapping[str, Any]]
    table: pa.Table | None

    def __len__(self) -> int:
        return len(self.rows) if self.table is None else int(self.table.num_rows)

    def to_bytes(self) -> bytes:
        """Encode the entry as the body of a record of the spool."""
        table = None if self.table is None else to_ipc(self.table)
        return pack([self.owner, list(self.rows), table])

    @classmethod
    def from_bytes(cls, body: bytes) -> Entry:
        """Decode an entry; the inverse of :meth:`to_bytes`."""
        owner, rows, table = unpack(body)
        return cls(owner, rows, None if table is None else from_ipc(table))


def joined_pages(entries: Sequence[Entry], metadata: Mapping[str, str]) -> pa.Table:
    """Join entries of one descriptor, in order, to one chunk with ``metadata`` in its schema."""
    tables: list[pa.Table] = []
    rows: list[Mapping[str, Any]] = []
    for entry in entries:
        # Rows before a table are encoded first, so that the events keep their order.
        if entry.table is not None and rows:
            tables.append(encode_rows(EVENT, rows, metadata))
            rows = []
        if entry.table is None:
            rows.extend(entry.rows)
        else:
            tables.append(entry.table)
    if rows:
        tables.append(encode_rows(EVENT, rows, metadata))
    return join_tables(EVENT, tables, metadata)


def rows_of_entries(entries: Sequence[Entry]) -> list[Mapping[str, Any]]:
    """Return the events of entries one by one; tables are decoded."""
    rows: list[Mapping[str, Any]] = []
    for entry in entries:
        table = entry.table
        rows += entry.rows if table is None else decode_rows(EVENT, table, entry.owner)
    return rows


# -- sending -----------------------------------------------------------------------------------


Send: TypeAlias = Callable[[Sequence[Entry]], None]
"""Function that stores entries of one descriptor, in order; to store the same entries again must
change nothing."""


def next_batch(entries: Iterable[Entry], most_rows: int) -> list[Entry]:
    """Return the first entries: those of one owner, at most ``most_rows`` rows of them."""
    batch: list[Entry] = []
    rows = 0
    for entry in entries:
        rows += len(entry)
        # A batch is of one descriptor, and its first entry is taken even if it alone is too large.
        if batch and (entry.owner != batch[0].owner or rows > most_rows):
            break
        batch.append(entry)
    return batch


def deliver(batch: Sequence[Entry], send: Send) -> list[BadDocument]:
    """Send entries of one owner; return the errors of events that the store has refused.

    If some are refused, events are sent one by one. A table is not split: it is refused whole if
    it comes alone.
    """
    try:
        send(batch)
        return []
    except BadDocument as error:
        # A single event is refused for itself; anything else is taken apart to find the bad one.
        if len(batch) == 1 and len(batch[0].rows) < 2:
            return [error]
    refused = []
    for entry in batch:
        single = entry.table is not None or len(entry.rows) < 2
        for part in [entry] if single else [entry._replace(rows=[row]) for row in entry.rows]:
            refused += deliver([part], send)
    return refused
