"""The table as users hold it: dask's DataFrame, that knows where its index begins and ends.

Dask gives the result of ``set_index`` no divisions where it has one partition. Then
``resample`` fails, and ``merge_asof`` with a frame of several partitions finds no match and does
not say so. A `DataFrame` of ours sees to it that they are known: from the statistics of the chunks if
these tell exactly, else by a read of that one column, as dask does for several partitions.
"""

# dask does not annotate its private API.
# mypy: allow-untyped-calls

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import dask.dataframe as dd
import pandas as pd
from dask.dataframe.dask_expr import _expr as ex
from dask.dataframe.dask_expr._repartition import RepartitionToFewer
from dask.dataframe.dask_expr._shuffle import (
    SetIndex,
    SetIndexBlockwise,
    SortIndexBlockwise,
    _get_divisions,
)
from dask.dataframe.tseries.resample import ResampleReduction

from daskbroker.views._expr import FromPartitions
from daskbroker.views._partitions import Partitions

__all__ = ["DataFrame", "concat", "from_partitions"]


def from_partitions(parts: Partitions) -> DataFrame:
    """Make the lazy table of some partitions; reads nothing.

    Parameters
    ----------
    parts : Partitions
        What the table holds and how a partition of it is read.

    Returns
    -------
    DataFrame
        Its partitions have the dtypes of ``parts.meta`` or computing them raises `StoreError`.
    """
    return DataFrame(FromPartitions(parts))


def concat(tables: Sequence[DataFrame]) -> DataFrame:
    """The rows of some tables, one after the other."""
    return tables[0] if len(tables) == 1 else DataFrame(dd.concat(tables).expr)


class DataFrame(dd.DataFrame):  # type: ignore[misc]
    """A ``dask.dataframe.DataFrame`` whose ``set_index`` has divisions for one partition, too."""

    def set_index(self, *args: Any, **kwargs: Any) -> DataFrame:
        """As dask's; the divisions of a single partition are known."""
        result = super().set_index(*args, **kwargs)
        expr = result.expr
        if type(expr) is SetIndex and _is_one(expr):
            expr = OneSetIndex(*expr.operands)
        return DataFrame(expr)

    def __reduce__(self) -> tuple[Any, ...]:
        return (DataFrame, (self.expr,))


def _is_one(expr: SetIndex) -> bool:
    """Tell whether dask leaves the divisions open, of an index that has a least value."""
    kind = getattr(expr.other._meta.dtype, "kind", "O")
    return expr.user_divisions is None and expr._npartitions_input == 1 and kind in "iufM"


def _keeping(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def kept(self: DataFrame, *args: Any, **kwargs: Any) -> Any:
        result = method(self, *args, **kwargs)
        return DataFrame(result.expr) if type(result) is dd.DataFrame else result

    return kept


# What is usually done to a table before its index is set.
for _name in (
    "__getitem__", "assign", "astype", "drop", "drop_duplicates", "dropna", "fillna", "join",
    "map_partitions", "mask", "merge", "persist", "query", "rename", "repartition", "replace",
    "reset_index", "where",
):  # fmt: skip
    setattr(DataFrame, _name, _keeping(getattr(dd.DataFrame, _name)))


class OneSetIndex(SetIndex):  # type: ignore[misc]
    """A ``SetIndex`` that makes one partition, and knows what is in it."""

    @functools.cached_property
    def _limits(self) -> tuple[Any, Any]:
        known = _from_statistics(self)
        if known is not None:
            return known
        _, lows, highs, _ = _get_divisions(self.frame, self.other, self._npartitions_input)
        values = pd.Series([*lows, *highs]).dropna()
        return (values.min(), values.max()) if len(values) else (None, None)

    def _divisions(self) -> tuple[Any, Any]:
        return self._limits

    def _lower(self) -> ex.Expr:
        frame = self.frame
        if frame.npartitions > 1:
            frame = RepartitionToFewer(frame, 1)
        divisions = None if self._limits[0] is None else list(self._limits)
        set_index = SetIndexBlockwise(frame, self._other, self.drop, divisions, self.append)
        return SortIndexBlockwise(set_index)


def _from_statistics(expr: SetIndex) -> tuple[Any, Any] | None:
    """Return the limits of an index that is a table's own column, if its chunks tell them."""
    bases = [_unprojected(one) for one in (expr.frame, expr.other)]
    base = bases[0]
    if not isinstance(base, FromPartitions) or base._filtered or bases[1]._name != base._name:
        return None
    return base._parts.limits(str(expr.other.columns[0]))


def _unprojected(expr: ex.Expr) -> ex.Expr:
    while isinstance(expr, ex.Projection):
        expr = expr.frame
    return expr


class _Resampled:
    """What dask's resampling lacks."""

    @property
    def npartitions(self) -> int:
        return len(self.divisions) - 1  # type: ignore[attr-defined]


# Dask says that resampling keeps the number of partitions; but wide bins make fewer, and if they
# make one, computing fails on an assertion.
ResampleReduction.npartitions = _Resampled.npartitions
