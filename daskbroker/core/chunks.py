"""Chunks: runs of consecutive documents of one owner, stored column by column.

A :class:`Layout` says how documents of one kind become columns; :func:`encode_rows` and
:func:`decode_rows` apply it. A :class:`ChunkPlan` lists chunks without holding their data: it
is made on the client, without reading a payload, and its :class:`ChunkReader` reads any chunk
anywhere, all of it or only some columns.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa

from .checksum import seal_bytes, sound_bytes
from .codec import MISSING, Column, Kind, decode, encode, exact_alone, field_kind
from .documents import Document, from_json, plain, to_json

__all__ = [
    "DATUM",
    "EVENT",
    "LAYOUTS",
    "REFERENCES",
    "RESOURCE",
    "STREAM_DATUM",
    "STREAM_RESOURCE",
    "Chunk",
    "ChunkPlan",
    "ChunkReader",
    "Layout",
    "Statistics",
    "decode_rows",
    "encode_page",
    "encode_rows",
    "iter_rows",
    "statistics",
]

EXTRA = "extra"
"""Column for keys of a document that its layout does not know, as JSON text."""


@dataclass(frozen=True)
class Layout:
    """How documents of one kind lie in columns.

    Attributes
    ----------
    kind
        Name of the documents.
    owner
        Key that names the owner, "" where there is none. All rows of a page have one owner.
    uid
        Key of the document's own identity.
    scalars
        Keys that are columns under their own name.
    mappings
        ``(key, prefix)``: each key of the mapping is a column ``<prefix><key>``.
    texts
        Keys that are kept as JSON text, null where the document lacks them.
    mixed
        A chunk holds what a run has of the kind, so the owner is a column; otherwise a chunk has
        one owner.
    """

    kind: str
    owner: str
    uid: str
    scalars: tuple[str, ...]
    mappings: tuple[tuple[str, str], ...] = ()
    texts: tuple[str, ...] = ()
    mixed: bool = False

    @cached_property
    def keys(self) -> frozenset[str]:
        """Every key of a document that has a place of its own."""
        own = (self.owner, *self.scalars, *self.texts, *(key for key, _ in self.mappings))
        return frozenset(own) - {""}

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Keys that are columns under their own name, the owner included where it is one."""
        return (*self.scalars, self.owner) if self.mixed and self.owner else self.scalars


EVENT = Layout(
    kind="event",
    owner="descriptor",
    uid="uid",
    scalars=("seq_num", "time", "uid"),
    mappings=(("data", "data:"), ("timestamps", "ts:")),
    texts=("filled",),
)
DATUM = Layout(
    kind="datum",
    owner="resource",
    uid="datum_id",
    scalars=("datum_id",),
    mappings=(("datum_kwargs", "kw:"),),
    mixed=True,
)
STREAM_DATUM = Layout(
    kind="stream_datum",
    owner="stream_resource",
    uid="uid",
    scalars=("uid", "descriptor"),
    mappings=(("indices", "indices:"), ("seq_nums", "seq_nums:")),
    mixed=True,
)
RESOURCE = Layout(kind="resource", owner="", uid="uid", scalars=("uid",), mixed=True)
STREAM_RESOURCE = Layout(kind="stream_resource", owner="", uid="uid", scalars=("uid",), mixed=True)
REFERENCES = (RESOURCE, STREAM_RESOURCE, DATUM, STREAM_DATUM)
"""Of references a run has one sequence a kind; of events there is one a descriptor."""
LAYOUTS = {layout.kind: layout for layout in (EVENT, *REFERENCES)}


# -- documents to columns --------------------------------------------------------------------


def encode_rows(
    layout: Layout, documents: Sequence[Mapping[str, Any]], metadata: Mapping[str, str]
) -> pa.Table:
    """Lay normalized documents of one sequence out in columns.

    Parameters
    ----------
    layout
        Of their kind.
    documents
        At least one, in order.
    metadata
        Goes into the schema, under ``daskbroker``; for events run, stream, descriptor.
    """
    columns = {name: encode([doc[name] for doc in documents]) for name in layout.columns}
    for key in layout.texts:
        columns[key] = _texts([doc.get(key, MISSING) for doc in documents])
    for key, prefix in layout.mappings:
        rows = [doc[key] for doc in documents]
        for name in _union_of_keys(rows):
            columns[prefix + name] = encode([row.get(name, MISSING) for row in rows])
    extra = [_extra(layout, doc) for doc in documents]
    if any(value is not MISSING for value in extra):
        columns[EXTRA] = _texts(extra)
    return _assemble(columns, metadata)


