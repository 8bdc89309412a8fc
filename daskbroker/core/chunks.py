"""Chunks: runs of consecutive documents of one sequence, stored column by column.

A :class:`ChunkPlan` lists chunks without holding their data: it is made on the client, without
reading a payload, and its :class:`ChunkReader` reads any chunk anywhere, all of it or only some
columns. The arrangement of documents in columns is described by :mod:`daskbroker.core.layouts`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, get_type_hints

import numpy as np
import pyarrow as pa

from .bad_runs import BadRun
from .checksum import with_checksum, without_checksum
from .chunk_statistics import Statistics
from .codec import encode
from .column_kinds import ColumnKind, field_kind
from .digests import digest_of
from .documents import Document, stream_of
from .errors import StoreDamaged
from .layouts import assemble


def column_kinds(table: pa.Table) -> dict[str, ColumnKind]:
    """Return the kind of each column of a chunk, for the manifest."""
    return {arrow_field.name: field_kind(arrow_field)[0] for arrow_field in table.schema}


def place_identity(store: str, *place: str) -> str:
    """Return the identity of a store at a place, for tokens and caches.

    Parameters
    ----------
    store
        Identity of the store itself, which a copy of it shares.
    place
        Parts that together distinguish its place from all others.

    Returns
    -------
    str
        A hash of 32 hexadecimal digits.
    """
    # Paths that are not UTF-8 have their bytes as surrogates.
    return digest_of("\0".join([store, *place]).encode("utf8", "surrogateescape"))


# -- plans -----------------------------------------------------------------------------------

SMALL_BYTES = 2**16
"""Maximum bytes of a chunk of which all columns are read even if only some are requested."""

CHUNK_RECORD = np.dtype(
    [
        ("descriptor", "i4"),
        ("schema", "i4"),
        ("first", "i8"),
        *((name, np.dtype(kind)) for name, kind in get_type_hints(Statistics).items()),
    ]
)


TOKEN_FIELDS = (
    "descriptor", "first", "rows", "bytes", "seq_min", "seq_max", "time_min", "time_max",
)  # fmt: skip
"""Fields of a record that distinguish the content of chunks; they make the plan's token."""


