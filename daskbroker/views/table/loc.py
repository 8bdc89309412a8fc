"""``loc`` by labels if divisions are not known, as in a table of many runs.

The index of such a table, ``seq_num``, begins again with each run. Dask passes the labels to the
``loc`` of each partition. pandas then raises a bare ``KeyError``, or, if runs share a partition,
silently finds nothing. Here labels are compared with the index instead: ``table.loc[5:7]`` is
``table[table.index.to_series().between(5, 7)]``, the events 5 to 7 of each run, in order.
"""

# dask does not annotate its private API.
# mypy: allow-untyped-calls

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from dask.dataframe.dask_expr import _indexing
from dask.dataframe.dask_expr._collection import new_collection
from dask.dataframe.dask_expr._expr import Expr, Filter
from dask.dataframe.dask_expr._indexing import LocUnknown

from daskbroker.core.errors import BadQuery
from daskbroker.views.table.conditions import as_condition

INDEX = "seq_num"
INSTEAD = "table[table.index.to_series().between(5, 7)]"


class LocIndexer(_indexing.LocIndexer):  # type: ignore[misc]
    """Dask's ``loc``, except that labels are compared if divisions are not known.

    Parameters
    ----------
    obj
        Table or column that rows are taken from.
    ours
        Function that converts a dask collection to one that has this ``loc``.
    """

    def __init__(self, obj: Any, ours: Callable[[Any], Any]) -> None:
        super().__init__(obj)
        self._ours = ours

    def __getitem__(self, key: Any) -> Any:
        return self._ours(super().__getitem__(key))

    def _loc(self, rows: object, columns: object) -> Any:
        if columns is not None:
            # Dask selects both in one step, and fails if a column of the result is selected.
            return self._ours(self._loc(rows, None))[columns]
        rows = as_condition(rows)
        if isinstance(rows, slice) and rows == slice(None):
            return self.obj
        # An index that starts again with each run has no divisions; other indexes are Dask's.
        ours = self.obj._meta.index.name == INDEX and not self.obj.known_divisions
        if not ours or not _are_labels(rows):
            return super()._loc(rows, None)
        condition = self._condition(rows)
        if condition is None:
            return self.obj
        return new_collection(Filter(self.obj.expr, condition.expr))

    def _condition(self, rows: Any) -> Any:
        """Return a lazy condition that holds for the rows with these labels; None if for all."""
        index = self.obj.index.to_series()
        if isinstance(rows, slice):
            return _between(index, rows)
        if pd.api.types.is_list_like(rows):
            labels = list(rows)
            if not labels:
                return index != index  # true for no row
            # The range is redundant, but unlike isin it lets the optimizer prune partitions.
            return _between(index, slice(min(labels), max(labels))) & index.isin(labels)
        return index == rows


class ColumnIndexer(_indexing.ILocIndexer):  # type: ignore[misc]
    """Dask's ``iloc``, whose results are of this package's classes; see `LocIndexer`."""

    def __init__(self, obj: Any, ours: Callable[[Any], Any]) -> None:
        super().__init__(obj)
        self._ours = ours

    def __getitem__(self, key: Any) -> Any:
        return self._ours(super().__getitem__(key))


def _are_labels(rows: object) -> bool:
    """Return whether rows are chosen by index labels: one, several, or a range of them."""
    if isinstance(rows, slice):
        return rows != slice(None)
    if isinstance(rows, (list, np.ndarray, pd.Index)):
        return not pd.api.types.is_bool_dtype(np.asarray(rows))
    return pd.api.types.is_scalar(rows) and rows is not None


def _between(index: Any, labels: slice) -> Any:
    if labels.step not in (None, 1):
        raise BadQuery(
            f"loc takes labels from one to another, without a step ({labels.step!r}); of a table "
            f"of many runs it means {INSTEAD}"
        )
    low = None if labels.start is None else index >= labels.start
    high = None if labels.stop is None else index <= labels.stop
    if low is None or high is None:
        return high if low is None else low
    return low & high


def refuse_labels(table: Expr, dependents: Mapping[str, Collection[weakref.ref[Any]]]) -> None:
    """Refuse dask's own ``loc`` by labels on a table whose divisions are not known.

    Such a ``loc`` is built on collections that are no longer of this package's classes, such as
    the result of ``dask.dataframe.concat``.

    Parameters
    ----------
    table
        Expression of a table.
    dependents
        Expressions that are built on each expression, by its name.

    Raises
    ------
    BadQuery
        If there is a ``loc`` by labels of ``seq_num`` above the table.
    """
    above, seen = [table._name], set()
    while above:
        for reference in dependents.get(above.pop(), ()):
            user = reference()
            if user is None or user._name in seen:
                continue
            if isinstance(user, LocUnknown) and user.frame._meta.index.name == INDEX:
                raise BadQuery(
                    f"dask cannot tell which rows of this table have the labels "
                    f"{user.operand('iindexer')!r}, as seq_num starts again with each run; write "
                    f"{INSTEAD} in place of table.loc[5:7]"
                )
            seen.add(user._name)
            above.append(user._name)
