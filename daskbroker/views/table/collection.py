"""The table as users hold it: dask's DataFrame, but with the right divisions after ``set_index``.

What dask 2026.8 does with an index of times:

* the divisions of zoned times are right for microseconds in UTC only, and pandas warns of how
  they are computed; of nanoseconds, and in other zones, rows get lost without an error;
* the result has no divisions where it has one partition. Then ``resample`` fails, and
  ``merge_asof`` with a frame of several partitions finds no match and does not say so;
* ``resample`` fails where its bins are wider than partitions, or the index has one instant.

So divisions are found here: from the statistics of the chunks if these tell exactly, else by a
read of that one column, as dask does. Dask's own classes stay as they are.
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
from dask.dataframe.dask_expr._collection import new_collection
from dask.dataframe.dask_expr._repartition import RepartitionToFewer
from dask.dataframe.dask_expr._shuffle import (
    SetIndex,
    SetIndexBlockwise,
    SetPartition,
    SortIndexBlockwise,
    _get_divisions,
)
from dask.dataframe.tseries import resample

from daskbroker.core.errors import BadQuery
from daskbroker.views.table import loc as _loc
from daskbroker.views.table import writing as _writing
from daskbroker.views.table.expression import FromPartitions
from daskbroker.views.table.partitions import Partitions

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
    """A ``dask.dataframe.DataFrame`` whose ``set_index`` gives the right divisions.

    ``loc`` selects by the labels of an index whose divisions are not known, too; see
    :mod:`daskbroker.views.table.loc`.
    """

    @property
    def loc(self) -> _loc.LocIndexer:
        """Rows by labels of the index, columns by names."""
        return _loc.LocIndexer(self, _ours)

    def set_index(self, *args: Any, **kwargs: Any) -> DataFrame:
        """As dask's; see the module for what differs."""
        result = super().set_index(*args, **kwargs)
        expr = result.expr
        if type(expr) is SetIndex and _is_ours(expr):
            expr = OrderedIndex(*expr.operands)
        return DataFrame(expr)

    def resample(self, rule: Any, **kwargs: Any) -> Resampler:
        """As dask's; the error says what to do where the divisions are not known."""
        return _resampler(self, rule, kwargs)

    def to_parquet(self, path: Any, schema: Any = "infer", **kwargs: Any) -> Any:
        """As dask's; columns of arrays become Arrow lists, whose types their cells tell.

        For that, columns of objects are computed twice, but for those whose types ``schema``
        tells. With another ``engine`` than pyarrow, and with ``schema=None``, all is dask's.

        Raises
        ------
        BadQuery
            Naming the columns whose cells have no Arrow type in common.
        """
        inferred = schema == "infer" if isinstance(schema, str) else isinstance(schema, dict)
        if not inferred or kwargs.get("engine", "auto") not in ("auto", "pyarrow"):
            return super().to_parquet(path, schema=schema, **kwargs)
        given = schema if isinstance(schema, dict) else {}
        table, kinds = _writing.with_arrow_lists(self, given)
        parquet = dd.DataFrame.to_parquet
        return parquet(table, path, schema={**given, **kinds} or "infer", **kwargs)

    def to_csv(self, filename: Any, *, arrays: str = "raise", **kwargs: Any) -> Any:
        """As dask's; columns with arrays are an error that names them, or left out.

        Parameters
        ----------
        filename, **kwargs
            As dask's.
        arrays
            ``"raise"``; or ``"drop"``, for which the columns of objects are computed twice.

        Raises
        ------
        BadQuery
            When it is computed.
        """
        return dd.DataFrame.to_csv(_writing.without_arrays(self, arrays), filename, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return (DataFrame, (self.expr,))


class Series(dd.Series):  # type: ignore[misc]
    """A column of such a DataFrame."""

    @property
    def loc(self) -> _loc.LocIndexer:
        """Cells by labels of the index."""
        return _loc.LocIndexer(self, _ours)

    def resample(self, rule: Any, **kwargs: Any) -> Resampler:
        """See :meth:`DataFrame.resample`."""
        return _resampler(self, rule, kwargs)

    def to_csv(self, filename: Any, **kwargs: Any) -> Any:
        """See :meth:`DataFrame.to_csv`."""
        return self.to_frame().to_csv(filename, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Series, (self.expr,))


def _is_ours(expr: SetIndex) -> bool:
    """Tell whether dask computes the divisions, and not as it should."""
    column = expr.other._meta
    if expr.user_divisions is not None or not isinstance(column, pd.Series):
        return False
    ordered = getattr(column.dtype, "kind", "O") in "iufM"
    return _is_zoned(column.dtype) or (ordered and expr._npartitions_input == 1)


def _is_zoned(dtype: Any) -> bool:
    return isinstance(dtype, pd.DatetimeTZDtype)


def _ours(result: Any) -> Any:
    """A collection of dask's as one of the classes of this module."""
    ours = {dd.DataFrame: DataFrame, dd.Series: Series}.get(type(result))
    return result if ours is None else ours(result.expr)


def _keeping(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def kept(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _ours(method(self, *args, **kwargs))

    return kept


# What is usually done to a table, or a column, before its index is set or rows are taken by `loc`.
_KEPT = (
    "__getitem__", "abs", "astype", "clip", "copy", "dropna", "fillna", "head", "isin", "isna",
    "map_partitions", "mask", "persist", "rename", "repartition", "replace", "reset_index",
    "round", "tail", "where",
    *(f"__{name}__" for name in (
        "add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "floordiv", "mod",
        "pow", "neg", "invert", "and", "or", "xor", "lt", "le", "gt", "ge", "eq", "ne",
    )),
)  # fmt: skip
_KEPT_OF_TABLES = (
    "__getattr__", "assign", "drop", "drop_duplicates", "join", "merge", "query", "sort_values",
)  # fmt: skip
for _class, _names in ((DataFrame, (*_KEPT, *_KEPT_OF_TABLES)), (Series, (*_KEPT, "to_frame"))):
    for _name in _names:
        setattr(_class, _name, _keeping(getattr(_class.__base__, _name)))


class OrderedIndex(SetIndex):  # type: ignore[misc]
    """A ``SetIndex`` on times, or into one partition."""

    def _divisions(self) -> tuple[Any, ...]:
        return self._found[0]

    @functools.cached_property
    def _found(self) -> tuple[tuple[Any, ...], bool]:
        """The divisions, and whether the partitions are what they are to become."""
        count = self._npartitions_input
        known = _from_statistics(self)
        if known is not None and count == 1:
            return (min(known[0]), max(known[1])), self.frame.npartitions == 1
        if known is not None and len(known[0]) == count and _apart(*known):
            return (*known[0], known[1][-1]), True
        divisions, lows, highs, presorted = self._computed(count)
        values = pd.Series([*lows, *highs]).dropna()
        if not len(values):
            return (None,) * (self.frame.npartitions + 1), True
        if count == 1:
            return (values.min(), values.max()), self.frame.npartitions == 1
        if presorted and len(lows) == count and not self._has_gaps():
            return (*lows, highs[-1]), count == self.frame.npartitions
        return tuple(divisions), False

    def _has_gaps(self) -> bool:
        """Whether times are missing: these go to the end of the last partition."""
        return bool(new_collection(self.other).isna().any().compute())

    def _computed(self, count: int) -> tuple[Any, ...]:
        """What dask finds out by reading the column; in UTC and without zone, if it has one."""
        dtype, column = self.other._meta.dtype, new_collection(self.other)
        if not _is_zoned(dtype):
            return _get_divisions(self.frame, self.other, count, upsample=self.upsample)
        plain = column.dt.tz_convert("UTC").dt.tz_localize(None)
        *values, presorted = _get_divisions(self.frame, plain.expr, count, upsample=self.upsample)
        zoned = [pd.Series(some, dtype=f"datetime64[{dtype.unit}]") for some in values]
        zoned = [some.dt.tz_localize("UTC").dt.tz_convert(dtype.tz) for some in zoned]
        return (*(some.tolist() for some in zoned), presorted)

    def _lower(self) -> ex.Expr:
        divisions, in_place = self._found
        frame = self.frame
        if not in_place and len(divisions) == 2:
            frame, in_place = RepartitionToFewer(frame, 1), True
        if in_place:
            known = None if divisions[0] is None else list(divisions)
            blocks = SetIndexBlockwise(frame, self._other, self.drop, known, self.append)
            return SortIndexBlockwise(blocks)
        return SetPartition(
            frame, self._other, self.drop, None, self.ascending, self.upsample, divisions,
            self.shuffle_method, self.options,
        )  # fmt: skip


def _apart(lows: Sequence[Any], highs: Sequence[Any]) -> bool:
    """Tell whether each range begins after the one before it has ended."""
    return all(end < begin for end, begin in zip(highs[:-1], lows[1:], strict=True))


def _from_statistics(expr: SetIndex) -> tuple[Sequence[Any], Sequence[Any]] | None:
    """Return least and greatest value of each partition, if the chunks of a table tell them."""
    base, of_index = _unprojected(expr.frame), _unprojected(expr.other)
    if not isinstance(base, FromPartitions) or base._filtered or of_index._name != base._name:
        return None
    return base._parts.limits(str(expr.other.columns[0])) if base._parts.npartitions else None


def _unprojected(expr: ex.Expr) -> ex.Expr:
    while isinstance(expr, ex.Projection):
        expr = expr.frame
    return expr


# --- resampling


def _resampler(frame: DataFrame | Series, rule: Any, kwargs: dict[str, Any]) -> Resampler:
    if not frame.known_divisions:
        raise BadQuery(
            "resample needs an index whose divisions are known; make one by set_index('time'), "
            "or set_index('time', sorted=True) where the rows are in the order of time"
        )
    return Resampler(frame, rule, **kwargs)


class Resampler(resample.Resampler):  # type: ignore[misc]
    """Dask's, with its two mistakes mended."""

    def _single_agg(self, expr_cls: type, *args: Any, **kwargs: Any) -> Any:
        return super()._single_agg(MENDED[expr_cls], *args, **kwargs)


class _Mended:
    @property
    def npartitions(self) -> int:
        # Wide bins make fewer partitions; dask says that all stay, and fails if one is left.
        return len(self.divisions) - 1  # type: ignore[attr-defined]

    @functools.cached_property
    def _resample_divisions(self) -> tuple[Any, Any]:
        borders, labels = super()._resample_divisions  # type: ignore[misc]
        # An index of one instant has two borders, too; dask gives it one, and fails.
        return (borders * 2, labels * 2) if len(borders) == 1 else (borders, labels)


MENDED: dict[type, type] = {
    kind: type(kind.__name__, (_Mended, kind), {"__module__": __name__})
    for kind in resample.ResampleReduction.__subclasses__()
}
globals().update((kind.__name__, kind) for kind in MENDED.values())  # as they are pickled by name
