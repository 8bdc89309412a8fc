"""Follow a run as it grows: each look yields what has come since the look before.

A look plans the run as every view does, and then finds which rows are new. Rows are recognized by
their uids, because the rows of a journal are cut differently at each look, and move into chunks.
A final chunk is read once, and its uids are forgotten; so a follower needs memory for the
journal, not for the run (except for the ids of references, see :class:`Follower`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ...assets.access import FileAccess
from ...core.chunk_statistics import of_frames
from ...core.chunks import ChunkPlan, column_kinds, ranges_table
from ...core.documents import ALL, AllStreams, Document, StreamName
from ...core.errors import StreamNotFound
from ...core.fields import check_metadata, select
from ...core.layouts import EVENT, LAYOUTS, STREAM_DATUM, Layout
from ...core.plan_builder import PlanBuilder
from ...core.row_selection import take_rows
from ...core.run_plan import RunPlan
from ..table import lazy_table
from ..view_options import View, ViewOptions
from .streaming import Uses, new_documents

Item = TypeVar("Item")
PlanNow = Callable[[], RunPlan]
"""Function that plans the run as it is now, with its references."""


class Follower:
    """Yields the new documents of a run, at each look.

    Parameters
    ----------
    sources
        Function that plans the run as it is now, references included, and access to detector
        files, for each event source.
    start
        Start document of the run.
    stream_name
        Name of one stream, or ``ALL``.
    options
        ``fields``, ``fill`` and the handlers.

    Notes
    -----
    The references of one stream are chosen by its events, so a resource may be found to belong to
    it long after it has come. Therefore the uids of all references that were yielded are kept.
    """

    def __init__(
        self,
        sources: Sequence[tuple[PlanNow, FileAccess]],
        start: Document,
        stream_name: StreamName,
        options: ViewOptions,
    ) -> None:
        self._sources = [(plan, files, _Grown()) for plan, files in sources]
        self._start = start
        self._stream = stream_name
        self._options = options
        self._uses = [Uses() for _ in sources]
        self._given: set[tuple[str, str]] = set()
        self._descriptors: dict[str, Document] = {}

    def follow(
        self,
        take: Callable[[], Iterator[Item]],
        ended: Callable[[], bool],
        interval: float,
        timeout: float | None,
    ) -> Iterator[Item]:
        """Yield new documents, look by look, until the run has ended.

        Parameters
        ----------
        take
            :meth:`documents` or :meth:`tables`.
        ended
            Function that returns whether the run has ended; called before each look, so that
            nothing is missed.
        interval
            Seconds between two looks.
        timeout
            Seconds without anything new after which an error is raised; never if None.

        Raises
        ------
        TimeoutError
            If no new data for `timeout` seconds.
        StreamNotFound, FieldNotFound
            If the run has ended and has no such stream or field.
        """
        latest = time.monotonic()
        while True:
            last = ended()
            for item in take():
                yield item
                latest = time.monotonic()
            if last:
                self._check_exists()
                return
            if timeout is not None and time.monotonic() - latest > timeout:
                raise TimeoutError(
                    f"run {self._start['uid']!r}: no new data for {timeout:g} seconds, and it "
                    "has no stop; was it interrupted?"
                )
            time.sleep(interval)

    def _check_exists(self) -> None:
        if not self._descriptors and self._stream is not ALL:
            raise StreamNotFound(
                f"run {self._start['uid']!r} has ended and has no stream {self._stream!r:.200}"
            )
        if self._options.fields is not None and self._options.fields is not ALL:
            chosen = select(self._options.fields, list(self._descriptors.values()))
            check_metadata(chosen, [(self._start, None)])

    def _look(self) -> Iterator[tuple[RunPlan, RunPlan, FileAccess]]:
        """Yield, for each event source, the plan as it is now, its new part, and file access."""
        for planned, files, grown in self._sources:
            now = planned().checked()
            self._descriptors.update({d["uid"]: d for d in now.descriptors})
            yield now, grown.part(now), files

    def documents(self) -> Iterator[tuple[str, Document]]:
        """Yield the new documents, references before the documents that use them."""
        parts = [
            (self._with_references(now, new), self._options.filling(now, files), uses)
            for (now, new, files), uses in zip(self._look(), self._uses, strict=True)
        ]
        whole = self._stream is ALL
        new_each_time = whole and len(parts) == 1
        for name, doc in new_documents(parts, self._start, self._options, all_streams=whole):
            if name in ("event", "stream_datum") or (new_each_time and name != "descriptor"):
                yield name, doc
                continue
            key = (name, doc["datum_id"] if name == "datum" else doc["uid"])
            if key not in self._given:
                self._given.add(key)
                yield name, doc

    def _with_references(self, now: RunPlan, new: RunPlan) -> RunPlan:
        """Add all resources and datums, unless all streams are followed.

        New events of one stream may refer to old resources and datums.
        """
        if self._stream is ALL:
            return new
        kind = STREAM_DATUM.kind
        return replace(new, references={**now.references, kind: new.references[kind]})

    def tables(self) -> Iterator[pd.DataFrame]:
        """Yield the new rows as computed tables, one per event source that has any."""
        assert not isinstance(self._stream, AllStreams)
        for now, new, files in self._look():
            if not new.events.rows:
                continue
            plan = replace(now, events=new.events)
            runs = {self._start["uid"]: (self._start, None)}
            view = View(plan, self._stream, runs, self._options, files)
            yield lazy_table.table(view).compute()


class _Grown:
    """Keeps track of the rows of one event source that were yielded."""

    def __init__(self) -> None:
        self._seen: set[tuple[Any, ...]] = set()
        self._uids: dict[tuple[str, str], set[str]] = {}
        self._frames: dict[str, set[int]] = {}

    def part(self, plan: RunPlan) -> RunPlan:
        """Return the part of the plan with the rows that are new, and count these as seen."""
        events = self._new(plan.events, EVENT)
        references = {
            kind: self._new(some, LAYOUTS[kind]) for kind, some in plan.references.items()
        }
        return replace(plan, events=events, references=references)

    def _new(self, plan: ChunkPlan, layout: Layout) -> ChunkPlan:
        builder = PlanBuilder(plan.reader, layout, plan.store, plan.descriptors)
        for index in range(len(plan)):
            owner = int(plan.records["descriptor"][index])
            facts, first = plan.facts(index), int(plan.records["first"][index])
            name = (layout.kind, plan.descriptors[owner]["uid"])
            final = plan.reader.is_final(plan.keys[index])
            # Rows are never removed, so the same number of rows at the same position are the same.
            chunk = (*name, final, first, facts.rows, facts.seq_min, facts.seq_max)
            if chunk in self._seen:
                continue
            if isinstance(plan.keys[index], range):
                self._add_frames(builder, owner, name[1], plan.keys[index])
                continue
            self._seen.add(chunk)
            table = self._unseen(plan, index, layout, name)
            if table is None:
                schema = builder.add_schema(plan.schemas[plan.records["schema"][index]])
                builder.add_chunk(owner, plan.keys[index], first, schema, facts)
            elif table.num_rows:
                builder.add_table(owner, first, table)
        return builder.plan()

    def _unseen(
        self, plan: ChunkPlan, index: int, layout: Layout, name: tuple[str, str]
    ) -> pa.Table | None:
        """Return the new rows of a chunk as a table; None if all rows are new."""
        known = self._uids.setdefault(name, set())
        uids = plan.read(index, [layout.uid]).column(layout.uid)
        texts = uids.to_pylist()
        new = np.fromiter((uid not in known for uid in texts), bool, len(texts))
        if plan.reader.is_final(plan.keys[index]):  # these rows will not come in another chunk
            known.difference_update(texts)
        else:
            known.update(texts)
        if new.all():
            return None
        table = plan.read(index)
        # Select by uid, not by position, as rows may have been added since the uids were read.
        wanted = pa.array([uid for uid, is_new in zip(texts, new) if is_new], pa.string())
        found = pc.is_in(table.column(layout.uid).cast(pa.string()), wanted)
        return take_rows(table, np.flatnonzero(found.to_numpy()))

    def _add_frames(
        self, builder: PlanBuilder, owner: int, descriptor: str, numbers: range
    ) -> None:
        """Add the new rows of events that only stream_datums describe.

        These have no uid, and are recognized by ``seq_num``.
        """
        known = self._frames.setdefault(descriptor, set())
        new = np.array([number for number in numbers if number not in known], np.int64)
        known.update(numbers)
        if not len(new):
            return
        schema = builder.add_schema(column_kinds(ranges_table(range(0))))
        for run in np.split(new, np.flatnonzero(np.diff(new) > 1) + 1):
            part = range(int(run[0]), int(run[-1]) + 1)
            builder.add_chunk(owner, part, part.start, schema, of_frames(part))
