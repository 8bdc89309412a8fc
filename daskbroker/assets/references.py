"""References of a run: from datum_ids, or from seq_nums, to resources and what to read of them.

A :class:`References` is pure data, which chunks hold the references of a run, and goes with
every task that fills. The chunks are read where the task runs, once in a process, and looked up
with Arrow and NumPy: a million datum documents never become as many Python objects.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.chunks import (
    DATUM,
    REFERENCES,
    RESOURCE,
    STREAM_DATUM,
    STREAM_RESOURCE,
    ChunkPlan,
    ChunkReader,
    Layout,
    cells,
    decode_rows,
    whole,
)
from ..core.codec import MISSING, field_kind
from ..core.documents import Document
from .handlers.base import Datums

__all__ = ["Found", "ReferenceMissing", "References"]

KEPT_CHUNKS = 64
"""So many decoded chunks of references stay in memory in each process."""
KEPT_TABLES = 64
"""So many tables of stream_datum, each of one descriptor and key, stay in memory."""


class ReferenceMissing(LookupError):
    """A reference leads nowhere; the message says which."""


class Found(NamedTuple):
    """Where some cells are: in one resource.

    Attributes
    ----------
    resource
        The resource or stream_resource document.
    datums
        What to read of it, one a cell.
    places
        Which of the cells asked for these are.
    stream
        Whether it is a stream_resource.
    """

    resource: Document
    datums: Datums
    places: np.ndarray
    stream: bool


@dataclass(frozen=True, eq=False)
class References:
    """Where the references of one run are stored.

    Attributes
    ----------
    run
        Its uid.
    store
        Identity of the store.
    reader
        Reads its chunks.
    keys
        Chunk keys of each kind, in the order in which the references came.
    """

    run: str
    store: str
    reader: ChunkReader
    keys: Mapping[str, tuple[Any, ...]]

    @classmethod
    def of(cls, run: str, plans: Mapping[str, ChunkPlan]) -> References:
        """From the plans of the four kinds of references."""
        first = next(iter(plans.values()))
        keys = {kind: plan.keys for kind, plan in plans.items() if len(plan)}
        return cls(run, first.store, first.reader, keys)

    def __reduce__(self) -> tuple[Any, ...]:
        return (References, (self.run, self.store, self.reader, self._portable))

    @cached_property
    def _portable(self) -> dict[str, tuple[Any, ...]]:
        return {kind: tuple(self.reader.portable(keys)) for kind, keys in self.keys.items()}

    @cached_property
    def token(self) -> str:
        """Changes when references are added."""
        digest = hashlib.blake2b(f"{self.store}\0{self.run}".encode("utf8", "replace"))
        digest.update(repr(sorted(self.keys.items())).encode("utf8", "replace"))
        return digest.hexdigest()[:32]

    # -- datums ------------------------------------------------------------------------------

    def find(self, datum_ids: pa.Array, near: float = 0.0) -> Iterator[Found]:
        """The resources of some datums, and what the datums say.

        Parameters
        ----------
        datum_ids
            Text, no nulls.
        near
            Where in the run they are thought to be, from 0 to 1; chunks there are looked at
            first, all others after them.

        Raises
        ------
        ReferenceMissing
            Naming the first datum_id, or resource, that the run does not have.
        """
        places = np.arange(len(datum_ids))
        for key in self._from(near):
            if not len(places):
                return
            chunk = _datum_chunk(self.store, self.reader, key)
            asked = datum_ids if len(places) == len(datum_ids) else datum_ids.take(places)
            hits = pc.index_in(asked, value_set=chunk.uids).fill_null(-1).to_numpy()
            there = hits >= 0
            if there.any():
                yield from self._by_resource(chunk, hits[there], places[there])
            places = places[~there]
        if len(places):
            raise ReferenceMissing(
                f"the datum {datum_ids[int(places[0])].as_py()!r} is not stored with this run"
            )

    def _from(self, near: float) -> list[Any]:
        keys = self.keys.get(DATUM.kind, ())
        center = near * len(keys) - 0.5
        return [keys[n] for n in sorted(range(len(keys)), key=lambda n: abs(n - center))]

    def _by_resource(
        self, chunk: _DatumChunk, rows: np.ndarray, places: np.ndarray
    ) -> Iterator[Found]:
        groups = chunk.groups[rows]
        wanted = np.unique(groups).tolist()
        owners = [chunk.owners[chunk.group_owner[group]] for group in wanted]
        documents = self.documents(RESOURCE, owners)
        for group, owner in zip(wanted, owners, strict=True):
            chosen = slice(None) if len(wanted) == 1 else groups == group
            if owner not in documents:
                raise ReferenceMissing(f"the resource {owner!r} is not stored with this run")
            datums = chunk.datums(rows[chosen], group)
            yield Found(documents[owner], datums, places[chosen], False)

    def documents(self, layout: Layout, uids: Sequence[str] | None = None) -> dict[str, Document]:
        """Resources or stream_resources by uid: those asked for that there are, or all."""
        found: dict[str, Document] = {}
        for key in self.keys.get(layout.kind, ()):
            table = _table(self.store, self.reader, key)
            if uids is not None:
                known = whole(table.column(layout.uid))
                hits = pc.index_in(pa.array(uids, known.type), value_set=known).drop_null()
                table = table.take(hits)
            found.update((doc["uid"], doc) for doc in decode_rows(layout, table, self.run))
        return found

    # -- frames of streams -------------------------------------------------------------------

    def find_frames(self, descriptor: str, key: str, seq_nums: np.ndarray) -> Iterator[Found]:
        """The stream_resources that hold the frames of some events, and their indices there.

        Parameters
        ----------
        descriptor
            Uid.
        key
            Data key.
        seq_nums
            Of the events.

        Raises
        ------
        ReferenceMissing
            Naming the first event of which no stream_datum tells.
        """
        table = _frame_table(self, descriptor, key)
        numbers, indices = table.find(seq_nums)
        if (numbers < 0).any():
            raise ReferenceMissing(
                f"no stream_datum of this run tells of event {int(seq_nums[numbers < 0][0])}"
            )
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number)
            datums = Datums({"index": indices[places]}, len(places))
            yield Found(table.resources[number], datums, places, True)

    def stream_resources(self, key: str) -> list[Document]:
        """Those of a data key, in the order in which they came."""
        documents = self.documents(STREAM_RESOURCE).values()
        return [doc for doc in documents if doc.get("data_key") == key]

    def specs(self) -> set[str]:
        """Specs and mimetypes that occur in the run, to choose handlers by."""
        documents = (doc for layout in (RESOURCE, STREAM_RESOURCE) for doc in self._all(layout))
        return {str(doc[name]) for doc in documents for name in ("spec", "mimetype") if name in doc}

    def _all(self, layout: Layout) -> Iterator[Document]:
        yield from self.documents(layout).values()


def reference_plans(source: Any, run: str) -> References:
    """The references of a run in an event source; no payload is read."""
    return References.of(run, {x.kind: source.plan_references(x, run) for x in REFERENCES})


# -- chunks in memory ------------------------------------------------------------------------


@lru_cache(KEPT_CHUNKS)
def _table(store: str, reader: ChunkReader, key: Any) -> pa.Table:
    return reader.read(key)


@dataclass(frozen=True)
class _DatumChunk:
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


@lru_cache(KEPT_CHUNKS)
def _datum_chunk(store: str, reader: ChunkReader, key: Any) -> _DatumChunk:
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
    return _DatumChunk(
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


# -- stream_datum as intervals ---------------------------------------------------------------


@dataclass(frozen=True)
class _FrameTable:
    """Which frames belong to which events, for one descriptor and key.

    Attributes
    ----------
    starts, stops
        Half-open intervals of seq_num, in order, none overlapping another.
    indices
        Index, in its resource, of the first frame of each.
    numbers
        Place of its resource in ``resources``.
    resources
        The stream_resources.
    """

    starts: np.ndarray
    stops: np.ndarray
    indices: np.ndarray
    numbers: np.ndarray
    resources: Sequence[Document]

    def find(self, seq_nums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number of the resource (-1: none) and index in it, of each event."""
        if not len(self.starts):
            return np.full(len(seq_nums), -1), np.zeros(len(seq_nums), np.int64)
        place = np.searchsorted(self.starts, seq_nums, side="right") - 1
        inside = (place >= 0) & (seq_nums < self.stops[place])
        numbers = np.where(inside, self.numbers[place], -1)
        return numbers, self.indices[place] + (seq_nums - self.starts[place])


