"""Conditions by which rows are chosen, of which Dask's optimizer makes other results.

In ``table[table.label.fillna(False).astype(bool)]`` Dask takes the condition for the frame that is
filtered, moves the filter below ``astype``, and the result is the condition itself: silently, or
with a ``KeyError``. It does so for each condition that ends with an operation through which filters
may pass, such as ``astype``, ``rename`` or ``copy``.
"""

# dask does not annotate its private API.
# mypy: allow-untyped-calls

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import dask.dataframe as dd
from dask.dataframe.dask_expr import _expr as ex
from dask.dataframe.dask_expr._collection import new_collection


class Condition(ex.Elemwise):  # type: ignore[misc]
    """A condition as it is, below which no filter is moved."""

    _parameters = ["frame"]  # noqa: RUF012

    @staticmethod
    def operation(values: Any) -> Any:
        """Return the values."""
        return values


def as_condition(key: Any) -> Any:
    """Return what chooses rows, or columns, so that Dask's optimizer leaves a condition in place.

    Other conditions stay as they are, as comparisons tell which partitions have matching rows.
    """
    if not isinstance(key, dd.Series):
        return key
    # A column may become such an operation: ``table.astype(bool)["x"]``.
    moves = key.expr._filter_passthrough or isinstance(key.expr, ex.Projection)
    return new_collection(Condition(key.expr)) if moves else key


def filtering(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a ``__getitem__`` that takes any condition, or a function that returns one."""

    @functools.wraps(method)
    def filtered(self: Any, key: Any) -> Any:
        return method(self, as_condition(key(self) if callable(key) else key))

    return filtered
