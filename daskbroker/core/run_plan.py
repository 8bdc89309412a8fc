"""What a store has of some runs: their descriptors, and the chunks of events and references.

A :class:`RunPlan` is made by one call to a store, for any number of runs, and is passed down to
whatever shows, fills, sends or copies the runs; nothing asks the store again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from .bad_runs import BadRun
from .chunks import ChunkPlan
from .documents import ALL, Document
from .errors import StoreDamaged
from .layouts import REFERENCES, RESOURCE, STREAM_DATUM, STREAM_RESOURCE, decode_rows
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
    unlisted
        By uid, the runs of which a descriptor cannot be read.
    """

    runs: tuple[str, ...]
    events: ChunkPlan
    references: Mapping[str, ChunkPlan]
    peeks: tuple[Peek, ...] = ()
    unlisted: Mapping[str, BadRun] = field(default_factory=dict)

    @property
    def descriptors(self) -> tuple[Document, ...]:
        """The descriptors of the planned streams, run by run, within a run in order of time."""
        return self.events.descriptors

    @property
    def bad(self) -> dict[str, BadRun]:
        """By uid, the runs of which something cannot be read: the plan has not all of them."""
        found = dict(self.unlisted)
        for plan in self.plans:
            for run, bad in plan.bad.items():
                found.setdefault(run, bad)
        return found

    def checked(self) -> RunPlan:
        """The plan, if all its runs can be read.

        Raises
        ------
        StoreDamaged
            Naming the first that cannot.
        """
        for bad in self.bad.values():
            raise bad.error()
        return self

    def unreadable_events(self, columns: Sequence[str] | None) -> dict[str, BadRun]:
        """By uid, the runs of which these columns are in a damaged chunk; they are read for it."""
        return _unreadable(self.events, columns)

    def unreadable_references(self) -> dict[str, BadRun]:
        """By uid, the runs of which a chunk of references is damaged; they are read for it."""
        bad: dict[str, BadRun] = {}
        for plan in self.references.values():
            bad = _unreadable(plan, None) | bad
        return bad

    def without(self, runs: Collection[str]) -> RunPlan:
        """The plan of the other runs."""
        if not runs:
            return self
        plans = [
            replace(
                plan.of_descriptors(
                    [n for n, d in enumerate(plan.descriptors) if d["run_start"] not in runs]
                ),
                bad={run: bad for run, bad in plan.bad.items() if run not in runs},
            )
            for plan in self.plans
        ]
        left = replace(
            self,
            runs=tuple(run for run in self.runs if run not in runs),
            unlisted={run: bad for run, bad in self.unlisted.items() if run not in runs},
        )
        return left.with_plans(plans)

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

    def by_run(self) -> dict[str, RunPlan]:
        """The part of each run that has a descriptor of events."""
        references = {kind: plan.by_run() for kind, plan in self.references.items()}
        peeks: dict[str, list[Peek]] = {}
        for peek in self.peeks:
            peeks.setdefault(peek.run, []).append(peek)
        return {
            uid: RunPlan(
                (uid,),
                events,
                {kind: of[uid] for kind, of in references.items() if uid in of},
                tuple(peeks.get(uid, ())),
            )
            for uid, events in self.events.by_run().items()
        }

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


def _unreadable(plan: ChunkPlan, columns: Sequence[str] | None) -> dict[str, BadRun]:
    """By uid, the runs of which these columns of a plan are in a damaged chunk."""
    bad: dict[str, BadRun] = {}
    for place, descriptor in enumerate(plan.descriptors):
        run = descriptor["run_start"]
        try:
            for _ in plan.of_descriptors([place]).read_all(columns):
                pass
        except StoreDamaged as error:
            bad.setdefault(run, BadRun(run, str(error)))
    return bad


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


def frame_spans(
    plan: ChunkPlan, resources: ChunkPlan
) -> tuple[list[tuple[str, str, range]], dict[str, BadRun]]:
    """Descriptor, data key and range of ``seq_num`` of each stream_datum that is not empty.

    Also, by uid, the runs whose stream_datums cannot be read. A stream_resource that is not there
    stands for a key of its own.

    Parameters
    ----------
    plan, resources
        Of stream_datums and stream_resources of some runs; both have the same descriptors.
    """
    try:
        return list(_spans(plan, resources)), {}
    except StoreDamaged:  # of some run; the others are read one by one
        spans: list[tuple[str, str, range]] = []
        bad: dict[str, BadRun] = {}
        for place, owner in enumerate(plan.descriptors):
            try:
                one = plan.of_descriptors([place]), resources.of_descriptors([place])
                spans += _spans(*one)
            except StoreDamaged as error:
                bad[owner["run_start"]] = BadRun(owner["run_start"], str(error))
        return spans, bad


def _spans(plan: ChunkPlan, resources: ChunkPlan) -> Iterator[tuple[str, str, range]]:
    key_of: dict[str, str] = {}
    with suppress(StoreDamaged):  # which is told where files are read
        for _, doc in resources_of({STREAM_RESOURCE.kind: resources}):
            key_of[doc["uid"]] = str(doc.get("data_key", ""))
    columns = ["descriptor", STREAM_DATUM.owner, "seq_nums:start", "seq_nums:stop"]
    for table in plan.read_all(columns):
        for uid, owner, first, last in zip(*table.to_pydict().values(), strict=True):
            if last > first:
                yield uid, key_of.get(owner, owner), range(first, last)
