"""The expression of a lazy dask DataFrame over partitions that know their lengths and bounds.

This module, ``collection`` and ``loc`` are the only ones that use dask's private API (written for
dask 2026.8). What the optimizer does with a table happens in ``FromPartitions._simplify_up``:

* a projection becomes the `columns` that are read, and ``df.index`` a read of no column;
* ``len`` becomes a number if the lengths are known;
* partitions that no filter can match are not read. They stay, as empty frames, as long as
  something can see partition numbers, because other expressions may rely on these. If only rows
  matter (``compute()``, reductions, ``head``), they are removed.
"""

# dask does not annotate its private API.
# mypy: allow-untyped-calls

from __future__ import annotations

import copy
import functools
import threading
import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from dask._expr import Expr as BaseExpr
from dask._task_spec import Task
from dask.dataframe.dask_expr import _expr as ex
from dask.dataframe.dask_expr._concat import Concat
from dask.dataframe.dask_expr._expr import Expr
from dask.dataframe.dask_expr._indexing import (
    Loc,
    LocBase,
    LocElement,
    LocList,
    LocSlice,
    LocUnknown,
)
from dask.dataframe.dask_expr._reductions import ApplyConcatApply, Len
from dask.dataframe.dask_expr._repartition import Repartition
from dask.dataframe.dask_expr.io.io import BlockwiseIO
from dask.tokenize import tokenize

from daskbroker.core.errors import StoreError
from daskbroker.views.table.loc import refuse_labels
from daskbroker.views.table.partitions import (
    Mask,
    Partitions,
    RowChoice,
    Shape,
    compact,
    may_match,
    read_partition,
)

Dependents = dict[str, Collection[weakref.ref[BaseExpr]]]

_COMPARISONS: dict[type[Any], str] = {
    ex.LT: "<", ex.LTSeries: "<", ex.LE: "<=", ex.LESeries: "<=", ex.GT: ">", ex.GTSeries: ">",
    ex.GE: ">=", ex.GESeries: ">=", ex.EQ: "==", ex.EQSeries: "==",
}  # fmt: skip
_BETWEEN = {"both": (">=", "<="), "neither": (">", "<"), "left": (">=", "<"), "right": (">", "<=")}


# --- the expression


