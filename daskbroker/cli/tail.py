"""The command that shows runs and events as they are stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import copy_context
from functools import partial
from itertools import islice
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import DaskbrokerError
from .app import app, name_failed, names_of, query_of, say_json, say_of_run
from .options import Full, Limit, Store, Terms

if TYPE_CHECKING:
    from ..broker import DataBroker
    from ..header import Header

MOST_WAITING = 1000
"""Maximum number of documents that wait to be shown."""

Item = Any
"""Message of a thread: a header, a document of a run, an error, or its end."""


@app.command()
def tail(
    terms: Terms = None,
    db: Store = None,
    full: Full = None,
    stream: Annotated[
        str | None, typer.Option(help="Name of the only stream whose events are shown.")
    ] = None,
    fields: Annotated[list[str] | None, typer.Option(help="Data keys to show: motor,det.")] = None,
    limit: Limit = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds without new data after which the command ends."),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help='Each document as a line ["name", {...}]; ingest reads them.'),
    ] = False,
) -> None:
    """Show the events of new runs, and of the run in progress, as they are stored.

    Events that the run in progress already has are counted; with --json they are shown, too.
    """
    from ..connect import connect

    names = names_of(fields)
    with connect(db, create=False, mode="r") as broker:
        query = query_of(terms, full, None, None)
        show = _say_document if as_json else _Lines(broker, names).show
        for header, name, doc in _documents(broker, query, stream, names, limit, timeout):
            show(header, name, doc)


def _documents(
    broker: DataBroker,
    query: dict[str, Any],
    stream: str | None,
    fields: list[str],
    limit: int | None,
    timeout: float | None,
) -> Iterator[tuple[Header, str, Any]]:
    """Yield the documents of runs as they come.

    Each run is followed by a thread of its own, because several may be in progress.

    A run that cannot be read further is reported, and the others continue.
    """
    found: Queue[tuple[str, Item, Any]] = Queue(MOST_WAITING)
    coming = islice(_runs(broker, query, timeout), limit)
    working = 1
    _begin(found, partial(_put_runs, found, coming))
    while working:
        kind, item, doc = found.get()
        if kind == "run":
            working += 1
            options: dict[str, Any] = {"fields": fields or None, "timeout": timeout}
            options |= {} if stream is None else {"stream_name": stream}
            _begin(found, partial(_put_documents, found, item, options))
        elif kind == "end":
            working -= 1
        elif kind == "failed" and item is None:
            raise doc
        elif kind == "failed":
            name_failed(item.uid, doc)
        else:
            yield item, kind, doc


def _runs(broker: DataBroker, query: dict[str, Any], timeout: float | None) -> Iterator[Header]:
    """Yield the newest run if it is in progress, then new runs as they come."""
    new = broker.watch(**query, timeout=timeout)
    known = set()
    for header in islice(broker(**query), 1):
        if header.stop is None:
            known.add(header.uid)
            yield header
    yield from (header for header in new if header.uid not in known)


def _begin(queue: Queue[tuple[str, Item, Any]], work: Callable[[], None]) -> None:
    """Start a thread that ends with the process, and reports when its work is done."""

    def run() -> None:
        try:
            work()
        finally:
            queue.put(("end", None, None))

    Thread(target=copy_context().run, args=(run,), daemon=True).start()


def _put_runs(queue: Queue[tuple[str, Item, Any]], coming: Iterator[Header]) -> None:
    try:
        for header in coming:
            queue.put(("run", header, None))
    except (DaskbrokerError, OSError) as error:
        queue.put(("failed", None, error))


def _put_documents(
    queue: Queue[tuple[str, Item, Any]], header: Header, options: dict[str, Any]
) -> None:
    try:
        for name, doc in header.follow(**options):
            queue.put((name, header, doc))
    except (DaskbrokerError, OSError) as error:  # a TimeoutError is one
        queue.put(("failed", header, error))


def _say_document(header: Header, name: str, doc: object) -> None:
    say_json([name, doc])


class _Lines:
    """Printer of documents as lines for people.

    Parameters
    ----------
    broker
        Broker in whose zone times are shown.
    fields
        Data keys to show. If empty, those that the plan moved or measured.
    """

    def __init__(self, broker: DataBroker, fields: list[str]) -> None:
        self._zone = broker.timezone
        self._fields = fields
        self._begun = time.time()
        self._descriptors: dict[str, Mapping[str, Any]] = {}
        self._passed: dict[str, int] = {}

    def show(self, header: Header, name: str, doc: Any) -> None:
        """Print a line for a document, unless it is of no interest to people."""
        from ..core.clock import seconds_of

        if name == "start":
            say_of_run(header.uid, run_line(header.start, self._zone))
        elif name == "descriptor":
            self._descriptors[doc["uid"]] = doc
        elif name == "event" and seconds_of(doc) < self._begun:
            self._passed[header.uid] = self._passed.get(header.uid, 0) + 1
        elif name == "event":
            self._tell_passed(header)
            say_of_run(header.uid, self._event_line(header, doc))
        elif name == "stop":
            self._tell_passed(header)
            say_of_run(header.uid, stop_line(header.start, doc, self._zone))

    def _tell_passed(self, header: Header) -> None:
        passed = self._passed.pop(header.uid, 0)
        if passed:
            say_of_run(header.uid, f"{passed:,} events before")

    def _event_line(self, header: Header, doc: Mapping[str, Any]) -> str:
        from ..core.clock import show_time
        from ..core.run_plan import stream_of
        from ..display.hints import roles_of

        descriptor = self._descriptors[doc["descriptor"]]
        roles = roles_of(header.start, [descriptor])
        keys = self._fields or [key for key, role in roles.items() if role] or list(roles)
        told = "  ".join(f"{key}={_value(doc['data'][key])}" for key in keys if key in doc["data"])
        when = show_time(doc["time"], self._zone)
        return f"{when}  {stream_of(descriptor)} {doc['seq_num']}  {told}"


def _value(value: object) -> str:
    """Return a reading as a short text."""
    shape = getattr(value, "shape", None)
    if shape:
        return f"array {' × '.join(map(str, shape))}"
    if isinstance(value, (list, tuple, dict)):
        return f"{len(value):,} items"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def run_line(start: Mapping[str, Any], zone: str) -> str:
    """Return the line for a run that begins."""
    from ..display.facts import RunFacts

    fact = RunFacts.of(start, None, zone)
    told = [fact.time, " ".join(filter(None, ["run", fact.scan_id, fact.plan]))]
    return "  ".join(filter(None, [*told, fact.sample, fact.motors]))


def stop_line(start: Mapping[str, Any], stop: Mapping[str, Any], zone: str) -> str:
    """Return the line for a run that has ended."""
    from ..display.facts import RunFacts

    fact = RunFacts.of(start, stop, zone)
    points = f"{fact.points} points" if fact.points else ""
    return "  ".join(filter(None, ["ended:", fact.status, points, fact.duration]))
