"""Assembly of plans, as every store needs it to list its chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from .bad_runs import BadRun
from .chunk_statistics import Statistics, of_frames, statistics
from .chunks import CHUNK_RECORD, ChunkPlan, ChunkReader, column_kinds, ranges_table, to_ipc
from .column_kinds import ColumnKind, listed_kinds
from .documents import Document
from .external import stream_keys
from .layouts import EVENT, Layout
from .run_plan import stream_of

MOST_ROWS = 2**20
"""Maximum number of rows of a chunk of rows that only stream_datum documents describe."""
NO_RECORDS = np.empty(0, CHUNK_RECORD)


def describe_chunk(layout: Layout, table: pa.Table) -> dict[str, Any]:
    """Return the description of a chunk for a manifest: text, numbers, lists and mappings.

    :meth:`PlanBuilder.add_described` accepts it. A store may keep the same in a form of its own,
    see :func:`~.chunk_statistics.statistics` and :func:`~.chunks.column_kinds`.
    """
    columns = {name: kind.to_list() for name, kind in column_kinds(table).items()}
    return {"columns": columns, **statistics(layout, table)._asdict()}


class PlanBuilder:
    """Builder of a :class:`~daskbroker.core.chunks.ChunkPlan`, chunk by chunk.

    Parameters
    ----------
    reader, store
        Attributes of the plan.
    layout
        Layout of the documents.
    descriptors
        Every descriptor of the plan. ``number`` in the methods is an index into these.
    """

    def __init__(
        self, reader: ChunkReader, layout: Layout, store: str, descriptors: Sequence[Document]
    ) -> None:
        self._reader = reader
        self._layout = layout
        self._store = store
        self._descriptors = tuple(descriptors)
        self._schemas: list[Mapping[str, ColumnKind]] = []
        self._described: dict[str, int] = {}
        self._records: list[tuple[Any, ...]] = []
        self._keys: list[Any] = []
        self._bad: dict[str, BadRun] = {}

    def add_schema(self, kinds: Mapping[str, ColumnKind]) -> int:
        """Add a set of columns that chunks have; return its number for :meth:`add_chunk`."""
        self._schemas.append(kinds)
        return len(self._schemas) - 1

    def add_chunk(self, number: int, key: Any, first: int, schema: int, facts: Statistics) -> None:
        """Add a stored chunk with the statistics of the store's manifest."""
        self._records.append((number, schema, first, *facts))
        self._keys.append(key)

    def add_described(
        self, number: int, key: Any, first: int, description: Mapping[str, Any]
    ) -> None:
        """Add a stored chunk with its description by :func:`describe_chunk`.

        Parameters
        ----------
        number
            Index of its descriptor among those of the plan.
        key
            Key by which the reader reads it.
        first
            Number of rows of its sequence that come before it.
        description
            Description as it was kept.
        """
        facts = dict(description)
        columns = facts.pop("columns")
        label = repr(columns)
        # Most chunks of a store have the same columns.
        if label not in self._described:
            self._described[label] = self.add_schema(listed_kinds(columns))
        self.add_chunk(number, key, first, self._described[label], Statistics(**facts))

    def add_table(self, number: int, first: int, table: pa.Table) -> None:
        """Add the rows of a table, which travel with the plan."""
        schema = self.add_schema(column_kinds(table))
        self.add_chunk(number, to_ipc(table), first, schema, statistics(self._layout, table))

    def note_bad(self, number: int, reason: str) -> None:
        """Note that a part of a run cannot be read; requests for the run raise the error.

        Parameters
        ----------
        number
            Index of a descriptor of the run among those of the plan.
        reason
            Document and field, and what is wrong there.
        """
        descriptor = self._descriptors[number]
        run = descriptor["run_start"]
        stream = f"stream {stream_of(descriptor)!r}, " if "data_keys" in descriptor else ""
        self._bad.setdefault(run, BadRun(run, stream + reason))

    def _sound_records(self) -> tuple[np.ndarray, list[Any]]:
        """Return the records and keys of the chunks, except those of damaged manifests."""
        try:
            return np.array(self._records, dtype=CHUNK_RECORD), self._keys
        except (TypeError, ValueError, OverflowError):
            pass  # the damaged ones are found one by one, which takes longer
        sound = []
        for record, key in zip(self._records, self._keys, strict=True):
            try:
                sound.append((np.array([record], dtype=CHUNK_RECORD), key))
            except (TypeError, ValueError, OverflowError) as error:
                self.note_bad(record[0], f"the list of its chunks is damaged: {error}")
        records = np.concatenate([NO_RECORDS, *(record for record, _ in sound)])
        return records, [key for _, key in sound]

    def plan(self) -> ChunkPlan:
        """Return the plan of all that was added, in the order of the descriptors."""
        records, keys = NO_RECORDS, self._keys
        if keys:  # most runs have no references of most kinds
            records, keys = self._sound_records()
            order = np.argsort(records["descriptor"], kind="stable")
            records, keys = records[order], [keys[number] for number in order.tolist()]
        return ChunkPlan(
            reader=self._reader,
            descriptors=self._descriptors,
            schemas=tuple(self._schemas),
            records=records,
            keys=tuple(keys),
            store=self._store,
            bad=self._bad,
        )


