"""What a table must tell about its partitions, and how one is read and checked; no dask."""

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
"""One value for each partition; NaN or NaT where nothing is known."""

Reader = Callable[[Any, tuple[str, ...]], pd.DataFrame]
"""Reads one partition: ``reader(payload, columns)``."""


class RowChoice(NamedTuple):
    """Which rows of each partition are wanted.

    Attributes
    ----------
    kind
        ``"first"`` or ``"last"``, so many; ``"between"``, those whose index is from the first to
        the second of two values, either of which may be None; ``"among"``, whose index is one of
        some values.
    values
        The number, the two values, or those values.
    """

    kind: str
    values: tuple[Any, ...]

    def mask(self, index: np.ndarray) -> Mask:
        """Which rows of a partition these are, by its index, in its order."""
        if self.kind == "among":
            return np.isin(index, np.array(self.values))
        mask = np.ones(len(index), bool)
        if self.kind == "first":
            mask[self.values[0] :] = False
        elif self.kind == "last":
            mask[: max(0, len(index) - self.values[0])] = False
        else:
            low, high = self.values
            mask &= True if low is None else index >= low
            mask &= True if high is None else index <= high
        return mask


class Partitions(abc.ABC):
    """The partitions of a lazy table: their shape, their statistics, and how to read one.

    An instance is pickled whole, once, with the table's expression, and travels to the
    scheduler; a task carries `reader` and one `payload`, not the instance. Every property
    is read often, so it should be stored or cached, and none may read rows.
    """

    @property
    @abc.abstractmethod
    def token(self) -> str:
        """Identity of content and selection: equal tokens mean equal tables, for ever."""

    @property
    def name(self) -> str:
        """How keys of tasks begin: letters, digits and ``_ . : -``."""
        return "daskbroker"

    @property
    @abc.abstractmethod
    def meta(self) -> pd.DataFrame:
        """The empty frame: columns with their exact dtypes, the index, and ``attrs``."""

    @property
    @abc.abstractmethod
    def npartitions(self) -> int:
        """How many partitions; with none, the table is one empty partition."""

    @property
    @abc.abstractmethod
    def divisions(self) -> tuple[Any, ...]:
        """The ``npartitions + 1`` borders of the sorted index, or as many ``None``."""

    @property
    @abc.abstractmethod
    def lengths(self) -> tuple[int, ...] | None:
        """Rows of each partition, exactly; ``None`` when a read would be needed to know."""

    @abc.abstractmethod
    def bounds(self, column: str) -> tuple[Bound, Bound] | None:
        """Least and greatest value of `column` in each partition.

        Parameters
        ----------
        column : str
            Name of a column or of the index.

        Returns
        -------
        tuple of arrays, or None
            Minima and maxima, `npartitions` values each; ``None`` without statistics. No value
            may lie outside (a wider range is allowed), missing values do not count. NaN or
            NaT in either means unknown. Of a time column: a ``DatetimeIndex``, or ``datetime64``
            values in UTC (in the column's own clock if that is naive).
        """

    def limits(self, column: str) -> tuple[Sequence[Any], Sequence[Any]] | None:
        """Exactly the least and greatest value of `column` in each partition, as scalars.

        ``None`` when a read would be needed to know.
        """
        return None

    def can_choose_rows(self, columns: Sequence[str]) -> bool:
        """Whether the reader can leave rows out before it reads these columns, and saves by it."""
        return False

    @abc.abstractmethod
    def payload(self, i: int, chosen: tuple[RowChoice, ...] = ()) -> Any:
        """Describe partition `i` for the reader: small, picklable, no data.

        Parameters
        ----------
        i : int
            Its number.
        chosen : tuple of RowChoice
            The rows that are wanted, one choice among those of the choice before it; others may be
            there too. Asked for only where :meth:`can_choose_rows` is true.
        """

    @property
    @abc.abstractmethod
    def reader(self) -> Reader:
        """Callable ``reader(payload, columns)``: small, picklable, without state.

        It returns one partition with exactly `columns`, in this order (none of them means a
        frame of the index alone), and the index.
        """

    def __dask_tokenize__(self) -> tuple[str, str]:
        """Return what dask names the table by."""
        kind = type(self)
        return f"{kind.__module__}.{kind.__qualname__}", self.token

    def __repr__(self) -> str:
        """Name the table without touching its partitions."""
        return f"<{type(self).__name__} {self.token[:12]}>"


