"""Read virtual datasets from their sources, none of which may be missing.

HDF5 would read them under its lock, one chunk after another, and give fill values for a source
whose file is not there, or that it cannot open, even for a moment in which the process has too
many open files. Here that is an error, as for any other file of a detector. Sources that have what
is mapped of them are read as datasets of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....core.file_identity import Identity
from ...regions import Axis
from ..frame_rows import Located
from .row_source import RowSource
from .virtual import VirtualRows


class MappedRows:
    """A virtual dataset read from its sources, or by HDF5 if they are not as it maps them.

    Parameters
    ----------
    dataset
        The dataset as HDF5 reads it.
    rows
        The same dataset, read from its sources.
    """

    def __init__(self, dataset: RowSource, rows: VirtualRows) -> None:
        self._dataset, self._rows = dataset, rows
        self.name, self.dtype = dataset.name, dataset.dtype

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
        """Read a region of some rows; see :func:`~.row_source.read_rows`.

        Raises
        ------
        FrameMissing, OSError
            If the file of a source of these rows is not there, or cannot be opened.
        FillError
            If a source of these rows is not there, or is of another size than the mapped one.
        """
        if self._rows.is_as_mapped(rows):
            return self._rows.read(rows, axes)
        self._rows.check_sources(rows)
        return self._dataset.read(rows, axes)

    def locate(self, rows: np.ndarray) -> Located:
        """Return where some rows lie in the sources."""
        return self._rows.locate(rows)

    def refresh(self) -> None:
        """Update the shape with the rows that writers added."""
        self._dataset.refresh()
        self._rows.refresh()
