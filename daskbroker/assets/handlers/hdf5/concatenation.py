"""Read virtual datasets that concatenate other datasets directly from these sources.

HDF5 would read them under its lock, one chunk after another. If a virtual dataset is nothing but a
concatenation, and its sources have the shape and dtype that it maps, they are read as datasets of
their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....core.regular import Identity
from ...regions import Axis
from ..rows import Located
from .rows import RowSource
from .virtual import VirtualRows

__all__ = ["ConcatenatedRows"]


class ConcatenatedRows:
    """A virtual dataset read from its sources, or by HDF5 if these are not as it maps them.

    A missing source therefore reads as fill values, as it does in HDF5.

    Parameters
    ----------
    whole
        The dataset as HDF5 reads it.
    parts
        The same dataset, read from its sources.
    """

    def __init__(self, whole: RowSource, parts: VirtualRows) -> None:
        self._whole, self._parts = whole, parts
        self.name, self.dtype = whole.name, whole.dtype

    @classmethod
    def of(cls, whole: RowSource, parts: VirtualRows) -> ConcatenatedRows | None:
        """Return the dataset, or None if it is not a concatenation."""
        return cls(whole, parts) if parts.is_concatenation() else None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, with the number of rows that exist now."""
        return self._whole.shape

    @property
    def maximum(self) -> tuple[int | None, ...]:
        """Maximum length of each dimension; None if unlimited."""
        return self._whole.maximum

    @property
    def opened(self) -> dict[str, Identity]:
        """Its file and those of the sources read so far, each with its identity when opened."""
        return self._parts.opened

    @property
    def watched(self) -> bool:
        """Whether all files were opened to be watched while they are written."""
        return self._whole.watched and self._parts.watched

    def stored(self, rows: np.ndarray | None = None) -> int | None:
        """Return the bytes of the files that hold ``rows``, or all rows if None; None: unknown."""
        return self._whole.stored(rows)

    def read(self, rows: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
        """Read a region of some rows; see :func:`~.rows.read_rows`."""
        source = self._parts if self._parts.is_as_mapped(rows) else self._whole
        return source.read(rows, axes)

    def locate(self, rows: np.ndarray) -> Located:
        """Return where some rows lie in the sources."""
        return self._parts.locate(rows)

    def refresh(self) -> None:
        """Update the shape with the rows that writers added."""
        self._whole.refresh()
        self._parts.refresh()
