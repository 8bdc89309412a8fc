"""Virtual datasets that put other datasets one after another, read from these directly.

HDF5 would read them under its lock, one chunk after another. Where a virtual dataset is nothing but
a concatenation, and its sources are as it says, they are read as datasets of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ....core.regular import Identity
from ..regions import Axis
from .rows import RowSource
from .virtual import VirtualRows

__all__ = ["ConcatenatedRows"]


class ConcatenatedRows:
    """A virtual dataset read from its sources, or by HDF5 where these are not as it says.

    So a missing source has fill values, as HDF5 has it.

    Parameters
    ----------
    whole
        The dataset as HDF5 puts it together.
    parts
        The same from its sources.
    """

    def __init__(self, whole: RowSource, parts: VirtualRows) -> None:
        self._whole, self._parts = whole, parts
        self.name, self.dtype = whole.name, whole.dtype

    @classmethod
    def of(cls, whole: RowSource, parts: VirtualRows) -> ConcatenatedRows | None:
        """None where the dataset is no concatenation."""
        return cls(whole, parts) if _is_concatenation(parts) else None

    @property
    def shape(self) -> tuple[int, ...]:
        """With the rows that there are now."""
        return self._whole.shape

    @property
    def opened(self) -> dict[str, Identity]:
        """Its own file and those of the sources that were read so far, as they were opened."""
        return self._parts.opened

    @property
    def watched(self) -> bool:
        """Whether all files were opened to be watched while they are written."""
        return self._whole.watched and self._parts.watched

    def stored(self, rows: np.ndarray | None = None) -> int | None:
        """Bytes of the files that hold some rows, or all of them; None: not known."""
        return self._whole.stored(rows)

    def read(self, rows: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
        """Read a region of some rows; see :func:`~.rows.read_rows`."""
        source = self._parts if self._parts.is_as_mapped(rows) else self._whole
        return source.read(rows, axes)

    def refresh(self) -> None:
        """See the rows that writers added."""
        self._whole.refresh()
        self._parts.refresh()


def _is_concatenation(parts: VirtualRows) -> bool:
    """Whether consecutive rows of sources follow each other, each with all of its pixels."""
    if parts.grows:
        return False
    frame = tuple(map(range, parts.shape[1:]))
    ends = []
    for target, source in parts.selections():
        whole = source is None or source[1:] == frame
        runs = [target[0], *(source[:1] if source else ())]
        if not whole or target[1:] != frame or not all(map(_is_run, runs)):
            return False
        ends.append((target[0][0], target[0][-1]))
    return all(low[1] < high[0] for low, high in pairwise(sorted(ends)))


def _is_run(places: range | np.ndarray) -> bool:
    return isinstance(places, range) and places.step == 1 and len(places) > 0
