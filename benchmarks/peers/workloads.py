"""Workloads beside peers: thousands of short runs, inserts, one column of many; and their list."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dask
import pymongo

import daskbroker
from benchmarks.checks import equals, has_count, holds
from benchmarks.data import Run, insert_all, mixed_columns
from benchmarks.harness import Against, Case, Workload
from benchmarks.peers.bench import Bench
from benchmarks.peers.commands import command_cases
from benchmarks.peers.environment import DATABROKER, DATABROKER_2
from benchmarks.peers.frames import images
from benchmarks.peers.long import UNSEALED, close_and_drop, long_run
from benchmarks.peers.process import Peer
from benchmarks.runs import EVENTS, is_wanted, places_of, short_run
from benchmarks.short_inserts import (
    DOCUMENTS,
    PARTS,
    NewStores,
    memory_folder,
    short_documents,
)
from benchmarks.tables import wide_cases
from daskbroker import DataBroker

__all__ = ["WORKLOADS"]

PEER = "databroker"
SUITCASE = "suitcase-mongo, events"


def short_runs(bench: Bench) -> Workload:
    """5,000 runs of 20 events: searches, and a table of 200 of them."""
    sizes = bench.sizes
    made = [short_run(number, sizes) for number in range(sizes.runs)]
    uids = [builder.uid for builder in made]
    documents = itertools.chain.from_iterable(builder.documents for builder in made)
    unsealed, sealed = bench.written("short", documents)
    places = places_of(sizes)
    keys: dict[str, list[Any]] = {
        "by uid": [uids[place] for place in places],
        "by prefix": [uids[place][:10] for place in places],
        "by scan_id": [place + 1 for place in places],
        "newest (-1)": [-1] * len(places),
    }
    cases: list[Case] = []
    for what, chosen in keys.items():
        expected = [uids[-1] if key == -1 else uids[p] for key, p in zip(chosen, places)]
        cases += _pair(
            bench,
            what,
            lambda chosen=chosen: [unsealed[key].uid for key in chosen],
            {"do": "lookups", "uri": str(unsealed.uri), "keys": chosen},
            equals(expected),
            5.0,
        )
    query = {"group": "wanted"}
    wanted = [uid for number, uid in enumerate(uids) if is_wanted(number, sizes)][::-1]
    about = {"uri": str(unsealed.uri), "query": query}
    cases += _pair(
        bench,
        "query",
        lambda: [header.uid for header in unsealed(**query)],
        {"do": "search", **about},
        equals(wanted),
        5.0,
    )
    table = f"search and table of {len(wanted):,}"
    cases += _pair(
        bench,
        table,
        lambda: len(sealed(**query).table().compute()),
        {"do": "tables", **about},
        has_count(len(wanted) * EVENTS),
        100.0,
    )
    cases.append(
        Case(
            f"{table}: {UNSEALED}",
            lambda: len(unsealed(**query).table().compute()),
            has_count(len(wanted) * EVENTS),
            (Against(f"{table}: {PEER}"),),
        )
    )
    cases += command_cases(str(sealed.uri), sizes.runs)
    return Workload(cases, lambda: close_and_drop(unsealed, sealed))


def _pair(
    bench: Bench,
    what: str,
    mine: Callable[[], Any],
    request: dict[str, Any],
    check: Callable[[Any], None],
    goal: float,
) -> list[Case]:
    """Return the cases of one task, done by daskbroker and by databroker 1 and 2."""

    def asked(name: str) -> Callable[[Peer], list[Case]]:
        return lambda peer: [Case(f"{what}: {name}", lambda: peer.ask(**request), check)]

    ours = Case(f"{what}: daskbroker", mine, check, (Against(f"{what}: {PEER}", None, goal),))
    return [
        *bench.beside(DATABROKER, asked(PEER)),
        *bench.beside(DATABROKER_2, asked(DATABROKER_2)),
        ours,
    ]


def inserting(bench: Bench) -> Workload:
    """One run of 12 columns, event by event and in pages, into an empty database each time.

    daskbroker waits until the server's log is on disk; suitcase-mongo does not. With a spool, an
    event is inserted when it is in a local file, and in MongoDB at the latest when the stop
    document is.
    """
    rows = bench.sizes.single_events
    run = Run(mixed_columns(rows))
    events = [*run.head, *run.events(), run.stop(rows)]
    pages = [*run.head, *run.pages(bench.sizes.small_page), run.stop(rows)]
    files = {"events": bench.recorded("events", events), "pages": bench.recorded("pages", pages)}
    database = _EmptyDatabase(bench.server)

    def theirs(form: str) -> Case:
        def ask() -> Any:
            return bench.peer.ask("write", file=files[form], uri=database.uri)

        return Case(
            f"suitcase-mongo, {form}", ask, None, (), rows, "events", prepare=database.renew
        )

    def mine(form: str, documents: list[Any], goal: float | None, *, spool: bool = False) -> Case:
        def insert() -> DataBroker:
            insert_all(database.broker, documents)
            return database.broker

        def check(broker: DataBroker) -> None:
            holds("x3", run.columns["x3"])(broker[run.uid].table().compute())

        against = (Against(SUITCASE, times_faster=goal),)
        if form == "pages":
            against = (*against, Against("suitcase-mongo, pages"))
        name = f"daskbroker, {form}" + (", spooled" if spool else "")
        prepare = partial(database.renew, spool=spool)
        return Case(name, insert, check, against, rows, "events", prepare=prepare)

    cases = [
        theirs("events"),
        theirs("pages"),
        mine("events", events, None),
        mine("events", events, 5.0, spool=True),
        mine("pages", pages, 50.0),
        mine("pages", pages, 50.0, spool=True),
    ]
    return Workload(cases, database.remove)


def short_inserting(bench: Bench) -> Workload:
    """250 runs of 13 documents: suitcase-mongo, and an embedded store in memory and on disk.

    suitcase-mongo does not wait for a disk. ``python -m benchmarks --only short-inserts`` measures
    the time of a run in syncs of the disk.
    """
    runs = [short_documents(number) for number in range(max(1, bench.sizes.runs // PARTS))]
    count = len(runs) * DOCUMENTS
    file = bench.recorded("short-inserts", itertools.chain.from_iterable(runs))
    database = _EmptyDatabase(bench.server)
    memory = memory_folder()
    stores = {"on disk": NewStores(bench.folder)}
    if memory is not None:
        stores["in memory"] = NewStores(Path(memory))

    def theirs() -> Any:
        return bench.peer.ask("write", file=file, uri=database.uri)

    def has_all(broker: DataBroker) -> None:
        if len(broker) != len(runs):
            raise AssertionError(f"{len(broker):,} of {len(runs):,} runs are there")

    cases = [Case("suitcase-mongo", theirs, None, (), count, "documents", prepare=database.renew)]
    for where, new in stores.items():
        goal = 2.0 if where == "in memory" else None
        cases.append(
            Case(
                f"daskbroker, embedded, {where}",
                lambda new=new: new.insert(runs),
                has_all,
                (Against("suitcase-mongo", times_faster=goal),),
                count,
                "documents",
            )
        )

    def close() -> None:
        database.remove()
        for new in stores.values():
            new.close()
        if memory is not None:
            shutil.rmtree(memory)

    return Workload(cases, close)


class _EmptyDatabase:
    """A database that is dropped before each use, and its broker."""

    def __init__(self, server: str) -> None:
        self.uri = f"{server}/inserting"
        self._client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(server)
        self._folder = tempfile.TemporaryDirectory(prefix="daskbroker-spool-")
        self.broker: DataBroker

    def renew(self, *, spool: bool = False) -> None:
        """Drop the database, and create the indexes, which are not timed (nor suitcase-mongo's)."""
        self.drop()
        with dask.config.set({"daskbroker.mongo-spool": self._folder.name if spool else None}):
            self.broker = daskbroker.connect(self.uri)
        self.broker.header_source.store.create_indexes()

    def drop(self) -> None:
        """Drop the database."""
        if hasattr(self, "broker"):
            self.broker.close()
        self._client.drop_database("inserting")

    def remove(self) -> None:
        """Drop the database, and remove its spool."""
        self.drop()
        self._folder.cleanup()


def wide(bench: Bench) -> Workload:
    """1M sealed events of 23 columns: one column and the whole table; too long for the peer."""
    broker = daskbroker.connect(f"{bench.server}/wide")
    return Workload(wide_cases(broker, bench.sizes), lambda: close_and_drop(broker))


WORKLOADS: dict[str, Callable[[Bench], Workload]] = {
    "long": long_run,
    "frames": images,
    "short": short_runs,
    "insert": inserting,
    "short-insert": short_inserting,
    "wide": wide,
}
