"""Handlers of text files of numbers separated by commas."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv

from ...core.errors import FillError
from ...core.file_identity import Identity, identity
from ..shapes import Mismatch, cast
from .frame_rows import ArrayRows, Rows
from .stream_rows import StreamRows

__all__ = ["StreamCSV", "StreamCSVWithNames"]


class StreamCSV(StreamRows):
    """Mimetype ``text/csv;header=absent``: a file whose lines are the frames of all events.

    Missing numbers are NaN. Empty lines are not frames, so if the only number of a line is missing,
    the line must be ``""``.

    Parameters
    ----------
    file
        Path of the file.
    delimiter
        Character between the numbers of a line.
    **others
        See :class:`~.stream_rows.StreamRows`.
    """

    specs = frozenset({"text/csv;header=absent"})
    skipped = 0
    """Number of lines before the first line of numbers."""

    def __init__(self, file: str, /, *, delimiter: str = ",", **others: Any) -> None:
        super().__init__(**others)
        self._path, self._delimiter = file, delimiter
        self._lock = threading.Lock()
        self._read: tuple[Identity, Rows] | None = None

    def source(self) -> Rows:
        """Return the numbers of the whole file, which is read again if it changed."""
        with self._lock, self.readable.open(self._path) as file:
            state = identity(file.fileno())
            if self._read is None or self._read[0] != state:
                size = os.fstat(file.fileno()).st_size
                self._read = state, ArrayRows(self._numbers(file), self._path, size)
            return self._read[1]

    def _numbers(self, file: Any) -> np.ndarray:
        try:
            table = csv.read_csv(
                file,
                csv.ReadOptions(
                    autogenerate_column_names=True, skip_rows=self.skipped, use_threads=False
                ),
                csv.ParseOptions(delimiter=self._delimiter),
            )
        except pa.ArrowInvalid as error:
            raise FillError(f"the file is not a table of numbers: {error}") from None
        columns = [_numbers_of(column, position) for position, column in enumerate(table.columns)]
        common = np.result_type(*columns)
        return np.column_stack([_exactly(column, common, n) for n, column in enumerate(columns)])


def _numbers_of(column: pa.ChunkedArray, position: int) -> np.ndarray:
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    values: np.ndarray = column.to_numpy()
    if values.dtype.kind not in "biuf":
        raise FillError(f"column {position} of the file contains values that are not numbers")
    if column.null_count:
        _exactly(column.drop_null().to_numpy(), values.dtype, position)
    return values


def _exactly(values: np.ndarray, dtype: np.dtype, position: int) -> np.ndarray:
    """Convert a column, unless numbers would be rounded."""
    try:
        return cast(values, dtype)
    except Mismatch:
        raise FillError(
            f"column {position} of the file contains integers that {dtype} would round, which "
            "other columns or missing numbers need"
        ) from None


class StreamCSVWithNames(StreamCSV):
    """Mimetypes ``text/csv`` and ``text/csv;header=present``: the first line names the columns."""

    specs = frozenset({"text/csv", "text/csv;header=present"})
    skipped = 1
