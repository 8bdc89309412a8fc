"""A stream as a lazy Dask DataFrame: chunks become partitions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import dask
import numpy as np
import pandas as pd
import pyarrow as pa
from dask.utils import parse_bytes

from ..assets.filling import cannot_fill
from ..core.chunks import ChunkPlan, ChunkReader, cells
from ..core.codec import MISSING
from ..core.fields import Field, project, select
from ..core.schema import (
    TIME,
    TableColumn,
    constant,
    empty_frame,
    posix_to_datetime,
    stream_attrs,
    table_columns,
    to_pandas,
)
from ._expr import from_partitions
from ._partitions import Partitions
from .rows import Duplicates, RowGroup, coalesce, group_rows, keep

__all__ = ["StreamPartitions", "table", "target_bytes"]

Runs = Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any] | None]]
"""``{run uid: (start, stop)}``."""


def target_bytes() -> int:
    """Size of a partition to aim at: dask's configuration ``daskbroker.partition-size``."""
    return int(parse_bytes(dask.config.get("daskbroker.partition-size", "64 MiB")))


def table(
    plan: ChunkPlan,
    stream: str,
    runs: Runs,
    *,
    fields: Any = None,
    fill: bool = False,
    timestamps: bool = False,
    duplicates: Duplicates = "last",
    timezone: str | None = None,
    with_run: bool = False,
) -> Any:
    """A lazy table of the chunks of one stream, of one run or of many.

    Parameters
    ----------
    plan
        The chunks.
    stream
        Name of the stream, for messages and attrs.
    runs
        Start and stop of each run.
    fields, timestamps
        See :func:`daskbroker.core.fields.select`.
    fill
        Fill external columns when they are computed; otherwise they hold references.
    duplicates
        Of rewound events with one ``seq_num``, show the ``"last"`` or ``"all"``.
    timezone
        Of the column ``time``; UTC by default.
    with_run
        Add the column ``run``, the uid.

    Returns
    -------
    dask.dataframe.DataFrame
        Index ``seq_num``; column ``time`` first.

    Raises
    ------
    FieldNotFound
    """
    chosen = select(fields, plan.descriptors, timestamps=timestamps)
    if with_run and all(field.role != "run" for field in chosen):
        chosen.insert(0, Field("run", "", "run"))
    columns = table_columns(plan, chosen, runs)
    options = _Options(stream, fill, duplicates, timezone or "UTC")
    return from_partitions(StreamPartitions(plan, tuple(columns), runs, options))


@dataclass(frozen=True)
class _Options:
    stream: str
    fill: bool
    duplicates: Duplicates
    timezone: str

    @property
    def time_dtype(self) -> str:
        return f"datetime64[ns, {self.timezone}]"


@dataclass(frozen=True)
class Payload:
    """What a task reads: groups of ``(chunk key, constants)``, and whether to sort each.

    Pickled, it holds keys that other processes can read.
    """

    reader: ChunkReader
    groups: tuple[tuple[bool, tuple[tuple[Any, tuple[Any, ...]], ...]], ...]

    def __reduce__(self) -> tuple[Any, ...]:
        keys = [key for _, parts in self.groups for key, _ in parts]
        portable = iter(self.reader.portable(keys))
        groups = tuple(
            (simple, tuple((next(portable), constants) for _, constants in parts))
            for simple, parts in self.groups
        )
        return (Payload, (self.reader, groups))


