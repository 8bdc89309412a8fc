"""The table that users hold: dask's DataFrame with correct divisions after ``set_index``.

What dask 2026.8 does with an index of times:

* the divisions of zoned times are right for microseconds in UTC only, and pandas warns of how
  they are computed; with nanoseconds, or in other zones, rows get lost without an error;
* the result has no divisions if it has one partition. Then ``resample`` fails, and
  ``merge_asof`` with a frame of several partitions silently finds no match;
* ``sorted=True`` reads all columns to find divisions, and again when one column is computed;
  partitions that overlap get divisions with which ``loc`` loses rows.

So divisions are found here: from the statistics of the chunks if these are exact, else by
reading that one column. Dask's own classes are not changed.
"""

# dask does not annotate its private API.
# mypy: allow-untyped-calls

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import dask.dataframe as dd
import pandas as pd
from dask.dataframe.dask_expr import _expr as ex
from dask.dataframe.dask_expr._collection import _compute_partition_stats, new_collection
from dask.dataframe.dask_expr._repartition import RepartitionToFewer
from dask.dataframe.dask_expr._shuffle import (
    SetIndex,
    SetIndexBlockwise,
    SetPartition,
    SortIndexBlockwise,
    _get_divisions,
)

from daskbroker.core.clock import is_zoned
from daskbroker.core.errors import BadQuery
from daskbroker.core.shared_property import unlocked_property
from daskbroker.views.table import loc as _loc
from daskbroker.views.table import writing as _writing
from daskbroker.views.table.conditions import filtering
from daskbroker.views.table.dask_methods import (
    OF_FLOATS,
    SHUFFLING,
    Resampler,
    by_tasks,
    resampler,
    shuffle_options,
    with_floats,
)
from daskbroker.views.table.expression import FromPartitions
from daskbroker.views.table.nested import graphs_made_here
from daskbroker.views.table.partitions import Partitions


def from_partitions(partitions: Partitions) -> DataFrame:
    """Return a lazy table of partitions, without reading any.

    Parameters
    ----------
    partitions : Partitions
        Description of the partitions, and how one is read.

    Returns
    -------
    DataFrame
        Table whose partitions have the dtypes of ``partitions.meta``; else computing them raises
        `StoreError`.
    """
    return DataFrame(FromPartitions(partitions))


def concat(tables: Sequence[DataFrame]) -> DataFrame:
    """Return a lazy table of the rows of several tables, one after the other."""
    return tables[0] if len(tables) == 1 else DataFrame(dd.concat(tables).expr)