class FromPartitions(ex.PartitionsFiltered, BlockwiseIO):
    """The expression of a table that is read from its partitions.

    ``_partitions`` are the numbers of the selected partitions. ``_kept`` are the numbers of those
    that may hold rows that matter; the other selected ones are empty frames. ``_loose`` says that
    these empty ones may be removed without effect on the result. ``_rows`` chooses the rows that
    are needed of each partition. None stands for all in each case.
    """

    _parameters = ["parts", "columns", "_partitions", "_kept", "_loose", "_rows"]  # noqa: RUF012
    _defaults = dict.fromkeys(_parameters[1:]) | {"_loose": False}
    _pickle_functools_cache = False
    _absorb_projections = True

    @functools.cached_property
    def _funcname(self) -> str:
        return "daskbroker"

    @functools.cached_property
    def _name(self) -> str:
        return f"{self._parts.name}-{self.deterministic_token}"

    def __dask_tokenize__(self) -> str:
        if not self._determ_token:
            self._determ_token = tokenize(
                type(self).__name__,
                self._parts.__dask_tokenize__(),
                self.operand("columns"),
                None if self._kept is None else list(self._kept),
                list(self._partitions) if self._filtered else None,
                self.operand("_loose"),
                self._rows,
                ensure_deterministic=True,
            )
        return str(self._determ_token)

    @property
    def _parts(self) -> Partitions:
        parts: Partitions = self.operand("parts")
        return parts

    @property
    def _kept(self) -> Sequence[int] | None:
        kept: Sequence[int] | None = self.operand("_kept")
        return kept

    @property
    def _rows(self) -> tuple[RowChoice, ...] | None:
        rows: tuple[RowChoice, ...] | None = self.operand("_rows")
        return rows

    @functools.cached_property
    def _kept_set(self) -> frozenset[int] | range | None:
        if self._kept is None or isinstance(self._kept, range):
            return self._kept
        return frozenset(self._kept)

    @property
    def columns(self) -> list[str]:
        chosen = self.operand("columns")
        return list(self._parts.meta.columns if chosen is None else chosen)

    @functools.cached_property
    def _meta(self) -> pd.DataFrame:
        meta = self._parts.meta
        return meta if self.operand("columns") is None else meta[self.columns]

    @property
    def attrs(self) -> dict[Any, Any]:
        """Attributes of the table, which computed frames have, too; a copy."""
        return copy.deepcopy(self._meta.attrs)

    @functools.cached_property
    def _shape(self) -> Shape:
        # One object for all tasks, so that it is pickled once if a whole graph is pickled.
        return Shape.of(self._meta)

    def _divisions(self) -> tuple[Any, ...]:
        if self._parts.npartitions < 1:
            return (None, None)
        divisions = self._parts.divisions
        if len(divisions) != self._parts.npartitions + 1:
            raise StoreError(
                f"{self._parts!r} has {len(divisions)} divisions for "
                f"{self._parts.npartitions} partitions"
            )
        return divisions

    @property
    def npartitions(self) -> int:
        if self._filtered:
            return len(self.operand("_partitions"))
        return max(1, self._parts.npartitions)

    def _filtered_task(self, name: Any, index: int) -> Task:
        empty = self._kept_set is not None and index not in self._kept_set
        if empty or index >= self._parts.npartitions:
            return Task(name, Shape.empty, self._shape, _data_producer=True)
        if self._rows is None:
            payload = self._parts.payload(index)
        else:
            payload = self._parts.payload(index, self._rows)
        return Task(
            name,
            read_partition,
            self._parts.reader,
            payload,
            index,
            self._shape,
            _data_producer=True,
        )

    def _get_lengths(self) -> tuple[int, ...] | None:
        lengths = self._parts.lengths if self._parts.npartitions else (0,)
        if lengths is None or self._kept is not None or self._rows is not None:
            return None
        return tuple(int(lengths[i]) for i in self._partitions)

    def _with(self, **operands: Any) -> FromPartitions:
        changed: Any = self.substitute_parameters(operands)
        return cast("FromPartitions", changed)

    def _simplify_up(self, parent: Expr, dependents: Dependents) -> BaseExpr | None:
        if isinstance(parent, (Len, ex.Lengths)):
            return self._measured(parent)
        if isinstance(parent, Loc) and parent.frame._name == self._name:
            # A Filter gives the same rows, and unlike Loc lets dask push projections through it.
            return ex.Filter(self, parent.iindexer) if parent.cindexer is None else None
        for narrow in (self._projected_past, self._narrowed):
            narrowed = narrow(parent, dependents)
            if narrowed is not None:
                return narrowed
        if isinstance(parent, (LocBase, LocUnknown)):
            return self._counted(parent, dependents)
        if isinstance(parent, (ex.Projection, ex.Index)):
            projected = self._projected(parent, dependents)
            if projected is not None:
                return projected
        pruned = self._pruned(dependents)
        return None if pruned is None else parent.substitute(self, pruned)

    def _measured(self, parent: Expr) -> Expr | None:
        lengths = self._get_lengths()
        if lengths is not None:
            return ex.Literal(sum(lengths) if isinstance(parent, Len) else lengths)
        # Reading the index alone is enough to count rows.
        return type(parent)(self._with(columns=[])) if self.columns else None

    def _projected_past(self, parent: Expr, dependents: Dependents) -> BaseExpr | None:
        """Read only the columns that are used of a selection of rows, as in ``table["x"].head()``.

        This is needed because dask moves such a selection below the projection.
        """
        if _choice(parent) is None or (isinstance(parent, LocBase) and parent.cindexer is not None):
            return None
        users = list(_users(parent, dependents))
        if not users or not all(type(user) is ex.Projection for user in users):
            return None
        wanted = {column for user in users for column in user.columns}
        columns = [column for column in self.columns if column in wanted]
        return (
            None
            if columns == self.columns
            else parent.substitute(self, self._with(columns=columns))
        )

    def _narrowed(self, parent: Expr, dependents: Dependents) -> BaseExpr | None:
        """Read only the rows that the selections of rows above the table will keep.

        Projections may come between them.
        """
        if self._rows is not None or not self._parts.can_choose_rows(self.columns):
            return None
        choices = tuple(_choices(parent, dependents))
        return parent.substitute(self, self._with(_rows=choices)) if choices else None

    def _counted(self, parent: Expr, dependents: Dependents) -> BaseExpr | None:
        """Read no column if only the index of a selection of rows is used."""
        users = list(_users(parent, dependents))
        if not users or not all(isinstance(u, (ex.Index, Len, ex.Lengths)) for u in users):
            return None
        if not self.columns or parent.operand("cindexer") is not None:
            return None
        return parent.substitute(self, self._with(columns=[]))

    def _projected(self, parent: Expr, dependents: Dependents) -> Expr | None:
        """Read only the columns that this parent and all other users of the table need."""
        found = ex.determine_column_projection(self, parent, dependents)
        wanted = set(found if isinstance(found, list) else [found])
        for twin in _twins(self, dependents):  # with equal columns, both become one read again
            for user in _users(twin, dependents):
                wanted.update(user._projection_columns)
        columns = [c for c in self.columns if c in wanted]
        frame = self if columns == self.columns else self._with(columns=columns)
        if isinstance(parent, ex.Index):
            done = frame is self and isinstance(parent, PartitionsIndex)
            return None if done else PartitionsIndex(frame)
        if frame is self:
            return None
        chosen = parent.operand("columns")
        return frame if isinstance(chosen, list) and chosen == columns else frame[chosen]

    def _pruned(self, dependents: Dependents) -> FromPartitions | None:
        # `dependents` is one object in each pass of the optimizer. All parents must get the same
        # answer within a pass, so the decision is kept for it.
        past = self.__dict__.get("_decision")
        if past is None or past[0] is not dependents:
            if not self.known_divisions:
                refuse_labels(self, dependents)
            past = self.__dict__["_decision"] = (dependents, _prune(self, dependents))
        decision: FromPartitions = past[1]
        return None if decision._name == self._name else decision

    def _tune_down(self) -> FromPartitions | None:
        """Remove the partitions that are not kept, once no rule changes the expression any more."""
        if not self.operand("_loose"):
            return None
        if self._kept:
            return self._with(_partitions=self._kept, _kept=None, _loose=False)
        return self._with(_partitions=compact(self._chosen[:1]), _kept=(), _loose=False)

    @property
    def _chosen(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.fromiter(self._partitions, dtype=np.int64, count=self.npartitions)


def _choices(node: Expr, dependents: Dependents) -> Iterator[RowChoice]:
    """Yield consecutive selections of rows, as long as each is the only user of the one before."""
    while True:
        if not isinstance(node, ex.Projection):
            choice = _choice(node)
            if choice is None:
                return
            yield choice
        users = {user._name: user for user in _users(node, dependents)}
        if len(users) != 1:
            return
        (node,) = users.values()


def _choice(node: Expr) -> RowChoice | None:
    """Return the rows of each partition that a node keeps; None if the index cannot tell."""
    if type(node) in (ex.Head, ex.Tail) and node.operand("n") >= 0:
        return RowChoice("first" if type(node) is ex.Head else "last", (node.operand("n"),))
    wanted: Any = node.operand("iindexer") if isinstance(node, LocBase) else None
    if type(node) is LocSlice and wanted.step in (None, 1):
        chosen = RowChoice("between", (wanted.start, wanted.stop))
    elif type(node) is LocElement:
        chosen = RowChoice("between", (wanted, wanted))
    elif type(node) is LocList:
        chosen = RowChoice("among", tuple(wanted))
    else:
        return None
    return chosen if all(value is None or _is_number(value) for value in chosen.values) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating))


