"""Chunks of references in memory: read once in a process, columns as arrays, never documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.chunks import ChunkReader
from ..core.codec import MISSING, field_kind
from ..core.documents import Document
from ..core.layouts import DATUM, Layout, cells, decode_rows, whole
from .handlers.base import Datums

__all__ = ["DatumChunk", "datum_chunk", "documents", "reference_table"]

KEPT = 64
"""So many chunks of references stay in memory, as they are stored and as datums."""


@lru_cache(KEPT)
def reference_table(store: str, reader: ChunkReader, key: Any) -> pa.Table:
    """One chunk of references, all columns."""
    return reader.read(key)


def documents(
    store: str,
    reader: ChunkReader,
    keys: Sequence[Any],
    layout: Layout,
    uids: Sequence[str] | None = None,
) -> dict[str, Document]:
    """Resources or stream_resources by uid: those asked for that there are, or all."""
    found: dict[str, Document] = {}
    for key in keys:
        table = reference_table(store, reader, key)
        if uids is not None:
            known = whole(table.column(layout.uid))
            hits = pc.index_in(pa.array(uids, known.type), value_set=known).drop_null()
            table = table.take(hits)
        found.update((doc["uid"], doc) for doc in decode_rows(layout, table, ""))
    return found


FEW = 16
"""So many datums are looked up one by one."""


@dataclass(frozen=True, eq=False)
class DatumChunk:
    """Datums of one chunk, column by column.

    Attributes
    ----------
    uids
        Their datum_ids.
    owners
        Different resource uids.
    groups
        Of each datum; those of one group have one resource and the same keywords.
    group_owner
        Place in ``owners`` of each group.
    columns
        Values of each keyword.
    keywords
        Of each group.
    """

    uids: pa.Array
    owners: list[str]
    groups: np.ndarray
    group_owner: list[int]
    columns: Mapping[str, Any]
    keywords: list[list[str]]

    def rows(self, uids: pa.Array) -> np.ndarray:
        """Where the datums of some uids are; -1 for those that are not here."""
        if len(uids) > FEW:
            return pc.index_in(uids, value_set=self.uids).fill_null(-1).to_numpy()
        return np.array([self._row(uid) for uid in uids.to_pylist()], np.int64)

    def _row(self, uid: str) -> int:
        hashes, rows = self._by_hash
        begin, end = np.searchsorted(hashes, hash(uid), "left"), len(hashes)
        while begin < end and hashes[begin] == hash(uid):
            if self.uids[rows[begin]].as_py() == uid:
                return int(rows[begin])
            begin += 1
        return -1

    @cached_property
    def _by_hash(self) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of the uids in order, and their rows: to look up few, no table of all is made."""
        hashes = np.fromiter(map(hash, self.uids.to_pylist()), np.int64, len(self.uids))
        rows = np.argsort(hashes, kind="stable")
        return hashes[rows], rows

    def datums(self, rows: np.ndarray, group: int) -> Datums:
        """Some datums of one group."""
        taken = {
            name: column[rows] if isinstance(column, np.ndarray) else [column[r] for r in rows]
            for name in self.keywords[group]
            for column in (self.columns[name],)
        }
        return Datums(taken, len(rows))


@lru_cache(KEPT)
def datum_chunk(store: str, reader: ChunkReader, key: Any) -> DatumChunk:
    """One chunk of datums; ``store`` tells chunks of one key apart."""
    table = reader.read(key)
    prefix = DATUM.mappings[0][1]
    names = [name for name in table.column_names if name.startswith(prefix)]
    columns = {name.removeprefix(prefix): _values(table, name) for name in names}
    owners = whole(table.column(DATUM.owner)).dictionary_encode()
    codes = owners.indices.to_numpy().astype(np.int64)
    lacking = {name: _lacking(column) for name, column in columns.items()}
    parts = [codes, *(mask for mask in lacking.values() if mask is not None)]
    kinds, groups = np.unique(np.stack(parts, axis=1), axis=0, return_inverse=True)
    first = np.unique(groups, return_index=True)[1].tolist()
    keywords = [
        [name for name, mask in lacking.items() if mask is None or not mask[row]] for row in first
    ]
    return DatumChunk(
        uids=whole(table.column(DATUM.uid)),
        owners=owners.dictionary.to_pylist(),
        groups=groups.reshape(-1),
        group_owner=kinds[:, 0].tolist(),
        columns=columns,
        keywords=keywords,
    )


def _values(table: pa.Table, name: str) -> Any:
    """A column as an array where that says all there is, else as a list."""
    kind, _ = field_kind(table.schema.field(name))
    if kind.name in ("int", "long", "uint", "float", "bool") and not kind.nulls:
        return whole(table.column(name)).to_numpy(zero_copy_only=False)
    return cells(table, name)


def _lacking(column: Any) -> np.ndarray | None:
    """Which datums do not have the keyword; None where all have it."""
    if isinstance(column, np.ndarray):
        return None
    mask = np.fromiter((value is MISSING for value in column), np.int64, len(column))
    return mask if mask.any() else None