class DataFrame(dd.DataFrame):  # type: ignore[misc]
    """A ``dask.dataframe.DataFrame`` whose ``set_index`` gives correct divisions.

    ``loc`` selects by labels also if the divisions of the index are not known; see
    :mod:`daskbroker.views.table.loc`.
    """

    @property
    def index(self) -> Index:
        """The lazy index."""
        return Index(super().index.expr)

    @property
    def loc(self) -> _loc.LocIndexer:
        """Rows by labels of the index, columns by names."""
        return _loc.LocIndexer(self, _ours)

    @property
    def iloc(self) -> _loc.ColumnIndexer:
        """Columns by positions."""
        return _loc.ColumnIndexer(self, _ours)

    def set_index(
        self,
        other: Any,
        drop: bool = True,
        sorted: bool = False,
        npartitions: Any = None,
        divisions: Any = None,
        sort: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> DataFrame:
        """Set the index as dask does, but with correct divisions for an index of times.

        With ``sorted=True``, divisions that the chunks do not tell are found by reading the one
        column; dask reads all columns, frames of detectors too.
        """
        if not args:
            kwargs = {**shuffle_options(self), **kwargs}
        unread = sorted and divisions is None
        set_index = super().set_index
        result = set_index(
            other, drop, sorted and not unread, npartitions, divisions, sort and not unread, *args,
            **kwargs,
        )  # fmt: skip
        if unread and type(result.expr) is SetIndexBlockwise:
            return _with_divisions(IndexBlocks(*result.expr.operands))
        expr = result.expr
        if type(expr) is SetIndex:
            expr = (OrderedIndex if _is_ours(expr) else ColumnsIndex)(*expr.operands)
        elif type(expr) is SetIndexBlockwise:
            expr = IndexBlocks(*expr.operands)
        return DataFrame(expr)

    def resample(self, rule: Any, **kwargs: Any) -> Resampler:
        """Resample as dask does.

        Raises
        ------
        BadQuery
            If the divisions of the index are not known; the message says what to do.
        """
        return resampler(self, rule, kwargs)

    def to_parquet(self, path: Any, schema: Any = "infer", **kwargs: Any) -> Any:
        """Write Parquet files as dask does, with columns of arrays as Arrow lists.

        To find the types of the lists, columns of objects are computed twice, except those whose
        types are given by ``schema``. With an ``engine`` other than pyarrow, or a ``schema`` that
        is neither ``"infer"`` nor a dict, this is dask's ``to_parquet``.

        Raises
        ------
        BadQuery
            If the cells of a column have no Arrow type in common; the message names the columns.
        """
        inferred = schema == "infer" if isinstance(schema, str) else isinstance(schema, dict)
        if not inferred or kwargs.get("engine", "auto") not in ("auto", "pyarrow"):
            return super().to_parquet(path, schema=schema, **kwargs)
        given = schema if isinstance(schema, dict) else {}
        table, arrow_types = _writing.with_arrow_lists(self, given)
        parquet = dd.DataFrame.to_parquet
        return parquet(table, path, schema={**given, **arrow_types} or "infer", **kwargs)

    def to_csv(self, filename: Any, *, arrays: str = "raise", **kwargs: Any) -> Any:
        """Write CSV files as dask does, refusing or leaving out columns with arrays.

        Parameters
        ----------
        filename, **kwargs
            As for ``dask.dataframe.DataFrame.to_csv``.
        arrays
            ``"raise"`` for an error that names such columns; ``"drop"`` to leave them out. Frames
            are then not read; other columns of objects are computed twice, to find arrays.

        Raises
        ------
        BadQuery
            If `arrays` is not valid; with ``"raise"``, also if there is such a column, which may
            be found when a partition with one is computed.
        """
        # Text may have halves of characters. Dask opens files with these options.
        options = {"errors": "backslashreplace", **(kwargs.pop("storage_options", None) or {})}
        kwargs["storage_options"] = options
        return dd.DataFrame.to_csv(_writing.without_arrays(self, arrays), filename, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return (DataFrame, (self.expr,))


class Series(dd.Series):  # type: ignore[misc]
    """A column of a :class:`DataFrame`."""

    @property
    def index(self) -> Index:
        """The lazy index."""
        return Index(super().index.expr)

    @property
    def loc(self) -> _loc.LocIndexer:
        """Cells by labels of the index."""
        return _loc.LocIndexer(self, _ours)

    def resample(self, rule: Any, **kwargs: Any) -> Resampler:
        return resampler(self, rule, kwargs)

    def to_csv(self, filename: Any, **kwargs: Any) -> Any:
        return self.to_frame().to_csv(filename, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Series, (self.expr,))


class Index(dd.Index):  # type: ignore[misc]
    """The index of a table. What is computed of it row by row is a column.

    So it chooses rows: ``table[table.index % 2 == 0]``. Dask makes an index of it, or an array,
    which it takes for names of columns.
    """

    __hash__ = dd.Index.__hash__

    def map(
        self, arg: Any, na_action: Any = None, meta: Any = None, is_monotonic: bool = False
    ) -> Series:
        """Return a lazy column of ``arg(label)``, or ``arg[label]``.

        Parameters
        ----------
        arg, na_action, meta
            As for ``dask.dataframe.Series.map``; `meta` may be an index, too.
        is_monotonic
            Not used: the column has the divisions of the table.
        """
        if isinstance(meta, pd.Index):
            meta = meta.to_series()
        return self._column.map(arg, na_action=na_action, meta=meta)  # type: ignore[no-any-return]

    @property
    def dt(self) -> Any:
        """Parts of times, as columns."""
        return self._column.dt

    @property
    def _column(self) -> Series:
        return _ours(self.to_series())  # type: ignore[no-any-return]

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        columns = [one.to_series() if isinstance(one, dd.Index) else one for one in inputs]
        return _ours(getattr(function, method)(*columns, **kwargs))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Index, (self.expr,))


def _is_ours(expr: SetIndex) -> bool:
    """Return whether dask would compute the divisions, and would get them wrong."""
    column = expr.other._meta
    if expr.user_divisions is not None or not isinstance(column, pd.Series):
        return False
    ordered = getattr(column.dtype, "kind", "O") in "iufM"
    return is_zoned(column.dtype) or (ordered and expr._npartitions_input == 1)


def _ours(result: Any) -> Any:
    """Convert a dask collection to the class of this module; other results stay as they are."""
    ours = {dd.DataFrame: DataFrame, dd.Series: Series}.get(type(result))
    return result if ours is None else ours(result.expr)


def _of_column(name: str) -> Callable[..., Any]:
    @functools.wraps(getattr(dd.Series, name))
    def by_row(self: Index, *args: Any, **kwargs: Any) -> Any:
        others = [arg.to_series() if isinstance(arg, dd.Index) else arg for arg in args]
        return getattr(self._column, name)(*others, **kwargs)

    return by_row


def _keeping(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def kept(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _ours(method(self, *args, **kwargs))

    return kept


def _of_floats(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def computed(self: Any, *args: Any, **kwargs: Any) -> Any:
        return method(with_floats(self), *args, **kwargs)

    return computed


def _telling(getattr_: Callable[[Any, str], Any], pandas: type) -> Callable[[Any, str], Any]:
    """Return a ``__getattr__`` whose error for what only pandas has says that tables are lazy."""

    @functools.wraps(getattr_)
    def told(self: Any, name: str) -> Any:
        try:
            return getattr_(self, name)
        except AttributeError as error:
            if name.startswith("_") or not hasattr(pandas, name):
                raise
            raise AttributeError(
                f"{error}: it is a lazy one of dask; .compute() makes it a pandas "
                f"{pandas.__name__}, which has {name!r}",
                name=name,
                obj=self,
            ) from None

    return told


_OPERATORS = tuple(f"__{name}__" for name in (
    "add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "floordiv", "rfloordiv",
    "mod", "rmod", "pow", "rpow", "abs", "neg", "pos", "invert", "and", "rand", "or", "ror", "xor",
    "rxor", "lt", "le", "gt", "ge", "eq", "ne",
))  # fmt: skip
_NOT_PUBLIC = (*_OPERATORS, "__getitem__", "_partitions")
# What methods make of a table, or a column, must be of the classes of this module, so that
# `set_index` and `loc` still work as here. Indexers and groups are Dask's own.
for _class, _pandas in ((DataFrame, pd.DataFrame), (Series, pd.Series)):
    _base = _class.__base__
    _class.__getattr__ = _telling(_keeping(_base.__getattr__), _pandas)
    for _name in dir(_base):
        _method = getattr(_base, _name)
        _is_public = _name[0] != "_" and inspect.isfunction(_method)
        if _name in OF_FLOATS:
            _method = _of_floats(_method)
        if _name in SHUFFLING and _class is DataFrame:
            _method = by_tasks(_method)
        if _name == "__getitem__":
            _method = filtering(_method)
        if (_is_public or _name in _NOT_PUBLIC) and _name not in vars(_class):
            setattr(_class, _name, _keeping(_method))
_BY_ROW = ("astype", "between", "isin", "isna", "isnull", "notnull", "round")
for _name in (*_OPERATORS, *_BY_ROW):
    setattr(Index, _name, _of_column(_name))


class ColumnsIndex(SetIndex):  # type: ignore[misc]
    """A ``SetIndex`` of which columns can be selected, also if the index is given as a series."""

    def _divisions(self) -> tuple[Any, ...]:
        with graphs_made_here():
            return tuple(super()._divisions())

    def _simplify_up(self, parent: ex.Expr, dependents: Any) -> ex.Expr | None:
        if not (isinstance(parent, ex.Projection) and isinstance(self._other, ex.Expr)):
            narrowed: ex.Expr | None = super()._simplify_up(parent, dependents)
            return narrowed
        # Dask compares the series with the names of the columns, which fails.
        wanted = parent.operand("columns")
        names = wanted if isinstance(wanted, list) else [wanted]
        columns = [column for column in self.frame.columns if column in names]
        if columns == list(self.frame.columns):
            return None
        return type(parent)(
            type(self)(self.frame[columns], *self.operands[1:]), *parent.operands[1:]
        )


class OrderedIndex(ColumnsIndex):
    """A ``SetIndex`` on times, or into one partition."""

    def _divisions(self) -> tuple[Any, ...]:
        return self._divisions_and_order[0]

    @unlocked_property
    def _divisions_and_order(self) -> tuple[tuple[Any, ...], bool]:
        """The divisions, and whether the rows already are in the right partitions."""
        count = self._npartitions_input
        known = _from_statistics(self)
        if known is not None and count == 1:
            return (min(known[0]), max(known[1])), self.frame.npartitions == 1
        if known is not None and len(known[0]) == count and _apart(*known):
            return (*known[0], known[1][-1]), True
        with graphs_made_here():
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
        """Return whether values are missing, whose rows belong at the end of the last partition."""
        with graphs_made_here():
            return bool(new_collection(self.other).isna().any().compute())

    def _computed(self, count: int) -> tuple[Any, ...]:
        """Return what dask's ``_get_divisions`` finds by reading the column.

        Zoned times are read as naive UTC, which dask gets right, and the results zoned again.
        """
        dtype, column = self.other._meta.dtype, new_collection(self.other)
        if not is_zoned(dtype):
            return _get_divisions(self.frame, self.other, count, upsample=self.upsample)
        plain = column.dt.tz_convert("UTC").dt.tz_localize(None)
        *values, presorted = _get_divisions(self.frame, plain.expr, count, upsample=self.upsample)
        zoned = [pd.Series(some, dtype=f"datetime64[{dtype.unit}]") for some in values]
        zoned = [some.dt.tz_localize("UTC").dt.tz_convert(dtype.tz) for some in zoned]
        return (*(some.tolist() for some in zoned), presorted)

    def _lower(self) -> ex.Expr:
        divisions, in_place = self._divisions_and_order
        frame = self.frame
        if not in_place and len(divisions) == 2:
            frame, in_place = RepartitionToFewer(frame, 1), True
        if in_place:
            known = None if divisions[0] is None else list(divisions)
            blocks = IndexBlocks(frame, self._other, self.drop, known, self.append)
            return SortIndexBlockwise(blocks)
        return SetPartition(
            frame, self._other, self.drop, None, self.ascending, self.upsample, divisions,
            self.shuffle_method, self.options,
        )  # fmt: skip


class IndexBlocks(SetIndexBlockwise):  # type: ignore[misc]
    """A ``SetIndexBlockwise`` whose index can be found without reading other columns."""

    def _simplify_up(self, parent: ex.Expr, dependents: Any) -> ex.Expr | None:
        used = [] if isinstance(self.other, ex.Expr) else [self.other]
        if isinstance(parent, ex.Projection):
            used = ex.determine_column_projection(self, parent, dependents, used)
        elif not isinstance(parent, ex.Index):
            return None
        columns = [column for column in self.frame.columns if column in used]
        if columns == list(self.frame.columns):
            return None
        narrowed = type(self)(self.frame[columns], *self.operands[1:])
        return type(parent)(narrowed, *parent.operands[1:])


class ResolvedOverlaps(ex.ResolveOverlappingDivisions):  # type: ignore[misc]
    """Dask's ``ResolveOverlappingDivisions``, of which columns can be read alone."""

    def _simplify_up(self, parent: ex.Expr, dependents: Any) -> ex.Expr | None:
        if not isinstance(parent, ex.Projection):
            return None
        narrowed: ex.Expr | None = ex.plain_column_projection(self, parent, dependents)
        return narrowed


def _with_divisions(blocks: IndexBlocks) -> DataFrame:
    """Return the table of blocks that are sorted, with its divisions."""
    lows, highs = _from_statistics(SetIndex(blocks.frame, blocks.other)) or ((), ())
    rows: Sequence[int] = (1,) * len(lows)
    if not lows or not _apart(lows, highs):
        lows, highs, rows = _compute_partition_stats(DataFrame(blocks).index, allow_overlap=True)
    if not lows:
        return DataFrame(blocks)
    if any(begin < end for end, begin in zip(highs[:-1], lows[1:], strict=True)):
        # Dask sets divisions that are wrong, by which `loc` and `resample` lose rows.
        name = blocks._meta.index.name
        raise BadQuery(
            f"sorted=True, but the rows are not in the order of {name!r}: a partition begins with "
            f"less than the one before it ends with; set_index({name!r}) alone sorts them"
        )
    if not all(rows) or not _apart(lows, highs):
        return DataFrame(ResolvedOverlaps(blocks, lows, highs, rows))
    return DataFrame(blocks.substitute_parameters({"new_divisions": [*lows, highs[-1]]}))


def _apart(lows: Sequence[Any], highs: Sequence[Any]) -> bool:
    """Return whether each range begins after the end of the one before it."""
    return all(end < begin for end, begin in zip(highs[:-1], lows[1:], strict=True))


def _from_statistics(expr: SetIndex) -> tuple[Sequence[Any], Sequence[Any]] | None:
    """Return the exact minima and maxima of the partitions from the statistics of the chunks.

    None if these are not known, or if the frame is more than columns of one table.
    """
    base, of_index = _unprojected(expr.frame), _unprojected(expr.other)
    if not isinstance(base, FromPartitions) or base._filtered or of_index._name != base._name:
        return None
    return base._parts.limits(str(expr.other.columns[0])) if base._parts.npartitions else None


def _unprojected(expr: ex.Expr) -> ex.Expr:
    while isinstance(expr, ex.Projection):
        expr = expr.frame
    return expr
