"""Which partitions of a table can hold rows that pass the filters above it in an expression.

``table[table.time > t]`` reads only the partitions whose bounds of ``time`` allow a match. This
works for the columns that chunks have bounds of: ``time`` and the index ``seq_num``.

It is decided again in each pass of the optimizer, only from the expression as it is then: the last
pass, in which nothing changes, is the one that counts. Before that, a filter and its frame may
disagree about what is kept; as long as all partitions keep their positions, both are right.
"""

# dask does not annotate its private API.
# mypy: allow-untyped-calls

from __future__ import annotations

import threading
import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import pandas as pd
from dask._expr import Expr as BaseExpr
from dask.dataframe.dask_expr import _expr as ex
from dask.dataframe.dask_expr._concat import Concat
from dask.dataframe.dask_expr._expr import Expr
from dask.dataframe.dask_expr._indexing import Loc
from dask.dataframe.dask_expr._reductions import ApplyConcatApply
from dask.dataframe.dask_expr._repartition import Repartition

from daskbroker.views.table.partitions import Mask, compact, may_match

if TYPE_CHECKING:
    from daskbroker.views.table.expression import FromPartitions

Dependents = dict[str, Collection[weakref.ref[BaseExpr]]]
"""Users of each node of an expression, by the name of the node, as Dask's optimizer has them."""

_COMPARISONS: dict[type[Any], str] = {
    ex.LT: "<", ex.LTSeries: "<", ex.LE: "<=", ex.LESeries: "<=", ex.GT: ">", ex.GTSeries: ">",
    ex.GE: ">=", ex.GESeries: ">=", ex.EQ: "==", ex.EQSeries: "==",
}  # fmt: skip
_BETWEEN = {"both": (">=", "<="), "neither": (">", "<"), "left": (">=", "<"), "right": (">", "<=")}


class TableNode:
    """Mark of the expression of a table, by which it is found among the nodes of another."""


def _is_table(node: object) -> TypeGuard[FromPartitions]:
    return isinstance(node, TableNode)


def prune(table: FromPartitions, dependents: Dependents) -> FromPartitions:
    """Return the table with only those partitions kept that a filter above it can match."""
    above = _Above(table, dependents)
    masks = [_matching(table, _predicate(node), above.names) for node in above.filters]
    some = _either(masks) if masks else None
    chosen = table._chosen
    kept = chosen if some is None else chosen[some[chosen]]
    # Nothing can be left out, so the expression stays as it is, with its name.
    if len(kept) == len(chosen):
        return table._with(_kept=None, _loose=False)
    return table._with(_kept=compact(kept), _loose=above.rows_only())


def users_of(node: Expr, dependents: Dependents) -> Iterator[Expr]:
    """Yield the nodes that have this one as an operand."""
    for reference in dependents.get(node._name, ()):
        user = reference()
        if isinstance(user, Expr):
            yield user


_last_pass = threading.local()


def _tables(dependents: Dependents) -> dict[Any, list[weakref.ref[FromPartitions]]]:
    """Return all tables of an expression by token; they are searched once in each pass."""
    if getattr(_last_pass, "dependents", None) is not dependents:
        found: dict[str, FromPartitions] = {}
        for references in list(dependents.values()):
            for user in [u for reference in references if (u := reference()) is not None]:
                for dep in user.dependencies():
                    if _is_table(dep):
                        found[dep._name] = dep
        tables: dict[Any, list[weakref.ref[FromPartitions]]] = {}
        for table in found.values():
            tables.setdefault(table._parts.__dask_tokenize__(), []).append(weakref.ref(table))
        _last_pass.dependents, _last_pass.tables = dependents, tables
    found_tables: dict[Any, list[weakref.ref[FromPartitions]]] = _last_pass.tables
    return found_tables


def _others(table: FromPartitions, dependents: Dependents) -> list[FromPartitions]:
    """Return the other expressions of the same table, with any columns or partitions."""
    found = (r() for r in _tables(dependents).get(table._parts.__dask_tokenize__(), ()))
    return [other for other in found if other is not None and other._name != table._name]


def twins_of(table: FromPartitions, dependents: Dependents) -> list[FromPartitions]:
    """Return the other expressions of the same table with the same partitions and rows."""
    return [other for other in _others(table, dependents) if _aligned(table, other)]


def _aligned(table: FromPartitions, other: FromPartitions) -> bool:
    if table._rows != other._rows:
        return False
    if not table._filtered and not other._filtered:
        return True
    return table.npartitions == other.npartitions and list(table._partitions) == list(
        other._partitions
    )


