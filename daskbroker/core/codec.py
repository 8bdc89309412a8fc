"""Lossless conversion of one column of documents to an Arrow array, and back.

A column is what the events of one chunk hold under one key. :func:`encode` looks at the
values, never at what a descriptor claims, and picks the plainest Arrow type from which they can be
restored exactly. What the Arrow type alone does not say (which numbers were integers, which cells
were missing rather than ``None``, the shape of arrays, that a text stands for bytes) is noted
in the field's metadata, so a Parquet file stays plain for other readers.

======== ============================================ ==========================
kind     values                                       Arrow type
======== ============================================ ==========================
null     nothing but ``None`` and missing             null
bool     booleans                                     bool
int      integers up to 2**53                         int64
long     integers of 64 bits                          int64
uint     integers of 64 bits without sign             uint64
float    floats                                       double
number   integers up to 2**53 and floats              double
str      text                                         string
array    arrays of one shape and type                 nested fixed_size_list
list     flat arrays of one type, differing lengths   list
rows     structured arrays, among others too          string (JSON)
json     anything else, bytes and UUIDs too           string (JSON)
======== ============================================ ==========================

Arrays whose leaves are of several types (whole and fractional numbers, ``None`` among numbers) are
JSON too, so that they are restored exactly; their kind has the shape and the common type of the
leaves. Structured arrays have their dtype and shape beside their rows in the JSON text.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from .column_kinds import JSON_KINDS, MISSING, NOTES, Column, ColumnKind, Missing, field_kind
from .documents import plain
from .dtypes import fields_dtype, fields_text
from .errors import StoreDamaged
from .field_rows import common_of, has_fields, lists_of
from .frozen import ArrayList
from .json_text import from_json, has_marks, marked_json, of_marked_json
from .leaves import (
    EXACT_INTEGER,
    LISTS,
    UNKNOWN,
    CellForm,
    cell_form,
    is_beyond,
    leaf_of_array,
    with_empty_arrays,
)
from .name_lists import listed
from .normalizing import MAX_DOCUMENT_DEPTH

ROWS_TOGETHER = 256
"""Number of rows whose cells :func:`iter_decoded` makes together."""
NUMBERS = frozenset("bool int long uint float number".split())  # noqa: SIM905
"""Kinds whose cells are single numbers."""


# -- encoding ------------------------------------------------------------------------------


def encode(values: Any) -> Column:
    """Encode the cells of one column.

    Parameters
    ----------
    values
        Sequence of normalized JSON-like values, which may include NumPy arrays and ``MISSING``;
        or one NumPy array whose first axis is the rows.
    """
    if isinstance(values, np.ndarray):
        if values.dtype.kind in "biuf":
            return _encode_block(values, None, {})
        if values.dtype.names:
            return _encode_rows([values[row, ...] for row in range(len(values))])
        values = values.tolist()
    types = set(map(type, values))
    if ArrayList in types:
        values = [value.array() if type(value) is ArrayList else value for value in values]
        types = set(map(type, values))
    # One structured array suffices: its fields must be noted, for which only rows have a form.
    if np.ndarray in types and any(map(has_fields, values)):
        return _encode_rows(values)
    notes: dict[str, str] = {}
    valid: np.ndarray | None = None
    solid: Sequence[Any] = values
    # Arrow has one kind of null; the note tells absent keys from values that are None.
    if type(None) in types or Missing in types:
        valid = np.fromiter((v is not None and v is not MISSING for v in values), bool, len(values))
        solid = [v for v in values if v is not None and v is not MISSING]
        if Missing in types:
            notes["missing"] = _missing_note(values, some_none=type(None) in types)
        types -= {type(None), Missing}
    column = _encode_solid(solid, types, valid, notes)
    if column is not None:
        return column
    # Arrays inside of lists: as plain lists they may have a form of Arrow after all.
    if any(type(value) in LISTS and _holds_arrays(value) for value in solid):
        return encode([plain(value) if type(value) in LISTS else value for value in values])
    form = cell_form(solid) if types <= {*LISTS, np.ndarray} else UNKNOWN
    return _encode_json(values, form, nulls=valid is not None)


def _holds_arrays(cell: Sequence[Any]) -> bool:
    """Return whether there are NumPy arrays in a list, at any level."""
    types = set(map(type, cell))
    if np.ndarray in types or ArrayList in types:
        return True
    return not LISTS.isdisjoint(types) and any(_holds_arrays(v) for v in cell if type(v) in LISTS)


def _missing_note(values: Sequence[Any], *, some_none: bool) -> str:
    # Usually every null is an absent key, and no mask is needed.
    if not some_none:
        return "all"
    return pack_mask(np.fromiter((v is MISSING for v in values), bool, len(values)))


def _encode_solid(
    solid: Sequence[Any], types: set[type], valid: np.ndarray | None, notes: dict[str, str]
) -> Column | None:
    """Encode cells of which none is null; return None if only JSON can hold them."""
    if not types:
        count = 0 if valid is None else len(valid)
        return Column(pa.nulls(count), ColumnKind("null", count > 0), notes)
    if types <= {*LISTS, np.ndarray}:
        return _encode_arrays(solid, types, valid, notes)
    leaves = _leaves(solid, types, notes)
    if leaves is None:
        return None
    name, array = leaves
    return Column(_spread(array, valid), ColumnKind(name, valid is not None), notes)


def _leaves(
    solid: Sequence[Any], types: set[type], notes: dict[str, str]
) -> tuple[str, np.ndarray | pa.Array] | None:
    """Return the kind's name and one flat array of scalars, or None if their types differ."""
    if types == {float}:
        return "float", np.array(solid, np.float64)
    if types == {int}:
        return _integers(solid)
    if types == {bool}:
        return "bool", np.array(solid, np.bool_)
    if types == {str}:
        try:
            return "str", pa.array(solid, pa.string())
        except UnicodeEncodeError:  # lone surrogates
            return None
    if types == {int, float}:
        # float64 would round them, so that they did not come back as they were.
        if any(type(v) is int and abs(v) > EXACT_INTEGER for v in solid):
            return None
        ints = np.fromiter((type(v) is int for v in solid), bool, len(solid))
        notes["ints"] = pack_mask(ints)
        return "number", np.array(solid, np.float64)
    return None


