"""Summaries of stores: their runs, streams and rows, size and format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..broker import DataBroker
from ..core.batches import batched
from ..core.chunks import ChunkPlan
from ..core.run_plan import stream_of
from ..header import Header

BATCH = 500
"""Number of runs that are planned together."""


@dataclass
class SourceSummary:
    """Summary of an event source.

    Attributes
    ----------
    name
        Name of the source in its broker.
    format
        Version of the store's format. None if the store has no note of it.
    bytes
        Bytes that the store takes on its disks. None if not known.
    """

    name: str | None
    format: int | None
    bytes: int | None


@dataclass
class StreamSummary:
    """Number of runs that have a stream, and the total number of its rows in them."""

    runs: int = 0
    rows: int = 0


@dataclass
class StoreSummary:
    """Summary of a store; see :func:`summarize` and :func:`count_runs`.

    Attributes
    ----------
    place
        Uri of the broker.
    timezone
        Time zone in which the broker shows times.
    runs
        Number of runs that can be read.
    sources
        Summaries of the event sources.
    open
        Number of runs without a stop. None until counted.
    sealed, waiting
        Number of rows in sealed chunks, and of those in the journal. None until counted.
    streams
        Runs and rows by name of the stream. None until counted.
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
        """Return the summary as a dict, without fields that are None."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def summarize(broker: DataBroker) -> StoreSummary:
    """Return the part of a store's summary that needs no look at each run."""
    sources = [
        SourceSummary(source.name, source.store.format_version, source.store.stored_bytes())
        for source in broker.event_sources
    ]
    return StoreSummary(broker.uri, broker.timezone, len(broker), sources)


def count_runs(summary: StoreSummary, broker: DataBroker, headers: Iterable[Header]) -> None:
    """Add to a summary what has to be counted run by run; no events are read.

    Runs that cannot be planned are not counted.

    Parameters
    ----------
    summary
        Summary to fill in, from :func:`summarize`.
    broker
        Broker of the store.
    headers
        Runs to count.
    """
    summary.open = summary.sealed = summary.waiting = 0
    summary.streams = {}
    for batch in batched(headers, BATCH):
        summary.open += sum(header.known_stop is None for header in batch)
        having: set[tuple[str, str]] = set()
        for source in broker.event_sources:
            plan = source.store.plan_runs([header.uid for header in batch])
            _add(summary, plan.without(plan.bad).events, having)
        for _, name in having:
            summary.streams[name].runs += 1


def _add(summary: StoreSummary, events: ChunkPlan, having: set[tuple[str, str]]) -> None:
    """Count the rows of a plan, and add its pairs of run and stream to ``having``."""
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
        elif not isinstance(key, range):  # rows known only from detector files are not stored
            summary.waiting = (summary.waiting or 0) + count
    summary.streams = streams
