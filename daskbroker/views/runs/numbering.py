"""Numbers of the events that a table's rows become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np


@dataclass
class Numbering:
    """Keeps the numbers of rows as long as each row stays visible as an event of its number.

    Of events with one ``seq_num``, tables and Datasets show the latest only. So the rows of
    ``explode``, or of the concatenated tables of two runs, would vanish behind one another. From
    the first partition in which a row repeats a number, rows are counted on from the highest
    number so far. Only rows of one run that differ in time are events that were taken again, as a
    table with ``duplicates="all"`` has them, and keep their numbers.

    Attributes
    ----------
    of_one_run
        Whether the table says that its rows are of one run.
    """

    of_one_run: bool
    _highest: int = field(default=-1, init=False)
    _counts: bool = field(default=False, init=False)
    _before: list[tuple[range | np.ndarray, np.ndarray]] = field(default_factory=list, init=False)
    _seen: set[object] | None = field(default=None, init=False)

    def __call__(self, numbers: list[int], seconds: Sequence[float]) -> list[int]:
        """Return the numbers of the events of a partition.

        Parameters
        ----------
        numbers, seconds
            ``seq_num`` and time of each row.
        """
        if not numbers:
            return numbers
        self._counts = self._counts or self._hides(numbers, seconds)
        if self._counts:
            first = max(self._highest, 0) + 1
            numbers = list(range(first, first + len(numbers)))
        self._highest = max(self._highest, max(numbers))
        return numbers

    def _hides(self, numbers: Sequence[int], seconds: Sequence[float]) -> bool:
        """Return whether a row would hide another one; note the rows for later partitions."""
        rises = numbers[0] > self._highest and all(a < b for a, b in pairwise(numbers))
        # The usual table: nothing has to be looked up.
        if rises and self._seen is None:
            dense = range(numbers[0], numbers[-1] + 1)
            kept = dense if len(dense) == len(numbers) else np.array(numbers, np.int64)
            times = np.array(seconds if self.of_one_run else (), np.float64)
            self._before.append((kept, times))
            return False
        if self._seen is None:
            before = ((np.asarray(some).tolist(), times.tolist()) for some, times in self._before)
            self._seen = {row for rows in before for row in self._rows(*rows)}
            self._before.clear()
        known = len(self._seen)
        self._seen.update(self._rows(numbers, seconds))
        return len(self._seen) < known + len(numbers)

    def _rows(self, numbers: Sequence[int], seconds: Sequence[float]) -> Sequence[object]:
        return list(zip(numbers, seconds, strict=True)) if self.of_one_run else numbers
