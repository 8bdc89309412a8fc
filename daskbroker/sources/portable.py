"""Sources of one run that are all in memory and pickle whole.

A store that workers cannot open (an embedded one: its SQLite file is not safe over network
file systems) sends a run as what the client knows of it: documents, and the chunks' keys,
which workers can read. The data stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NoReturn

import numpy as np

from ..core.chunks import ChunkPlan
from ..core.documents import ALL, Document
from ..core.errors import StoreReadOnly
from ..core.layouts import REFERENCES, Layout
from ..core.planning import PlanBuilder
from ..core.search import Search
from .base import EventSource, HeaderPair, HeaderSource, stream_of

__all__ = ["PortableEventSource", "PortableHeaderSource"]


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise StoreReadOnly("a run that travelled to a worker can be read only; insert at home")


@dataclass(frozen=True, eq=False)
class PortableHeaderSource(HeaderSource):
    """Start and stop of one run."""

    pair: HeaderPair

    def find_uid(self, uid: str) -> HeaderPair | None:
        """See :meth:`HeaderSource.find_uid`."""
        return self.pair if uid == self.pair[0]["uid"] else None

    def find_prefix(self, prefix: str, limit: int = 10) -> list[str]:
        """See :meth:`HeaderSource.find_prefix`."""
        uid = str(self.pair[0]["uid"])
        return [uid] if uid.startswith(prefix) else []

    def find(
        self, search: Search, start: int = 0, stop: int | None = None, *, oldest_first: bool = False
    ) -> Iterator[HeaderPair]:
        """See :meth:`HeaderSource.find`."""
        return islice([self.pair] if search.matches(*self.pair) else [], start, stop)

    def count(self, search: Search) -> int:
        """See :meth:`HeaderSource.count`."""
        return int(search.matches(*self.pair))

    def close(self) -> None:
        """There is nothing to let go of."""

    insert_prepared = _refuse


@dataclass(frozen=True, eq=False)
class PortableEventSource(EventSource):
    """What one event source has of a run.

    Attributes
    ----------
    run
        Uid.
    events
        The chunks of its events; all its descriptors.
    references
        The chunks of its references, by the name of the documents, where there are any.
    """

    run: str
    events: ChunkPlan
    references: Mapping[str, ChunkPlan]

    @classmethod
    def of(cls, source: EventSource, run: str) -> PortableEventSource:
        """The run as it is now in another source."""
        plans = {layout.kind: source.plan_references(layout, run) for layout in REFERENCES}
        having = {kind: plan for kind, plan in plans.items() if len(plan)}
        return cls(run, source.plan(source.list_descriptors([run])), having)

    @property
    def reader(self) -> Any:  # type: ignore[override]
        """See :class:`EventSource`."""
        return self.events.reader

    def has_run(self, uid: str) -> bool:
        """See :meth:`EventSource.has_run`."""
        return uid == self.run

    def current_run(self) -> str | None:
        """See :meth:`EventSource.current_run`."""
        return self.run

    def find_descriptor(self, uid: str) -> Document | None:
        """See :meth:`EventSource.find_descriptor`."""
        return next((d for d in self.events.descriptors if d["uid"] == uid), None)

    def find_asset_run(self, layout: Layout, uid: str, run: str | None) -> str | None:
        """See :meth:`EventSource.find_asset_run`."""
        found = any(doc["uid"] == uid for _, doc in self.list_assets(self.run))
        return self.run if found else None

    def list_descriptors(self, runs: Sequence[str], stream_name: Any = ALL) -> list[Document]:
        """See :meth:`EventSource.list_descriptors`."""
        found = self.events.descriptors if self.run in runs else ()
        return [d for d in found if stream_name is ALL or stream_of(d) == stream_name]

    def plan_events(self, descriptors: Sequence[Document]) -> ChunkPlan:
        """See :meth:`EventSource.plan_events`."""
        return _of_descriptors(self.events, descriptors)

    def plan_references(self, layout: Layout, run: str) -> ChunkPlan:
        """See :meth:`EventSource.plan_references`."""
        if run == self.run and layout.kind in self.references:
            return self.references[layout.kind]
        owner = Document({"uid": run, "run_start": run})
        return PlanBuilder(self.reader, layout, self.events.store, [owner]).plan()

    def close(self) -> None:
        """There is nothing to let go of."""

    def seal(self, run: str | None = None, *, keep_journal: bool = False) -> int:
        """See :meth:`EventSource.seal`; there is no journal."""
        return 0

    insert_prepared = put_run = stop_run = put_descriptor = put_asset = _refuse
    append = append_page = _refuse


def _of_descriptors(plan: ChunkPlan, descriptors: Sequence[Document]) -> ChunkPlan:
    """The part of a plan that belongs to some of its descriptors, in their order."""
    places = {d["uid"]: place for place, d in enumerate(plan.descriptors)}
    old = [places.get(d["uid"], -1) for d in descriptors]
    chunks = [np.flatnonzero(plan.records["descriptor"] == place) for place in old]
    part = plan.take(np.concatenate([*chunks, np.empty(0, np.intp)]))
    records = part.records.copy()
    records["descriptor"] = np.repeat(np.arange(len(chunks)), [len(c) for c in chunks])
    return replace(part, descriptors=tuple(descriptors), records=records)
