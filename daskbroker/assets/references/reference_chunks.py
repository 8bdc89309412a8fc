"""Chunks of references, read once per process and kept as columns rather than as documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...core.chunks import ChunkReader
from ...core.column_kinds import MISSING, field_kind
from ...core.documents import Document
from ...core.layouts import DATUM, Layout, as_one_chunk, cells, decode_rows
from ...core.row_selection import take_rows
from ..handlers.contract import Datums

MAX_CACHED = 64
"""Maximum number of chunks of references that stay in memory, as stored and as datums each."""
MOST_ONE_BY_ONE = 8
"""Maximum number of texts that are searched one by one; to hash the known ones takes as long as 16
searches."""


@lru_cache(MAX_CACHED)
def reference_table(store: str, reader: ChunkReader, key: Any) -> pa.Table:
    """Read one chunk of references with all columns."""
    return reader.read(key)


class KnownTexts:
    """Texts of a column, in which others are searched again and again.

    The datums of a thousand keys may be in one chunk, which is searched for each key. So hashes of
    the known texts are kept.

    Parameters
    ----------
    texts
        The known texts, without nulls.
    """

    def __init__(self, texts: pa.Array) -> None:
        self.texts = texts
        self._asked = 0

    @cached_property
    def _hashes(self) -> tuple[np.ndarray, np.ndarray]:
        """Sorted hashes of the texts, and the position of each."""
        hashes = _hashes(self.texts)
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order

    def positions(self, asked: pa.Array) -> np.ndarray:
        """Return the first position of each text, as int64; -1 if it is not there."""
        self._asked += len(asked)
        if self._asked <= MOST_ONE_BY_ONE:
            return np.array([pc.index(self.texts, text).as_py() for text in asked], np.int64)
        if 4 * len(asked) < len(self.texts):
            hashes, order = self._hashes
            places = np.searchsorted(hashes, wanted := _hashes(asked))
            found = np.where(
                hashes.take(places, mode="clip") == wanted, order.take(places, mode="clip"), -1
            )
            there = np.flatnonzero(found >= 0)
            if self.texts.take(found[there]).to_pylist() == asked.take(there).to_pylist():
                return found
        return pc.index_in(asked, value_set=self.texts).fill_null(-1).to_numpy()


def _hashes(texts: pa.Array) -> np.ndarray:
    return np.fromiter(map(hash, texts.to_pylist()), np.int64, len(texts))


@lru_cache(MAX_CACHED)
def _known_uids(store: str, reader: ChunkReader, key: Any, name: str) -> KnownTexts:
    return KnownTexts(as_one_chunk(reference_table(store, reader, key).column(name)))


def documents(
    store: str,
    reader: ChunkReader,
    keys: Sequence[Any],
    layout: Layout,
    uids: Sequence[str] | None = None,
) -> dict[str, Document]:
    """Return resources or stream_resources by uid: all, or those of ``uids`` that exist."""
    found: dict[str, Document] = {}
    for key in keys:
        table = reference_table(store, reader, key)
        if uids is not None:
            known = _known_uids(store, reader, key, layout.uid)
            hits = known.positions(pa.array(uids, known.texts.type))
            table = take_rows(table, hits[hits >= 0])
        found.update((doc["uid"], doc) for doc in decode_rows(layout, table, ""))
    return found


@dataclass(frozen=True)
class DatumChunk:
    """Datums of one chunk, stored by columns.

    Attributes
    ----------
    uids
        Datum_id of each datum.
    owners
        Distinct uids of resources.
    groups
        Number of each datum's group; datums of a group have one resource and the same keywords.
    group_owner
        Place in ``owners`` of each group's resource.
    columns
        Values of all datums for each keyword, an array or a list.
    keywords
        Names of each group's keywords.
    """

    uids: KnownTexts
    owners: list[str]
    groups: np.ndarray
    group_owner: list[int]
    columns: Mapping[str, Any]
    keywords: list[list[str]]

    def datums(self, rows: np.ndarray, group: int) -> Datums:
        """Return the datums of some rows, which must be of one group."""
        taken: dict[str, Any] = {}
        for name in self.keywords[group]:
            column = self.columns[name]
            is_array = isinstance(column, np.ndarray)
            taken[name] = column[rows] if is_array else [column[row] for row in rows]
        return Datums(taken, len(rows))

    def highest(self, name: str) -> dict[str, int]:
        """Return the highest integer of a keyword among the datums of each resource, by uid."""
        column = self.columns.get(name)
        if column is None:
            return {}
        if isinstance(column, np.ndarray):
            positions = column.astype(np.int64)
        else:
            positions = np.array([v if isinstance(v, int) else -1 for v in column], np.int64)
        last = np.full(len(self.owners), -1, np.int64)
        np.maximum.at(last, np.array(self.group_owner)[self.groups], positions)
        return {owner: n for owner, n in zip(self.owners, last.tolist()) if n >= 0}


@lru_cache(MAX_CACHED)
def datum_chunk(store: str, reader: ChunkReader, key: Any) -> DatumChunk:
    """Read one chunk of datums; ``store`` distinguishes chunks of equal keys in the cache."""
    table = reader.read(key)
    prefix = DATUM.mappings[0][1]
    names = [name for name in table.column_names if name.startswith(prefix)]
    columns = {name.removeprefix(prefix): _values(table, name) for name in names}
    owners = as_one_chunk(table.column(DATUM.owner)).dictionary_encode()
    codes = owners.indices.to_numpy().astype(np.int64)
    lacking = {name: _lacking(column) for name, column in columns.items()}
    parts = [codes, *(mask for mask in lacking.values() if mask is not None)]
    kinds, groups = np.unique(np.stack(parts, axis=1), axis=0, return_inverse=True)
    first = np.unique(groups, return_index=True)[1].tolist()
    keywords = [
        [name for name, mask in lacking.items() if mask is None or not mask[row]] for row in first
    ]
    return DatumChunk(
        uids=KnownTexts(as_one_chunk(table.column(DATUM.uid))),
        owners=owners.dictionary.to_pylist(),
        groups=groups.reshape(-1),
        group_owner=kinds[:, 0].tolist(),
        columns=columns,
        keywords=keywords,
    )


def _values(table: pa.Table, name: str) -> Any:
    """Return a column as an array if that loses nothing, else as a list."""
    kind, _ = field_kind(table.schema.field(name))
    if kind.name in ("int", "long", "uint", "float", "bool") and not kind.nulls:
        return as_one_chunk(table.column(name)).to_numpy(zero_copy_only=False)
    return cells(table, name)


def _lacking(column: Any) -> np.ndarray | None:
    """Return which datums lack the keyword, as an int64 mask; None if none does."""
    if isinstance(column, np.ndarray):
        return None
    mask = np.fromiter((value is MISSING for value in column), np.int64, len(column))
    return mask if mask.any() else None
