"""What a store has of some runs: their descriptors, and the chunks of events and references.

A :class:`RunPlan` is made by one call to a store, for any number of runs, and is passed down to
whatever shows, fills, sends or copies the runs; nothing asks the store again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from .chunks import ChunkPlan
from .documents import ALL, Document
from .layouts import REFERENCES, RESOURCE, STREAM_RESOURCE, decode_rows
from .peeks import Peek

__all__ = ["RunPlan", "frame_spans", "resources_of", "run_owners", "stream_of"]

PRIMARY = "primary"


def stream_of(descriptor: Mapping[str, Any]) -> str:
    """Name of the stream of a descriptor; ``"primary"`` for those of old versions without one."""
    return str(descriptor.get("name") or PRIMARY)


@dataclass(frozen=True, eq=False)
class RunPlan:
    """What a store has of some runs. Pure data; picklable, and then readable anywhere.

    Attributes
    ----------
    runs
        Uids of the runs, in the order in which they were asked for.
    events
        The chunks of events, with every descriptor of the planned streams.
    references
        The chunks of references by kind of document (``"resource"``, ``"datum"``, …). In place
        of descriptors they have owners, ``{"uid": run, "run_start": run}``, one for each run
        whose references are planned. Empty if none are.
    peeks
        What is remembered of the detector files of the runs whose references are planned.
    """

    runs: tuple[str, ...]
    events: ChunkPlan
    references: Mapping[str, ChunkPlan]
    peeks: tuple[Peek, ...] = ()

    @property
    def descriptors(self) -> tuple[Document, ...]:
        """The descriptors of the planned streams, run by run, within a run in order of time."""
        return self.events.descriptors

    @property
    def streams(self) -> set[str]:
        """Names of the planned streams."""
        return set(map(stream_of, self.descriptors))

    @property
    def plans(self) -> tuple[ChunkPlan, ...]:
        """Everything that has chunks: events first, then each kind of references."""
        return (self.events, *self.references.values())

    def with_plans(self, plans: Iterable[ChunkPlan]) -> RunPlan:
        """The same with other plans in the place of :attr:`plans`."""
        events, *references = plans
        return replace(
            self, events=events, references=dict(zip(self.references, references, strict=True))
        )

    def of_stream(self, name: Any) -> RunPlan:
        """The part of one stream, with all references; ``ALL`` is the plan itself."""
        if name is ALL:
            return self
        places = [n for n, d in enumerate(self.descriptors) if stream_of(d) == name]
        return replace(self, events=self.events.of_descriptors(places))

    def of_run(self, run: str) -> RunPlan:
        """The part of one run."""
        references = {
            kind: plan.of_descriptors(self._owners[kind].get(run, ()))
            for kind, plan in self.references.items()
        }
        events = self.events.of_descriptors(self._places.get(run, ()))
        peeks = tuple(peek for peek in self.peeks if peek.run == run)
        return RunPlan((run,), events, references, peeks)

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        return _by_run(self.events)

    @cached_property
    def _owners(self) -> dict[str, dict[str, list[int]]]:
        return {kind: _by_run(plan) for kind, plan in self.references.items()}

    def sizes(self) -> dict[str, int]:
        """Number of events by descriptor uid, and of references by kind. Nothing is read."""
        found = {descriptor["uid"]: 0 for descriptor in self.descriptors}
        owners = self.events.records["descriptor"].tolist()
        for place, rows in zip(owners, self.events.records["rows"].tolist(), strict=True):
            found[self.descriptors[place]["uid"]] += rows
        for layout in REFERENCES:
            if layout.kind in self.references:
                found[layout.kind] = self.references[layout.kind].rows
        return found


def run_owners(runs: Sequence[str]) -> list[Document]:
    """What plans of references have in place of descriptors, one for each run."""
    return [Document({"uid": run, "run_start": run}) for run in runs]


def resources_of(references: Mapping[str, ChunkPlan]) -> Iterator[tuple[str, Document]]:
    """``("resource" | "stream_resource", doc)`` of planned references, in order; they are read."""
    for layout in (RESOURCE, STREAM_RESOURCE):
        plan = references.get(layout.kind)
        for table in () if plan is None else plan.read_all():
            for doc in decode_rows(layout, table, ""):
                yield layout.kind, doc


def _by_run(plan: ChunkPlan) -> dict[str, list[int]]:
    """Places of the descriptors of each run."""
    places: dict[str, list[int]] = {}
    for place, descriptor in enumerate(plan.descriptors):
        places.setdefault(descriptor["run_start"], []).append(place)
    return places


def frame_spans(plan: ChunkPlan) -> Iterator[tuple[str, range]]:
    """Descriptor and range of ``seq_num`` of each planned stream_datum that is not empty."""
    columns = ["descriptor", "seq_nums:start", "seq_nums:stop"]
    for table in plan.read_all(columns):
        for uid, first, last in zip(*table.to_pydict().values(), strict=True):
            if last > first:
                yield uid, range(first, last)
