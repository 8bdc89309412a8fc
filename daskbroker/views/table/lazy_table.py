"""Open a stream as a lazy Dask DataFrame, whose partitions are made of chunks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ...assets.filling.common_cells import common_cells
from ...assets.filling.filling import Filling
from ...assets.filling.target import Target
from ...core.chunks import ChunkPlan
from ...core.digests import digest_of
from ...core.fields import Field, select
from ...core.graph_names import graph_name, runs_name
from ...core.schema import (
    TableColumn,
    constant_of,
    empty_frame,
    posix_to_datetime,
    stream_attrs,
    table_columns,
)
from ...core.settings import setting
from ..row_order import RowGroup, coalesce, cut_groups, group_rows
from ..view_options import Runs, View
from .collection import DataFrame, from_partitions
from .partitions import Partitions, RowChoice
from .reading import ChunkGroup, PartitionChunk, Payload, TableOptions, TableReader

UID_BYTES = 40
"""Bytes that the uid of an event takes in a chunk."""
MOST_PARTITIONS = 10_000
"""Maximum number of partitions, approximately; beyond it, partitions become larger instead."""


def table(view: View, *, with_run: bool = False) -> DataFrame:
    """Return a lazy table of the chunks of one stream, of one run or of many.

    Parameters
    ----------
    view
        What to show; ``dtypes`` of its options does not apply to a table.
    with_run
        Whether to add the column ``run``, the uid of each row's run.

    Returns
    -------
    dask.dataframe.DataFrame
        Table with the index ``seq_num``. Column ``time`` is the first one, after ``run`` if that
        is added.

    Raises
    ------
    FieldNotFound, BadQuery
        As for :meth:`.View.check`.
    """
    view.check()
    options, runs = view.options, view.runs
    chosen = select(options.fields, view.plan.descriptors, timestamps=options.timestamps)
    if with_run and all(field.role != "run" for field in chosen):
        chosen.insert(0, Field("run", "", "run"))
    columns = tuple(table_columns(view.plan.events, chosen, runs))
    skip_damaged = options.errors == "skip"
    reading = TableOptions(view.stream, options.duplicates, setting("partition-size"), skip_damaged)
    filling = view.filling()
    events = view.events(filling, columns)
    return from_partitions(StreamPartitions(events, columns, runs, reading, filling))


class StreamPartitions(Partitions):
    """Partitions of a stream's table, planned without reading a chunk."""

    def __init__(
        self,
        plan: ChunkPlan,
        columns: tuple[TableColumn, ...],
        runs: Runs,
        options: TableOptions,
        filling: Filling | None = None,
    ) -> None:
        self._plan = plan
        self._columns = columns
        self._runs = runs
        self._options = options
        self._filling = filling if any(column.external for column in columns) else None
        external = self._external_bytes()
        groups = group_rows(plan, options.duplicates, external - self._hidden_bytes())
        # A scheduler needs milliseconds for each task, so a table has at most some thousands.
        total = sum(group.bytes for group in groups)
        target = max(options.target, total // MOST_PARTITIONS)
        self._groups: list[RowGroup] = cut_groups(groups, target) if external else groups
        self._ranges = coalesce(self._groups, target)

    def _external_bytes(self) -> int:
        """Return the bytes of the cells of a row that will be filled."""
        if self._filling is None:
            return 0
        keys = [column.field.key for column in self._columns if column.external]
        return sum(common_cells(self._plan, key, self._filling).cell_bytes for key in keys)

    @cached_property
    def array_columns(self) -> frozenset[str]:
        return frozenset(column.name for column in self._columns if self._holds_arrays(column))

    def _holds_arrays(self, column: TableColumn) -> bool:
        if not column.external or self._filling is None:
            return column.arrays is not None and column.fields is None
        key = column.field.key
        shape = common_cells(self._plan, key, self._filling).shape
        if shape is None:  # lengths are unknown or differ, but whether there are any may be told
            claims = [d["data_keys"][key] for d in self._plan.descriptors if key in d["data_keys"]]
            return all(claim.get("shape") for claim in claims)
        return bool(shape)

    def _hidden_bytes(self) -> int:
        """Return the bytes of a row's uid and timestamps that the table does not show."""
        keys = max((len(d["data_keys"]) for d in self._plan.descriptors), default=0)
        shown = [column.field.role for column in self._columns]
        return 8 * max(0, keys - shown.count("ts")) + (0 if "uid" in shown else UID_BYTES)

    def __reduce__(self) -> tuple[Any, ...]:
        # Projections need start and stop only where there are such columns.
        projected = any(c.field.role in ("start", "stop", "config") for c in self._columns)
        runs = self._runs if projected else {}
        return (StreamPartitions, (self._plan, self._columns, runs, self._options, self._filling))

    @cached_property
    def token(self) -> str:
        filling = None if self._filling is None else self._filling.token
        projected = any(c.field.role in ("start", "stop") for c in self._columns)
        constants = sorted(self._constants_of.items()) if projected else None
        shown = self._columns, self._options, self._ranges
        return digest_of(repr((self._plan.token, shown, filling, constants)))

    @cached_property
    def name(self) -> str:
        runs = runs_name(descriptor["run_start"] for descriptor in self._plan.descriptors)
        return f"daskbroker-{graph_name(self._options.stream)}-{runs}"

    @cached_property
    def _constants_of(self) -> dict[int, tuple[Any, ...]]:
        """Values of the columns that are constant in a descriptor, by its position in the plan."""
        fields = [column.field for column in self._columns if not column.physical]
        return {
            index: tuple(constant_of(field, d, self._runs) for field in fields)
            for index, d in enumerate(self._plan.descriptors)
        }

    @cached_property
    def meta(self) -> pd.DataFrame:
        return empty_frame(
            self._columns, stream_attrs(self._plan.descriptors, self._options.stream)
        )

    @property
    def npartitions(self) -> int:
        return len(self._ranges)

    @cached_property
    def divisions(self) -> tuple[Any, ...]:
        # The index starts again with each run, so a table of several runs has no divisions.
        single_run = len({group.run for group in self._groups}) <= 1
        if not single_run or not self._groups:
            return (None,) * (len(self._ranges) + 1)
        lows = [self._groups[begin].seq_min for begin, _ in self._ranges]
        return (*lows, self._groups[-1].seq_max)

    @cached_property
    def lengths(self) -> tuple[int, ...] | None:
        rows = [group.rows for group in self._groups]
        # Which rows are left out is known only after reading.
        if None in rows or self._options.skip_damaged or self._drops:
            return None
        return tuple(sum(rows[begin:end]) for begin, end in self._ranges)  # type: ignore[arg-type]

    @cached_property
    def _drops(self) -> bool:
        """Whether rows with a missing cell are left out (``missing="drop"``)."""
        return self._filling is not None and any(r.drops for r in self._filling.rules.values())

    def limits(self, column: str) -> Any:
        # Statistics are exact only if each of their rows is shown: none left out, none taken again.
        if (
            column != "time"
            or self._drops
            or not all(g.simple and not g.within for g in self._groups)
        ):
            return None
        lows, highs = self._extents(0.0)
        return None if lows.hasnans or highs.hasnans else (list(lows), list(highs))

    def bounds(self, column: str) -> Any:
        if not self._ranges:
            return None
        starts = [begin for begin, _ in self._ranges]
        if column == "seq_num":
            lows = np.array([g.seq_min for g in self._groups])
            highs = np.array([g.seq_max for g in self._groups])
            return np.minimum.reduceat(lows, starts), np.maximum.reduceat(highs, starts)
        if column == "time":
            # The table's times are rounded to the microsecond, so leave room for that.
            return self._extents(2e-6)
        return None

    def _extents(self, margin: float) -> tuple[pd.DatetimeIndex, pd.DatetimeIndex]:
        """Return first and last time of each partition, widened by `margin` seconds."""
        starts = [begin for begin, _ in self._ranges]
        begin = np.array([g.time_min for g in self._groups]) - margin
        end = np.array([g.time_max for g in self._groups]) + margin
        return (
            posix_to_datetime(np.minimum.reduceat(begin, starts)),
            posix_to_datetime(np.maximum.reduceat(end, starts)),
        )

    def can_choose_rows(self, columns: Sequence[str]) -> bool:
        """See :class:`Partitions`; choosing rows saves reading of detector files."""
        return self._filling is not None and any(
            column.external and column.name in columns for column in self._columns
        )

    def payload(self, i: int, chosen: tuple[RowChoice, ...] = ()) -> Payload:
        groups = range(*self._ranges[i])
        pieces = tuple(self._piece(number) for number in groups)
        filling = self._filling
        if filling is not None:
            filling = filling.of_runs({self._groups[number].run for number in groups})
        return Payload(self._plan.reader, pieces, filling, chosen)

    def _piece(self, number: int) -> ChunkGroup:
        group = self._groups[number]
        descriptors = self._plan.records["descriptor"]
        parts = []
        for index in group.indices:
            descriptor = int(descriptors[index])
            constants, targets = self._constants_of[descriptor], self._targets_of[descriptor]
            parts.append(PartitionChunk(self._plan.keys[index], constants, targets))
        within = (group.seq_min, group.seq_max) if group.within else None
        run_fraction = 0.0 if self._filling is None else float(self._run_fractions[number])
        return ChunkGroup(
            group.simple, tuple(parts), within, run_fraction, group.run, group.numbers
        )

    @cached_property
    def _targets_of(self) -> dict[int, tuple[Target, ...]]:
        """Targets to fill in the events of a descriptor, by its position in the plan."""
        external = [c.field.key for c in self._columns if c.external and self._filling is not None]
        return {
            index: tuple(Target.of(d, key) for key in external)
            for index, d in enumerate(self._plan.descriptors)
        }

    @cached_property
    def _run_fractions(self) -> np.ndarray:
        """Relative position in its run of the middle of each group, from 0 to 1."""
        runs = np.unique([group.run for group in self._groups], return_inverse=True)[1]
        stored = np.array([group.stored for group in self._groups], np.float64)
        ends = np.cumsum(stored)
        totals = np.bincount(runs, stored)
        first = np.full(len(totals), np.inf)
        np.minimum.at(first, runs, ends - stored)
        return (ends - stored / 2 - first[runs]) / totals[runs]

    @cached_property
    def reader(self) -> TableReader:
        return TableReader({column.name: column for column in self._columns}, self._options)
