"""Order of a stream's rows over its chunks, and which of them a table shows.

Rows are in the order of ``seq_num``. A scan that was rewound has some ``seq_num`` more than
once; a table shows the latest row of each by time, or all. To decide that, chunks whose ranges of
``seq_num`` overlap are read together, as one group; every other chunk is a group of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..core.chunks import ChunkPlan

Duplicates = Literal["last", "all"]

LEAST_BYTES = 8
"""Minimum bytes that a row is counted as."""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Chunks that are read together, and what is known about their rows.

    Attributes
    ----------
    indices
        Positions of the chunks in the plan, in the order in which they were stored.
    run
        Uid of the run that the events belong to.
    simple
        Whether the group is one chunk whose rows are all shown, in order: there is nothing to
        sort or drop.
    rows
        Number of rows shown; None if counting them needs a read of ``seq_num``.
    stored
        Number of rows in the chunks.
    numbers
        ``seq_num`` of the rows of the chunk, if known without reading: the group is simple and
        has no gaps.
    within
        Whether this is a piece of a larger group, of which only rows from ``seq_min`` to
        ``seq_max`` are shown.
    bytes
        Size of the rows in the view; for a piece, its share of the group's size.
    seq_min, seq_max, time_min, time_max
        Extremes over the chunks; ``seq_min`` and ``seq_max`` of a piece are its own.
    """

    indices: tuple[int, ...]
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

    Parameters
    ----------
    plan
        Plan of events; no chunk is read.
    duplicates
        Which rows are shown if a ``seq_num`` occurs more than once.
    row_bytes
        Bytes that a row of the view has more than a row of the chunks; negative if it has less.
    """
    if not len(plan):
        return []
    uids = [descriptor["run_start"] for descriptor in plan.descriptors]
    order, begins, runs = _overlapping(plan, uids)
    records = plan.records[order]
    ends = np.append(begins[1:], len(order))
    single = ends - begins == 1
    stored = np.add.reduceat(records["rows"], begins)
    added = np.add.reduceat(records["bytes"], begins) + stored * row_bytes
    sizes = np.maximum(added, stored * LEAST_BYTES)
    lows = np.minimum.reduceat(records["seq_min"], begins)
    highs = np.maximum.reduceat(records["seq_max"], begins)
    simple = single & records["ordered"][begins]
    if duplicates == "all":
        shown, known = stored, np.ones(len(begins), bool)
    else:
        shown, known = records["distinct"][begins], single
    # The time of a chunk is NaN if not known; reduceat then makes that of the group NaN, too.
    firsts = np.minimum.reduceat(records["time_min"], begins)
    lasts = np.maximum.reduceat(records["time_max"], begins)
    facts = (begins, ends, runs, simple, shown, known, stored, sizes, lows, highs, firsts, lasts)
    return [
        RowGroup(
            indices=tuple(sorted(order[begin:end].tolist())),
            run=uids[run],
            simple=is_simple,
            rows=rows if is_known else None,
            bytes=size,
            seq_min=low,
            seq_max=high,
            time_min=first,
            time_max=last,
            stored=count,
            numbers=range(low, high + 1) if is_simple and high - low + 1 == count else None,
        )
        for begin, end, run, is_simple, rows, is_known, count, size, low, high, first, last in zip(
            *(column.tolist() for column in facts), strict=True
        )
    ]


def _overlapping(plan: ChunkPlan, uids: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort chunks by run and ``seq_num``, and find where a group of overlapping ones begins.

    A group begins at a chunk that starts above all earlier chunks of its run.

    Returns
    -------
    order : ndarray of int
        Positions of the chunks in the plan, in the order of rows.
    begins : ndarray of int
        Offset in `order` at which each group begins.
    runs : ndarray of int
        Position, for each group, of the first descriptor of its run.
    """
    first_of: dict[str, int] = {}
    for position, uid in enumerate(uids):
        first_of.setdefault(uid, position)
    run_of = np.array([first_of[uid] for uid in uids], np.int64)[plan.records["descriptor"]]
    order = np.lexsort((plan.records["seq_min"], run_of))
    run_of = run_of[order]
    lows, highs = plan.records["seq_min"][order], plan.records["seq_max"][order]
    changes = np.flatnonzero(run_of[1:] != run_of[:-1]) + 1
    run_begins = np.concatenate([[0], changes])
    run_ends = np.append(changes, len(order))
    for run in np.flatnonzero(run_ends - run_begins > 1).tolist():
        part = slice(run_begins[run], run_ends[run])
        highs[part] = np.maximum.accumulate(highs[part])
    apart = lows[1:] > highs[:-1]
    apart[changes - 1] = True
    begins = np.concatenate([[0], np.flatnonzero(apart) + 1])
    return order, begins, run_of[begins]


