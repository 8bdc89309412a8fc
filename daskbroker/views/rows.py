"""The rows of a stream over its chunks: their order, and which of them a table shows.

Rows come in the order of ``seq_num``. A scan that was rewound has some ``seq_num`` more than
once; a table shows the latest of them, or all. Chunks whose ranges of ``seq_num`` overlap are
read together, as one group, so that this can be decided; all others stand for themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ..core.chunks import ChunkPlan
from ..core.errors import BadQuery

__all__ = ["Duplicates", "RowGroup", "coalesce", "cut", "group_rows", "keep"]

Duplicates = Literal["last", "all"]

LEAST_BYTES = 8
"""Of a row."""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Chunks that are read together, and what is known of their rows.

    Attributes
    ----------
    places
        Of the chunks in the plan, in the order in which they were stored.
    run
        Whose events they are.
    simple
        One chunk, all rows shown, in order: nothing to sort or drop.
    rows
        Number shown; None if that needs a look at ``seq_num``.
    stored
        Number in the chunks.
    numbers
        ``seq_num`` of the rows in its chunk, where that is known without reading: it is simple
        and has no gaps.
    within
        Whether it is a piece of a larger group: only rows from ``seq_min`` to ``seq_max``.
    bytes, seq_min, seq_max, time_min, time_max
        Over the chunks, ``bytes`` as the view has them; of a piece, they are its share.
    """

    places: tuple[int, ...]
    run: str
    simple: bool
    rows: int | None
    bytes: int
    seq_min: int
    seq_max: int
    time_min: float
    time_max: float
    stored: int = 0
    within: bool = False
    numbers: range | None = None


def group_rows(
    plan: ChunkPlan, duplicates: Duplicates = "last", row_bytes: int = 0
) -> list[RowGroup]:
    """Group the chunks of a plan, run by run, each run in the order of ``seq_num``.

    A row of the view has ``row_bytes`` more than one of the chunks, or, if negative, less.
    """
    if duplicates not in ("last", "all"):
        raise BadQuery(f"duplicates must be 'last' or 'all', not {duplicates!r}")
    groups: list[RowGroup] = []
    for run, places in _by_run(plan):
        groups.extend(_grouped(plan, run, places, duplicates, row_bytes))
    return groups


def _by_run(plan: ChunkPlan) -> Iterator[tuple[str, np.ndarray]]:
    uids = [descriptor["run_start"] for descriptor in plan.descriptors]
    order = {uid: number for number, uid in enumerate(dict.fromkeys(uids))}
    number_of = np.array([order[uid] for uid in uids], dtype=np.int64)
    if not len(plan):
        return
    numbers = number_of[plan.records["descriptor"]]
    for number in dict.fromkeys(numbers.tolist()):
        places = np.flatnonzero(numbers == number) if len(order) > 1 else np.arange(len(plan))
        yield uids[int(np.flatnonzero(number_of == number)[0])], places


def _grouped(
    plan: ChunkPlan, run: str, places: np.ndarray, duplicates: Duplicates, row_bytes: int
) -> Iterator[RowGroup]:
    records = plan.records[places]
    order = np.argsort(records["seq_min"], kind="stable")
    lows, highs = records["seq_min"][order], np.maximum.accumulate(records["seq_max"][order])
    # A group ends where the next chunk begins above everything so far.
    ends: Any = np.flatnonzero(np.append(lows[1:] > highs[:-1], True)) + 1 if len(order) else []
    begin = 0
    for end in np.asarray(ends).tolist():
        yield _group(plan, run, np.sort(places[order[begin:end]]), duplicates, row_bytes)
        begin = end


def _group(
    plan: ChunkPlan, run: str, places: np.ndarray, duplicates: Duplicates, row_bytes: int
) -> RowGroup:
    records = plan.records[places]
    single = len(places) == 1
    simple = single and bool(records["ordered"][0])
    rows: int | None
    if duplicates == "all":
        rows = int(records["rows"].sum())
    else:
        rows = int(records["distinct"][0]) if single else None
    times = records["time_min"], records["time_max"]
    low, high = int(records["seq_min"].min()), int(records["seq_max"].max())
    numbers = range(low, high + 1)
    stored = int(records["rows"].sum())
    known = not (np.isnan(times[0]).any() or np.isnan(times[1]).any())
    return RowGroup(
        places=tuple(places.tolist()),
        run=run,
        simple=simple,
        rows=rows,
        bytes=max(int(records["bytes"].sum()) + stored * row_bytes, stored * LEAST_BYTES),
        seq_min=low,
        seq_max=high,
        time_min=float(times[0].min()) if known else float("nan"),
        time_max=float(times[1].max()) if known else float("nan"),
        stored=stored,
        numbers=numbers if simple and len(numbers) == records["rows"][0] else None,
    )


def keep(seq: np.ndarray, duplicates: Duplicates) -> np.ndarray:
    """Which rows to show, in order: sorted by ``seq_num``, and of equal ones the latest."""
    order = np.argsort(seq, kind="stable")
    if duplicates == "all" or len(seq) == 0:
        return order
    ordered = seq[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    return order[last]


def cut(groups: Sequence[RowGroup], target: int) -> list[RowGroup]:
    """The groups, large ones in pieces that are not larger than ``target``, but for single rows.

    A piece is a range of ``seq_num``, so its borders are known without reading. How many rows it
    has is known where a group has no gaps.
    """
    pieces: list[RowGroup] = []
    for group in groups:
        span = group.seq_max - group.seq_min + 1
        count = min(-(-group.bytes // target), span)
        pieces.extend([group] if count < 2 else _pieces(group, span, count))
    return pieces


def _pieces(group: RowGroup, span: int, count: int) -> Iterator[RowGroup]:
    step = -(-span // count)
    for low in range(group.seq_min, group.seq_max + 1, step):
        high = min(low + step - 1, group.seq_max)
        share = (high - low + 1) / span
        yield replace(
            group,
            within=True,
            seq_min=low,
            seq_max=high,
            rows=None if group.numbers is None else high - low + 1,
            stored=max(1, round(group.stored * share)),
            bytes=round(group.bytes * share),
        )


def coalesce(groups: Sequence[RowGroup], target: int) -> list[tuple[int, int]]:
    """Cut a list of groups into ranges of about ``target`` bytes, none of them empty."""
    ranges: list[tuple[int, int]] = []
    begin, size = 0, 0
    for place, group in enumerate(groups):
        if place > begin and size + group.bytes > target:
            ranges.append((begin, place))
            begin, size = place, 0
        size += group.bytes
    if begin < len(groups):
        ranges.append((begin, len(groups)))
    return ranges
