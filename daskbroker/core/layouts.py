"""Layouts: the conversion of documents of one kind to columns, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa

from .codec import block, decode, encode, iter_decoded, text_column, text_reader
from .column_kinds import JSON_KINDS, MISSING, Column, ColumnKind, exact_alone, field_kind
from .documents import Document, frozen_document, plain, stream_of
from .frozen import ArrayList, FrozenDict, freeze, freeze_lists, frozen_array
from .json_text import marked_json
from .leaves import is_plain_leaf

EXTRA = "extra"
"""Name of the column for a document's keys that its layout does not know, as JSON text."""


@dataclass(frozen=True)
class Layout:
    """Arrangement of documents of one kind in columns.

    Attributes
    ----------
    kind
        Name of the documents.
    owner
        Key that names the owner, or "" if there is none. All rows of a page have one owner.
    uid
        Key of the document's own identity.
    scalars
        Keys that are columns under their own name.
    mappings
        ``(key, prefix)`` of each mapping, whose keys are columns ``<prefix><key>``.
    texts
        Keys that are kept as JSON text, null if the document lacks them.
    mixed
        Whether a chunk holds documents of several owners of a run, so that the owner is a column.
        If False, a chunk has one owner.
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
        """Every key of a document that has a column, or columns, of its own."""
        own = (self.owner, *self.scalars, *self.texts, *(key for key, _ in self.mappings))
        return frozenset(own) - {""}

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Keys that are columns under their own name, including the owner if that is a column."""
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
"""Layouts of references. A run has one sequence of each kind; events have one per descriptor."""
LAYOUTS = {layout.kind: layout for layout in (EVENT, *REFERENCES)}


