"""Checks of documents that another program has stored, made when they are read.

Inserted documents are checked by :mod:`daskbroker.core.validate` before a store gets them. A
database that others write to may hold anything, so what is read from it is checked for what
daskbroker relies on. That is less than event-model's schemas ask for: old documents break them in
harmless ways (a start or descriptor without ``time`` is shown as such). The checks cost little:
a few types of a start, stop or descriptor, and the types of whole columns of events and references.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import itemgetter
from typing import Any

import pyarrow as pa

from .column_kinds import KINDS, ColumnKind, field_kind
from .errors import BadDocument, StoreDamaged
from .layouts import EVENT, STREAM_DATUM, Layout, encode_page, encode_rows
from .printable import shown
from .validate import check_page, check_row

NUMBERS = ("int", "float", "number", "long")
STAMPS = (*NUMBERS, "null")
KINDS_OF = {"time": NUMBERS, "seq_num": ("int", "long"), "uid": ("str",)}
"""Kinds that the columns of every event may have, by name."""
FEW = 16
"""Maximum number of events that are checked one by one, which is faster than by columns."""


def fault_of(name: str, doc: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a start, stop or descriptor, or None if nothing is.

    Only what daskbroker relies on is checked.

    Parameters
    ----------
    name
        ``"start"``, ``"stop"`` or ``"descriptor"``.
    doc
        Document as it was decoded.
    """
    uid = doc.get("uid")
    if type(uid) is not str or not uid:
        return _lacks(name, doc, "uid", "text that is not empty")
    if name == "start":
        return None
    if type(doc.get("run_start")) is not str:
        return _lacks(name, doc, "run_start", "text")
    if name == "descriptor":
        return _fault_of_descriptor(doc)
    time = doc.get("time")
    # Types are compared, as a bool is an int to isinstance, but is not a time.
    if (type(time) is not float and type(time) is not int) or not math.isfinite(time):
        return _lacks(name, doc, "time", "a finite number of POSIX seconds")
    return None


def _fault_of_descriptor(doc: Mapping[str, Any]) -> str | None:
    keys = doc.get("data_keys")
    if not isinstance(keys, dict):
        return _lacks("descriptor", doc, "data_keys", "a mapping")
    for key, claim in keys.items():
        if not isinstance(claim, dict):
            return _must_be("descriptor", f"data_keys.{key}", "a mapping", claim)
        if not isinstance(claim.get("shape", ()), (list, tuple, type(None))):
            return _must_be("descriptor", f"data_keys.{key}.shape", "a list", claim["shape"])
    if not isinstance(doc.get("name", ""), (str, type(None))):
        return _must_be("descriptor", "name", "text", doc["name"])
    for part in ("configuration", "object_keys", "hints"):
        inside = doc.get(part, {})
        if not isinstance(inside, dict):
            return _must_be("descriptor", part, "a mapping", inside)
    for device, found in doc.get("configuration", {}).items():
        if not isinstance(found, dict) or not isinstance(found.get("data", {}), dict):
            return _must_be("descriptor", f"configuration.{device}", "a mapping", found)
    return None


def _lacks(name: str, doc: Mapping[str, Any], field: str, wanted: str) -> str:
    if field not in doc:
        return f"its {name} document lacks {field!r}"
    return _must_be(name, field, wanted, doc[field])


def _must_be(name: str, field: str, wanted: str, value: object) -> str:
    return f"{field} of its {name} document must be {wanted}, not {shown(value, 60)}"


# -- events and references -------------------------------------------------------------------


def encode_stored_rows(
    layout: Layout,
    rows: Sequence[Mapping[str, Any]],
    metadata: Mapping[str, str],
    ids: Sequence[Any] | None = None,
) -> pa.Table:
    """Encode unchecked documents as :func:`~.layouts.encode_rows`.

    Parameters
    ----------
    layout, rows, metadata
        See :func:`~.layouts.encode_rows`.
    ids
        What each document is found by in the store, such as its ``_id``, for messages about
        documents without uid.

    Raises
    ------
    StoreDamaged
        If a document is not valid; the message names the first, and its field.
    """

    def check() -> None:
        for number, row in enumerate(rows):
            uid = row.get(layout.uid)
            named = isinstance(uid, str) or ids is None
            name = repr(uid) if named else f"of _id {ids[number]!r}"  # type: ignore[index]
            label = f"{layout.kind} {name}"
            check_row(layout, row, label)
            if not isinstance(row.get("filled", {}), dict):
                raise BadDocument(f"{label}.filled: must be a mapping")

    if layout is EVENT and len(rows) <= FEW and all(map(_is_plain, rows)):
        return encode_rows(layout, rows, metadata)
    return _encoded(layout, lambda: _encoded_rows(layout, rows, metadata), check)


