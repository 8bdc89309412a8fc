"""Chunks: runs of consecutive documents of one sequence, stored column by column.

A :class:`ChunkPlan` lists chunks without holding their data: it is made on the client, without
reading a payload, and its :class:`ChunkReader` reads any chunk anywhere, all of it or only some
columns. How documents lie in columns is told by :mod:`daskbroker.core.layouts`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from .bad_runs import BadRun
from .checksum import seal_bytes, sound_bytes
from .codec import Kind, encode, field_kind
from .documents import Document
from .errors import StoreDamaged
from .layouts import EVENT, Layout, assemble

__all__ = [
    "Chunk",
    "ChunkPlan",
    "ChunkReader",
    "Statistics",
    "chunk_label",
    "column_kinds",
    "damage_of",
    "damaged",
    "from_ipc",
    "place_identity",
    "present",
    "ranges_table",
    "statistics",
    "to_ipc",
]


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a plan knows of a chunk of events.

    Attributes
    ----------
    rows, bytes
        Number of documents; size in memory.
    seq_min, seq_max, time_min, time_max
        Extent of ``seq_num`` and ``time`` (POSIX seconds).
    distinct
        Number of different ``seq_num``; fewer than rows where a scan was rewound.
    ordered
        ``seq_num`` increases strictly from row to row.
    """

    rows: int
    bytes: int
    seq_min: int = 0
    seq_max: int = -1
    time_min: float = float("nan")
    time_max: float = float("nan")
    distinct: int = 0
    ordered: bool = True


def statistics(layout: Layout, table: pa.Table) -> Statistics:
    """Measure a chunk; the extents are for events only."""
    rows, nbytes = table.num_rows, table.nbytes
    if layout is not EVENT or rows == 0:
        return Statistics(rows, nbytes)
    seq = table.column("seq_num").to_numpy()
    time = table.column("time").to_numpy()
    ordered = bool((seq[1:] > seq[:-1]).all())
    distinct = rows if ordered else len(np.unique(seq))
    low, high = int(seq.min()), int(seq.max())
    return Statistics(
        rows, nbytes, low, high, float(time.min()), float(time.max()), distinct, ordered
    )


def column_kinds(table: pa.Table) -> dict[str, Kind]:
    """Kind of each column of a chunk, for the manifest."""
    return {arrow_field.name: field_kind(arrow_field)[0] for arrow_field in table.schema}


def place_identity(store: str, *place: str) -> str:
    """Identity of a store at a place, for tokens and caches.

    Parameters
    ----------
    store
        The store's own identity, which a copy of it has too.
    place
        What tells its place from all others.
    """
    return hashlib.blake2b(
        "\0".join([store, *place]).encode("utf8", "surrogateescape"), digest_size=16
    ).hexdigest()


# -- plans -----------------------------------------------------------------------------------

SMALL_BYTES = 2**16

CHUNK_RECORD = np.dtype(
    [
        ("descriptor", "i4"),
        ("schema", "i4"),
        ("first", "i8"),
        ("rows", "i8"),
        ("bytes", "i8"),
        ("seq_min", "i8"),
        ("seq_max", "i8"),
        ("time_min", "f8"),
        ("time_max", "f8"),
        ("distinct", "i8"),
        ("ordered", "?"),
    ]
)


TOKEN_PARTS = (
    "descriptor", "first", "rows", "bytes", "seq_min", "seq_max", "time_min", "time_max",
)  # fmt: skip
"""Fields of a record by which the content of chunks is told apart."""


