"""What a store holds: its runs, streams and rows, its size and format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from ..broker import DataBroker
from ..core.chunks import ChunkPlan
from ..core.run_plan import stream_of
from ..header import Header

__all__ = ["SourceSummary", "StoreSummary", "StreamSummary", "count_runs", "summarize"]

BATCH = 500
"""So many runs are planned together."""


@dataclass
class SourceSummary:
    """What is told of an event source.

    Attributes
    ----------
    name
        In its broker.
    format
        Version of the store's format; None where none is noted.
    bytes
        What the store takes on its disks; None where that is not known.
    """

    name: str | None
    format: int | None
    bytes: int | None


@dataclass
class StreamSummary:
    """How many runs have a stream, and how many rows these are together."""

    runs: int = 0
    rows: int = 0


@dataclass
class StoreSummary:
    """What is told of a store; see :func:`summarize` and :func:`count_runs`.

    Attributes
    ----------
    place
        Of the broker.
    timezone
        In which it shows times.
    runs
        That can be read.
    sources
        Its event sources.
    open, streams, sealed, waiting
        Runs without a stop; runs and rows by stream; rows that are in columnar chunks, and those
        in the journal. None until they are counted.
    """

    place: str | None
    timezone: str
    runs: int
    sources: list[SourceSummary]
    open: int | None = None
    sealed: int | None = None
    waiting: int | None = None
    streams: dict[str, StreamSummary] | None = field(default=None)

    def to_dict(self) -> dict[str, Any]:
        """All of it, without what has not been counted."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def summarize(broker: DataBroker) -> StoreSummary:
    """What can be told of a store without a look at each run."""
    sources = [
        SourceSummary(source.name, source.store.format_version, source.store.stored_bytes())
        for source in broker.event_sources
    ]
    return StoreSummary(broker.uri, broker.timezone, len(broker), sources)


def count_runs(summary: StoreSummary, broker: DataBroker, headers: Iterable[Header]) -> None:
    """Add what is counted run by run; no events are read.

    Runs that cannot be planned do not count.
    """
    summary.open = summary.sealed = summary.waiting = 0
    summary.streams = {}
    for batch in _batches(headers):
        summary.open += sum(header.known_stop is None for header in batch)
        having: set[tuple[str, str]] = set()
        for source in broker.event_sources:
            plan = source.store.plan_runs([header.uid for header in batch])
            _add(summary, plan.without(plan.bad).events, having)
        for _, name in having:
            summary.streams[name].runs += 1


def _batches(headers: Iterable[Header]) -> Iterator[list[Header]]:
    coming = iter(headers)
    while batch := list(islice(coming, BATCH)):
        yield batch


def _add(summary: StoreSummary, events: ChunkPlan, having: set[tuple[str, str]]) -> None:
    """Count the rows of a plan, and note which runs have which stream."""
    names = [stream_of(descriptor) for descriptor in events.descriptors]
    having |= {(d["run_start"], name) for d, name in zip(events.descriptors, names)}
    streams = summary.streams or {}
    for name in names:
        streams.setdefault(name, StreamSummary())
    owners, rows = (events.records[part].tolist() for part in ("descriptor", "rows"))
    for key, owner, count in zip(events.keys, owners, rows, strict=True):
        streams[names[owner]].rows += count
        if events.reader.is_final(key):
            summary.sealed = (summary.sealed or 0) + count
        elif not isinstance(key, range):  # of such rows only detector files tell
            summary.waiting = (summary.waiting or 0) + count
    summary.streams = streams