class PartitionsIndex(ex.Index):
    """The index of a `FromPartitions`, whose length is taken from the table's known lengths."""

    def _simplify_up(self, parent: Expr, dependents: Dependents) -> BaseExpr | None:
        if isinstance(parent, (Len, ex.Lengths)) and isinstance(self.frame, FromPartitions):
            return type(parent)(self.frame)
        up: Expr | None = super()._simplify_up(parent, dependents)
        return up


# --- pruning: which partitions can hold rows that pass the filters


# This is decided anew in each pass of the optimizer, only from the expression as it is then: the
# last pass, in which nothing changes, is the one that counts. Before that, a filter and its frame
# may disagree about what is kept; as long as all partitions keep their places, both are right.


def _prune(table: FromPartitions, dependents: Dependents) -> FromPartitions:
    """Return the table with only those partitions kept that a filter above it can match."""
    above = _Above(table, dependents)
    masks = [_matching(table, _predicate(node), above.names) for node in above.filters]
    some = _either(masks) if masks else None
    chosen = table._chosen
    kept = chosen if some is None else chosen[some[chosen]]
    if len(kept) == len(chosen):
        return table._with(_kept=None, _loose=False)
    return table._with(_kept=compact(kept), _loose=above.rows_only())


def _users(node: Expr, dependents: Dependents) -> Iterator[Expr]:
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
                    if isinstance(dep, FromPartitions):
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


