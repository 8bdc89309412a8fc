"""A run as its stream of documents, made by going through the chunks.

The order: the run's resources and datums; then, by time, each descriptor, its events, and the
stream_datums beside the first event they have frames for. So every reference comes before
what uses it. Only the chunks in hand are in memory.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..assets.access import FileAccess
from ..assets.filled_events import fill_events, wanted_keys
from ..assets.filling import Filling
from ..core.bad_runs import BadRun, warn_of_bad
from ..core.chunks import ChunkPlan, damaged
from ..core.clock import seconds_of
from ..core.documents import ALL, Document, frozen_document
from ..core.errors import StoreDamaged
from ..core.external import datum_keys
from ..core.fields import Field, derive_descriptor, select, select_there
from ..core.frozen import FrozenDict, freeze
from ..core.layouts import DATUM, EVENT, STREAM_DATUM, Layout, iter_rows
from ..core.run_plan import RunPlan, resources_of, stream_of
from .options import ViewOptions
from .prefetch import Prefetcher

__all__ = ["stream_documents"]

NamedDocument = tuple[str, Document]
FIRST_SEQ = "seq_nums:start"


@dataclass(frozen=True)
class _Source:
    """What one event source has of the run, and how its external data are filled."""

    plan: RunPlan
    all_streams: bool
    filling: Filling | None

    @property
    def datums(self) -> ChunkPlan:
        return self.plan.references[DATUM.kind]

    @property
    def stream_datums(self) -> ChunkPlan:
        return self.plan.references[STREAM_DATUM.kind]


def stream_documents(
    sources: Sequence[tuple[RunPlan, FileAccess]],
    start: Mapping[str, Any],
    stop: Mapping[str, Any] | None,
    options: ViewOptions,
    *,
    all_streams: bool = True,
) -> Iterator[NamedDocument]:
    """Everything of a run but start and stop, references before users, by time. Lazy.

    Parameters
    ----------
    sources
        What each event source has of the run, references included, and how its files are reached.
    start, stop
        Of the run, for projections.
    options
        ``fields`` (descriptors change with them, and a stream that has none of them is left
        out), ``fill`` and the handlers; ``errors="skip"`` leaves out the events of chunks that are
        damaged, with a warning. References have to be sound.
    all_streams
        False if only some streams are planned; then only their references are given.

    Raises
    ------
    FieldNotFound
        For a field that no stream has.
    """
    fields = None if options.fields is ALL else options.fields
    if fields is not None:
        select(fields, [d for plan, _ in sources for d in plan.descriptors])
    parts = [_Source(plan, all_streams, options.filling(plan, files)) for plan, files in sources]
    with Prefetcher(skip_damaged=options.errors == "skip") as ahead:
        yield from _references(parts, ahead)
        tracks = [
            _track(part, place, change, ahead)
            for part in parts
            for place, change in sorted(_changes(part, start, stop, fields).items())
        ]
        if len(tracks) == 1:
            merged: Iterable[Any] = tracks[0]
        else:
            merged = heapq.merge(*map(_in_order, tracks), key=lambda item: item[0])
        for _, name, doc in merged:
            yield name, doc


def _references(parts: Sequence[_Source], ahead: Prefetcher) -> Iterator[NamedDocument]:
    given: set[tuple[str, str]] = set()
    for part in parts:
        wanted = None if part.all_streams else _used_resources(part)
        for name, doc in resources_of(part.plan.references):
            if (name, doc["uid"]) in given or (wanted is not None and doc["uid"] not in wanted):
                continue
            given.add((name, doc["uid"]))
            yield name, doc
    datums_given: set[str] = set()
    for number, part in enumerate(parts):
        wanted = None if part.all_streams else _used_resources(part)
        for docs in _decoded(part.datums, DATUM, range(len(part.datums)), ahead):
            for doc in docs:
                if wanted is not None and doc["resource"] not in wanted:
                    continue
                if len(parts) > 1:
                    if doc["datum_id"] in datums_given:
                        continue
                    if number < len(parts) - 1:
                        datums_given.add(doc["datum_id"])
                yield "datum", doc


def _used_resources(part: _Source) -> set[str]:
    """Uids of the resources that the events and stream_datums of the asked streams refer to."""
    used = _resources_of_datums(part)
    uids = {descriptor["uid"] for descriptor in part.plan.descriptors}
    for place in range(len(part.stream_datums)):
        table = part.stream_datums.read(place, ["descriptor", STREAM_DATUM.owner])
        for descriptor, resource in zip(*table.to_pydict().values(), strict=True):
            if descriptor in uids:
                used.add(resource)
    return used


def _resources_of_datums(part: _Source) -> set[str]:
    external = {
        f"data:{key}" for descriptor in part.plan.descriptors for key in datum_keys(descriptor)
    }
    if not external or not len(part.datums):
        return set()
    datum_ids: set[Any] = set()
    for place in range(len(part.plan.events)):
        for column in part.plan.events.read(place, sorted(external)).columns:
            datum_ids.update(value for value in column.to_pylist() if isinstance(value, str))
    wanted = pa.array(datum_ids, pa.string())
    used: set[str] = set()
    for place in range(len(part.datums)):
        table = part.datums.read(place, [DATUM.uid, DATUM.owner])
        found = table.filter(pc.is_in(table.column(DATUM.uid), wanted)).column(DATUM.owner)
        used.update(found.unique().to_pylist())
    return used


def _in_order(
    track: Iterable[tuple[float, str, Document]],
) -> Iterator[tuple[float, str, Document]]:
    """Times that never go back, so that merging keeps each track's own order."""
    latest = float("-inf")
    for time, name, doc in track:
        if time > latest:
            latest = time
        yield latest, name, doc