@dataclass(frozen=True)
class TableReader:
    """Reads one partition; called with a :class:`Payload` and the wanted columns."""

    columns: Mapping[str, TableColumn]
    options: _Options

    def __call__(self, payload: Payload, names: Sequence[str]) -> pd.DataFrame:
        wanted = [self.columns[name] for name in names]
        keys = [key for _, parts in payload.groups for key, _ in parts]
        chunks = payload.reader.read_many(keys, self._physical(wanted))
        frames = [
            self._group_frame(chunks, simple, parts, wanted) for simple, parts in payload.groups
        ]
        if len(frames) == 1:
            return frames[0]
        if not frames:
            return self._empty(wanted)
        return pd.concat(frames).astype({c.name: self._dtype(c) for c in wanted})

    def _dtype(self, column: TableColumn) -> str:
        return self.options.time_dtype if column.dtype == TIME else column.dtype

    def _empty(self, wanted: Sequence[TableColumn]) -> pd.DataFrame:
        frame = empty_frame(wanted, {})
        return frame.astype({c.name: self._dtype(c) for c in wanted})

    def _physical(self, wanted: Sequence[TableColumn]) -> list[str]:
        """Names of the chunks' columns to read."""
        physical = ["seq_num", *(c.physical for c in wanted if c.physical)]
        if any(column.external and self.options.fill for column in wanted):
            physical.append("filled")
        return list(dict.fromkeys(physical))

    def _group_frame(
        self,
        chunks: Iterator[pa.Table],
        simple: bool,
        parts: Sequence[Any],
        wanted: Sequence[TableColumn],
    ) -> pd.DataFrame:
        frames = [self._chunk_frame(next(chunks), constants, wanted) for _, constants in parts]
        frame = frames[0] if len(frames) == 1 else pd.concat(frames)
        if simple:
            return frame
        return frame.iloc[keep(frame.index.to_numpy(), self.options.duplicates)]

    def _chunk_frame(
        self, chunk: pa.Table, constants: tuple[Any, ...], wanted: Sequence[TableColumn]
    ) -> pd.DataFrame:
        named = dict(zip(self._constant_names, constants, strict=True))
        index = pd.Index(chunk.column("seq_num").to_numpy(), name="seq_num")
        data = {c.name: self._array(chunk, c, named) for c in wanted}
        for column in wanted:
            if column.dtype == "object":  # pandas takes objects that are all text for type str
                data[column.name] = pd.Series(data[column.name], index=index, dtype=object)
        return pd.DataFrame(data, index=index, columns=[c.name for c in wanted], copy=False)

    @cached_property
    def _constant_names(self) -> list[str]:
        return [name for name, column in self.columns.items() if not column.physical]

    def _array(self, chunk: pa.Table, column: TableColumn, constants: Mapping[str, Any]) -> Any:
        if not column.physical:
            return constant(constants[column.name], chunk.num_rows, column.dtype)
        if column.dtype == TIME:
            stamps = posix_to_datetime(chunk.column("time").to_numpy())
            zone = self.options.timezone
            return stamps if zone == "UTC" else stamps.tz_convert(zone)
        if column.external and self.options.fill:
            self._check_filled(chunk, column)
        return to_pandas(chunk, column.physical, column.dtype)

    def _check_filled(self, chunk: pa.Table, column: TableColumn) -> None:
        """Values that are inline already need no filling; the others cannot be had."""
        key = column.field.key
        states = cells(chunk, "filled") if "filled" in chunk.column_names else []
        inline = [isinstance(state, dict) and state.get(key) is True for state in states]
        if not inline or not all(inline):
            note = json.loads((chunk.schema.metadata or {}).get(b"daskbroker", b"{}"))
            values = cells(chunk, column.physical) if column.physical in chunk.column_names else []
            reference = next((v for v in values if v is not MISSING), None)
            raise cannot_fill(note.get("run", ""), self.options.stream, key, reference)


