"""Cutting of a long journal into ranges, by facts of its rows, without fetching its data.

One query walks the rows of a descriptor along its index. For each row the server sends the time,
``seq_num``, the size, and the types of its values as one text. So the kinds of the columns are as
exact as those of a sealed chunk, and every partition of a table has the same dtypes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from ...core.chunk_statistics import Statistics, of_events
from ...core.column_kinds import ColumnKind
from ...core.page_parts import CHUNK_BYTES
from .bson_documents import ROWS_FIELD, SIDE_FIELD
from .value_types import kind_of_types, noted_type_of, split_types

RANGE_ROWS = 16_384
"""Number of rows after which a range is full."""

ESSENTIAL = {
    "uid": ("string",),
    "time": ("double", "int", "long", "decimal"),
    "seq_num": ("int", "long"),
    "data": ("object",),
    "timestamps": ("object",),
    "descriptor": ("string",),
}
"""Fields that every event has, and their BSON types."""
SOUND_EVENTS: dict[str, Any] = {
    name: {"$type": list(types), "$not": {"$type": "array"}} for name, types in ESSENTIAL.items()
} | {"$or": [{SIDE_FIELD: None}, {SIDE_FIELD: {"$type": "object"}}]}
"""Filter for events that have :data:`ESSENTIAL`."""


class OddEvent(Exception):
    """Raised if an event lacks one of :data:`ESSENTIAL`, or has it with another type."""


@dataclass
class Range:
    """Rows of the journal between two times, inclusive. Ranges share no time.

    Attributes
    ----------
    facts
        Statistics of the rows.
    begin, end
        Times of the first and the last row.
    kinds
        Kinds of the columns, as far as the server tells them; none if all rows are packed.
    packed
        Whether some rows have values that BSON cannot hold, or structured arrays. The kinds do not
        cover these rows.
    """

    facts: Statistics
    begin: float
    end: float
    kinds: dict[str, ColumnKind] = field(default_factory=dict)
    packed: bool = False


def facts_projection(descriptor: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``$project`` stage that makes the rows that :func:`cut_ranges` needs."""
    types: list[Any] = [{"$type": f"${name}"} for name in (SIDE_FIELD, *ESSENTIAL)]
    types.insert(
        0,
        {
            "$type": {
                "$ifNull": [f"${SIDE_FIELD}.packed", f"${SIDE_FIELD}.{ROWS_FIELD}", "$$REMOVE"]
            }
        },
    )
    for key, claim in descriptor["data_keys"].items():
        types.append(noted_type_of(key, claim))
    return {
        "_id": 0,
        "t": "$time",
        "s": "$seq_num",
        "b": {"$bsonSize": "$$ROOT"},
        "k": {"$concat": types},
    }


# -- from what the server tells to ranges ------------------------------------------------------


def cut_ranges(rows: Iterable[Mapping[str, Any]], keys: Iterable[str]) -> Iterator[Range]:
    """Cut rows, in the order of time, into ranges of about a chunk's size.

    Rows of the same time stay together, as a range is read by time.

    Parameters
    ----------
    rows
        Results of :func:`facts_projection`.
    keys
        Data keys in the order of the descriptor.

    Raises
    ------
    OddEvent
        If an event is malformed, or its time is not finite.
    """
    keys = tuple(keys)
    times: list[float] = []
    numbers: list[int] = []
    types: set[str] = set()
    packed, size = False, 0
    for row in rows:
        if not _is_sound(row["k"]):
            raise OddEvent(f"an event of time {row.get('t')!r} is malformed")
        time = row["t"]
        full = len(times) >= RANGE_ROWS or size >= CHUNK_BYTES
        # Rows are found by their times, so ranges must not share one.
        if full and time > times[-1]:
            yield Range(*_facts(times, numbers, size), _kinds(types, keys), packed)
            times, numbers, types, size, packed = [], [], set(), 0, False
        times.append(time)
        numbers.append(row["s"])
        size += row["b"]
        if row["k"].startswith("missing"):
            types.add(row["k"])
        else:
            packed = True
    if times:
        yield Range(*_facts(times, numbers, size), _kinds(types, keys), packed)


def _facts(times: list[float], numbers: list[int], size: int) -> tuple[Statistics, float, float]:
    facts = range_facts(times, numbers, size)
    if not (math.isfinite(facts.time_min) and math.isfinite(facts.time_max)):
        raise OddEvent("an event has a time that is not finite")
    return facts, times[0], times[-1]


def _kinds(types: set[str], keys: tuple[str, ...]) -> dict[str, ColumnKind]:
    if not types:
        return {}
    kinds = {"seq_num": ColumnKind("int"), "time": ColumnKind("float"), "uid": ColumnKind("str")}
    by_column = list(zip(*map(split_types, types), strict=True))
    for key, found in zip(keys, by_column[2 + len(ESSENTIAL) :], strict=True):
        kind = kind_of_types(set(found))
        if kind is not None:
            kinds[f"data:{key}"] = kind
            kinds[f"ts:{key}"] = ColumnKind("float", nulls=True)
    return kinds


def range_facts(times: list[float], numbers: list[int], size: int) -> Statistics:
    """Return the statistics of rows from their times, ``seq_num`` and size in bytes of BSON."""
    return of_events(np.array(numbers, np.int64), np.array(times, float), size)


@lru_cache(maxsize=10_000)
def _is_sound(text: str) -> bool:
    """Return whether a row has :data:`ESSENTIAL`; packed rows may hide their data, timestamps."""
    packed, side, *found = split_types(text)[: 2 + len(ESSENTIAL)]
    hidden = ("data", "timestamps") if packed != "missing" else ()
    return side in ("missing", "null", "object") and all(
        kind in ESSENTIAL[name] or (name in hidden and kind == "missing")
        for name, kind in zip(ESSENTIAL, found, strict=True)
    )