def _frame_table(references: References, descriptor: str, key: str) -> _FrameTable:
    kinds = (STREAM_RESOURCE.kind, STREAM_DATUM.kind)
    resources, datums = (references.keys.get(kind, ()) for kind in kinds)
    where = references.store, references.run, references.reader
    return _read_frame_table(*where, resources, datums, descriptor, key)


@lru_cache(KEPT_TABLES)
def _read_frame_table(
    store: str,
    run: str,
    reader: ChunkReader,
    resource_keys: tuple[Any, ...],
    datum_keys: tuple[Any, ...],
    descriptor: str,
    key: str,
) -> _FrameTable:
    keys = {STREAM_RESOURCE.kind: resource_keys, STREAM_DATUM.kind: datum_keys}
    resources = References(run, store, reader, keys).stream_resources(key)
    rows = _stream_datums(store, reader, datum_keys, [doc["uid"] for doc in resources])
    start, first, first_stop = rows["seq"], rows["index"], rows["index_stop"]
    shift = _shifts(resources, rows["number"], first, first_stop)
    own = (rows["descriptor"] == descriptor) & (rows["seq_stop"] > start)
    uneven = own & (rows["seq_stop"] - start != first_stop - first)
    if uneven.any():
        row = int(np.flatnonzero(uneven)[0])
        raise ReferenceMissing(
            f"a stream_datum gives {int(first_stop[row] - first[row])} indices to "
            f"{int(rows['seq_stop'][row] - start[row])} events, from seq_num {int(start[row])} on"
        )
    numbers = rows["number"][own]
    indices = first[own] - shift[numbers]
    return _FrameTable(*_latest(start[own], rows["seq_stop"][own], indices, numbers), resources)