class ChunkReader(ABC):
    """Reads chunks by key: without state, picklable, safe from any thread or process.

    Keys that every store has are the Arrow bytes of a small chunk that travels with its plan,
    and a ``range`` of seq_num of which only stream_datum tell; all others are the store's own.
    """

    def read(self, key: Any, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one chunk.

        Parameters
        ----------
        key
            From a plan of the same store.
        columns
            Physical names, in the wanted order; those that the chunk lacks are left out.
            None: all.

        Raises
        ------
        StoreDamaged
            Naming the file, where it is missing or not what it should be.
        """
        if isinstance(key, bytes):
            return from_ipc(key, columns)
        if isinstance(key, range):
            table = ranges_table(key)
            return table if columns is None else table.select(present(table.schema, columns))
        return self.read_stored(key, columns)

    def read_many(
        self, keys: Sequence[Any], columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """Read chunks one after the other; a store that can fetch several at once overrides it.

        An error is that of the next chunk to be given, so that the caller knows which it is.
        """
        return (self.read(key, columns) for key in keys)

    def read_labelled(
        self, keys: Sequence[Any], labels: Sequence[str], columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """Read chunks as :meth:`read_many`; an error names the chunk by its label.

        Parameters
        ----------
        keys, columns
            See :meth:`read_many`.
        labels
            One a key, see :meth:`ChunkPlan.label`.
        """
        coming = self.read_many(keys, columns)
        for label in labels:
            with damage_of(label):
                table = next(coming)
            yield table

    @abstractmethod
    def read_stored(self, key: Any, columns: Sequence[str] | None) -> pa.Table:
        """Read a chunk by a key of the store's own; see :meth:`read`."""

    def portable(self, keys: Sequence[Any]) -> Sequence[Any]:
        """The keys as another process can read them; a store with local ones overrides it."""
        return keys


@contextmanager
def damage_of(label: str) -> Iterator[None]:
    """Errors of damaged chunks that are read inside say whose they are."""
    try:
        yield
    except StoreDamaged as error:
        raise damaged(label, error) from (error.__cause__ or error)


def damaged(label: str, error: StoreDamaged) -> StoreDamaged:
    """The same error, which says first whose the damaged chunk is."""
    return StoreDamaged(f"{label}: {error}")


def chunk_label(descriptor: Mapping[str, Any]) -> str:
    """Whose the chunks of a descriptor are, for messages; of references, it has only the run."""
    run = f"run {descriptor['run_start']!r}"
    if "data_keys" not in descriptor:
        return f"references of {run}"
    return f"{run}, stream {str(descriptor.get('name') or 'primary')!r}"


def present(schema: pa.Schema, columns: Sequence[str]) -> list[str]:
    """Those of the asked columns that a chunk has, in the asked order."""
    names = set(schema.names)
    return [name for name in columns if name in names]


@dataclass(frozen=True, slots=True)
class Chunk:
    """One line of a :class:`ChunkPlan`: consecutive events of one descriptor."""

    key: Any
    descriptor: Document
    kinds: Mapping[str, Kind]
    first: int
    rows: int
    bytes: int
    seq_min: int
    seq_max: int
    time_min: float
    time_max: float


@dataclass(frozen=True, eq=False)
class ChunkPlan:
    """Which chunks there are, without their data.

    Attributes
    ----------
    reader
        Reads them.
    descriptors
        Every descriptor of the planned streams, also those without events.
    schemas
        The different sets of columns that occur, ``{physical name: Kind}``.
    records
        One record of :data:`CHUNK_RECORD` per chunk; ``descriptor`` and ``schema`` are
        places in the two tuples above.
    keys
        What the reader wants to know, one per chunk.
    store
        Identity of the store at its place (:func:`place_identity`), part of the token.
    bad
        By uid, the runs of which something was found that cannot be read; the plan has not all
        of them.
    """

    reader: ChunkReader
    descriptors: tuple[Document, ...]
    schemas: tuple[Mapping[str, Kind], ...]
    records: np.ndarray
    keys: tuple[Any, ...]
    store: str
    bad: Mapping[str, BadRun] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, place: int) -> Chunk:
        record = self.records[place]
        return Chunk(
            key=self.keys[place],
            descriptor=self.descriptors[record["descriptor"]],
            kinds=self.schemas[record["schema"]],
            **{
                name: record[name].item()
                for name in CHUNK_RECORD.names or ()
                if name not in ("descriptor", "schema", "distinct", "ordered")
            },
        )

    def __iter__(self) -> Iterator[Chunk]:
        return (self[place] for place in range(len(self)))

    @property
    def token(self) -> str:
        """Changes with the content, and only with it (or with how it is cut)."""
        digest = hashlib.blake2b(self.store.encode(), digest_size=16)
        for descriptor in self.descriptors:
            digest.update(descriptor["uid"].encode("utf8", "surrogatepass") + b"\0")
        for name in TOKEN_PARTS:
            digest.update(np.ascontiguousarray(self.records[name]).tobytes())
        return digest.hexdigest()

    @property
    def rows(self) -> int:
        """Number of events, rewound ones included."""
        return int(self.records["rows"].sum())

    def take(self, places: Sequence[int] | np.ndarray) -> ChunkPlan:
        """The plan of some of the chunks, in the given order."""
        chosen = np.asarray(places, dtype=np.intp)
        keys = tuple(self.keys[place] for place in chosen.tolist())
        return replace(self, records=self.records[chosen], keys=keys)

    def of_descriptors(self, places: Sequence[int]) -> ChunkPlan:
        """The plan of some of the descriptors, by their places, in the given order."""
        order = np.full(len(self.descriptors), -1, np.int64)
        order[list(places)] = np.arange(len(places))
        owners = order[self.records["descriptor"]]
        chosen = np.flatnonzero(owners >= 0)
        chosen = chosen[np.argsort(owners[chosen], kind="stable")]
        records = self.records[chosen]
        records["descriptor"] = owners[chosen]
        used, records["schema"] = np.unique(records["schema"], return_inverse=True)
        return replace(
            self,
            descriptors=tuple(self.descriptors[place] for place in places),
            schemas=tuple(self.schemas[number] for number in used.tolist()),
            records=records,
            keys=tuple(self.keys[place] for place in chosen.tolist()),
        )

    def by_run(self) -> dict[str, ChunkPlan]:
        """The plan of each run that has a descriptor, as :meth:`of_descriptors` would make it."""
        places: dict[str, list[int]] = {}
        for place, descriptor in enumerate(self.descriptors):
            places.setdefault(descriptor["run_start"], []).append(place)
        run = np.empty(len(self.descriptors), np.int64)
        within = np.empty(len(self.descriptors), np.int64)
        for number, some in enumerate(places.values()):
            run[some], within[some] = number, np.arange(len(some))
        owners = self.records["descriptor"]
        order = np.lexsort((within[owners], run[owners]))
        records = self.records[order]
        ends = np.cumsum(np.bincount(run[owners], minlength=len(places))).tolist()
        records["descriptor"] = within[records["descriptor"]]
        keys = [self.keys[place] for place in order.tolist()]
        plans = {}
        for uid, begin, end in zip(places, [0, *ends], ends):
            part, schemas = records[begin:end], self.schemas
            if len(schemas) > 1:
                used, numbers = np.unique(part["schema"], return_inverse=True)
                part["schema"] = numbers
                schemas = tuple(schemas[number] for number in used.tolist())
            own = tuple(self.descriptors[place] for place in places[uid])
            some_keys = tuple(keys[begin:end])
            plans[uid] = ChunkPlan(self.reader, own, schemas, part, some_keys, self.store)
        return plans

    def read(self, place: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one chunk, all of it or only some columns (physical names)."""
        try:  # not damage_of, as the label is wanted of few
            return self.reader.read(self.keys[place], columns)
        except StoreDamaged as error:
            raise damaged(self.label(place), error) from (error.__cause__ or error)

    def read_all(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Read all chunks one after the other, those together that the store can fetch so."""
        if not self.keys:
            return iter(())
        labels = [self.label(place) for place in range(len(self))]
        return self.reader.read_labelled(self.keys, labels, columns)

    def label(self, place: int) -> str:
        """Whose a chunk is, for messages."""
        return chunk_label(self.descriptors[self.records["descriptor"][place]])

    def __reduce__(self) -> tuple[Any, ...]:
        keys = tuple(self.reader.portable(self.keys))
        fields = (self.reader, self.descriptors, self.schemas, self.records, keys, self.store)
        return (ChunkPlan, (*fields, self.bad))


def ranges_table(numbers: range) -> pa.Table:
    """The chunk of events that only stream_datum tell of: ``seq_num`` known, time not."""
    seq = np.arange(numbers.start, numbers.stop, dtype=np.int64)
    columns = {"seq_num": encode(seq), "time": encode(np.full(len(seq), np.nan))}
    return assemble(columns, {})


def to_ipc(table: pa.Table, compression: str | None = None) -> bytes:
    """A chunk as Arrow file bytes with a checksum, its buffers compressed (``"lz4"``) or not."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return seal_bytes(sink.getvalue().to_pybytes())


def from_ipc(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the asked columns of :func:`to_ipc` bytes, in the asked order.

    Raises
    ------
    StoreDamaged
        If the bytes have changed since.
    """
    body = pa.py_buffer(sound_bytes(data, "a chunk"))
    reader = pa.ipc.open_file(body)
    if columns is None:
        return reader.read_all()
    names = present(reader.schema, columns)
    if len(data) > SMALL_BYTES:  # else to open it anew would take longer than to read it all
        places = sorted({reader.schema.get_field_index(name) for name in names})
        options = pa.ipc.IpcReadOptions(included_fields=places)
        reader = pa.ipc.open_file(body, options=options)
    return reader.read_all().select(names)
