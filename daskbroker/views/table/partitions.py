"""Interface of a table's partitions, and how one is read and checked; independent of dask."""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from daskbroker.core.errors import StoreError

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Bound = Any  # an array of NumPy, or a pandas DatetimeIndex
"""One value for each partition; NaN or NaT if nothing is known."""

Reader = Callable[[Any, tuple[str, ...]], pd.DataFrame]
"""Reads one partition: ``reader(payload, columns)``."""


class RowChoice(NamedTuple):
    """Selection of rows, made in each partition.

    Attributes
    ----------
    how
        ``"first"`` or ``"last"`` for a number of rows at either end; ``"between"`` for rows whose
        index lies between two values, both included, either of which may be None; ``"among"`` for
        rows whose index is one of several values.
    values
        The number of rows, the two values, or the several values.
    """

    how: str
    values: tuple[Any, ...]

    def mask(self, index: np.ndarray) -> Mask:
        """Return which rows of a partition are wanted, given its index in the order of rows."""
        if self.how == "among":
            return np.isin(index, np.array(self.values))
        mask = np.ones(len(index), bool)
        if self.how == "first":
            mask[self.values[0] :] = False
        elif self.how == "last":
            mask[: max(0, len(index) - self.values[0])] = False
        else:
            low, high = self.values
            mask &= True if low is None else index >= low
            mask &= True if high is None else index <= high
        return mask


class Partitions(abc.ABC):
    """The partitions of a lazy table: their shape, their statistics, and how to read one.

    An instance is pickled once, as a whole, with the table's expression, and travels to the
    scheduler; a task carries `reader` and one `payload`, not the instance. Properties are used
    often, so they should be stored or cached; none may read rows.
    """

    @property
    @abc.abstractmethod
    def token(self) -> str:
        """Identity of content and selection: equal tokens always mean equal tables."""

    @property
    def name(self) -> str:
        """Prefix of the keys of tasks, made of letters, digits and ``_ . : -``."""
        return "daskbroker"

    @property
    @abc.abstractmethod
    def meta(self) -> pd.DataFrame:
        """Empty frame with the exact dtypes of the columns, the index, and ``attrs``."""

    @property
    @abc.abstractmethod
    def npartitions(self) -> int:
        """Number of partitions; if 0, the table is one empty partition."""

    @property
    @abc.abstractmethod
    def divisions(self) -> tuple[Any, ...]:
        """The ``npartitions + 1`` borders of the sorted index, or as many ``None`` if unknown."""

    @property
    @abc.abstractmethod
    def lengths(self) -> tuple[int, ...] | None:
        """Exact number of rows of each partition; None if a read would be needed to know."""

    @abc.abstractmethod
    def bounds(self, column: str) -> tuple[Bound, Bound] | None:
        """Return bounds of the values of `column` in each partition.

        Parameters
        ----------
        column : str
            Name of a column or of the index.

        Returns
        -------
        tuple of arrays, or None
            Minima and maxima, `npartitions` values each; None without statistics. No value may
            lie outside, but the range may be wider than the values; missing values do not count.
            NaN or NaT in either array means unknown. For a time column, the arrays are a
            ``DatetimeIndex``, or ``datetime64`` values in UTC (in the column's own clock if that
            is naive).
        """

    @property
    def array_columns(self) -> frozenset[str]:
        """Names of columns whose cells are arrays; only those that are known without a read."""
        return frozenset()

    def limits(self, column: str) -> tuple[Sequence[Any], Sequence[Any]] | None:
        """Return the exact minima and maxima of `column` in the partitions, as scalars.

        None if a read would be needed to know, which is what this default says.
        """
        return None

    def can_choose_rows(self, columns: Sequence[str]) -> bool:
        """Return whether choosing rows before these columns are read saves work of the reader."""
        return False

    @abc.abstractmethod
    def payload(self, i: int, chosen: tuple[RowChoice, ...] = ()) -> Any:
        """Return a small, picklable description of partition `i` for the reader, without data.

        Parameters
        ----------
        i : int
            Number of the partition.
        chosen : tuple of RowChoice
            Rows that are wanted; each choice applies to the rows that the one before it left. The
            reader may return more rows. Given only if :meth:`can_choose_rows` is true.
        """

    @property
    @abc.abstractmethod
    def reader(self) -> Reader:
        """Callable ``reader(payload, columns)``: small, picklable, without state.

        It returns one partition with its index and exactly `columns`, in this order; with no
        columns, a frame of the index alone.
        """

    def __dask_tokenize__(self) -> tuple[str, str]:
        """Return what dask derives the table's name from."""
        cls = type(self)
        return f"{cls.__module__}.{cls.__qualname__}", self.token

    def __repr__(self) -> str:
        """Return class and token, without touching the partitions."""
        return f"<{type(self).__name__} {self.token[:12]}>"


