"""Yield a run as its stream of documents, by going through its chunks.

The run's resources and datums come first; then, by time, each descriptor, its events, and each
stream_datum just before the first event that it has frames for. So every document comes before
those that refer to it. Only the chunks being decoded, and those read ahead, are in memory.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain, repeat
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...assets.access import FileAccess
from ...assets.filling.event_filling import wanted_keys
from ...assets.filling.filling import Filling
from ...core.bad_runs import BadRun, warn_of_bad
from ...core.chunks import ChunkPlan, damaged
from ...core.documents import ALL, Document, NamedDocument, frozen_document
from ...core.errors import StoreDamaged
from ...core.external import datum_keys, stream_keys
from ...core.fields import check_metadata, select
from ...core.layouts import DATUM, EVENT, STREAM_DATUM, Layout, iter_rows
from ...core.run_plan import RunPlan, resources_of
from ..missing import check_fill_names
from ..row_order import later_of
from ..view_options import ViewOptions
from .field_changes import Change, changes_of
from .filled_ahead import EventChunk, fill_chunks
from .merging import by_time
from .prefetch import Prefetcher
from .stream_frames import StreamFrames, sound

_Track = Iterator[NamedDocument]
"""Documents of one descriptor."""


@dataclass
class Uses:
    """References of the requested streams that were found so far.

    Attributes
    ----------
    resources
        Uids of the resources and stream_resources.
    unresolved
        Ids of datums that events refer to, but that have not come yet.
    """

    resources: set[str] = field(default_factory=set)
    unresolved: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Source:
    """The part of the run that one event source has, and how its external data is filled."""

    plan: RunPlan
    all_streams: bool
    filling: Filling | None
    uses: Uses = field(default_factory=Uses)

    @property
    def datums(self) -> ChunkPlan:
        return self.plan.references[DATUM.kind]

    @property
    def stream_datums(self) -> ChunkPlan:
        return self.plan.references[STREAM_DATUM.kind]

    @cached_property
    def frames(self) -> StreamFrames:
        return StreamFrames(self.stream_datums)


def stream_documents(
    sources: Sequence[tuple[RunPlan, FileAccess]],
    start: Mapping[str, Any],
    stop: Mapping[str, Any] | None,
    options: ViewOptions,
    *,
    all_streams: bool = True,
    ahead: Prefetcher | None = None,
) -> Iterator[NamedDocument]:
    """Yield all documents of a run except start and stop, by time, references first.

    This is lazy, but with `ahead`, reading begins at once, as far as its bounds allow.

    Parameters
    ----------
    sources
        Plan, references included, and access to detector files, of each event source of the run.
    start, stop
        Start and stop document of the run, for projections.
    options
        ``fields`` (descriptors change with them, and a stream that has none of them is left
        out), ``fill`` and the handlers. With ``errors="skip"``, events of damaged chunks are left
        out with a warning; damaged references are an error nevertheless.
    all_streams
        False if only some streams are planned; then only their references are yielded.
    ahead
        Prefetcher shared by many runs; one for this run alone if None.

    Yields
    ------
    (name, Document)

    Raises
    ------
    FieldNotFound
        If no stream has one of the fields; raised when the first document is requested.
    """
    alone = ahead is None
    begin = partial(_begun, sources, start, stop, options, all_streams=all_streams, alone=alone)
    # Nothing reads ahead, so the chunks are read as documents are taken.
    if ahead is None:
        return _lazily(begin, skip_damaged=options.errors == "skip")
    try:
        return begin(ahead)
    except Exception as error:  # raised with the first document, as if lazy
        return _failing(error)


def _lazily(
    begin: Callable[[Prefetcher], Iterator[NamedDocument]], *, skip_damaged: bool = False
) -> Iterator[NamedDocument]:
    with Prefetcher(skip_damaged=skip_damaged) as ahead:
        yield from begin(ahead)


def _failing(error: Exception) -> Iterator[NamedDocument]:
    raise error
    yield


def _begun(
    sources: Sequence[tuple[RunPlan, FileAccess]],
    start: Mapping[str, Any],
    stop: Mapping[str, Any] | None,
    options: ViewOptions,
    ahead: Prefetcher,
    *,
    all_streams: bool,
    alone: bool,
) -> Iterator[NamedDocument]:
    fields = None if options.fields is ALL else options.fields
    descriptors = [d for plan, _ in sources for d in plan.descriptors]
    # Before the first document, so that a wrong field raises at once.
    if fields is not None:
        chosen = select(fields, descriptors)
        if alone:  # of many runs, some may lack metadata that others have
            check_metadata(chosen, [(start, stop)])
    if alone:
        check_fill_names(options.external.fill_value, descriptors)
    runs = {start["uid"]: (start, stop)}
    parts = [
        _Source(plan, all_streams, options.filling(plan, files, runs)) for plan, files in sources
    ]
    return _documents(parts, start, stop, fields, ahead)


def new_documents(
    parts: Sequence[tuple[RunPlan, Filling | None, Uses]],
    start: Mapping[str, Any],
    options: ViewOptions,
    *,
    all_streams: bool = True,
) -> Iterator[NamedDocument]:
    """Yield the documents of a part of a run that has no stop yet.

    Parameters
    ----------
    parts
        Plan of the wanted part, filling of the whole run, and references of the streams so far,
        for each event source. The references are updated in place.
    start, options, all_streams
        As for :func:`stream_documents`. A field that no stream has is not an error, as it may
        come later.

    Yields
    ------
    (name, Document)
    """
    sources = [_Source(plan, all_streams, filling, uses) for plan, filling, uses in parts]
    fields = None if options.fields is ALL else options.fields
    return _lazily(partial(_documents, sources, start, None, fields))


def _documents(
    sources: Sequence[_Source],
    start: Mapping[str, Any],
    stop: Mapping[str, Any] | None,
    fields: object,
    ahead: Prefetcher,
) -> Iterator[NamedDocument]:
    tracks = [
        _track(source, index, change, _events(source, index, change, ahead), ahead)
        for source in sources
        for index, change in sorted(
            changes_of(source.plan.descriptors, start, stop, fields).items()
        )
    ]
    return chain(_references(sources, ahead), by_time(tracks))


def _references(sources: Sequence[_Source], ahead: Prefetcher) -> Iterator[NamedDocument]:
    given: set[tuple[str, str]] = set()
    used = [None if source.all_streams else _used_resources(source) for source in sources]
    for source, wanted in zip(sources, used, strict=True):
        for name, doc in resources_of(source.plan.references):
            # Several event sources may have the same reference; or only some streams are wanted.
            if (name, doc["uid"]) in given or (wanted is not None and doc["uid"] not in wanted):
                continue
            given.add((name, doc["uid"]))
            yield name, doc
    datums_given: set[str] = set()
    for number, (source, wanted) in enumerate(zip(sources, used, strict=True)):
        for *_, docs in _decoded(source.datums, DATUM, range(len(source.datums)), ahead):
            for doc in docs:
                if wanted is not None and doc["resource"] not in wanted:
                    continue
                # The last source need not be remembered, and a single one not be compared.
                if len(sources) > 1:
                    if doc["datum_id"] in datums_given:
                        continue
                    if number < len(sources) - 1:
                        datums_given.add(doc["datum_id"])
                yield "datum", doc


def _used_resources(source: _Source) -> set[str]:
    """Return the uids of the resources that the requested streams refer to.

    They are found from the datum ids of events, and from stream_datums.
    """
    used = source.uses.resources
    _look_for_datums(source)
    uids = {descriptor["uid"] for descriptor in source.plan.descriptors}
    for index in range(len(source.stream_datums)):
        table = source.stream_datums.read(index, ["descriptor", STREAM_DATUM.owner])
        for descriptor, resource in zip(*table.to_pydict().values(), strict=True):
            # References of other streams share the chunk.
            if descriptor in uids:
                used.add(resource)
    return used


def _look_for_datums(source: _Source) -> None:
    """Add the resources of the datums that events refer to; keep the ids of unknown datums."""
    external = {
        f"data:{key}" for descriptor in source.plan.descriptors for key in datum_keys(descriptor)
    }
    datum_ids = source.uses.unresolved
    for index in range(len(source.plan.events)) if external else ():
        for column in source.plan.events.read(index, sorted(external)).columns:
            datum_ids.update(value for value in column.to_pylist() if isinstance(value, str))
    # No external data by datum, so the datums need not be read.
    if not datum_ids:
        return
    wanted = pa.array(datum_ids, pa.string())
    for index in range(len(source.datums)):
        table = source.datums.read(index, [DATUM.uid, DATUM.owner])
        found = table.filter(pc.is_in(table.column(DATUM.uid), wanted))
        source.uses.resources.update(found.column(DATUM.owner).unique().to_pylist())
        datum_ids.difference_update(found.column(DATUM.uid).to_pylist())


def _track(
    source: _Source,
    index: int,
    change: Change | None,
    coming: Iterator[Iterator[Document]],
    ahead: Prefetcher,
) -> _Track:
    """Yield one descriptor, its events, and its stream_datums between them."""
    parent = source.plan.descriptors[index]
    descriptor = parent if change is None else change.descriptor
    yield "descriptor", descriptor
    frames = source.frames.of(parent["uid"], ahead)
    waiting = next(frames, None)
    for events in coming:
        # Nothing to change, and no frames to put between the events.
        if change is None and waiting is None:
            yield from zip(repeat("event"), events)
            continue
        for event in events:
            # A stream_datum comes before the first of its events.
            while waiting is not None and waiting["seq_nums"]["start"] <= event["seq_num"]:
                yield "stream_datum", _of_descriptor(waiting, descriptor)
                waiting = next(frames, None)
            yield "event", event if change is None else change.apply(event)
    while waiting is not None:
        yield "stream_datum", _of_descriptor(waiting, descriptor)
        waiting = next(frames, None)


def _of_descriptor(doc: Document, descriptor: Document) -> Document:
    """Return the stream_datum with the uid of the yielded descriptor, which may be derived."""
    # Not derived, so the stored document is yielded itself.
    if doc["descriptor"] == descriptor["uid"]:
        return doc
    return frozen_document({**doc, "descriptor": descriptor["uid"]})


def _events(
    source: _Source, index: int, change: Change | None, ahead: Prefetcher
) -> Iterator[Iterator[Document]]:
    """Yield the events of a descriptor in batches, with the chosen external keys filled."""
    plan, parent = source.plan.events, source.plan.descriptors[index]
    keys = wanted_keys(parent, None if change is None else change.kept)
    chunks = np.flatnonzero(plan.records["descriptor"] == index).tolist()
    coming = _decoded(plan, EVENT, chunks, ahead)
    # References stay as they are.
    if source.filling is None or not keys:
        return (events for *_, events in coming)
    later = later_of(plan, chunks) if set(keys) & set(stream_keys(parent)) else {}
    read = (
        EventChunk(table, events, (bisect(chunks, one) - 0.5) / len(chunks), later.get(one))
        for one, table, events in coming
    )
    return fill_chunks(source.filling, parent, read, keys, ahead)


def _decoded(
    plan: ChunkPlan, layout: Layout, indices: Iterable[int], ahead: Prefetcher
) -> Iterator[tuple[int, pa.Table, Iterator[Document]]]:
    """Yield position, table and documents of each chunk, read ahead.

    Chunks of events that are damaged are left out, with a warning, if the prefetcher skips them.
    Ranges of ``seq_num`` without a stored chunk have no documents.

    Raises
    ------
    StoreDamaged
        If another chunk is damaged.
    """
    found = [index for index in indices if not isinstance(plan.keys[index], range)]
    # An empty plan need not start to read ahead.
    if not found:
        return
    owners = plan.records["descriptor"]
    for index, table in zip(found, ahead.tables(plan, found)):
        owner = plan.descriptors[int(owners[index])]
        try:  # damage_of would need the label of every chunk; here only damaged ones need it
            rows = iter_rows(layout, sound(table), owner["uid"])
        except StoreDamaged as error:
            problem = damaged(plan.label(index), error)
            if not (ahead.skip_damaged and layout is EVENT):
                raise problem from error
            warn_of_bad(BadRun(owner["run_start"], str(problem)))
            continue
        yield index, table, rows