class StreamPartitions(Partitions):
    """The partitions of a stream's table, planned without reading a chunk."""

    def __init__(
        self, plan: ChunkPlan, columns: tuple[TableColumn, ...], runs: Runs, options: _Options
    ) -> None:
        self._plan = plan
        self._columns = columns
        self._runs = runs
        self._options = options
        self._groups: list[RowGroup] = group_rows(plan, options.duplicates)
        self._ranges = coalesce(self._groups, target_bytes())

    def __reduce__(self) -> tuple[Any, ...]:
        # Projections need start and stop only where there are such columns.
        projected = any(c.field.role in ("start", "stop", "config") for c in self._columns)
        runs = self._runs if projected else {}
        return (StreamPartitions, (self._plan, self._columns, runs, self._options))

    @cached_property
    def token(self) -> str:
        """See :class:`Partitions`."""
        digest = hashlib.blake2b(self._plan.token.encode(), digest_size=16)
        digest.update(repr((self._columns, self._options, self._ranges)).encode("utf8", "replace"))
        if any(c.field.role in ("start", "stop") for c in self._columns):
            digest.update(repr(sorted(self._constants_of.items())).encode("utf8", "replace"))
        return digest.hexdigest()

    @cached_property
    def _constants_of(self) -> dict[int, tuple[Any, ...]]:
        """Values of the columns that are the same in all events of a descriptor."""
        fields = [column.field for column in self._columns if not column.physical]
        return {
            place: tuple(self._constant(field, d) for field in fields)
            for place, d in enumerate(self._plan.descriptors)
        }

    def _constant(self, field: Field, descriptor: Mapping[str, Any]) -> Any:
        if field.role == "run":
            return descriptor["run_start"]
        if field.role == "descriptor":
            return descriptor["uid"]
        start, stop = self._runs[descriptor["run_start"]]
        return project(field, start, stop, descriptor)

    @cached_property
    def meta(self) -> pd.DataFrame:
        """See :class:`Partitions`."""
        attrs = stream_attrs(self._plan.descriptors, self._options.stream)
        frame = empty_frame(self._columns, attrs)
        frame = frame.astype(
            {c.name: self._options.time_dtype for c in self._columns if c.dtype == TIME}
        )
        frame.attrs = attrs
        return frame

    @property
    def npartitions(self) -> int:
        """See :class:`Partitions`."""
        return len(self._ranges)

    @cached_property
    def divisions(self) -> tuple[Any, ...]:
        """See :class:`Partitions`."""
        single_run = len({group.run for group in self._groups}) <= 1
        if not single_run or not self._groups:
            return (None,) * (len(self._ranges) + 1)
        lows = [self._groups[begin].seq_min for begin, _ in self._ranges]
        return (*lows, self._groups[-1].seq_max)

    @cached_property
    def lengths(self) -> tuple[int, ...] | None:
        """See :class:`Partitions`."""
        rows = [group.rows for group in self._groups]
        if None in rows:
            return None
        return tuple(sum(rows[begin:end]) for begin, end in self._ranges)  # type: ignore[arg-type]

    def bounds(self, column: str) -> Any:
        """See :class:`Partitions`."""
        if not self._ranges:
            return None
        starts = [begin for begin, _ in self._ranges]
        if column == "seq_num":
            lows = np.array([g.seq_min for g in self._groups])
            highs = np.array([g.seq_max for g in self._groups])
            return np.minimum.reduceat(lows, starts), np.maximum.reduceat(highs, starts)
        if column == "time":
            # The table's times are rounded to the microsecond, so leave room for that.
            begin = np.array([g.time_min for g in self._groups]) - 2e-6
            end = np.array([g.time_max for g in self._groups]) + 2e-6
            return (
                posix_to_datetime(np.minimum.reduceat(begin, starts)),
                posix_to_datetime(np.maximum.reduceat(end, starts)),
            )
        return None

    def payload(self, i: int) -> Payload:
        """See :class:`Partitions`."""
        begin, end = self._ranges[i]
        descriptor = self._plan.records["descriptor"]
        groups = tuple(
            (
                group.simple,
                tuple(
                    (self._plan.keys[place], self._constants_of[int(descriptor[place])])
                    for place in group.places
                ),
            )
            for group in self._groups[begin:end]
        )
        return Payload(self._plan.reader, groups)

    @cached_property
    def reader(self) -> TableReader:
        """See :class:`Partitions`."""
        return TableReader({column.name: column for column in self._columns}, self._options)
