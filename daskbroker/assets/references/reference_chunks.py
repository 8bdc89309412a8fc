"""Chunks of references in memory: read once in a process, columns as arrays, never documents."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...core.chunks import ChunkReader
from ...core.codec import MISSING, field_kind
from ...core.documents import Document
from ...core.layouts import DATUM, Layout, cells, decode_rows, whole
from ..handlers.contract import Datums

__all__ = ["DatumChunk", "datum_chunk", "documents", "places_among", "reference_table"]

KEPT = 64
"""So many chunks of references stay in memory, as they are stored and as datums."""
FEW = 8
"""Up to so many texts are searched for one by one: a table of all known ones, which is made anew
each time, takes as long as 16 searches."""


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
            hits = places_among(pa.array(uids, known.type), known)
            table = table.take(hits[hits >= 0])
        found.update((doc["uid"], doc) for doc in decode_rows(layout, table, ""))
    return found


def places_among(asked: pa.Array, known: pa.Array) -> np.ndarray:
    """Place of each text among known ones, the first if there are several; -1 if there is none."""
    if len(asked) <= FEW:
        return np.array([pc.index(known, text).as_py() for text in asked], np.int64)
    return pc.index_in(asked, value_set=known).fill_null(-1).to_numpy()


@dataclass(frozen=True)
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

    def datums(self, rows: np.ndarray, group: int) -> Datums:
        """Some datums of one group."""
        taken = {
            name: column[rows] if isinstance(column, np.ndarray) else [column[r] for r in rows]
            for name in self.keywords[group]
            for column in (self.columns[name],)
        }
        return Datums(taken, len(rows))

    def highest(self, owners: Collection[str], name: str) -> int:
        """The highest whole number that datums of some resources have for a keyword, or -1."""
        wanted = [g for g, o in enumerate(self.group_owner) if self.owners[o] in owners]
        rows = np.flatnonzero(np.isin(self.groups, wanted))
        column = self.columns.get(name, ())
        if isinstance(column, np.ndarray):
            return int(column[rows].max()) if len(rows) else -1
        values = (column[row] for row in rows.tolist()) if len(column) else ()
        return max((value for value in values if isinstance(value, int)), default=-1)


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
