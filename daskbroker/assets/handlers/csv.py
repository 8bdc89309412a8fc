"""Handlers of text files of numbers separated by commas."""

from __future__ import annotations

import os
import re
import threading
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv

from ...core.errors import FillError
from ...core.file_identity import Identity, identity
from ...core.leaves import EXACT_INTEGER
from ..shapes import Mismatch, cast
from .frame_rows import ArrayRows, Rows
from .stream_rows import StreamRows

_INTEGER = re.compile(r"[+-]?\d+")
MOST_DIGITS = 309
"""Maximum digits of an integer that is a finite float64; Python converts up to 4,300."""


class StreamCSV(StreamRows):
    """Mimetype ``text/csv;header=absent``: a file whose lines are the frames of all events.

    Missing numbers are NaN. Empty lines are not frames. Among lines of a single number they are
    refused, as they may be missing numbers, which must be written ``""``. Integers from 2**63 on
    are uint64. Integers that float64 would round, because other numbers need it, are refused.

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
        table = self._table(file)
        if table.num_columns == 1:
            _check_has_no_gap(file)
        columns = [_numbers_of(column, position) for position, column in enumerate(table.columns)]
        long = {n: table.column_names[n] for n, column in enumerate(columns) if _is_long(column)}
        if long:
            texts = self._table(file, column_types=dict.fromkeys(long.values(), pa.string()))
            columns = [
                _as_written(column, texts[long[n]], n) if n in long else column
                for n, column in enumerate(columns)
            ]
        common = np.result_type(*columns)
        return np.column_stack([_exactly(column, common, n) for n, column in enumerate(columns)])

    def _table(self, file: Any, **convert: Any) -> pa.Table:
        """Parse the file; ``convert`` are options of pyarrow's conversion."""
        file.seek(0)
        try:
            return csv.read_csv(
                file,
                csv.ReadOptions(
                    autogenerate_column_names=True, skip_rows=self.skipped, use_threads=False
                ),
                csv.ParseOptions(delimiter=self._delimiter),
                csv.ConvertOptions(**convert),
            )
        except pa.ArrowInvalid as error:
            raise FillError(f"the file is not a table of numbers: {error}") from None


def _check_has_no_gap(file: Any) -> None:
    """Refuse empty lines among those of a single number.

    Raises
    ------
    FillError
        If there is one: without it, later numbers would get into other events.
    """
    file.seek(0)
    lines = file.read().rstrip().replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    at = (b"\n" + lines).find(b"\n\n")
    if at >= 0:
        number = lines.count(b"\n", 0, at) + 1
        raise FillError(
            f"line {number} of the file is empty, which may be a missing "
            'number or no frame: write "" for a missing number, or remove the line'
        )


def _is_long(column: np.ndarray) -> bool:
    """Return whether a column of floats may have integers that were rounded when parsed."""
    return column.dtype.kind == "f" and bool((np.abs(column) >= EXACT_INTEGER).any())


def _as_written(column: np.ndarray, texts: pa.ChunkedArray, position: int) -> np.ndarray:
    """Return a column of floats, as uint64 if its text has only integers that need it.

    Raises
    ------
    FillError
        If integers would be rounded.
    """
    written = texts.to_pylist()
    try:
        return np.array([int(text) for text in written], np.uint64)
    except (TypeError, ValueError, OverflowError):  # missing or other numbers, or out of range
        long = np.flatnonzero(np.abs(column) >= EXACT_INTEGER).tolist()
        integers = {n: written[n].lstrip("+-0") for n in long if _INTEGER.fullmatch(written[n])}
        if any(
            len(digits) > MOST_DIGITS or int(digits) != abs(float(column[n]))
            for n, digits in integers.items()
        ):
            raise _would_round(column.dtype, position) from None
        return column


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
        raise _would_round(dtype, position) from None


def _would_round(dtype: np.dtype, position: int) -> FillError:
    return FillError(
        f"column {position} of the file contains integers that {dtype} would round, which other "
        "numbers, other columns or missing numbers need"
    )


class StreamCSVWithNames(StreamCSV):
    """Mimetypes ``text/csv`` and ``text/csv;header=present``: the first line names the columns."""

    specs = frozenset({"text/csv", "text/csv;header=present"})
    skipped = 1
