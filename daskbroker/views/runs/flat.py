"""Flatten tables: index levels, and values that JSON has no form for, become plain columns."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ...core.clock import is_zoned
from ...core.documents import equal
from ...core.errors import BadDocument
from ...core.name_lists import listed
from ...core.numbered_names import free_name
from ...core.schema import datetime_to_posix

EPOCH_CLAIM = {"dtype": "number", "units": "seconds since 1970-01-01T00:00:00Z"}
SECONDS_CLAIM = {"dtype": "number", "units": "s"}
TEXT_CLAIM = {"dtype": "string"}
RESERVED = ("run", "uid", "descriptor", "seq_num")
ODD = frozenset({pd.Timestamp, pd.Timedelta, pd.Interval, pd.Period})
"""Types of cells in a column of objects that JSON has no form for."""


class FlatTable:
    """Flattens the partitions of one table, all in the same way.

    The first part decides which levels of the index become columns, and under which names:

    - ``seq_num`` numbers the rows and stays the index. The index 0, 1, 2, … that pandas makes by
      itself carries no information and does not become a column.
    - A level keeps its name. A level without a name becomes ``index``, or, in a MultiIndex,
      ``level_0`` and so on. A name that tables reserve (such as ``run``) becomes ``data:run``.
    - If a column has the name already, equal values are kept once; other values become
      ``<name>_index``.
    - A level of instants named ``time``, or without a name, becomes the column ``time``.

    Names of columns become text; those of a MultiIndex are joined by ``_``: ``y_mean``.
    Categorical columns become columns of their categories' dtype. Instants, except ``time``,
    become POSIX seconds, and are UTC if they have no zone; durations become seconds, periods
    become text, and intervals become text with ``<name>_left`` and ``<name>_right`` beside it.

    Attributes
    ----------
    specs
        Data key, by name, of each column whose values do not have the form they had in the table.
    other_time
        Dtype of a column or index ``time`` that holds no instants; None if there is none.
    """

    def __init__(self) -> None:
        self.specs: dict[str, Mapping[str, Any]] = {}
        self.other_time: Any = None
        self._names: list[str | None] | None = None

    def __call__(self, partition: pd.DataFrame) -> pd.DataFrame:
        """Return the partition with plain columns, indexed by ``seq_num`` or by 0, 1, 2, ….

        Raises
        ------
        BadDocument
            If two columns have the same name, or if an index level and the column of its name
            differ in a later partition although they were equal in the first.
        """
        partition = _without_arrow_times(partition).set_axis(
            _texts(partition.columns), axis="columns"
        )
        # The first partition decides, so that all have the same columns.
        if self._names is None:
            self._names = _level_names(partition)
        levels = self._levels(partition, self._names)
        # Any index but seq_num has become columns, or only counted the rows.
        if not _is_numbering(partition.index):
            partition = partition.reset_index(drop=True)
        # The usual table has plain columns only.
        if not levels and not any(map(_is_odd, map(partition.get, partition.columns))):
            return partition
        columns: dict[str, pd.Series] = {}
        for name, column in [*levels.items(), *partition.items()]:
            for shown, values in self._plain(str(name), column):
                if shown in columns:
                    raise BadDocument(f"the table has two columns for {shown!r}; rename one")
                columns[shown] = values.set_axis(partition.index)
        return pd.DataFrame(columns, index=partition.index)

    def _levels(self, partition: pd.DataFrame, names: list[str | None]) -> dict[str, pd.Series]:
        """Return the levels of the index that become columns."""
        found: dict[str, pd.Series] = {}
        for number, name in enumerate(names):
            # This level becomes no column.
            if name is None:
                continue
            values = partition.index.get_level_values(number).to_series()
            # A column of the same values stands for the level.
            if name not in partition.columns:
                found[name] = values
            elif not _same(values, partition[name]):
                raise BadDocument(
                    f"the table has an index {name!r} and a column {name!r}, which differ in some "
                    "partitions; rename one"
                )
        return found

    def _plain(self, name: str, column: pd.Series) -> Iterator[tuple[str, pd.Series]]:
        """Yield a column as one or more columns of plain values, each with its name."""
        # The categories say what the values are.
        if isinstance(column.dtype, pd.CategoricalDtype):
            column = column.astype(column.cat.categories.dtype)
        # Periods have no zone and no end; an event needs one instant.
        if name == "time" and isinstance(column.dtype, pd.PeriodDtype):
            column = column.dt.to_timestamp()
        dtype = column.dtype
        if name == "time" and _is_instants(column):
            yield name, _instants(column)
            return
        if name == "time":
            name, self.other_time = "data:time", dtype
        # Text to read, and both ends as numbers or times to compute with.
        if isinstance(dtype, pd.IntervalDtype):
            ends = pd.arrays.IntervalArray(column)
            yield self._claimed(name, TEXT_CLAIM, _texts_of(column))
            for side in ("left", "right"):
                yield from self._plain(f"{name}_{side}", pd.Series(getattr(ends, side)))
        elif isinstance(dtype, pd.PeriodDtype):
            yield self._claimed(name, TEXT_CLAIM, _texts_of(column))
        elif _is_instants(column):
            yield self._claimed(name, EPOCH_CLAIM, _seconds(_instants(column).dt.tz_localize(None)))
        elif dtype.kind == "m":
            yield self._claimed(name, SECONDS_CLAIM, _seconds(column))
        elif _has_odd_cells(column):
            yield self._claimed(name, {"dtype": "number"}, column.map(_cell))
        else:
            yield name, column

    def _claimed(
        self, name: str, claim: Mapping[str, Any], values: pd.Series
    ) -> tuple[str, pd.Series]:
        """Return a column with its name, and note what its data key will claim."""
        self.specs[name] = {"source": "derived", "shape": [], **claim}
        return name, values


def _without_arrow_times(partition: pd.DataFrame) -> pd.DataFrame:
    """Return the partition with Arrow's instants and durations as pandas' own, in the index too."""
    positions = [
        position for position, dtype in enumerate(partition.dtypes) if _is_arrow_time(dtype)
    ]
    if positions:
        partition = partition.copy(deep=False)
        for position in positions:
            partition.isetitem(position, _own(partition.iloc[:, position]))
    index = partition.index
    if not isinstance(index, pd.MultiIndex):
        return partition.set_axis(_own(index)) if _is_arrow_time(index.dtype) else partition
    # Making a MultiIndex takes longer than all the rest, so it is made only if needed.
    if not any(map(_is_arrow_time, index.dtypes)):
        return partition
    levels = [index.get_level_values(number) for number in range(index.nlevels)]
    own = [_own(level) if _is_arrow_time(level.dtype) else level for level in levels]
    return partition.set_axis(pd.MultiIndex.from_arrays(own, names=index.names))


def _is_arrow_time(dtype: object) -> bool:
    return isinstance(dtype, pd.ArrowDtype) and dtype.kind in "mM"


def _own(values: Any) -> Any:
    """Return instants or durations of one of Arrow's dtypes as pandas' own."""
    kind = values.dtype.pyarrow_dtype
    if pa.types.is_date(kind):
        return values.astype("datetime64[s]")
    zone = getattr(kind, "tz", None)
    # Naive instants and durations have the same form in pandas.
    if zone is None:
        duration = values.dtype.kind == "m"
        return values.astype(f"{'timedelta' if duration else 'datetime'}64[{kind.unit}]")
    return values.astype(pd.DatetimeTZDtype(kind.unit, zone))


def _texts(columns: pd.Index) -> list[str]:
    """Return the names of columns as text.

    Raises
    ------
    BadDocument
        If two names become the same text.
    """
    names = [
        "_".join(str(part) for part in label if part != "") if isinstance(label, tuple) else label
        for label in columns
    ]
    texts = [str(name) for name in names]
    twice = sorted({text for text in texts if texts.count(text) > 1})
    if twice:
        raise BadDocument(f"the table has several columns {listed(twice)}; rename all but one")
    return texts


def _level_names(partition: pd.DataFrame) -> list[str | None]:
    """Return the name under which each index level becomes a column; None if it does not."""
    index = partition.index
    # The index says nothing that a run needs.
    if _is_numbering(index) or (index.name is None and _is_default(index)):
        return [None]
    single = index.nlevels == 1
    names: list[str | None] = []
    for number in range(index.nlevels):
        level = index.get_level_values(number)
        taken = {*partition.columns, *names}
        name = _level_name(level, "index" if single else f"level_{number}", taken)
        # The name is taken by a column of other values.
        if name in taken and not _same(level.to_series(), partition.get(name)):
            name = free_name(f"{name}_index", taken.__contains__)
        names.append(name)
    return names


def _level_name(level: pd.Index, default: str, taken: set[str | None]) -> str:
    if level.name is None:
        # An index of instants without a name is what `set_index("time")` has left.
        return "time" if _is_instants(level) and "time" not in taken else default
    label: Hashable = level.name
    name = "_".join(map(str, label)) if isinstance(label, tuple) else str(label)
    return f"data:{name}" if name in RESERVED else name


def _is_numbering(index: pd.Index) -> bool:
    return index.nlevels == 1 and index.name == "seq_num" and index.dtype.kind in "iu"


def _is_default(index: pd.Index) -> bool:
    """Return whether an index only counts rows, or is the index of an empty frame."""
    # Columns of an empty frame come with an index of objects.
    if index.nlevels > 1 or index.dtype.kind not in "iu":
        return index.nlevels == 1 and len(index) == 0 and index.dtype == object
    return bool(np.array_equal(index, np.arange(len(index))))


def _is_instants(values: Any) -> bool:
    return bool(pd.api.types.is_datetime64_any_dtype(values.dtype))


def _is_odd(column: Any) -> bool:
    dtype = column.dtype
    if isinstance(dtype, (pd.CategoricalDtype, pd.IntervalDtype, pd.PeriodDtype)):
        return True
    # Only a `time` of another form than a table's own needs to be changed.
    if column.name == "time":
        return not is_zoned(dtype)
    return dtype.kind in "mM" or _has_odd_cells(column)


def _has_odd_cells(column: pd.Series) -> bool:
    return column.dtype.kind == "O" and not ODD.isdisjoint(map(type, column))


def _same(values: Any, column: Any) -> bool:
    return column is not None and equal(values.tolist(), column.tolist())


def _instants(column: pd.Series) -> pd.Series:
    """Convert instants to UTC; naive ones are taken as UTC."""
    zoned = is_zoned(column.dtype)
    return column.dt.tz_convert("UTC") if zoned else column.dt.tz_localize("UTC")


def _seconds(column: pd.Series) -> pd.Series:
    """Convert naive instants or durations to seconds as float64; NaT becomes NaN."""
    return pd.Series(datetime_to_posix(column.to_numpy()))


def _texts_of(column: pd.Series) -> pd.Series:
    """Convert intervals or periods to text; missing ones stay missing."""
    return column.astype(object).map(str, na_action="ignore")


def _cell(value: object) -> Any:
    if isinstance(value, pd.Timestamp):
        return (value if value.tzinfo else value.tz_localize("UTC")).timestamp()
    if isinstance(value, pd.Timedelta):
        return value.total_seconds()
    return str(value) if isinstance(value, (pd.Interval, pd.Period)) else value