class Shape(NamedTuple):
    """What a partition must look like: a meta, small enough to travel with every task."""

    columns: tuple[str, ...]
    dtypes: tuple[Any, ...]
    index_name: Any
    index_dtype: Any
    attrs: dict[Any, Any]

    @classmethod
    def of(cls, meta: pd.DataFrame) -> Shape:
        """Describe an empty frame."""
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


def _short(dtype: Any) -> Any:
    """Return the dtype's name where that says it all: a tenth of the bytes when pickled."""
    name = str(dtype)
    try:
        return name if pd.api.types.pandas_dtype(name) == dtype else dtype
    except TypeError:
        return dtype


def read_partition(reader: Reader, payload: Any, number: int, shape: Shape) -> pd.DataFrame:
    """Read one partition and make sure that it is what the table's meta promised."""
    frame = reader(payload, shape.columns)
    _check(frame, number, shape)
    frame.attrs = copy.deepcopy(shape.attrs)  # whoever computes may change them
    return frame


def _check(frame: pd.DataFrame, number: int, shape: Shape) -> None:
    where = f"partition {number} of the table"
    if not isinstance(frame, pd.DataFrame):
        raise StoreError(f"{where} was read as a {type(frame).__name__}, not a DataFrame")
    columns = list(frame.columns)
    if columns != list(shape.columns):
        lost = [c for c in shape.columns if c not in columns]
        extra = [c for c in columns if c not in shape.columns]
        raise StoreError(
            f"{where} has other columns than announced: missing {lost}, unexpected {extra}, "
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
    parts: Partitions, column: str, bounds: tuple[Bound, Bound], sign: str, value: Any
) -> Mask:
    """Mark the partitions that may hold ``column <sign> value``.

    Parameters
    ----------
    parts : Partitions
        The table.
    column : str
        Name of a column or of the index.
    bounds : tuple of arrays
        What ``parts.bounds(column)`` returned.
    sign : str
        One of ``<``, ``<=``, ``>``, ``>=``, ``==``.
    value : scalar
        Not missing; `TypeError` or `ValueError` if it cannot be compared with the column.

    Returns
    -------
    numpy.ndarray of bool
        One mark for each partition; true where nothing is known.
    """
    dtype = parts.meta[column].dtype if column in parts.meta else parts.meta.index.dtype
    low, high = (_comparable(bound, dtype) for bound in bounds)
    if not len(low) == len(high) == parts.npartitions:
        raise StoreError(
            f"{parts!r} has {len(low)} and {len(high)} bounds of column {column!r} for "
            f"{parts.npartitions} partitions"
        )
    return _possible(low, high, sign, value)


def _possible(low: Any, high: Any, sign: str, value: Any) -> Mask:
    # Asked the other way round ("surely none"), unknown bounds (NaN, NaT) compare as False.
    none = {
        "<": lambda: low >= value,
        "<=": lambda: low > value,
        ">": lambda: high <= value,
        ">=": lambda: high < value,
        "==": lambda: (low > value) | (high < value),
    }[sign]()
    return ~np.asarray(none, dtype=bool)


def _comparable(bound: Any, dtype: Any) -> Any:
    """Give time bounds the column's clock, so that values compare as with the column."""
    if not pd.api.types.is_datetime64_any_dtype(dtype):
        return np.asarray(bound)
    times = pd.DatetimeIndex(pd.to_datetime(bound, utc=True))
    zone = getattr(dtype, "tz", None)
    return times.tz_localize(None) if zone is None else times.tz_convert(zone)


def compact(numbers: np.ndarray[Any, np.dtype[np.int64]]) -> Sequence[int]:
    """Return partition numbers as a range if they are one: small when pickled."""
    if len(numbers) and (np.diff(numbers) == 1).all():
        return range(int(numbers[0]), int(numbers[-1]) + 1)
    return tuple(numbers.tolist())