def encode_page(layout: Layout, page: Mapping[str, Any], metadata: Mapping[str, str]) -> pa.Table:
    """Lay a normalized page, whose columns are lists or arrays of one length, out in columns."""
    count = len(page[layout.uid])
    columns = {
        name: encode([page[name]] * count if name == layout.owner else page[name])
        for name in layout.columns
    }
    for key in layout.texts:
        if page.get(key):
            rows = [dict(zip(page[key], row, strict=True)) for row in zip(*page[key].values())]
            columns[key] = _texts(rows)
        else:
            (text,) = _texts([page.get(key, MISSING)]).array
            columns[key] = Column(pa.repeat(text, count), Kind("json", not text.is_valid))
    for key, prefix in layout.mappings:
        for name, values in page[key].items():
            columns[prefix + name] = encode(values)
    unknown = [key for key in page if key not in layout.keys]
    if unknown:
        cells_of = zip(*([_cell(cell) for cell in page[key]] for key in unknown))
        columns[EXTRA] = _texts([dict(zip(unknown, row)) for row in cells_of])
    return _assemble(columns, metadata)


def join_tables(
    layout: Layout, tables: Sequence[pa.Table], metadata: Mapping[str, str]
) -> pa.Table:
    """One chunk of consecutive pieces, as if all their rows had been encoded at once."""
    first = tables[0]
    if len(tables) == 1:
        return first
    if all(table.schema.equals(first.schema, check_metadata=True) for table in tables[1:]) and all(
        exact_alone(arrow_field) for arrow_field in first.schema
    ):
        return pa.concat_tables(tables).combine_chunks()
    owner = metadata.get(layout.owner, "")
    rows = [row for table in tables for row in iter_rows(layout, table, owner)]
    return encode_rows(layout, rows, metadata)