def _track(
    part: _Source, place: int, change: _Change | None, ahead: Prefetcher
) -> Iterator[tuple[float, str, Document]]:
    """One descriptor, its events, and its stream_datums between them."""
    parent = part.plan.descriptors[place]
    descriptor = parent if change is None else change.descriptor
    time = seconds_of(descriptor)
    yield time, "descriptor", descriptor
    frames = _stream_datums(part.stream_datums, parent["uid"], ahead)
    waiting = next(frames, None)
    chunks = np.flatnonzero(part.plan.events.records["descriptor"] == place).tolist()
    keys = wanted_keys(parent, None if change is None else change.kept)
    for number, events in enumerate(_decoded(part.plan.events, EVENT, chunks, ahead)):
        if part.filling is not None and keys:
            near = (number + 0.5) / len(chunks)
            events = fill_events(part.filling, parent, events, keys, near)
        if change is None and waiting is None:
            for event in events:
                yield event["time"], "event", event
            continue
        for event in events:
            time = event["time"]
            while waiting is not None and waiting["seq_nums"]["start"] <= event["seq_num"]:
                yield time, "stream_datum", waiting
                waiting = next(frames, None)
            yield time, "event", event if change is None else change.apply(event)
    while waiting is not None:
        yield time, "stream_datum", waiting
        waiting = next(frames, None)


def _stream_datums(plan: ChunkPlan, descriptor: str, ahead: Prefetcher) -> Iterator[Document]:
    """Those of a descriptor in the order of ``seq_nums``, a chunk at a time where they allow."""
    chunks: list[tuple[int, int, int]] = []
    for place in range(len(plan)):
        table = plan.read(place, ["descriptor", FIRST_SEQ])
        starts = table.filter(pc.field("descriptor") == descriptor).column(FIRST_SEQ)
        if len(starts):
            chunks.append((*pc.min_max(starts).as_py().values(), place))
    chunks.sort()
    places = [place for *_, place in chunks]
    rows = (
        iter_rows(STREAM_DATUM, _frames_of(_sound(table), descriptor), "")
        for table in ahead.tables(plan, places)
    )
    if all(high <= low for (_, high, _), (low, _, _) in pairwise(chunks)):
        return chain.from_iterable(rows)
    return heapq.merge(*rows, key=lambda doc: doc["seq_nums"]["start"])


def _frames_of(table: pa.Table, descriptor: str) -> pa.Table:
    # These columns are never mixed, so rows keep their meaning wherever they go.
    return table.filter(pc.field("descriptor") == descriptor).sort_by(FIRST_SEQ)


def _sound(table: pa.Table | StoreDamaged) -> pa.Table:
    if isinstance(table, StoreDamaged):
        raise table
    return table


def _decoded(
    plan: ChunkPlan, layout: Layout, places: Iterable[int], ahead: Prefetcher
) -> Iterator[Iterator[Document]]:
    """Chunks as documents, the next ones read ahead; nothing in the place of damaged events."""
    places = [place for place in places if not isinstance(plan.keys[place], range)]
    if not places:
        return
    owners = plan.records["descriptor"]
    for place, table in zip(places, ahead.tables(plan, places)):
        owner = plan.descriptors[int(owners[place])]
        try:  # not damage_of, as the label is wanted of few
            rows = iter_rows(layout, _sound(table), owner["uid"])
        except StoreDamaged as error:
            problem = damaged(plan.label(place), error)
            if not (ahead.skip_damaged and layout is EVENT):
                raise problem from error
            warn_of_bad(BadRun(owner["run_start"], str(problem)))
            rows = iter(())
        yield rows


def _changes(
    part: _Source, start: Mapping[str, Any], stop: Mapping[str, Any] | None, fields: Any
) -> dict[int, _Change | None]:
    """What a selection changes, by the places of the descriptors whose stream has some of it."""
    descriptors = part.plan.descriptors
    if fields is None:
        return dict.fromkeys(range(len(descriptors)))
    streams: dict[str, list[int]] = {}
    for place, descriptor in enumerate(descriptors):
        streams.setdefault(stream_of(descriptor), []).append(place)
    changes: dict[int, _Change | None] = {}
    for places in streams.values():
        same_stream = [descriptors[place] for place in places]
        there = select_there(fields, same_stream)
        if there is not None:
            chosen = select(there, same_stream)
            changes |= {
                place: _Change.of(descriptors[place], chosen, start, stop) for place in places
            }
    return changes


@dataclass(frozen=True)
class _Change:
    """What a selection of fields does to the events of one descriptor."""

    descriptor: Document
    kept: frozenset[str]
    data: FrozenDict
    timestamps: FrozenDict

    @classmethod
    def of(
        cls,
        parent: Document,
        chosen: Sequence[Field],
        start: Mapping[str, Any],
        stop: Mapping[str, Any] | None,
    ) -> _Change | None:
        descriptor, data, timestamps = derive_descriptor(parent, chosen, start, stop)
        if descriptor["uid"] == parent["uid"]:
            return None
        kept = frozenset(field.key for field in chosen if field.role == "data")
        return cls(descriptor, kept, freeze(data), freeze(timestamps))

    def apply(self, event: Document) -> Document:
        changed = {
            **event,
            "descriptor": self.descriptor["uid"],
            "data": self._kept(event["data"], self.data),
            "timestamps": self._kept(event["timestamps"], self.timestamps),
        }
        if isinstance(event.get("filled"), dict):
            changed["filled"] = self._kept(event["filled"], {})
        return frozen_document(changed)

    def _kept(self, values: Mapping[str, Any], more: dict[str, Any]) -> FrozenDict:
        kept = {k: v for k, v in values.items() if k in self.kept}
        return FrozenDict(kept | more if more else kept)