def _integers(solid: Sequence[int]) -> tuple[str, np.ndarray] | None:
    low, high = min(solid), max(solid)
    if low >= -EXACT_INTEGER and high <= EXACT_INTEGER:
        return "int", np.array(solid, np.int64)
    if low >= -(2**63) and high < 2**63:
        return "long", np.array(solid, np.int64)
    # Only if all are beyond int64, else a column's dtype would depend on where its chunks are cut.
    if low >= 2**63 and high < 2**64:
        return "uint", np.array(solid, np.uint64)
    return None


def _spread(solid: np.ndarray | pa.Array, valid: np.ndarray | None) -> pa.Array:
    """Return an array of all rows, with the given cells at the valid ones and null elsewhere."""
    if valid is None:
        return solid if isinstance(solid, pa.Array) else pa.array(solid)
    if isinstance(solid, pa.Array):
        positions = np.cumsum(valid) - 1
        return solid.take(pa.array(positions, mask=~valid))
    return pa.array(_at_valid(solid, valid), mask=~valid)


def _at_valid(solid: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return an array of all rows, with the given cells at the valid ones and zeros elsewhere."""
    full = np.zeros((len(valid), *solid.shape[1:]), solid.dtype)
    full[valid] = solid
    return full


def _encode_arrays(
    solid: Sequence[Any], types: set[type], valid: np.ndarray | None, notes: dict[str, str]
) -> Column | None:
    if np.ndarray in types and len(types) > 1:
        solid, types = with_empty_arrays(solid, types)
    if types == {np.ndarray}:
        if len({(a.dtype, a.shape) for a in solid}) == 1:
            return _encode_block(np.stack(solid), valid, notes) if solid[0].size else None
        if len({a.dtype for a in solid}) == 1 and all(a.ndim == 1 for a in solid):
            return _encode_ragged(np.concatenate(solid), list(map(len, solid)), valid, notes)
    if np.ndarray in types:
        # NumPy would round integers beyond int64 among other dtypes; only JSON keeps them.
        if any(a.dtype.kind == "u" and is_beyond(a) for a in solid if isinstance(a, np.ndarray)):
            return None
        solid = [plain(v) for v in solid]
    return _encode_lists(solid, valid, notes)


def _encode_lists(
    solid: Sequence[Any], valid: np.ndarray | None, notes: dict[str, str]
) -> Column | None:
    """Encode lists, which may be nested, of one type of scalars; None if JSON must hold them."""
    shape: list[int] = []
    level: Sequence[Any] = solid
    while level and LISTS.issuperset(map(type, level)):
        lengths = list(map(len, level))
        level_below = list(chain.from_iterable(level))
        if len(set(lengths)) > 1:
            # Arrow's lists of different lengths have no shape around them.
            flat = None if shape else _flat(level_below)
            return None if flat is None else _encode_ragged(flat, lengths, valid, notes)
        shape.append(lengths[0])
        if len(shape) > MAX_DOCUMENT_DEPTH:  # of a foreign writer; Arrow ends soon after
            return None
        level = level_below
    flat = _flat(level)
    if flat is None:
        return None
    if isinstance(flat, pa.Array):
        return _encode_text_block(flat, tuple(shape), valid, notes)
    return _encode_block(flat.reshape(len(solid), *shape), valid, notes)


def _flat(leaves: Sequence[Any]) -> np.ndarray | pa.Array | None:
    """Return the leaves of arrays as one flat array, or None unless all have one scalar type."""
    types = set(map(type, leaves))
    if len(types) != 1 or not types <= {float, int, bool, str}:
        return None
    found = _leaves(leaves, types, {})
    return None if found is None or found[0] == "uint" else found[1]


def _encode_block(block: np.ndarray, valid: np.ndarray | None, notes: dict[str, str]) -> Column:
    """Encode a NumPy array whose first axis is the rows."""
    shape = block.shape[1:]
    if block.ndim == 1:
        return _encode_flat_block(block, notes)
    # There are no leaves from which the dtype could be restored; JSON keeps the shape.
    if block.size == 0:
        return _encode_json(block.tolist(), CellForm("none", shape), nulls=False)
    kind = ColumnKind("array", valid is not None, leaf_of_array(block), shape)
    # Fixed-size lists have storage below null cells, too.
    if valid is not None:
        block = _at_valid(block, valid)
    return Column(_nest(pa.array(block.reshape(-1)), shape, valid), kind, notes)


def _encode_flat_block(block: np.ndarray, notes: dict[str, str]) -> Column:
    """Encode a one-dimensional numeric array: one scalar a row."""
    if block.dtype.kind == "b":
        return Column(pa.array(block), ColumnKind("bool"), notes)
    if block.dtype.kind == "f":
        return Column(pa.array(block.astype(np.float64)), ColumnKind("float"), notes)
    if len(block) == 0:
        return Column(pa.array(block.astype(np.int64)), ColumnKind("int"), notes)
    low, high = int(block.min()), int(block.max())
    if high >= 2**63:
        # The kind must not depend on where chunks are cut, see `_integers`.
        if low < 2**63:
            return _encode_json(block.tolist(), UNKNOWN, nulls=False)
        return Column(pa.array(block.astype(np.uint64)), ColumnKind("uint"), notes)
    name = "int" if low >= -EXACT_INTEGER and high <= EXACT_INTEGER else "long"
    return Column(pa.array(block.astype(np.int64)), ColumnKind(name), notes)


def _encode_text_block(
    flat: pa.Array, shape: tuple[int, ...], valid: np.ndarray | None, notes: dict[str, str]
) -> Column:
    # A null cell of a fixed-size list still takes as many leaves as any other.
    if valid is not None:
        size = int(np.prod(shape))
        flat = _spread(flat, np.repeat(valid, size))
    kind = ColumnKind("array", valid is not None, "<U", shape)
    return Column(_nest(flat, shape, valid), kind, notes)


def _nest(flat: pa.Array, shape: tuple[int, ...], valid: np.ndarray | None) -> pa.Array:
    """Wrap flat leaves in one fixed-size list per dimension."""
    for size in reversed(shape[1:]):
        flat = pa.FixedSizeListArray.from_arrays(flat, size)
    mask = None if valid is None else pa.array(~valid)
    return pa.FixedSizeListArray.from_arrays(flat, shape[0], mask=mask)


def _encode_ragged(
    flat: np.ndarray | pa.Array,
    lengths: list[int],
    valid: np.ndarray | None,
    notes: dict[str, str],
) -> Column:
    if isinstance(flat, pa.Array):
        dtype = "<U"
    else:
        dtype = leaf_of_array(flat)
        flat = pa.array(flat)
    counts = np.zeros(len(lengths) if valid is None else len(valid), np.int64)
    counts[slice(None) if valid is None else valid] = lengths
    offsets = np.concatenate([[0], np.cumsum(counts)])
    mask = None if valid is None else pa.array(~valid)
    # Offsets of 32 bits take half the space, but end at 2**31 leaves in one chunk.
    if offsets[-1] < 2**31:
        array = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat, mask=mask)
    else:
        array = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat, mask=mask)
    return Column(array, ColumnKind("list", valid is not None, dtype), notes)


def _encode_json(values: Sequence[Any], form: CellForm, *, nulls: bool) -> Column:
    column = text_column([None if v is MISSING else marked_json(v) for v in values])
    return replace(column, kind=ColumnKind("json", nulls, *form))


def text_column(texts: Sequence[str | None]) -> Column:
    """Return the column of texts of :func:`~.json_text.marked_json`, None for a missing cell."""
    array = pa.array(texts, pa.string())
    marked = any(text is not None and has_marks(text) for text in texts)
    return Column(
        array, ColumnKind("json", array.null_count > 0), {"marked": "all"} if marked else {}
    )


def text_reader(notes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the function that parses the texts of a column of :func:`text_column`."""
    return of_marked_json if "marked" in notes else from_json


def _encode_rows(values: Sequence[Any]) -> Column:
    """Encode cells of which some are structured arrays."""
    column = text_column([None if v is MISSING else marked_json(_cell_of_rows(v)) for v in values])
    nulls = any(value is None or value is MISSING for value in values)
    found = [value for value in values if has_fields(value)]
    others = any(v is not None and v is not MISSING and not has_fields(v) for v in values)
    common = None if others else common_of(value.dtype for value in found)
    if common is None:
        return replace(column, kind=ColumnKind("rows", nulls))
    shapes = {(*value.shape, len(common.names or ())) for value in found}
    shape = shapes.pop() if len(shapes) == 1 else ()
    return replace(column, kind=ColumnKind("rows", nulls, fields_text(common), shape))


def _cell_of_rows(value: Any) -> Any:
    if value is None:
        return None
    if has_fields(value):
        return [fields_text(value.dtype), list(value.shape), lists_of(value)]
    return [plain(value)]


def _array_of_cell(encoded: Any) -> Any:
    """Return the cell of a text of :func:`_encode_rows`; structured arrays as lists."""
    if encoded is None:
        return None
    if len(encoded) == 1:
        return encoded[0]
    text, shape, rows = encoded
    return ArrayList(rows, fields_dtype(text), shape)


def pack_mask(mask: np.ndarray) -> str:
    """Return the note that holds a boolean array."""
    return base64.b64encode(zlib.compress(np.packbits(mask).tobytes())).decode()


def check_notes(notes: Mapping[str, str], rows: int) -> None:
    """Check the notes of a column that has this number of rows.

    Raises
    ------
    StoreDamaged
        If there are unknown notes, or a mask is damaged or has the wrong length.
    """
    if not notes.keys() <= NOTES:
        raise StoreDamaged(f"a column has unknown notes: {listed(notes)}")
    if notes.get("missing", "all") != "all":
        unpack_mask(notes["missing"], rows)
    if "ints" in notes:
        _packed_mask(notes["ints"], (rows + 7) // 8)


def _packed_mask(note: str, most: int) -> bytes:
    """Return the bytes of a mask; StoreDamaged is raised if it is not valid or exceeds ``most``."""
    # Decompression is limited, as the note of a foreign file may inflate to any size.
    inflater = zlib.decompressobj()
    try:
        packed = inflater.decompress(base64.b64decode(note, validate=True), most + 1)
    except (ValueError, zlib.error) as error:
        raise StoreDamaged(f"the notes of a column are damaged: {error}") from error
    if len(packed) > most or not inflater.eof:
        raise StoreDamaged("the notes of a column are damaged")
    return packed


def unpack_mask(note: str, rows: int) -> np.ndarray:
    """Return the boolean array of a note; StoreDamaged is raised if it is not of this length."""
    size = (rows + 7) // 8
    packed = _packed_mask(note, size)
    if len(packed) != size:
        raise StoreDamaged("the notes of a column are damaged")
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=rows).astype(bool)


# -- decoding ------------------------------------------------------------------------------


def decode(array: pa.Array, arrow_field: pa.Field) -> list[Any]:
    """Return the cells that :func:`encode` was given; arrays are lists, missing cells `MISSING`."""
    kind, notes = field_kind(arrow_field)
    if kind.name in JSON_KINDS:
        read = text_reader(notes)
        found = [MISSING if text is None else read(text) for text in array.to_pylist()]
        if kind.name == "json":
            return found
        return [cell if cell is MISSING else _array_of_cell(cell) for cell in found]
    cells = _decode_cells(array, kind, notes)
    if "missing" in notes:
        if notes["missing"] == "all":
            return [MISSING if cell is None else cell for cell in cells]
        mask = unpack_mask(notes["missing"], len(cells))
        return [MISSING if missing else c for c, missing in zip(cells, mask, strict=True)]
    return cells


def iter_decoded(array: pa.Array, arrow_field: pa.Field) -> Iterable[Any]:
    """Return the cells of :func:`decode`, most of them made when they are taken.

    Cells of some hundred rows are made together. Objects that are released soon then stay in the
    processor's cache, and those of a whole chunk, which take several times its size, never exist
    at once.
    """
    kind, notes = field_kind(arrow_field)
    # Notes are about rows of the whole column. Texts are parsed at once, so that damage is found
    # where the chunk is read.
    if notes or kind.name in JSON_KINDS:
        return decode(array, arrow_field)
    starts = range(0, len(array), ROWS_TOGETHER)
    if kind.name in NUMBERS and not kind.nulls:
        numbers = array.to_numpy(zero_copy_only=False)
        return chain.from_iterable(numbers[row : row + ROWS_TOGETHER].tolist() for row in starts)
    parts = (array.slice(row, ROWS_TOGETHER) for row in starts)
    return chain.from_iterable(_decode_cells(part, kind, notes) for part in parts)


def _decode_cells(array: pa.Array, kind: ColumnKind, notes: Mapping[str, str]) -> list[Any]:
    if kind.name in ("null", "str", "list") or kind.dtype == "<U":
        return array.to_pylist()
    valid = array.is_valid().to_numpy(zero_copy_only=False) if kind.nulls else None
    if kind.name == "array":
        cells: list[Any] = block(array, kind).tolist()
        if valid is None:
            return cells
        return [cell if there else None for cell, there in zip(cells, valid, strict=True)]
    solid = array.drop_null() if valid is not None else array
    cells = solid.to_numpy(zero_copy_only=False).tolist()
    if "ints" in notes:
        ints = unpack_mask(notes["ints"], len(cells)).tolist()
        cells = [int(c) if whole else c for c, whole in zip(cells, ints, strict=True)]
    if valid is None:
        return cells
    remaining = iter(cells)
    return [next(remaining) if there else None for there in valid]


def block(array: pa.Array, kind: ColumnKind) -> np.ndarray:
    """Return a numeric ``array`` column as one NumPy array of shape ``(rows, *kind.shape)``.

    It is a view if Arrow's buffer allows that. Null rows hold zeros.
    """
    leaves, start, rows = array, array.offset, len(array)
    for size in kind.shape:
        leaves = leaves.values
        start, rows = start * size, rows * size
        leaves_offset = leaves.offset
        start += leaves_offset if leaves is not array else 0
    flat = leaves.slice(start - leaves.offset, rows)
    if flat.null_count:  # Parquet keeps no values below a null row
        flat = flat.fill_null(pa.scalar(0).cast(flat.type))
    values = flat.to_numpy(zero_copy_only=False)
    return values.reshape(len(array), *kind.shape)