def chunk_metadata(layout: Layout, owner: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata for the schema of the chunks of a sequence.

    Parameters
    ----------
    layout
        Layout of its documents.
    owner
        Descriptor of the events, or what plans of references have in its place, see
        :func:`daskbroker.core.run_plan.run_owners`.
    """
    if layout is EVENT:
        return event_metadata(owner)
    return {"run": str(owner["run_start"]), "kind": layout.kind}


def event_metadata(descriptor: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata for the schema of the chunks of a descriptor's events."""
    return {
        "run": str(descriptor["run_start"]),
        "kind": EVENT.kind,
        "descriptor": str(descriptor["uid"]),
        "stream": stream_of(descriptor),
    }


# -- documents to columns --------------------------------------------------------------------


def encode_rows(
    layout: Layout, documents: Sequence[Mapping[str, Any]], metadata: Mapping[str, str]
) -> pa.Table:
    """Encode normalized documents of one sequence as a table.

    Parameters
    ----------
    layout
        Layout of the documents.
    documents
        The documents in order, at least one.
    metadata
        Metadata for the schema, stored under ``daskbroker``, see :func:`chunk_metadata`.
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
    return assemble(columns, metadata)


def encode_page(layout: Layout, page: Mapping[str, Any], metadata: Mapping[str, str]) -> pa.Table:
    """Encode a normalized page, whose columns are lists or arrays of one length, as a table.

    Parameters
    ----------
    layout
        Layout of its documents.
    page
        The page, with at least one row.
    metadata
        Metadata for the schema, see :func:`encode_rows`.
    """
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
            columns[key] = Column(pa.repeat(text, count), ColumnKind("json", not text.is_valid))
    for key, prefix in layout.mappings:
        for name, values in page[key].items():
            columns[prefix + name] = encode(values)
    unknown = [key for key in page if key not in layout.keys]
    if unknown:
        cells_of = zip(*([plain(_cell(cell)) for cell in page[key]] for key in unknown))
        columns[EXTRA] = _texts([dict(zip(unknown, row)) for row in cells_of])
    return assemble(columns, metadata)


def join_tables(
    layout: Layout, tables: Sequence[pa.Table], metadata: Mapping[str, str]
) -> pa.Table:
    """Join consecutive tables to one chunk, as if all their rows had been encoded at once."""
    first = tables[0]
    if len(tables) == 1:
        return first
    if all(table.schema.equals(first.schema, check_metadata=True) for table in tables[1:]) and all(
        exact_alone(arrow_field) for arrow_field in first.schema
    ):
        return pa.concat_tables(tables).combine_chunks()
    # The schemas differ, or notes are about rows at certain positions: all rows are encoded again.
    owner = metadata.get(layout.owner, "")
    rows = [row for table in tables for row in iter_rows(layout, table, owner)]
    return encode_rows(layout, rows, metadata)


def rows_of_page(layout: Layout, page: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the single documents of a normalized page; cells that are arrays stay arrays."""
    count = len(page[layout.uid])
    nested = {key for key, _ in layout.mappings} | set(layout.texts)
    columns: dict[str, Sequence[Any]] = {}
    for key, value in page.items():
        if key == layout.owner:
            columns[key] = [value] * count
        # Columns below a mapping are transposed on their own: each row has a mapping of its
        # cells.
        elif key in nested:
            columns[key] = [
                {name: _cell(cells[row]) for name, cells in value.items()} for row in range(count)
            ]
        else:
            columns[key] = [_cell(cell) for cell in value]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _cell(value: object) -> Any:
    if isinstance(value, np.void):  # an element of a structured array
        return np.asarray(value)
    return value.item() if isinstance(value, np.generic) else value


def _union_of_keys(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    first = rows[0].keys()
    # Rows of one descriptor nearly always have the same keys; the union takes a pass over all.
    if all(row.keys() == first for row in rows):
        return first
    return dict.fromkeys(key for row in rows for key in row)


def _extra(layout: Layout, doc: Mapping[str, Any]) -> Any:
    # Nearly always: only other programs add keys that the event model does not know.
    if doc.keys() <= layout.keys:
        return MISSING
    return {key: plain(value) for key, value in doc.items() if key not in layout.keys}


def _texts(values: Sequence[Any]) -> Column:
    """Return the column of the values' JSON texts; each of the few different ones is made once."""
    if values[0] is MISSING and all(value is MISSING for value in values):
        return Column(pa.nulls(len(values), pa.string()), ColumnKind("json", True))
    known: dict[str, str] = {}
    texts: list[str | None] = []
    for value in values:
        if value is MISSING:
            texts.append(None)
            continue
        label = repr(value)
        if label not in known:
            known[label] = marked_json(value)
        texts.append(known[label])
    return text_column(texts)


def assemble(columns: Mapping[str, Column], metadata: Mapping[str, str]) -> pa.Table:
    """Return encoded columns as a table with the metadata in its schema."""
    note = {b"daskbroker": json.dumps(metadata, separators=(",", ":")).encode()}
    schema = pa.schema([c.arrow_field(name) for name, c in columns.items()], metadata=note)
    return pa.Table.from_arrays([c.array for c in columns.values()], schema=schema)


# -- columns to documents --------------------------------------------------------------------


def decode_rows(layout: Layout, table: pa.Table, owner: str) -> list[Document]:
    """Return the documents of which :func:`encode_rows` or :func:`encode_page` made a table.

    Parameters
    ----------
    layout
        Layout of the documents.
    table
        The table.
    owner
        Owner of all rows; ignored if the layout has a column for the owner.
    """
    return list(iter_rows(layout, table, owner))


def iter_rows(layout: Layout, table: pa.Table, owner: str) -> Iterator[Document]:
    """Yield the documents of :func:`decode_rows` one by one.

    Documents are made as they are requested, and so are most cells: a document that is released
    soon costs half of one that is kept among thousands.
    """
    columns: dict[str, Iterable[Any]] = {name: _iter_cells(table, name) for name in layout.columns}
    if not layout.mixed:
        columns[layout.owner] = repeat(owner)
    for key, prefix in layout.mappings:
        columns[key] = _mappings(table, prefix)
    complete = []
    for key in (*layout.texts, EXTRA):
        # A column of nulls alone is as if it were absent.
        if key in table.column_names and table.column(key).null_count < table.num_rows:
            # Rows without a value must lack the key, so each of them is completed.
            if key == EXTRA or table.column(key).null_count:
                complete.append(key)
            columns[key] = _values_of_texts(table, key)
    names = tuple(columns)
    rows = zip(*columns.values())
    # Without rows to complete, documents are made by maps that run in C.
    if not complete:
        return map(frozen_document, map(zip, repeat(names), rows))
    return (frozen_document(_completed(dict(zip(names, row)), complete)) for row in rows)


def _completed(row: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return a row without the keys that it lacks, and with those its layout does not know."""
    for name in names:
        value = row.pop(name)
        if value is not MISSING:
            row.update(value if name == EXTRA else {name: value})
    return row


def _values_of_texts(table: pa.Table, name: str) -> Iterator[Any]:
    """Yield the frozen values of a column of JSON texts; each different text is parsed once."""
    read = text_reader(field_kind(table.schema.field(name))[1])
    texts = table.column(name).to_pylist()
    values = {text: MISSING if text is None else freeze(read(text)) for text in set(texts)}
    return map(values.__getitem__, texts)


def cells(table: pa.Table, name: str) -> list[Any]:
    """Return the cells of one column, see :func:`daskbroker.core.codec.decode`."""
    return decode(as_one_chunk(table.column(name)), table.schema.field(name))


def _iter_cells(table: pa.Table, name: str) -> Iterable[Any]:
    return iter_decoded(as_one_chunk(table.column(name)), table.schema.field(name))


def as_one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return column.combine_chunks()


def _mappings(table: pa.Table, prefix: str) -> Iterator[FrozenDict]:
    names = [name for name in table.column_names if name.startswith(prefix)]
    keys = [name[len(prefix) :] for name in names]
    if not names:
        return repeat(FrozenDict(), table.num_rows)
    kinds = [field_kind(table.schema.field(name)) for name in names]
    rows = zip(*(_frozen_cells(table, name, *kind) for name, kind in zip(names, kinds)))
    # No cell is missing, so the pairs need not be looked at one by one.
    if not any(
        "missing" in notes or (kind.name in JSON_KINDS and kind.nulls) for kind, notes in kinds
    ):
        return map(FrozenDict, map(zip, repeat(keys), rows))
    return (
        FrozenDict((key, cell) for key, cell in zip(keys, row) if cell is not MISSING)
        for row in rows
    )


def _frozen_cells(
    table: pa.Table, name: str, kind: ColumnKind, notes: Mapping[str, str]
) -> Iterable[Any]:
    # Numbers of one shape come as one block, without an object for each leaf.
    if kind.name == "array" and kind.dtype != "<U" and not kind.nulls and "missing" not in notes:
        rows = block(as_one_chunk(table.column(name)), kind)
        return map(frozen_array if is_plain_leaf(kind.dtype) else ArrayList.of_numbers, rows)
    found = _iter_cells(table, name)
    if kind.name in JSON_KINDS:
        return list(map(freeze, found))
    if kind.name in ("array", "list") and not is_plain_leaf(kind.dtype):
        dtype = np.dtype(kind.dtype)
        return (
            ArrayList(c, dtype, kind.shape or (len(c),)) if type(c) is list else c for c in found
        )
    if kind.name in ("array", "list"):
        return freeze_lists(found, len(kind.shape) or 1)
    return found
