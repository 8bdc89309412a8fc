"""The expression of a lazy dask DataFrame over partitions that know their lengths and bounds.

This module, ``pruning``, ``collection`` and ``loc`` are the only ones that use dask's private API
(written for dask 2026.8). What the optimizer does with a table happens in
``FromPartitions._simplify_up``:

* a projection becomes the `columns` that are read, and ``df.index`` a read of no column;
* ``len`` becomes a number if the lengths are known;
* partitions that no filter can match (``pruning``) are not read. They stay, as empty frames, as
  long as something can see partition numbers, because other expressions may rely on these. If only
  rows matter (``compute()``, reductions, ``head``), they are removed.
"""

# dask does not annotate its private API.
# mypy: allow-untyped-calls

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from dask._expr import Expr as BaseExpr
from dask._task_spec import Task
from dask.dataframe.dask_expr import _expr as ex
from dask.dataframe.dask_expr._expr import Expr
from dask.dataframe.dask_expr._indexing import (
    Loc,
    LocBase,
    LocElement,
    LocList,
    LocSlice,
    LocUnknown,
)
from dask.dataframe.dask_expr._reductions import Len
from dask.dataframe.dask_expr.io.io import BlockwiseIO
from dask.tokenize import tokenize

from daskbroker.core.errors import StoreError
from daskbroker.views.table.loc import refuse_labels
from daskbroker.views.table.partitions import (
    FrameSchema,
    Partitions,
    RowChoice,
    compact,
    read_partition,
)
from daskbroker.views.table.pruning import Dependents, TableNode, prune, twins_of, users_of


class FromPartitions(ex.PartitionsFiltered, BlockwiseIO, TableNode):
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
        # Made once for a node, as Dask asks for it again and again.
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
        # A range looks up its members as fast as a set, without memory for them.
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
    def _shape(self) -> FrameSchema:
        # One object for all tasks, so that it is pickled once if a whole graph is pickled.
        return FrameSchema.of(self._meta)

    def _divisions(self) -> tuple[Any, ...]:
        # Dask needs one partition in any table; without rows it is empty.
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
    def divisions(self) -> tuple[Any, ...]:
        # Dask's are cached_property in two classes of which each asks the other. Before Python 3.12
        # that has one lock for all objects, so two threads with tables could wait for ever.
        made: tuple[Any, ...] | None = self.__dict__.get("_made_divisions")
        if made is None:
            made = tuple(self._divisions())
            if self._filtered:
                chosen = list(self._partitions)
                made = (*(made[number] for number in chosen), made[chosen[-1] + 1])
            self.__dict__["_made_divisions"] = made
        return made

    @property
    def npartitions(self) -> int:
        if self._filtered:
            return len(self.operand("_partitions"))
        return max(1, self._parts.npartitions)

    def _filtered_task(self, name: object, index: int) -> Task:
        empty = self._kept_set is not None and index not in self._kept_set
        # Not kept, or the one empty partition of a table without rows.
        if empty or index >= self._parts.npartitions:
            return Task(name, FrameSchema.empty, self._shape, _data_producer=True)
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
        # Rows are left out, so the stored numbers of rows say nothing.
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
        # A label of columns is selected together with rows: it has its own rule.
        if _choice(parent) is None or (isinstance(parent, LocBase) and parent.cindexer is not None):
            return None
        users = list(users_of(parent, dependents))
        # The rows themselves are the result, or something needs all columns.
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
        # Rows are chosen already, or every row has to be read before the choice.
        if self._rows is not None or not self._parts.can_choose_rows(self.columns):
            return None
        choices = tuple(_choices(parent, dependents))
        return parent.substitute(self, self._with(_rows=choices)) if choices else None

    def _counted(self, parent: Expr, dependents: Dependents) -> BaseExpr | None:
        """Read no column if only the index of a selection of rows is used."""
        users = list(users_of(parent, dependents))
        if not users or not all(isinstance(u, (ex.Index, Len, ex.Lengths)) for u in users):
            return None
        # No column is read anyway, or `loc` has a column label, which Dask must still check.
        if not self.columns or parent.operand("cindexer") is not None:
            return None
        return parent.substitute(self, self._with(columns=[]))

    def _projected(self, parent: Expr, dependents: Dependents) -> Expr | None:
        """Read only the columns that this parent and all other users of the table need."""
        found = ex.determine_column_projection(self, parent, dependents)
        wanted = set(found if isinstance(found, list) else [found])
        for twin in twins_of(self, dependents):  # with equal columns, both become one read again
            for user in users_of(twin, dependents):
                wanted.update(user._projection_columns)
        columns = [c for c in self.columns if c in wanted]
        frame = self if columns == self.columns else self._with(columns=columns)
        if isinstance(parent, ex.Index):
            # Without this, the rule would rewrite its own result forever.
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
            # Labels begin again with each run, so Dask must not look for them as they are.
            if not self.known_divisions:
                refuse_labels(self, dependents)
            past = self.__dict__["_decision"] = (dependents, prune(self, dependents))
        decision: FromPartitions = past[1]
        return None if decision._name == self._name else decision

    def _tune_down(self) -> FromPartitions | None:
        """Remove the partitions that are not kept, once no rule changes the expression any more."""
        # The number of partitions can be seen above, so empty ones stay.
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
        users = {user._name: user for user in users_of(node, dependents)}
        # Another user of these rows would see fewer than it asked for.
        if len(users) != 1:
            return
        (node,) = users.values()


def _choice(node: Expr) -> RowChoice | None:
    """Return the rows of each partition that a node keeps; None if the index cannot tell."""
    if type(node) in (ex.Head, ex.Tail) and node.operand("n") >= 0:
        return RowChoice("first" if type(node) is ex.Head else "last", (node.operand("n"),))
    wanted: Any = node.operand("iindexer") if isinstance(node, LocBase) else None
    # With a step, and for labels that are no numbers, Dask's own rules hold.
    if type(node) is LocSlice and wanted.step in (None, 1):
        chosen = RowChoice("between", (wanted.start, wanted.stop))
    elif type(node) is LocElement:
        chosen = RowChoice("between", (wanted, wanted))
    elif type(node) is LocList:
        chosen = RowChoice("among", tuple(wanted))
    else:
        return None
    numbers = (int, float, np.integer, np.floating)
    are_numbers = all(value is None or isinstance(value, numbers) for value in chosen.values)
    return chosen if are_numbers else None


class PartitionsIndex(ex.Index):
    """The index of a `FromPartitions`, whose length is taken from the table's known lengths."""

    def _simplify_up(self, parent: Expr, dependents: Dependents) -> BaseExpr | None:
        if isinstance(parent, (Len, ex.Lengths)) and isinstance(self.frame, FromPartitions):
            return type(parent)(self.frame)
        up: Expr | None = super()._simplify_up(parent, dependents)
        return up
