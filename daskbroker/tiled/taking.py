"""Runs that TiledWriter wrote become runs of ours: tables copied, detector files referred to.

Everything is asked of the server, one request at a time; nothing reads its database. Tiled keeps
what it has made of documents, and each thing that it does not keep is named in the report.
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
from .taken_streams import TakenStream, shared_files

__all__ = ["SCHEME", "TakingReport", "open_tiled", "take_runs"]

SCHEME = "tiled+"
"""Before ``http://`` and ``https://``: what is there is a Tiled server."""
ROWS_TOGETHER = 1000


@dataclass
class TakingReport:
    """What :func:`take_runs` did.

    Attributes
    ----------
    taken
        Uids of runs that are complete now, and were not before.
    there
        Uids of runs that were complete before.
    open
        Uids of runs that have no stop in Tiled; what there is of them was taken.
    rows
        How many events were inserted, or were there.
    failed
        ``{uid: why}`` of runs that were not taken.
    lost
        ``{what: [uid, …]}``: what Tiled had not kept of which runs.
    """

    taken: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    rows: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    lost: dict[str, list[str]] = field(default_factory=dict)

    def lose(self, what: str, uid: str) -> None:
        """Note what is not there of a run."""
        runs = self.lost.setdefault(what, [])
        if uid not in runs:
            runs.append(uid)

    def __str__(self) -> str:
        text = f"{len(self.taken):,} runs taken, with {self.rows:,} events"
        if self.there:
            text += f"; {len(self.there):,} were there"
        if self.open:
            text += f"; {len(self.open):,} have no stop"
        return text + (f"; {len(self.failed):,} failed" if self.failed else "")


@contextmanager
def open_tiled(url: str) -> Iterator[Any]:
    """The client of a catalogue, at ``tiled+http://host:8000/path``; closed with the block.

    A key is in the URL (``?api_key=``) or in ``TILED_API_KEY``.

    Raises
    ------
    ConfigError
        If nothing answers there, or there is no catalogue of runs.
    """
    from tiled.client import from_uri

    address = url.removeprefix(SCHEME)
    try:
        client = from_uri(address, include_data_sources=True)
    except (httpx.HTTPError, ValueError) as error:
        raise ConfigError(f"{address.partition('?')[0]}: no Tiled server: {error}") from error
    try:
        if not hasattr(client, "search"):
            raise ConfigError(f"{address.partition('?')[0]}: this is no catalogue of runs")
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

    A run is checked before anything of it is inserted: each part of a stream must have as many rows
    as the others, and not fewer than the stop document says. Its stop comes last, so a run that
    has one is complete; of others all is inserted again, which changes nothing that is there.

    Parameters
    ----------
    db
        Takes them.
    catalog
        A client of Tiled at a catalogue of runs, or at a search of it; see :func:`open_tiled`.
    limit
        At most so many, the newest ones.
    progress
        Called with the uid of each run.

    Returns
    -------
    TakingReport
        Runs that could not be taken are in it, and do not stop the others.
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
    """Those nodes that are runs, oldest first; what else is in the catalogue is passed over."""
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