def in_order(seq: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the positions of rows sorted by ``seq_num``, then by time, then as they are stored.

    Rows with one ``seq_num`` are told apart by time, as not every store keeps the order in which
    events were inserted. A row without a time (NaN) is later than those that have one.
    """
    return np.lexsort((times, seq))  # stable


def keep(seq: np.ndarray, times: np.ndarray, duplicates: Duplicates) -> np.ndarray:
    """Return the positions of the rows to show, in the order of :func:`in_order`.

    With ``duplicates="last"``, only the latest row of each ``seq_num`` is among them.
    """
    order = in_order(seq, times)
    if duplicates == "all" or len(seq) == 0:
        return order
    ordered = seq[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    return order[last]


def later_counts(owners: np.ndarray, seq: np.ndarray, times: np.ndarray) -> np.ndarray | None:
    """Count for each row the later rows with the same owner and ``seq_num``.

    Returns
    -------
    ndarray of int64 or None
        One count per row; None if all counts are 0.
    """
    order = np.lexsort((times, seq, owners))  # stable
    ends = np.append((np.diff(seq[order]) != 0) | (np.diff(owners[order]) != 0), True)
    if ends.all():
        return None
    last = np.flatnonzero(ends)
    indices = np.arange(len(seq))
    later = np.empty(len(seq), np.int64)
    later[order] = last[np.searchsorted(last, indices)] - indices
    return later


def later_of(plan: ChunkPlan, indices: Sequence[int]) -> dict[int, np.ndarray]:
    """Return the :func:`later_counts` of some chunks of one descriptor, by position in the plan.

    ``seq_num`` and ``time`` are read only if the plan does not exclude repeated values. The result
    is empty if no value is repeated.
    """
    records = plan.records[list(indices)]
    highest = np.maximum.accumulate(records["seq_max"])
    apart = (records["seq_min"][1:] > highest[:-1]).all()
    if apart and (records["distinct"] == records["rows"]).all():
        return {}
    seq, times = seq_and_times(plan, indices)
    later = later_counts(np.zeros(len(seq), np.int64), seq, times)
    if later is None:
        return {}
    return dict(zip(indices, np.split(later, np.cumsum(records["rows"])[:-1])))


def seq_and_times(plan: ChunkPlan, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Read ``seq_num`` and time of all rows of some chunks, in the order of the chunks."""
    read = [plan.read(index, ["seq_num", "time"]) for index in indices]
    seq, times = (
        np.concatenate([table.column(name).to_numpy() for table in read])
        for name in ("seq_num", "time")
    )
    return seq, times


def cut_groups(groups: Sequence[RowGroup], target: int) -> list[RowGroup]:
    """Cut groups larger than `target` bytes into pieces of at most that size.

    A piece is a range of ``seq_num``, so its borders are known without reading; its number of
    rows is known only if the group has no gaps. A single row is never cut.
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
    """Join consecutive groups into ranges of at most about `target` bytes.

    Returns
    -------
    list of (int, int)
        Half-open ranges of positions in `groups`, none of them empty.
    """
    ranges: list[tuple[int, int]] = []
    begin, size = 0, 0
    for position, group in enumerate(groups):
        if position > begin and size + group.bytes > target:
            ranges.append((begin, position))
            begin, size = position, 0
        size += group.bytes
    if begin < len(groups):
        ranges.append((begin, len(groups)))
    return ranges