def with_frames(
    plan: ChunkPlan, spans_of: Callable[[Sequence[str]], Iterable[tuple[str, str, range]]]
) -> ChunkPlan:
    """Return a plan of events with the rows added that only stream_datum documents describe.

    A descriptor without events whose frames such documents describe gets a row for each
    ``seq_num`` that they name; its time is not known. If several frames of one key are named for
    a ``seq_num``, there is a row for each, as for events that were taken again.

    Parameters
    ----------
    plan
        Plan of the events of some descriptors.
    spans_of
        Function from uids of runs to ``(descriptor, data key, seq_nums)`` of each of their
        stream_datums that is not empty. It is called at most once, and only if there are such
        descriptors without events.
    """
    having = set(plan.records["descriptor"].tolist())
    without = [
        (number, descriptor)
        for number, descriptor in enumerate(plan.descriptors)
        if number not in having and stream_keys(descriptor)
    ]
    # Chunks have been stored for these events, or no frames were promised.
    if not without:
        return plan
    spans: dict[str, dict[str, list[range]]] = {}
    for uid, key, span in spans_of(list(dict.fromkeys(d["run_start"] for _, d in without))):
        spans.setdefault(uid, {}).setdefault(key, []).append(span)
    found = (
        (number, numbers)
        for number, descriptor in without
        for numbers in _rows(list(spans.get(descriptor["uid"], {}).values()))
    )
    return _with_ranges(plan, found)


def _with_ranges(plan: ChunkPlan, ranges: Iterable[tuple[int, range]]) -> ChunkPlan:
    """Return the plan with each ``(index of a descriptor without chunks, seq_nums)`` added."""
    builder = PlanBuilder(plan.reader, EVENT, plan.store, plan.descriptors)
    schema = builder.add_schema(column_kinds(ranges_table(range(0))))
    for number, numbers in ranges:
        # A range may be of billions of rows; partitions of them must not be.
        for start in range(numbers.start, numbers.stop, MOST_ROWS):
            part = range(start, min(start + MOST_ROWS, numbers.stop))
            builder.add_chunk(number, part, start, schema, of_frames(part))
    return with_chunks(plan, builder.plan())


def with_chunks(plan: ChunkPlan, more: ChunkPlan, *, before: bool = False) -> ChunkPlan:
    """Return the plan with the chunks of another plan of the same descriptors added.

    Within each descriptor they come after the chunks of ``plan``, or before them if ``before``.
    """
    added: Any = more.records.copy()
    added["schema"] += len(plan.schemas)
    there = [(plan.records, plan.keys), (added, more.keys)]
    first, second = there[::-1] if before else there
    records = np.concatenate([first[0], second[0]])
    keys = first[1] + second[1]
    order = np.argsort(records["descriptor"], kind="stable")
    return replace(
        plan,
        schemas=plan.schemas + more.schemas,
        records=records[order],
        keys=tuple(keys[number] for number in order.tolist()),
    )


def _rows(spans: Sequence[Sequence[range]]) -> list[range]:
    """Return the rows for the ranges of several keys.

    Each ``seq_num`` has as many rows as the key that names it most often.
    """
    every = [span for of_key in spans for span in of_key]
    # Each key describes an event once, so the union is all rows.
    if all(sum(map(len, of_key)) == sum(map(len, _merged(of_key))) for of_key in spans):
        return _merged(every)
    borders = np.unique([[span.start, span.stop] for span in every])
    most = np.zeros(len(borders) - 1, np.int64)
    for of_key in spans:
        count = np.zeros(len(most), np.int64)
        for span in of_key:
            count[slice(*np.searchsorted(borders, (span.start, span.stop)))] += 1
        most = np.maximum(most, count)
    ends = borders.tolist()
    return [
        numbers
        for layer in range(int(most.max()), 0, -1)
        for numbers in _merged(
            range(ends[number], ends[number + 1])
            for number in np.flatnonzero(most >= layer).tolist()
        )
    ]


def _merged(ranges: Iterable[range]) -> list[range]:
    """Return the union of half-open ranges, in order."""
    merged: list[range] = []
    for one in sorted(ranges, key=lambda one: (one.start, one.stop)):
        # Ranges that touch become one, as events are consecutive.
        if merged and one.start <= merged[-1].stop:
            merged[-1] = range(merged[-1].start, max(merged[-1].stop, one.stop))
        else:
            merged.append(one)
    return merged
