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
from ..frame_rows import Located
from .row_source import RowSource
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

    def __init__(self, dataset: RowSource, rows: VirtualRows) -> None:
        self._dataset, self._rows = dataset, rows
        self.name, self.dtype = dataset.name, dataset.dtype

    @classmethod
    def of(cls, dataset: RowSource, rows: VirtualRows) -> ConcatenatedRows | None:
        """Return the dataset, or None if it is not a concatenation."""
        return cls(dataset, rows) if rows.is_concatenation() else None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, with the number of rows that exist now."""
        return self._dataset.shape

    @property
    def maximum(self) -> tuple[int | None, ...]:
        """Maximum length of each dimension; None if unlimited."""
        return self._dataset.maximum

    @property
    def opened(self) -> dict[str, Identity]:
        """Its file and those of the sources read so far, each with its identity when opened."""
        return self._rows.opened

    @property
    def watched(self) -> bool:
        """Whether all files were opened to be watched while they are written."""
        return self._dataset.watched and self._rows.watched

    def stored(self, rows: np.ndarray | None = None) -> int | None:
        """Return the bytes of the files that hold ``rows``, or all rows if None; None: unknown."""
        return self._dataset.stored(rows)

    def read(self, rows: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
        """Read a region of some rows; see :func:`~.row_source.read_rows`."""
        source = self._rows if self._rows.is_as_mapped(rows) else self._dataset
        return source.read(rows, axes)

    def locate(self, rows: np.ndarray) -> Located:
        """Return where some rows lie in the sources."""
        return self._rows.locate(rows)

    def refresh(self) -> None:
        """Update the shape with the rows that writers added."""
        self._dataset.refresh()
        self._rows.refresh()
