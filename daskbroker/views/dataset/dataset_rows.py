"""The chunks and rows of chunks that the rows of a Dataset come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from ...core.chunks import ChunkPlan
from ..row_order import Duplicates, RowGroup, group_rows, keep, later_counts, seq_and_times

RowsOfChunk = slice | np.ndarray
"""Some rows of a chunk: a slice if they are consecutive, so that no copy is made."""


@dataclass(frozen=True, eq=False)
class DatasetRows:
    """Positions of the rows of a Dataset in the chunks of a plan.

    Attributes
    ----------
    groups
        Groups of chunks that are read together.
    ends
        Number of rows up to the end of each group.
    taken
        Shown rows, by number of the group, of groups that are not shown as they are stored.
    lengths
        Number of rows of each chunk of the plan.
    later
        :attr:`~daskbroker.assets.filling.contents.CellContents.later`, by chunk, of chunks with
        repeated ``seq_num`` of which all rows are shown.
    """

    groups: tuple[RowGroup, ...]
    ends: np.ndarray
    taken: Mapping[int, np.ndarray]
    lengths: np.ndarray
    later: Mapping[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: ChunkPlan, duplicates: Duplicates) -> DatasetRows:
        """Return the rows of a plan.

        ``seq_num`` and ``time`` are read if rows overlap or are out of order.
        """
        groups = tuple(group_rows(plan, duplicates))
        taken: dict[int, np.ndarray] = {}
        later: dict[int, np.ndarray] = {}
        counts = []
        for number, group in enumerate(groups):
            if not group.simple:
                seq, times = seq_and_times(plan, group.indices)
                taken[number] = keep(seq, times, duplicates)
                if duplicates == "all":
                    later |= _later(plan, group, seq, times)
            counts.append(len(taken[number]) if number in taken else group.rows or 0)
        ends = np.cumsum(np.array(counts, dtype=np.int64))
        return cls(groups, ends, taken, plan.records["rows"].astype(np.int64), later)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        # Cached properties are left out, as they are derived from these fields.
        return (DatasetRows, (self.groups, self.ends, self.taken, self.lengths, self.later))

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def only(self, mask: np.ndarray) -> DatasetRows:
        """Return only those rows that the mask marks."""
        if mask.all():
            return self
        taken: dict[int, np.ndarray] = {}
        counts = []
        for number, (begin, end) in enumerate(zip(self._begins.tolist(), self.ends.tolist())):
            chosen = mask[begin:end]
            if chosen.all() and number not in self.taken:
                counts.append(end - begin)
                continue
            shown = self.taken.get(number, np.arange(end - begin))
            taken[number] = shown[chosen]
            counts.append(len(taken[number]))
        return replace(self, ends=np.cumsum(np.array(counts, np.int64)), taken=taken)

    @cached_property
    def _begins(self) -> np.ndarray:
        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64)

    @cached_property
    def _first_chunk(self) -> np.ndarray:
        return np.array([group.indices[0] for group in self.groups], np.int64)

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the chunk of each of the given rows, and the position of the row in it."""
        numbers = np.searchsorted(self.ends, positions, side="right")
        rows = positions - self._begins[numbers]
        chunks = self._first_chunk[numbers]
        for number in [n for n in np.unique(numbers).tolist() if n in self.taken]:
            here = numbers == number
            group = self.groups[number]
            ends = np.cumsum(self.lengths[list(group.indices)])
            among = self.taken[number][rows[here]]
            which = np.searchsorted(ends, among, side="right")
            chunks[here] = np.array(group.indices)[which]
            rows[here] = among - np.concatenate([[0], ends[:-1]])[which]
        return chunks, rows

    def pieces(
        self, begin: int, end: int
    ) -> tuple[list[tuple[int, RowsOfChunk]], np.ndarray | None]:
        """Return rows `begin` to `end` (excluded), chunk by chunk; see :func:`by_chunk`."""
        first = int(np.searchsorted(self.ends, begin, side="right"))
        last = int(np.searchsorted(self.ends, end, side="left")) + 1
        numbers = range(first, min(last, len(self.groups))) if begin < end else range(0)
        if any(number in self.taken for number in numbers):
            return by_chunk(*self.locate(np.arange(begin, end)))
        found: list[tuple[int, RowsOfChunk]] = []
        for number in numbers:
            low, high = int(self._begins[number]), int(self.ends[number])
            if high > low:
                rows = slice(max(begin, low) - low, min(end, high) - low)
                found.append((self.groups[number].indices[0], rows))
        return found, None


def by_chunk(
    chunks: np.ndarray, rows: np.ndarray
) -> tuple[list[tuple[int, RowsOfChunk]], np.ndarray | None]:
    """Collect rows, given by chunk and position in the chunk, so that each chunk is read once.

    Returns
    -------
    pieces
        Pairs ``(chunk, its rows)``.
    order
        Position of each row among the rows of all pieces; None if they are in order.
    """
    if not len(chunks):
        return [], None
    order = None
    if (np.diff(chunks) < 0).any():
        sort = np.argsort(chunks, kind="stable")
        chunks, rows = chunks[sort], rows[sort]
        order = np.empty_like(sort)
        order[sort] = np.arange(len(sort))
    parts = np.split(rows, np.flatnonzero(np.diff(chunks)) + 1)
    firsts = chunks[np.cumsum([0, *map(len, parts[:-1])])]
    return [
        (chunk, slice_if_consecutive(part)) for chunk, part in zip(firsts.tolist(), parts)
    ], order


def slice_if_consecutive(positions: np.ndarray) -> RowsOfChunk:
    """Return a slice if the positions are consecutive; there must be at least one."""
    if positions[-1] - positions[0] == len(positions) - 1 and (np.diff(positions) == 1).all():
        return slice(int(positions[0]), int(positions[-1]) + 1)
    return positions


def _later(
    plan: ChunkPlan, group: RowGroup, seq: np.ndarray, times: np.ndarray
) -> dict[int, np.ndarray]:
    """Return :attr:`DatasetRows.later` of the chunks of a group."""
    positions = list(group.indices)
    rows = plan.records["rows"][positions]
    later = later_counts(np.repeat(plan.records["descriptor"][positions], rows), seq, times)
    if later is None:
        return {}
    return dict(zip(positions, np.split(later, np.cumsum(rows)[:-1])))
