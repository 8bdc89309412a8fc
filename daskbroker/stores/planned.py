"""Stores of one run that are held in memory and pickle whole.

A store that workers cannot open (such as an embedded one: its SQLite file is not safe over
network file systems) sends the documents of a run, and the keys of
its chunks, which workers can read. The data stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NoReturn

from ..core.bad_runs import BadRun
from ..core.chunks import ChunkPlan
from ..core.documents import ALL, Document, StreamName
from ..core.errors import StoreReadOnly
from ..core.layouts import Layout
from ..core.peeks import Peek
from ..core.run_plan import RunPlan, resources_of, stream_of
from ..core.search import Search
from .contract import EventStore, HeaderPair, HeaderStore


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise StoreReadOnly(
        "a run that was sent to a worker is read-only; insert in the process that opened the store"
    )


@dataclass(frozen=True, eq=False)
class PlannedHeaderStore(HeaderStore):
    """Store of the start and stop document of one run; read only.

    Attributes
    ----------
    pair
        Start and stop document of the run.
    """

    pair: HeaderPair

    def find_uid(self, uid: str) -> HeaderPair | None:
        return self.pair if uid == self.pair[0]["uid"] else None

    def find(
        self, search: Search, start: int = 0, stop: int | None = None, *, oldest_first: bool = False
    ) -> Iterator[HeaderPair]:
        return islice([self.pair] if search.matches(*self.pair) else [], start, stop)

    insert_prepared = _refuse


@dataclass(frozen=True, eq=False)
class PlannedEventStore(EventStore):
    """Store of what another event store has of one run; read only.

    Attributes
    ----------
    plan
        Plan of the run, made by the other store.
    """

    plan: RunPlan

    @property
    def run(self) -> str:
        """Uid of the run."""
        return self.plan.runs[0]

    @property
    def reader(self) -> Any:  # type: ignore[override]
        """See :class:`EventStore`."""
        return self.plan.events.reader

    @property
    def store_id(self) -> str:
        return self.plan.events.store

    def has_run(self, uid: str) -> bool:
        return uid == self.run

    def current_run(self) -> str | None:
        return self.run

    def find_descriptor(self, uid: str) -> Document | None:
        return next((d for d in self.plan.descriptors if d["uid"] == uid), None)

    def find_asset_run(self, layout: Layout, uid: str, run: str | None) -> str | None:
        found = any(doc["uid"] == uid for _, doc in resources_of(self.plan.references))
        return self.run if found else None

    def list_descriptors(
        self, runs: Sequence[str], stream_name: StreamName = ALL
    ) -> Sequence[Document | BadRun]:
        if self.run not in runs:
            return []
        if self.run in self.plan.unlisted:
            return [self.plan.unlisted[self.run]]
        found = self.plan.descriptors
        return [d for d in found if stream_name is ALL or stream_of(d) == stream_name]

    def plan_events(self, descriptors: Sequence[Document]) -> ChunkPlan:
        positions = {d["uid"]: position for position, d in enumerate(self.plan.descriptors)}
        return self.plan.events.of_descriptors([positions[d["uid"]] for d in descriptors])

    def plan_references(
        self, layouts: Sequence[Layout], runs: Sequence[str]
    ) -> dict[str, ChunkPlan]:
        owners = [0] if self.run in runs else []
        return {
            layout.kind: self.plan.references[layout.kind].of_descriptors(owners)
            for layout in layouts
        }

    def list_peeks(self, runs: Sequence[str]) -> list[Peek]:
        return [peek for peek in self.plan.peeks if peek.run in runs]

    def seal(self, run: str | None = None, *, keep_journal: bool = False) -> int:
        """See :meth:`EventStore.seal`; there is no journal."""
        return 0

    insert_prepared = put_run = stop_run = put_descriptor = put_asset = _refuse
    append = append_page = _refuse
