"""Take over runs that TiledWriter wrote: tables are copied, detector files are referred to.

Everything is requested from the server, one request at a time; its database is never read. Tiled
keeps a converted form of the documents, and the report names what that form does not keep.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from ..broker import DataBroker
from ..core.errors import BadDocument, BadRecording, ConfigError
from ..core.printable import counted
from . import SCHEME
from .taken_streams import TakenStream, shared_files

ROWS_TOGETHER = 1000
"""Maximum number of events in an inserted page."""


@dataclass
class TakingReport:
    """Report of :func:`take_runs`.

    Attributes
    ----------
    taken
        Uids of runs that are complete now, and were not before.
    there
        Uids of runs that were complete before.
    open
        Uids of runs that have no stop in Tiled; what exists of them was taken.
    rows
        Number of events of the runs that were processed, including those already stored.
    failed
        Runs that were not taken, as ``{uid: reason}``.
    lost
        What Tiled had not kept, and of which runs, as ``{what: [uid, …]}``.
    """

    taken: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    rows: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    lost: dict[str, list[str]] = field(default_factory=dict)

    def lose(self, what: str, uid: str) -> None:
        """Note what Tiled had not kept of a run."""
        runs = self.lost.setdefault(what, [])
        if uid not in runs:
            runs.append(uid)

    def __str__(self) -> str:
        text = f"{counted(len(self.taken), 'run')} taken, with {counted(self.rows, 'event')}"
        if self.there:
            text += f"; {len(self.there):,} there already"
        if self.open:
            text += f"; {len(self.open):,} have no stop"
        return text + (f"; {len(self.failed):,} failed" if self.failed else "")


@contextmanager
def open_tiled(url: str) -> Iterator[Any]:
    """Open the Tiled client of a catalogue at ``tiled+http://host:8000/path``.

    It is closed at the end of the block. The API key is taken from the URL (``?api_key=``) or from
    ``TILED_API_KEY``.

    Raises
    ------
    ConfigError
        If no server answers, or the node at this URL is not a catalogue.
    """
    from tiled.client import from_uri

    address = url.removeprefix(SCHEME)
    try:
        client = from_uri(address, include_data_sources=True)
    except (httpx.HTTPError, ValueError) as error:
        raise ConfigError(f"{address.partition('?')[0]}: no Tiled server: {error}") from error
    try:
        if not hasattr(client, "search"):
            raise ConfigError(f"{address.partition('?')[0]}: this is not a catalogue of runs")
        yield client
    finally:
        client.context.http_client.close()


def take_runs(
    db: DataBroker,
    catalog: Any,
    *,
    limit: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> TakingReport:
    """Take over the runs of a catalogue; may be interrupted and repeated.

    A run is checked before any of its documents is inserted: all parts of a stream must have the
    same number of rows, and not fewer than the stop document says. The stop is inserted last, so a
    run that has one is complete and is skipped. Other runs are inserted again as a whole, which
    does not change what is already stored.

    Parameters
    ----------
    db
        Broker to insert into.
    catalog
        Tiled client of a catalogue of runs, or of a search in it; see :func:`open_tiled`.
    limit
        Maximum number of runs, taken from the newest; all runs if None.
    progress
        Function that is called with the uid of each run.

    Returns
    -------
    TakingReport
        Report that also lists runs that could not be taken; they do not stop the others.
    """
    report = TakingReport()
    for run in _runs(catalog, limit):
        uid = str(run.metadata["start"]["uid"])
        if progress is not None:
            progress(uid)
        stored = db.header_source.store.find_uid(uid)
        if stored is not None and stored[1] is not None:
            report.there.append(uid)
            continue
        try:
            _take(db, run, uid, report)
        except (BadDocument, BadRecording, httpx.HTTPError, KeyError, ValueError) as error:
            report.failed[uid] = f"{type(error).__name__}: {error}"
    db.flush()
    return report


def _runs(catalog: Any, limit: int | None) -> Iterator[Any]:
    """Yield the nodes that are runs, oldest first; other nodes of the catalogue are ignored."""
    values = catalog.values()
    some: Sequence[Any] | Iterator[Any] = values
    if limit is not None:
        some = list(values.tail(limit))
    for node in some:
        if "start" in node.metadata and any(spec.name == "BlueskyRun" for spec in node.specs):
            yield node


def _take(db: DataBroker, run: Any, uid: str, report: TakingReport) -> None:
    base = run.base
    streams = [TakenStream(uid, name, base[name]) for name in run]
    expected = (run.metadata.get("stop") or {}).get("num_events", {})
    shared = shared_files(streams)
    if shared:
        raise BadRecording(
            f"several streams refer to the same file, {shared}; Tiled has not kept which frames "
            "are whose, and shows the first ones in each"
        )
    for stream in streams:
        stream.check(expected.get(stream.name))
    db.insert("start", run.metadata["start"])
    for stream in streams:
        for name, doc in stream.documents(ROWS_TOGETHER):
            db.insert(name, doc, run=uid)
            if name == "event_page":
                report.rows += len(doc["seq_num"])
        for what in stream.lost:
            report.lose(what, uid)
    for note in run.metadata.get("notes", ()):
        report.lose(f"TiledWriter noted: {note}", uid)
    stop = run.metadata.get("stop")
    if stop is None:
        report.open.append(uid)
        return
    db.insert("stop", {"uid": str(uuid.uuid5(uuid.NAMESPACE_URL, uid)), **stop})
    report.taken.append(uid)