class FrameSchema(NamedTuple):
    """Columns, index and dtypes of a partition, small enough to be sent with every task."""

    columns: tuple[str, ...]
    dtypes: tuple[Any, ...]
    index_name: Any
    index_dtype: Any
    attrs: dict[Any, Any]

    @classmethod
    def of(cls, meta: pd.DataFrame) -> FrameSchema:
        """Return the schema of an empty frame."""
        dtypes = tuple(_short(dtype) for dtype in meta.dtypes)
        return cls(
            tuple(meta.columns), dtypes, meta.index.name, _short(meta.index.dtype), meta.attrs
        )

    def empty(self) -> pd.DataFrame:
        """Return the partition without rows."""
        index = pd.Index([], dtype=self.index_dtype, name=self.index_name)
        pairs = zip(self.columns, self.dtypes, strict=True)
        frame = pd.DataFrame(
            {c: pd.Series([], index=index, dtype=d) for c, d in pairs},
            index=index,
            columns=pd.Index(self.columns, dtype="str"),
        )
        frame.attrs = copy.deepcopy(self.attrs)
        return frame


def _short(dtype: object) -> Any:
    """Return the dtype's name if that identifies it: a tenth of the bytes when pickled."""
    name = str(dtype)
    try:
        return name if pd.api.types.pandas_dtype(name) == dtype else dtype
    except TypeError:
        return dtype


def read_partition(reader: Reader, payload: Any, number: int, shape: FrameSchema) -> pd.DataFrame:
    """Read one partition and check that it is what the table's meta promises.

    Raises
    ------
    StoreError
        If columns, dtypes or the index differ from `shape`.
    """
    frame = reader(payload, shape.columns)
    _check(frame, number, shape)
    frame.attrs = copy.deepcopy(shape.attrs)  # users may change those of the computed frame
    return frame


def _check(frame: pd.DataFrame, number: int, shape: FrameSchema) -> None:
    where = f"partition {number} of the table"
    if not isinstance(frame, pd.DataFrame):
        raise StoreError(f"{where} was read as a {type(frame).__name__}, not a DataFrame")
    columns = list(frame.columns)
    if columns != list(shape.columns):
        lost = [c for c in shape.columns if c not in columns]
        extra = [c for c in columns if c not in shape.columns]
        raise StoreError(
            f"{where} has other columns than the table: missing {lost}, unexpected {extra}, "
            f"read in the order {columns}"
        )
    for column, expected, found in zip(columns, shape.dtypes, frame.dtypes, strict=True):
        if found != expected:
            raise StoreError(f"{where}: column {column!r} has dtype {found}, not {expected}")
    if frame.index.name != shape.index_name:
        raise StoreError(
            f"{where}: the index is named {frame.index.name!r}, not {shape.index_name!r}"
        )
    if frame.index.dtype != shape.index_dtype:
        raise StoreError(
            f"{where}: index {shape.index_name!r} has dtype {frame.index.dtype}, "
            f"not {shape.index_dtype}"
        )


# --- pruning


def may_match(
    partitions: Partitions, column: str, bounds: tuple[Bound, Bound], sign: str, value: Any
) -> Mask:
    """Return a mask of the partitions that may hold ``column <sign> value``.

    Parameters
    ----------
    partitions : Partitions
        The table.
    column : str
        Name of a column or of the index.
    bounds : tuple of arrays
        Bounds of the column, as ``partitions.bounds(column)`` returns them.
    sign : str
        One of ``<``, ``<=``, ``>``, ``>=``, ``==``.
    value : scalar
        Value to compare with; not a missing one.

    Returns
    -------
    numpy.ndarray of bool
        One mark for each partition; true if nothing is known.

    Raises
    ------
    TypeError, ValueError
        If `value` cannot be compared with the column.
    StoreError
        If `bounds` do not have one value for each partition.
    """
    dtype = (
        partitions.meta[column].dtype if column in partitions.meta else partitions.meta.index.dtype
    )
    low, high = (_comparable(bound, dtype) for bound in bounds)
    if not len(low) == len(high) == partitions.npartitions:
        raise StoreError(
            f"{partitions!r} has {len(low)} and {len(high)} bounds of column {column!r} for "
            f"{partitions.npartitions} partitions"
        )
    return _possible(low, high, sign, value)


def _possible(low: Any, high: Any, sign: str, value: Any) -> Mask:
    # Asking which partitions surely have no match makes those with unknown bounds possible: NaN
    # and NaT compare as False.
    none = {
        "<": lambda: low >= value,
        "<=": lambda: low > value,
        ">": lambda: high <= value,
        ">=": lambda: high < value,
        "==": lambda: (low > value) | (high < value),
    }[sign]()
    return ~np.asarray(none, dtype=bool)


def _comparable(bound: object, dtype: object) -> Any:
    """Convert time bounds to the column's clock, so that values compare as with the column."""
    if not pd.api.types.is_datetime64_any_dtype(dtype):
        return np.asarray(bound)
    times = pd.DatetimeIndex(pd.to_datetime(bound, utc=True))
    zone = getattr(dtype, "tz", None)
    return times.tz_localize(None) if zone is None else times.tz_convert(zone)


def compact(numbers: np.ndarray[Any, np.dtype[np.int64]]) -> Sequence[int]:
    """Return partition numbers as a range, small when pickled, if consecutive, else a tuple."""
    if len(numbers) and (np.diff(numbers) == 1).all():
        return range(int(numbers[0]), int(numbers[-1]) + 1)
    return tuple(numbers.tolist())
