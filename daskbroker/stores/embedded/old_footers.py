"""Checks of Parquet footers without a checksum, by facts that they state twice.

Parquet's schema and Arrow's, which is kept beside it, both have the names and types; the kinds of
columns have the types once more. Columns follow each other without a gap, from the file's first
bytes to the footer. So a flipped bit is noticed unless it changes nothing that is read.
"""

from __future__ import annotations

import base64

import numpy as np
import pyarrow as pa

from ...core.codec import check_notes
from ...core.column_kinds import ColumnKind, field_kind
from ...core.errors import StoreDamaged
from .thrift import read_struct

FIRST = 4
"""Offset of the first column in the file."""

TYPES = {
    "null": pa.null(),
    "bool": pa.bool_(),
    "int": pa.int64(),
    "long": pa.int64(),
    "uint": pa.uint64(),
    "float": pa.float64(),
    "number": pa.float64(),
    "str": pa.string(),
    "json": pa.string(),
}

# Numbers of fields in Parquet's Thrift definition of its footer.
ROWS, ROW_GROUPS, TEXTS = 3, 4, 5
KEY, VALUE = 1, 2
COLUMNS = 1
FACTS = 3
SIZE, PAGES, DICTIONARY = 7, 9, 11


def check_old_footer(data: memoryview, begin: int, schema: pa.Schema) -> None:
    """Check that a footer is consistent with itself.

    Parameters
    ----------
    data
        Bytes of the file.
    begin
        Offset of its footer.
    schema
        Schema that Arrow has read from the footer.

    Raises
    ------
    StoreDamaged
        If it is not consistent.
    """
    footer = read_struct(bytes(data[begin:]))
    position = FIRST
    for group in footer[ROW_GROUPS]:
        if len(group[COLUMNS]) != len(schema.names):
            raise StoreDamaged("the number of its columns differs from that of its schema")
        for column in group[COLUMNS]:
            facts = column[FACTS]
            if min(facts[PAGES], facts.get(DICTIONARY, facts[PAGES])) != position:
                raise StoreDamaged("its columns do not follow each other")
            position += facts[SIZE]
    if position != begin:
        raise StoreDamaged("its columns do not end where the footer begins")
    texts = {text[KEY]: text.get(VALUE) for text in footer.get(TEXTS, ())}
    _check_schema(schema, texts.get(b"ARROW:schema"), footer[ROWS])


def _check_schema(schema: pa.Schema, noted: bytes | None, rows: int) -> None:
    """Compare Parquet's schema with Arrow's, which is stored beside it, and with the kinds."""
    if noted is None:
        raise StoreDamaged("it has no Arrow schema")
    arrow_schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(noted, validate=True)))
    for one, other in zip(schema, arrow_schema, strict=True):
        if (one.name, one.type, one.nullable) != (other.name, other.type, other.nullable):
            raise StoreDamaged(f"its schemas disagree about column {other.name!r}")
        kind, notes = field_kind(one)
        check_notes(notes, rows)
        if not _fits(kind, one.type):
            raise StoreDamaged(f"column {one.name!r} is not of the kind that is noted")


def check_old_table(table: pa.Table, rows: int) -> None:
    """Check rows and gaps of a table against the footer; raise StoreDamaged if they differ."""
    if table.num_rows != rows:
        raise StoreDamaged(f"{table.num_rows:,} rows could be read instead of {rows:,}")
    for position, arrow_field in enumerate(table.schema):
        kind, _ = field_kind(arrow_field)
        if table.column(position).null_count and not kind.nulls and kind.name != "null":
            raise StoreDamaged(f"column {arrow_field.name!r} has gaps, and should have none")


def _fits(kind: ColumnKind, arrow_type: pa.DataType) -> bool:
    """Return whether columns of a kind have this type."""
    if kind.name in TYPES:
        return bool(TYPES[kind.name] == arrow_type)
    if kind.name not in ("array", "list"):
        return False
    for size in kind.shape:
        if not pa.types.is_fixed_size_list(arrow_type) or arrow_type.list_size != size:
            return False
        arrow_type = arrow_type.value_type
    if kind.name == "list":
        if not (pa.types.is_list(arrow_type) or pa.types.is_large_list(arrow_type)):
            return False
        arrow_type = arrow_type.value_type
    leaf = pa.string() if kind.dtype == "<U" else pa.from_numpy_dtype(np.dtype(kind.dtype))
    return bool(leaf == arrow_type)