def rows_of_page(layout: Layout, page: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The single documents of a normalized page; cells of arrays stay arrays."""
    count = len(page[layout.uid])
    nested = {key for key, _ in layout.mappings} | set(layout.texts)
    columns: dict[str, Sequence[Any]] = {}
    for key, value in page.items():
        if key == layout.owner:
            columns[key] = [value] * count
        elif key in nested:
            columns[key] = [
                {name: _cell(cells[row]) for name, cells in value.items()} for row in range(count)
            ]
        else:
            columns[key] = [_cell(cell) for cell in value]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _cell(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _union_of_keys(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    first = rows[0].keys()
    if all(row.keys() == first for row in rows):
        return first
    return dict.fromkeys(key for row in rows for key in row)


def _extra(layout: Layout, doc: Mapping[str, Any]) -> Any:
    if doc.keys() <= layout.keys:
        return MISSING
    return {key: value for key, value in doc.items() if key not in layout.keys}


def _texts(values: Sequence[Any]) -> Column:
    """JSON text of each value; the few different ones that there are, are written once."""
    if values[0] is MISSING and all(value is MISSING for value in values):
        return Column(pa.nulls(len(values), pa.string()), Kind("json", True))
    known: dict[str, str] = {}
    texts: list[str | None] = []
    for value in values:
        if value is MISSING:
            texts.append(None)
            continue
        label = repr(value)
        if label not in known:
            known[label] = to_json(value)
        texts.append(known[label])
    array = pa.array(texts, pa.string())
    return Column(array, Kind("json", array.null_count > 0))


def _assemble(columns: Mapping[str, Column], metadata: Mapping[str, str]) -> pa.Table:
    note = {b"daskbroker": json.dumps(metadata, separators=(",", ":")).encode()}
    schema = pa.schema([c.arrow_field(name) for name, c in columns.items()], metadata=note)
    return pa.Table.from_arrays([c.array for c in columns.values()], schema=schema)


# -- columns to documents --------------------------------------------------------------------


def decode_rows(layout: Layout, table: pa.Table, owner: str) -> list[Document]:
    """The documents that a table of :func:`encode_rows` or :func:`encode_page` was made of.

    ``owner`` is that of all rows, where the layout has no column for it.
    """
    return list(iter_rows(layout, table, owner))


def iter_rows(layout: Layout, table: pa.Table, owner: str) -> Iterator[Document]:
    """The documents of :func:`decode_rows`, one by one.

    Columns are decoded at once, documents as they are asked for: a document that is let go of
    soon costs half of one that is kept among thousands.
    """
    columns: dict[str, Iterable[Any]] = {name: cells(table, name) for name in layout.columns}
    if not layout.mixed:
        columns[layout.owner] = repeat(owner)
    for key, prefix in layout.mappings:
        columns[key] = _mappings(table, prefix)
    complete = []
    for key in (*layout.texts, EXTRA):
        if key in table.column_names and table.column(key).null_count < table.num_rows:
            if key == EXTRA or table.column(key).null_count:
                complete.append(key)
            columns[key] = _values_of_texts(_pylist(table, key))
    names = tuple(columns)
    rows = zip(*columns.values())
    if not complete:
        return (Document(zip(names, row)) for row in rows)
    return (_completed(dict(zip(names, row)), complete) for row in rows)


def _completed(row: dict[str, Any], names: Sequence[str]) -> Document:
    """A document without the keys that it lacks, and with those its layout does not know."""
    for name in names:
        value = row.pop(name)
        if value is not MISSING:
            row.update(value if name == EXTRA else {name: value})
    return Document(row)


def _values_of_texts(texts: Sequence[str | None]) -> Iterator[Any]:
    """Values of JSON texts, each a private one; the few different texts are parsed once."""
    known: dict[str | None, Any] = {None: MISSING}
    for text in texts:
        if text not in known:
            known[text] = from_json(text) if text is not None else MISSING
        value = known[text]
        yield value if value is MISSING else plain(value)


def cells(table: pa.Table, name: str) -> list[Any]:
    """The cells of one column, see :func:`daskbroker.core.codec.decode`."""
    return decode(whole(table.column(name)), table.schema.field(name))


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return column.combine_chunks()


def _pylist(table: pa.Table, name: str) -> list[str | None]:
    return table.column(name).to_pylist()  # type: ignore[no-any-return]


def _mappings(table: pa.Table, prefix: str) -> Iterator[dict[str, Any]]:
    names = [name for name in table.column_names if name.startswith(prefix)]
    keys = [name[len(prefix) :] for name in names]
    if not names:
        return ({} for _ in range(table.num_rows))
    rows = zip(*(cells(table, name) for name in names))
    if not any(_has_missing(table, name) for name in names):
        return (dict(zip(keys, row)) for row in rows)
    return ({key: cell for key, cell in zip(keys, row) if cell is not MISSING} for row in rows)


def _has_missing(table: pa.Table, name: str) -> bool:
    kind, notes = field_kind(table.schema.field(name))
    return "missing" in notes or (kind.name == "json" and kind.nulls)


# -- statistics ------------------------------------------------------------------------------


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


# -- plans -----------------------------------------------------------------------------------

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
        """Read chunks one after the other; a store that can fetch several at once overrides it."""
        return (self.read(key, columns) for key in keys)

    @abstractmethod
    def read_stored(self, key: Any, columns: Sequence[str] | None) -> pa.Table:
        """Read a chunk by a key of the store's own; see :meth:`read`."""

    def portable(self, keys: Sequence[Any]) -> Sequence[Any]:
        """The keys as another process can read them; a store with local ones overrides it."""
        return keys


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
        Identity of the store, part of the token.
    """

    reader: ChunkReader
    descriptors: tuple[Document, ...]
    schemas: tuple[Mapping[str, Kind], ...]
    records: np.ndarray
    keys: tuple[Any, ...]
    store: str

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
        for name in ("descriptor", "first", "rows", "bytes"):
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
        return ChunkPlan(
            self.reader, self.descriptors, self.schemas, self.records[chosen], keys, self.store
        )

    def read(self, place: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one chunk, all of it or only some columns (physical names)."""
        return self.reader.read(self.keys[place], columns)

    def __reduce__(self) -> tuple[Any, ...]:
        keys = tuple(self.reader.portable(self.keys))
        fields = (self.reader, self.descriptors, self.schemas, self.records, keys, self.store)
        return (ChunkPlan, fields)


def ranges_table(numbers: range) -> pa.Table:
    """The chunk of events that only stream_datum tell of: ``seq_num`` known, time not."""
    seq = np.arange(numbers.start, numbers.stop, dtype=np.int64)
    columns = {"seq_num": encode(seq), "time": encode(np.full(len(seq), np.nan))}
    return _assemble(columns, {})


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
    places = [reader.schema.get_field_index(name) for name in columns]
    options = pa.ipc.IpcReadOptions(included_fields=sorted({p for p in places if p >= 0}))
    table = pa.ipc.open_file(body, options=options).read_all()
    return table.select([name for name in columns if name in table.column_names])