def _is_plain(event: Mapping[str, Any]) -> bool:
    """Return whether an event is valid; for few events this is faster than checking columns."""
    get = event.get
    time, stamps = get("time"), get("timestamps")
    return (
        type(get("uid")) is str
        and type(get("descriptor")) is str
        and type(get("seq_num")) is int
        and type(time) is float
        and math.isfinite(time)
        and type(get("data")) is dict
        and type(stamps) is dict
        and {float, int}.issuperset(map(type, stamps.values()))
        and type(get("filled", {})) is dict
        and not get("filled")
    )


def _encoded_rows(
    layout: Layout, rows: Sequence[Mapping[str, Any]], metadata: Mapping[str, str]
) -> pa.Table:
    if layout.owner and not {str}.issuperset(map(type, map(itemgetter(layout.owner), rows))):
        raise TypeError(f"{layout.owner} must be text")
    if not all(isinstance(row["filled"], dict) for row in rows if "filled" in row):
        raise TypeError("filled must be a mapping")
    return encode_rows(layout, rows, metadata)


def encode_stored_page(
    layout: Layout, page: dict[str, Any], metadata: Mapping[str, str]
) -> pa.Table:
    """Encode an unchecked page as :func:`~.layouts.encode_page`.

    Raises
    ------
    StoreDamaged
        If a column is not valid; the message names it.
    """
    return _encoded(
        layout,
        lambda: encode_page(layout, page, metadata),
        lambda: check_page(layout, page, f"{layout.kind}_page"),
    )


def _encoded(layout: Layout, encode: Callable[[], pa.Table], check: Callable[[], None]) -> pa.Table:
    """Return the encoded table; the single documents are checked only if its columns are wrong."""
    failure: Exception | None = None
    try:
        table = encode()
        if _is_sound(layout, table):
            return table
    except MemoryError:  # Arrow's is an ArrowException too, and says nothing about the documents
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, pa.ArrowException) as e:
        failure = e
    try:
        check()
    except (BadDocument, TypeError, AttributeError) as error:
        raise StoreDamaged(str(error)) from None
    if failure is None:  # unusual columns, but each document could have been inserted as it is
        return table
    raise StoreDamaged(f"some {layout.kind}s are malformed: {failure}") from failure


def check_column(name: str, kind: ColumnKind) -> None:
    """Check a column of events that was read without the others.

    Raises
    ------
    StoreDamaged
        If its kind is not one that the column may have, or a required column has nulls.
    """
    lacking = kind.nulls and name in EVENT.columns
    if lacking or kind.name not in _kinds_of(name):
        part, _, key = name.partition(":")
        field = f"timestamps.{key}" if part == "ts" else name
        raise StoreDamaged(f"some events have no valid {field}: its values are of kind {kind.name}")


def _kinds_of(name: str) -> Collection[str]:
    """Return the kinds that a column of events may have."""
    return STAMPS if name.startswith("ts:") else KINDS_OF.get(name, KINDS)


def _is_sound(layout: Layout, table: pa.Table) -> bool:
    """Return whether the columns that every document must have are of the right kinds."""
    for name in layout.columns:
        kind = field_kind(table.schema.field(name))[0]
        if kind.nulls or kind.name not in KINDS_OF.get(name, ("str",)):
            return False
    if layout is STREAM_DATUM:
        return _has_counts(table)
    if layout is not EVENT:
        return True
    # Timestamps are the only mapping whose cells must be numbers.
    for field in table.schema:
        if field.name.startswith("ts:") and field_kind(field)[0].name not in STAMPS:
            return False
    if "filled" in table.column_names and field_kind(table.schema.field("filled"))[1]:
        return False  # it holds what is neither true, false nor text
    times = table.column("time").to_numpy()
    return not len(times) or (math.isfinite(times.min()) and math.isfinite(times.max()))


def _has_counts(table: pa.Table) -> bool:
    names = [f"{part}:{end}" for part in ("indices", "seq_nums") for end in ("start", "stop")]
    there = set(table.column_names)
    kinds = [field_kind(table.schema.field(name))[0] for name in names if name in there]
    return len(kinds) == len(names) and all(k.name == "int" and not k.nulls for k in kinds)