class ChunkReader(ABC):
    """Reader of chunks by key: stateless, picklable, usable from any thread or process.

    Two types of key are common to all stores: ``bytes``, which are a small chunk itself (in
    Arrow's file format) that travels with its plan, and a ``range`` of ``seq_num`` that only
    stream_datum documents name. All other keys are the store's own.
    """

    def read(self, key: Any, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one chunk.

        Parameters
        ----------
        key
            Key of a chunk in a plan of the same store.
        columns
            Physical names of the wanted columns, in the wanted order; those that the chunk lacks
            are left out. All columns if None.

        Raises
        ------
        StoreDamaged
            If a file is missing or damaged; the message names it.
        """
        if isinstance(key, bytes):
            return from_ipc(key, columns)
        if isinstance(key, range):
            return with_columns(ranges_table(key), columns)
        return self.read_stored(key, columns)

    def read_many(
        self, keys: Sequence[Any], columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """Read chunks lazily, one after the other.

        A store that can fetch several at once overrides this. An error that is raised belongs to
        the next chunk to be yielded, so that the caller knows which one it is.
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
            Label of each key's chunk, see :meth:`ChunkPlan.label`.
        """
        coming = self.read_many(keys, columns)
        for label in labels:
            with damage_of(label):
                table = next(coming)
            yield table

    @abstractmethod
    def read_stored(self, key: Any, columns: Sequence[str] | None) -> pa.Table:
        """Read a chunk by a key of the store's own; see :meth:`read`."""

    def is_final(self, key: Any) -> bool:
        """Return whether every later plan has this chunk with the same rows, as sealed chunks.

        Rows of a journal are cut into other chunks later. A store that has keys of its own for
        these overrides this.
        """
        return not isinstance(key, (bytes, range))

    def portable_keys(self, keys: Sequence[Any]) -> Sequence[Any]:
        """Return the keys for use in other processes; a store with local keys overrides it."""
        return keys

    def stored(self, keys: Sequence[Any]) -> tuple[ChunkReader, Sequence[Any]]:
        """Return the store's own reader and keys; a reader that wraps another overrides it."""
        return self, keys


@contextmanager
def damage_of(label: str) -> Iterator[None]:
    """Put a label before the message of a :class:`StoreDamaged` that the block raises."""
    try:
        yield
    except StoreDamaged as error:
        raise damaged(label, error) from (error.__cause__ or error)


def damaged(label: str, error: StoreDamaged) -> StoreDamaged:
    """Return the same error with a label before its message."""
    return StoreDamaged(f"{label}: {error}")


def chunk_label(descriptor: Mapping[str, Any]) -> str:
    """Return run and stream of a descriptor's chunks for messages; only the run for references."""
    run = f"run {descriptor['run_start']!r}"
    if "data_keys" not in descriptor:
        return f"references of {run}"
    return f"{run}, stream {stream_of(descriptor)!r}"


def with_columns(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """Return the wanted columns of a table, in the wanted order; all of them if None.

    Those that the table lacks are left out.
    """
    if columns is None:
        return table
    names = set(table.schema.names)  # `column_names` of a table takes six times as long
    return table.select([name for name in columns if name in names])


def rows_alone(count: int) -> pa.Table:
    """Return a table of this number of rows without any column."""
    return pa.table({"": pa.nulls(count)}).select([])


@dataclass(frozen=True, slots=True)
class Chunk:
    """One line of a :class:`ChunkPlan`: consecutive events of one descriptor."""

    key: Any
    descriptor: Document
    kinds: Mapping[str, ColumnKind]
    first: int
    rows: int
    bytes: int
    seq_min: int
    seq_max: int
    time_min: float
    time_max: float


NUMBERS_OF_CHUNK = tuple(
    name for name in ("first", *Statistics._fields) if name in Chunk.__annotations__
)
"""Fields of a record that a :class:`Chunk` has too."""


@dataclass(frozen=True, eq=False)
class ChunkPlan:
    """List of chunks, without their data.

    Attributes
    ----------
    reader
        Reader of the chunks.
    descriptors
        Every descriptor of the planned streams, including those without events.
    schemas
        The different sets of columns that occur, ``{physical name: ColumnKind}``.
    records
        One record of :data:`CHUNK_RECORD` per chunk; ``descriptor`` and ``schema`` are
        indices into the two tuples above.
    keys
        Key of each chunk for the reader.
    store
        Identity of the store at its place (:func:`place_identity`), part of the token.
    bad
        By uid, the runs of which something cannot be read; the plan is incomplete for them.
    """

    reader: ChunkReader
    descriptors: tuple[Document, ...]
    schemas: tuple[Mapping[str, ColumnKind], ...]
    records: np.ndarray
    keys: tuple[Any, ...]
    store: str
    bad: Mapping[str, BadRun] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Chunk:
        record = self.records[index]
        return Chunk(
            key=self.keys[index],
            descriptor=self.descriptors[record["descriptor"]],
            kinds=self.schemas[record["schema"]],
            **{name: record[name].item() for name in NUMBERS_OF_CHUNK},
        )

    def __iter__(self) -> Iterator[Chunk]:
        return (self[index] for index in range(len(self)))

    @property
    def token(self) -> str:
        """Hash that changes if the content or its division into chunks changes, and only then."""
        digest = hashlib.blake2b(self.store.encode(), digest_size=16)
        for descriptor in self.descriptors:
            digest.update(descriptor["uid"].encode("utf8", "surrogatepass") + b"\0")
        for name in TOKEN_FIELDS:
            digest.update(np.ascontiguousarray(self.records[name]).tobytes())
        return digest.hexdigest()

    def facts(self, index: int) -> Statistics:
        """Return the statistics of one chunk."""
        return Statistics._make(self.records[list(Statistics._fields)][index].item())

    @property
    def rows(self) -> int:
        """Number of events, rewound ones included."""
        return int(self.records["rows"].sum())

    def take(self, indices: Sequence[int] | np.ndarray) -> ChunkPlan:
        """Return the plan of the chunks at these indices, in the given order."""
        chosen = np.asarray(indices, dtype=np.intp)
        keys = tuple(self.keys[index] for index in chosen.tolist())
        return replace(self, records=self.records[chosen], keys=keys)

    def of_descriptors(self, indices: Sequence[int]) -> ChunkPlan:
        """Return the plan of the descriptors at these indices, in the given order."""
        order = np.full(len(self.descriptors), -1, np.int64)
        order[list(indices)] = np.arange(len(indices))
        owners = order[self.records["descriptor"]]
        chosen = np.flatnonzero(owners >= 0)
        chosen = chosen[np.argsort(owners[chosen], kind="stable")]
        records = self.records[chosen]
        records["descriptor"] = owners[chosen]
        used, records["schema"] = np.unique(records["schema"], return_inverse=True)
        return replace(
            self,
            descriptors=tuple(self.descriptors[index] for index in indices),
            schemas=tuple(self.schemas[number] for number in used.tolist()),
            records=records,
            keys=tuple(self.keys[index] for index in chosen.tolist()),
        )

    def by_run(self) -> dict[str, ChunkPlan]:
        """Return the plan of each run that has a descriptor, by uid.

        Each is what :meth:`of_descriptors` would return, with that run in `bad` if it is there.
        """
        # All runs are cut from one sorted copy, rather than each from the whole plan.
        indices: dict[str, list[int]] = {}
        for index, descriptor in enumerate(self.descriptors):
            indices.setdefault(descriptor["run_start"], []).append(index)
        run = np.empty(len(self.descriptors), np.int64)
        within = np.empty(len(self.descriptors), np.int64)
        for number, some in enumerate(indices.values()):
            run[some], within[some] = number, np.arange(len(some))
        owners = self.records["descriptor"]
        order = np.lexsort((within[owners], run[owners]))
        records = self.records[order]
        ends = np.cumsum(np.bincount(run[owners], minlength=len(indices))).tolist()
        records["descriptor"] = within[records["descriptor"]]
        keys = [self.keys[index] for index in order.tolist()]
        plans = {}
        for uid, begin, end in zip(indices, [0, *ends], ends):
            part, schemas = records[begin:end], self.schemas
            if len(schemas) > 1:
                used, numbers = np.unique(part["schema"], return_inverse=True)
                part["schema"] = numbers
                schemas = tuple(schemas[number] for number in used.tolist())
            own = tuple(self.descriptors[index] for index in indices[uid])
            some_keys = tuple(keys[begin:end])
            bad = {uid: self.bad[uid]} if uid in self.bad else {}
            plans[uid] = ChunkPlan(self.reader, own, schemas, part, some_keys, self.store, bad)
        return plans

    def read(self, index: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one chunk, all of it or only some columns (physical names)."""
        try:  # not damage_of: the label is made only if there is an error
            return self.reader.read(self.keys[index], columns)
        except StoreDamaged as error:
            raise damaged(self.label(index), error) from (error.__cause__ or error)

    def read_all(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Read all chunks lazily in order; a store may fetch several of them together."""
        if not self.keys:
            return iter(())
        labels = [self.label(index) for index in range(len(self))]
        return self.reader.read_labelled(self.keys, labels, columns)

    def label(self, index: int) -> str:
        """Return run and stream of a chunk, for messages."""
        return chunk_label(self.descriptors[self.records["descriptor"][index]])

    def __reduce__(self) -> tuple[Any, ...]:
        keys = tuple(self.reader.portable_keys(self.keys))
        parts = (self.reader, self.descriptors, self.schemas, self.records, keys, self.store)
        return (ChunkPlan, (*parts, self.bad))


def ranges_table(numbers: range) -> pa.Table:
    """Return the chunk of events that only stream_datum documents name; their time is NaN."""
    seq = np.arange(numbers.start, numbers.stop, dtype=np.int64)
    columns = {"seq_num": encode(seq), "time": encode(np.full(len(seq), np.nan))}
    return assemble(columns, {})


def to_ipc(table: pa.Table, compression: str | None = None) -> bytes:
    """Return a chunk in Arrow's file format with a checksum.

    Parameters
    ----------
    table
        The chunk.
    compression
        Compression of the buffers, such as ``"lz4"``. None for none.
    """
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return with_checksum(sink.getvalue().to_pybytes())


def from_ipc(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the bytes of :func:`to_ipc`, all of them or only some columns in the given order.

    Raises
    ------
    StoreDamaged
        If the bytes have changed since, or are something else.
    """
    body = pa.py_buffer(without_checksum(data, "a chunk"))
    try:
        reader = pa.ipc.open_file(body)
    except MemoryError:  # Arrow's is an ArrowException too
        raise
    except pa.ArrowException as error:
        raise StoreDamaged(f"a chunk is damaged: {error}") from error
    # Opening a smaller one again takes longer than reading all of it.
    if columns is not None and len(data) > SMALL_BYTES:
        wanted = set(columns)
        fields = [number for number, name in enumerate(reader.schema.names) if name in wanted]
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        reader = pa.ipc.open_file(body, options=options)
    return with_columns(reader.read_all(), columns)