def _stream_datums(
    store: str, reader: ChunkReader, keys: Sequence[Any], resources: list[str]
) -> dict[str, np.ndarray]:
    """The stream_datums of some resources, of all descriptors, in the order they came."""
    tables = [_table(store, reader, key) for key in keys]
    numbers = [
        pc.index_in(whole(table.column(STREAM_DATUM.owner)), value_set=pa.array(resources, "str"))
        .fill_null(-1)
        .to_numpy()
        for table in tables
    ]
    names = {
        "seq": "seq_nums:start", "seq_stop": "seq_nums:stop",
        "index": "indices:start", "index_stop": "indices:stop",
    }  # fmt: skip
    parts = {
        name: [t.column(column).to_numpy().astype(np.int64) for t in tables]
        for name, column in names.items()
    }
    parts["descriptor"] = [np.array(t.column("descriptor").to_pylist(), object) for t in tables]
    parts["number"] = numbers
    if not tables:
        return {name: np.zeros(0, object if name == "descriptor" else np.int64) for name in parts}
    ours = np.concatenate(numbers) >= 0
    return {name: np.concatenate(arrays)[ours] for name, arrays in parts.items()}


def _shifts(
    resources: Sequence[Document], numbers: np.ndarray, first: np.ndarray, stop: np.ndarray
) -> np.ndarray:
    """What to take off the indices of each resource to have places in its own file.

    Nothing, unless indices go on from one file to the next: where a resource begins at the
    index at which the one before it, another file, has ended.
    """
    shift = np.zeros(len(resources), np.int64)
    end, place = 0, None
    for number, resource in enumerate(resources):
        own = numbers == number
        if not own.any():
            continue
        begin = int(first[own].min())
        here = resource.get("uri"), resource.get("root"), resource.get("resource_path")
        if place is not None and here != place and 0 < begin == end:
            shift[number] = begin
        end, place = int(stop[own].max()), here
    return shift


def _latest(
    start: np.ndarray, stop: np.ndarray, index: np.ndarray, number: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Intervals in order; where some overlap (a scan was rewound), the latest counts."""
    order = np.argsort(start, kind="stable")
    if (start[order][1:] >= stop[order][:-1]).all():
        return start[order], stop[order], index[order], number[order]
    borders = np.unique(np.concatenate([start, stop]))
    owner = np.full(len(borders) - 1, -1)
    begins, ends = np.searchsorted(borders, start), np.searchsorted(borders, stop)
    for row, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
        owner[begin:end] = row
    held = owner >= 0
    owner, begins = owner[held], borders[:-1][held]
    return begins, borders[1:][held], index[owner] + (begins - start[owner]), number[owner]