class _Above:
    """The expressions built on a table, up to the filters that all its rows must pass.

    ``filters`` is not empty only if every path upward from the table leads to a filter, through
    operations on single rows of this table alone. Then rows that pass no filter are not needed.
    """

    def __init__(self, table: FromPartitions, dependents: Dependents) -> None:
        self.dependents = dependents
        self.tables = [table, *twins_of(table, dependents)]
        self.apart = len(_others(table, dependents)) >= len(self.tables)
        self.names = {t._name for t in self.tables}
        self.filters: list[Expr] = []
        if not self._climb():
            self.filters = []

    def _climb(self) -> bool:
        stack: list[Expr] = list(self.tables)
        nodes: list[Expr] = []
        while stack:
            users = list(users_of(stack.pop(), self.dependents))
            # The table itself is the result: all of its rows are shown.
            if not users:
                return False
            for user in users:
                # It was reached by another way, as the users of a node form a graph.
                if user._name in self.names:
                    continue
                self.names.add(user._name)
                nodes.append(user)
                if _predicate(user) is not None:
                    self.filters.append(user)
                # Row by row, so a filter above it still selects rows of the same partitions.
                elif isinstance(user, ex.Elemwise):
                    stack.append(user)
                else:
                    return False
        return self._of_one_lineage(nodes, self.names)

    def rows_only(self) -> bool:
        """Return whether nothing above the filters can see how many partitions there are."""
        if self.apart:  # other partitions of the table may be aligned with these
            return False
        lineage = set(self.names)
        stack = list(self.filters)
        nodes: list[Expr] = []
        while stack:
            users = list(users_of(stack.pop(), self.dependents))
            if not users:  # the top of the expression, whose partitions may be used by number
                return False
            for user in users:
                if user._name in lineage:
                    continue
                lineage.add(user._name)
                if not isinstance(user, Concat):
                    nodes.append(user)
                if _sees_rows_only(user):
                    continue
                if not _passes_partitions_on(user):
                    return False
                stack.append(user)
        return self._of_one_lineage(nodes, lineage)

    @staticmethod
    def _of_one_lineage(nodes: Iterable[Expr], names: set[str]) -> bool:
        """Return whether all operands of the nodes, except scalars, are among these names."""
        return all(
            dep._name in names or dep.ndim == 0 for node in nodes for dep in node.dependencies()
        )


def _predicate(node: Expr) -> Expr | None:
    """Return the condition of a filter; None for anything else."""
    if isinstance(node, ex.Filter):
        condition = node.operand("predicate")
    elif isinstance(node, Loc):
        condition = node.operand("iindexer")
    else:
        return None
    return condition if isinstance(condition, Expr) else None


def _sees_rows_only(node: Expr) -> bool:
    """Return whether the node's result is one partition that depends on rows alone."""
    # Types are compared exactly, as the subclasses they are lowered to work on each partition.
    if type(node) is Repartition:
        return bool(node.operand("new_partitions") == 1)
    if type(node) is ex.Head:
        return node.operand("npartitions") in (1, -1)
    if isinstance(node, ApplyConcatApply):
        return bool(node.npartitions == 1)
    return type(node) in (ex.Tail, ex.FinalizeComputeDF)


def _passes_partitions_on(node: Expr) -> bool:
    """Return whether the node accepts any number of partitions and passes them on."""
    if isinstance(node, Concat):
        return bool(node.operand("axis") == 0)
    known = any("divisions" in name for name in type(node)._parameters)
    return isinstance(node, (ex.Elemwise, ex.Filter)) and not known


def _matching(table: FromPartitions, condition: object, names: set[str]) -> Mask | None:
    """Return a mask of the partitions that may hold a match; None if nothing is known."""
    if isinstance(condition, (ex.And, ex.Or)):
        left = _matching(table, condition.left, names)
        right = _matching(table, condition.right, names)
        return (_either if isinstance(condition, ex.Or) else _both)([left, right])
    if isinstance(condition, ex.Between):
        # An unknown value, for which pandas raises its own error.
        if condition.operand("inclusive") not in _BETWEEN:
            return None
        low, high = _BETWEEN[condition.operand("inclusive")]
        column = _column(table, condition.frame, names)
        masks = [
            _compared(table, column, low, condition.operand("left")),
            _compared(table, column, high, condition.operand("right")),
        ]
        return _both(masks)
    return _comparison(table, condition, names)


def _either(masks: Sequence[Mask | None]) -> Mask | None:
    known = [mask for mask in masks if mask is not None]
    return np.logical_or.reduce(known) if len(known) == len(masks) else None


def _both(masks: Sequence[Mask | None]) -> Mask | None:
    known = [mask for mask in masks if mask is not None]
    return np.logical_and.reduce(known) if known else None


def _comparison(table: FromPartitions, condition: Any, names: set[str]) -> Mask | None:
    sign = _COMPARISONS.get(type(condition))
    if sign is None:
        return None
    options = ("level", "fill_value")
    # These options give comparisons another meaning.
    if any(condition.operand(o) is not None for o in options if o in condition._parameters):
        return None
    column = _column(table, condition.operand("left"), names)
    return _compared(table, column, sign, condition.operand("right"))


def _column(table: FromPartitions, node: object, names: set[str]) -> str | None:
    """Return the name of the table's column or index that a node is; None if it is neither."""
    # A column compared by its index, as pandas aligns both.
    if isinstance(node, ex.ToSeriesIndex):
        node = node.frame
    if not isinstance(node, (ex.Projection, ex.Index)) or node.ndim != 1:
        return None
    base = node.frame
    while isinstance(base, ex.Projection):
        base = base.frame
    if not _is_table(base) or base._name not in names:
        return None
    if isinstance(node, ex.Projection):
        # A column that is assigned above would have other bounds than the stored one.
        return str(node.columns[0]) if node.columns[0] in base.columns else None
    name = table._meta.index.name
    # A column of the same name would leave open whose bounds these are.
    return None if name is None or name in table._parts.meta.columns else str(name)


def _compared(table: FromPartitions, column: str | None, sign: str, value: object) -> Mask | None:
    """Return a mask of the partitions that may hold ``column <sign> value``."""
    # Nothing is known of bounds against arrays, other columns or missing values.
    if column is None or not pd.api.types.is_scalar(value) or pd.isna(value):
        return None
    parts = table._parts
    bounds = parts.bounds(column) if parts.npartitions else None
    if bounds is None:
        return None
    try:
        return may_match(parts, column, bounds, sign, value)
    except (TypeError, ValueError, OverflowError):
        # The values cannot be compared; pandas raises its own error when the filter is computed.
        return None