def _twins(table: FromPartitions, dependents: Dependents) -> list[FromPartitions]:
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
        self.tables = [table, *_twins(table, dependents)]
        self.apart = len(_others(table, dependents)) >= len(self.tables)
        self.names = {t._name for t in self.tables}
        self.filters: list[Expr] = []
        if not self._climb():
            self.filters = []

    def _climb(self) -> bool:
        stack: list[Expr] = list(self.tables)
        nodes: list[Expr] = []
        while stack:
            users = list(_users(stack.pop(), self.dependents))
            if not users:
                return False
            for user in users:
                if user._name in self.names:
                    continue
                self.names.add(user._name)
                nodes.append(user)
                if _predicate(user) is not None:
                    self.filters.append(user)
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
            users = list(_users(stack.pop(), self.dependents))
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


def _matching(table: FromPartitions, condition: Any, names: set[str]) -> Mask | None:
    """Return a mask of the partitions that may hold a match; None if nothing is known."""
    if isinstance(condition, (ex.And, ex.Or)):
        left = _matching(table, condition.left, names)
        right = _matching(table, condition.right, names)
        return (_either if isinstance(condition, ex.Or) else _both)([left, right])
    if isinstance(condition, ex.Between):
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
    if any(condition.operand(o) is not None for o in options if o in condition._parameters):
        return None
    column = _column(table, condition.operand("left"), names)
    return _compared(table, column, sign, condition.operand("right"))


def _column(table: FromPartitions, node: Any, names: set[str]) -> str | None:
    """Return the name of the table's column or index that a node is; None if it is neither."""
    if isinstance(node, ex.ToSeriesIndex):
        node = node.frame
    if not isinstance(node, (ex.Projection, ex.Index)) or node.ndim != 1:
        return None
    base = node.frame
    while isinstance(base, ex.Projection):
        base = base.frame
    if not isinstance(base, FromPartitions) or base._name not in names:
        return None
    if isinstance(node, ex.Projection):
        return str(node.columns[0]) if node.columns[0] in base.columns else None
    name = table._meta.index.name
    # A column of the same name would leave open whose bounds these are.
    return None if name is None or name in table._parts.meta.columns else str(name)


def _compared(table: FromPartitions, column: str | None, sign: str, value: Any) -> Mask | None:
    """Return a mask of the partitions that may hold ``column <sign> value``."""
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
