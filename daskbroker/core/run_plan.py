"""Plans of runs: their descriptors, and their chunks of events and references.

A :class:`RunPlan` is made by one call to a store, for any number of runs, and is passed to the code
that shows, fills, sends or copies the runs; the store is not asked again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from .bad_runs import BadRun
from .chunks import ChunkPlan
from .documents import ALL, Document, StreamName, stream_of
from .errors import StoreDamaged
from .layouts import REFERENCES, RESOURCE, STREAM_DATUM, STREAM_RESOURCE, decode_rows
from .peeks import Peek

__all__ = ["RunPlan", "frame_spans", "is_of_stream", "resources_of", "run_owners", "stream_of"]


def is_of_stream(descriptor: Document | BadRun, stream: object) -> bool:
    """Return whether a descriptor is of a stream, or of any if that is ``ALL``.

    A BadRun in place of a descriptor may be of any stream.
    """
    return stream is ALL or isinstance(descriptor, BadRun) or stream_of(descriptor) == str(stream)


@dataclass(frozen=True, eq=False)
class RunPlan:
    """Plan of what a store has of some runs. It is pure data that can be pickled and used anywhere.

    Attributes
    ----------
    runs
        Uids of the runs, in the order in which they were requested.
    events
        Plan of the chunks of events, with every descriptor of the planned streams.
    references
        Plan of the chunks of references by kind of document (``"resource"``, ``"datum"``, …). In
        place of descriptors they have owners, ``{"uid": run, "run_start": run}``, one for each run
        whose references are planned. Empty if none are.
    peeks
        Stored findings about the detector files of the runs whose references are planned.
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
        """Descriptors of the planned streams, run by run, and by time within a run."""
        return self.events.descriptors

    @property
    def bad(self) -> dict[str, BadRun]:
        """By uid, the runs of which something cannot be read; the plan is incomplete for them."""
        found = dict(self.unlisted)
        for plan in self.plans:
            for run, bad in plan.bad.items():
                found.setdefault(run, bad)
        return found

    def checked(self) -> RunPlan:
        """Return the plan itself, if all its runs can be read.

        Raises
        ------
        StoreDamaged
            If one cannot; the message names the first.
        """
        for bad in self.bad.values():
            raise bad.error()
        return self

    def unreadable_events(self, columns: Sequence[str] | None) -> dict[str, BadRun]:
        """Read these columns of all events; return, by uid, the runs that have a damaged chunk."""
        return _unreadable(self.events, columns)

    def unreadable_references(self) -> dict[str, BadRun]:
        """Read all references; return, by uid, the runs that have a damaged chunk."""
        bad: dict[str, BadRun] = {}
        for plan in self.references.values():
            bad = _unreadable(plan, None) | bad
        return bad

    def without(self, runs: Collection[str]) -> RunPlan:
        """Return the plan without these runs."""
        # Usually every run can be read.
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
        """Plans of all chunks: events first, then each kind of references."""
        return (self.events, *self.references.values())

    def with_plans(self, plans: Iterable[ChunkPlan]) -> RunPlan:
        """Return the same plan with other plans in place of :attr:`plans`."""
        events, *references = plans
        return replace(
            self, events=events, references=dict(zip(self.references, references, strict=True))
        )

    def of_stream(self, name: StreamName) -> RunPlan:
        """Return the part of one stream, with all references; the plan itself for ``ALL``."""
        # References belong to the run, so they stay with each part.
        if name is ALL:
            return self
        positions = [n for n, d in enumerate(self.descriptors) if stream_of(d) == name]
        return replace(self, events=self.events.of_descriptors(positions))

    def by_run(self) -> dict[str, RunPlan]:
        """Return the part of each run that has a descriptor, by uid."""
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
                {uid: self.unlisted[uid]} if uid in self.unlisted else {},
            )
            for uid, events in self.events.by_run().items()
        }

    def sizes(self) -> dict[str, int]:
        """Return the number of events by descriptor uid, of references by kind; reads no chunk."""
        found = {descriptor["uid"]: 0 for descriptor in self.descriptors}
        owners = self.events.records["descriptor"].tolist()
        for index, rows in zip(owners, self.events.records["rows"].tolist(), strict=True):
            found[self.descriptors[index]["uid"]] += rows
        for layout in REFERENCES:
            # Only kinds that were planned have a number.
            if layout.kind in self.references:
                found[layout.kind] = self.references[layout.kind].rows
        return found


def _unreadable(plan: ChunkPlan, columns: Sequence[str] | None) -> dict[str, BadRun]:
    """Read these columns of a plan; return, by uid, the runs that have a damaged chunk."""
    bad: dict[str, BadRun] = {}
    for index, descriptor in enumerate(plan.descriptors):
        run = descriptor["run_start"]
        try:
            for _ in plan.of_descriptors([index]).read_all(columns):
                pass
        except StoreDamaged as error:
            bad.setdefault(run, BadRun(run, str(error)))
    return bad


def run_owners(runs: Sequence[str]) -> list[Document]:
    """Return what plans of references have in place of descriptors, one for each run."""
    return [Document({"uid": run, "run_start": run}) for run in runs]


def resources_of(references: Mapping[str, ChunkPlan]) -> Iterator[tuple[str, Document]]:
    """Read planned resources; yield ``("resource" | "stream_resource", doc)`` in order."""
    for layout in (RESOURCE, STREAM_RESOURCE):
        # A run has resources of one or both kinds.
        plan = references.get(layout.kind)
        for table in () if plan is None else plan.read_all():
            for doc in decode_rows(layout, table, ""):
                yield layout.kind, doc


def frame_spans(
    plan: ChunkPlan, resources: ChunkPlan
) -> tuple[list[tuple[str, str, range]], dict[str, BadRun]]:
    """Read stream_datums; return the range of ``seq_num`` that each describes.

    Parameters
    ----------
    plan, resources
        Plans of stream_datums and stream_resources of some runs, with the same descriptors.

    Returns
    -------
    spans : list
        Uid of the descriptor, data key and range of each stream_datum that is not empty. If its
        stream_resource is missing, the uid of that stands in place of the data key.
    bad : dict
        By uid, the runs whose stream_datums cannot be read.
    """
    try:
        return list(_spans(plan, resources)), {}
    except StoreDamaged:  # one run's damage must not hide the others, so each is read by itself
        spans: list[tuple[str, str, range]] = []
        bad: dict[str, BadRun] = {}
        for index, owner in enumerate(plan.descriptors):
            try:
                one = plan.of_descriptors([index]), resources.of_descriptors([index])
                spans += _spans(*one)
            except StoreDamaged as error:
                bad[owner["run_start"]] = BadRun(owner["run_start"], str(error))
        return spans, bad


def _spans(plan: ChunkPlan, resources: ChunkPlan) -> Iterator[tuple[str, str, range]]:
    key_of: dict[str, str] = {}
    with suppress(StoreDamaged):  # reported when the files are read
        for _, doc in resources_of({STREAM_RESOURCE.kind: resources}):
            key_of[doc["uid"]] = str(doc.get("data_key", ""))
    columns = ["descriptor", STREAM_DATUM.owner, "seq_nums:start", "seq_nums:stop"]
    for table in plan.read_all(columns):
        for uid, owner, first, last in zip(*table.to_pydict().values(), strict=True):
            # An empty range describes no event.
            if last > first:
                yield uid, key_of.get(owner, owner), range(first, last)
