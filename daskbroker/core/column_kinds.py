"""Kinds of the columns of a chunk, and how an Arrow field notes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pyarrow as pa

from .errors import StoreDamaged, StoreVersion
from .name_lists import listed

KINDS = frozenset(
    "null bool int long uint float number str array list rows json".split()  # noqa: SIM905
)
"""Names of the kinds; :mod:`.codec` tells what each holds."""
JSON_KINDS = frozenset(("rows", "json"))
"""Kinds whose cells are JSON texts."""
NOTES = frozenset(("ints", "missing", "marked"))
"""Notes that a field's metadata may hold beside the kind."""


class Missing:
    """Sentinel: the document has no such key (as opposed to ``None`` under it)."""

    def __repr__(self) -> str:
        return "MISSING"

    def __reduce__(self) -> str:
        return "MISSING"


MISSING = Missing()


@dataclass(frozen=True, slots=True)
class ColumnKind:
    """Type of the cells of a column; enough to plan with, without reading the column.

    Attributes
    ----------
    name
        One of :data:`KINDS`.
    nulls
        Whether some cells are ``None`` or missing.
    dtype
        Common leaf type of the cells, see :mod:`.leaves`, if they are arrays (kinds ``array``,
        ``list`` and some of ``json``). Of ``rows`` it is the dtype that holds the elements of all
        cells, see :func:`~.dtypes.fields_text`; "" if there is none.
    shape
        Shape of each cell, if all are arrays of one shape. Rows have the number of their fields as
        last dimension.
    """

    name: str
    nulls: bool = False
    dtype: str = ""
    shape: tuple[int, ...] = ()

    def to_list(self) -> list[Any]:
        """Return the kind as a short JSON-like list, for the manifest of chunks."""
        return [self.name, int(self.nulls), self.dtype, list(self.shape)]

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> ColumnKind:
        """Return the kind of which :meth:`to_list` made these values.

        Raises
        ------
        StoreVersion
            If this daskbroker does not know the kind.
        """
        name, nulls, dtype, shape = values
        if name not in KINDS:
            raise StoreVersion(
                f"its values are of the kind {name!r}, which this daskbroker does not know: "
                "install a newer daskbroker to read it"
            )
        return cls(name, bool(nulls), dtype, tuple(shape))


@dataclass(frozen=True, slots=True)
class Column:
    """An encoded column: the array, its kind, and the notes needed to restore it exactly."""

    array: pa.Array
    kind: ColumnKind
    notes: dict[str, str] = field(default_factory=dict)

    def arrow_field(self, name: str) -> pa.Field:
        """Return the Arrow field, which has kind and notes in its metadata."""
        note = _noted(self.kind, self.notes) if self.notes else _noted_kind(self.kind)
        return _field(name, self.array.type, note)


@lru_cache(maxsize=4096)
def _field(name: str, arrow_type: pa.DataType, note: bytes) -> pa.Field:
    return pa.field(name, arrow_type, metadata={b"daskbroker": note})


def _noted(kind: ColumnKind, notes: Mapping[str, str]) -> bytes:
    return json.dumps({"kind": kind.to_list(), **notes}, separators=(",", ":")).encode()


@lru_cache(maxsize=4096)
def _noted_kind(kind: ColumnKind) -> bytes:
    return _noted(kind, {})


def listed_kinds(columns: Mapping[str, Sequence[Any]]) -> dict[str, ColumnKind]:
    """Return the kinds of a chunk's columns from the lists in its manifest.

    :meth:`ColumnKind.to_list` has made these lists.

    Raises
    ------
    StoreVersion
        If this daskbroker does not know one of them; the message names the column.
    """
    kinds = {}
    for name, values in columns.items():
        try:
            kinds[name] = ColumnKind.from_list(values)
        except StoreVersion as error:
            raise StoreVersion(f"column {name!r} of a chunk: {error}") from None
    return kinds


def field_kind(arrow_field: pa.Field) -> tuple[ColumnKind, Mapping[str, str]]:
    """Return the kind and the notes in a field's metadata.

    Raises
    ------
    StoreDamaged
        If the metadata has none, or they cannot be parsed.
    StoreVersion
        If a newer daskbroker has written a kind or notes that this one does not know.
    """
    try:
        note = arrow_field.metadata[b"daskbroker"]
        return _parsed_short(note) if len(note) < SHORT else _parsed(note)
    except StoreVersion as error:
        raise StoreVersion(f"column {arrow_field.name!r} of a chunk: {error}") from None
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise StoreDamaged(f"the column {arrow_field.name!r} of a chunk is damaged") from error


def _parsed(note: bytes) -> tuple[ColumnKind, Mapping[str, str]]:
    notes = json.loads(note)
    kind = ColumnKind.from_list(notes.pop("kind"))
    if not notes.keys() <= NOTES:
        raise StoreVersion(
            f"it has notes ({listed(sorted(notes.keys() - NOTES))}) that this daskbroker does "
            "not know: install a newer daskbroker to read it"
        )
    return kind, notes


# Nearly all fields of a store have one of a few short notes; long ones hold masks and differ.
SHORT = 200


_parsed_short = lru_cache(maxsize=4096)(_parsed)


def exact_alone(arrow_field: pa.Field) -> bool:
    """Return whether the notes apply to all rows alike, so that rows may be joined or cut."""
    notes = field_kind(arrow_field)[1]
    return "ints" not in notes and notes.get("missing", "all") == "all"
