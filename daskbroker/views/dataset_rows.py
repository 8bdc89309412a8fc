"""The rows of a Dataset: where they are, and how dask's chunks cut them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..core.chunks import ChunkPlan
from .rows import Duplicates, RowGroup, coalesce, group_rows, keep

__all__ = ["DatasetRows"]


@dataclass(frozen=True, eq=False)
class DatasetRows:
    """Where the rows of a Dataset are.

    Attributes
    ----------
    groups
        Chunks that are read together.
    ends
        Row after the last of each group.
    taken
        For groups that are not simple: which rows of theirs are shown.
    lengths
        Rows of each chunk of the plan.
    """

    groups: tuple[RowGroup, ...]
    ends: np.ndarray
    taken: Mapping[int, np.ndarray]
    lengths: np.ndarray

    @classmethod
    def of(cls, plan: ChunkPlan, duplicates: Duplicates) -> DatasetRows:
        """Of a plan; ``seq_num`` is read where rows overlap or are out of order."""
        groups = tuple(group_rows(plan, duplicates))
        taken: dict[int, np.ndarray] = {}
        counts = []
        for number, group in enumerate(groups):
            if not group.simple:
                taken[number] = keep(_seq_nums(plan, group), duplicates)
            counts.append(len(taken[number]) if number in taken else group.rows or 0)
        ends = np.cumsum(np.array(counts, dtype=np.int64))
        return cls(groups, ends, taken, plan.records["rows"].astype(np.int64))

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        # Without what is only worked out from these.
        return (DatasetRows, (self.groups, self.ends, self.taken, self.lengths))

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    @cached_property
    def _begins(self) -> np.ndarray:
        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64)

    @cached_property
    def _first_chunk(self) -> np.ndarray:
        return np.array([group.places[0] for group in self.groups], np.int64)

    def locate(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Chunk of each of some rows, and the row in that chunk."""
        numbers = np.searchsorted(self.ends, places, side="right")
        rows = places - self._begins[numbers]
        chunks = self._first_chunk[numbers]
        for number in [n for n in np.unique(numbers).tolist() if n in self.taken]:
            here = numbers == number
            group = self.groups[number]
            ends = np.cumsum(self.lengths[list(group.places)])
            among = self.taken[number][rows[here]]
            which = np.searchsorted(ends, among, side="right")
            chunks[here] = np.array(group.places)[which]
            rows[here] = among - np.concatenate([[0], ends[:-1]])[which]
        return chunks, rows

    def taken_from(self, columns: Sequence[np.ndarray]) -> np.ndarray:
        """The shown rows of a column, given as it is in each chunk of the plan."""
        chunks, rows = self.locate(np.arange(len(self)))
        begins = np.cumsum(self.lengths) - self.lengths
        return np.concatenate(columns)[begins[chunks] + rows]

    def cuts(self, target: int) -> tuple[int, ...]:
        """Lengths of dask's chunks for what is stored: whole groups, about ``target`` bytes."""
        ranges = coalesce(self.groups, target)
        ends = self.ends.tolist()
        return tuple(ends[end - 1] - (ends[b - 1] if b else 0) for b, end in ranges) or (0,)

    def external_cuts(self, target: int, row_bytes: int, align: int = 1) -> tuple[int, ...]:
        """Lengths of dask's chunks for external cells.

        Parameters
        ----------
        target
            Bytes to aim at; never more, but for single rows.
        row_bytes
            Of a cell.
        align
            So many events have one chunk in the file: blocks end where such a chunk does, as far
            as that fits into the target and rows are in the file as they are here.
        """
        most = max(1, target // max(1, row_bytes))
        aligned = most > align
        if aligned:
            most -= most % align
        lengths: list[int] = []
        waiting = begin = 0
        for count in np.diff(self.ends, prepend=0).tolist():
            if waiting and waiting + count > most:
                lengths.append(waiting)
                waiting = 0
            if count > most:
                first = most - begin % align if aligned else most
                whole, waiting = divmod(count - first, most)
                lengths += [first] + [most] * whole
            else:
                waiting += count
            begin += count
        return (*lengths, waiting) if waiting or not lengths else tuple(lengths)


def _seq_nums(plan: ChunkPlan, group: RowGroup) -> np.ndarray:
    parts = [plan.read(place, ["seq_num"]).column(0).to_numpy() for place in group.places]
    return np.concatenate(parts)
