"""Let threads of several processes insert runs into one store.

Run by ``python -m daskbroker.testing.crowd PLACE --writers 4 --threads 20``: 4 processes of 20
threads each, which share the broker of their process. Afterwards every inserted run must be stored
as given, and the store must pass a check. If there are too few connections, an insert fails.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pymongo

from ..connect import connect
from ..work.checking import check
from .base import check_run
from .runs import Documents, claim

EVENTS = 20


def _documents(uid: str) -> Documents:
    """Return the documents of a run, which depend on its uid only."""
    begin = 1_760_000_000.0
    descriptor = f"{uid}-d"
    claims = {"n": claim(1), "x": claim(0.5)}
    events: Documents = [
        (
            "event",
            {
                "uid": f"{uid}-{number}",
                "descriptor": descriptor,
                "seq_num": number + 1,
                "time": begin + number,
                "data": {"n": number, "x": number / 7},
                "timestamps": {"n": begin + number, "x": begin + number},
                "filled": {},
            },
        )
        for number in range(EVENTS)
    ]
    head = {
        "uid": descriptor,
        "run_start": uid,
        "name": "primary",
        "time": begin,
        "data_keys": claims,
        "configuration": {},
        "hints": {},
        "object_keys": {},
    }
    stop = {"uid": f"{uid}-s", "run_start": uid, "time": begin + EVENTS, "exit_status": "success"}
    start = {"uid": uid, "time": begin, "scan_id": 1}
    return [("start", start), ("descriptor", head), *events, ("stop", stop)]


class _Writer:
    """Thread that inserts runs until a given time and then ends the last one."""

    def __init__(self, db: Any, name: str, until: float) -> None:
        self._db, self.name, self._until = db, name, until
        self.runs = 0
        self.slowest = 0.0
        self.error = ""
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def _work(self) -> None:
        try:
            while time.time() < self._until:
                for pair in _documents(f"{self.name}-{self.runs}"):
                    begin = time.monotonic()
                    self._db.insert(*pair)
                    self.slowest = max(self.slowest, time.monotonic() - begin)
                self.runs += 1
        except BaseException as error:
            self.error = f"{self.name}: {type(error).__name__}: {error}"


def _process(place: str, number: int, threads: int, until: float) -> dict[str, Any]:
    with connect(place) as db:
        writers = [_Writer(db, f"w{number}-{thread}", until) for thread in range(threads)]
        for writer in writers:
            writer.thread.join()
    return {
        "runs": {writer.name: writer.runs for writer in writers},
        "slowest": max(writer.slowest for writer in writers),
        "errors": [writer.error for writer in writers if writer.error],
    }


def _forked(place: str, number: int, threads: int, until: float) -> tuple[int, Any]:
    """Fork a process; return its id and the pipe that it reports to."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, os.fdopen(reading)
    os.close(reading)
    try:
        report = _process(place, number, threads, until)
    except BaseException as error:
        report = {"runs": {}, "slowest": 0.0, "errors": [f"{type(error).__name__}: {error}"]}
    with os.fdopen(writing, "w") as pipe:
        json.dump(report, pipe)
    os._exit(0)


def _connections(place: str, until: float) -> int:
    """Return the maximum number of connections to a MongoDB server; 0 for other stores."""
    if not place.startswith("mongodb"):
        return 0
    most = 0
    with closing(pymongo.MongoClient[dict[str, Any]](place)) as client:
        while time.time() < until:
            most = max(most, client.admin.command("serverStatus")["connections"]["current"])
            time.sleep(0.1)
    return most


def _inserted(reports: list[dict[str, Any]]) -> Iterator[str]:
    for report in reports:
        for name, runs in report["runs"].items():
            yield from (f"{name}-{number}" for number in range(runs))


def insert_at_once(place: str, writers: int, threads: int, seconds: float) -> None:
    """Insert for some seconds and compare the store with what was inserted.

    Parameters
    ----------
    place
        Place of a store, as for :func:`daskbroker.connect`.
    writers, threads
        Number of processes, and of the threads in each.
    seconds
        Seconds during which new runs are begun.

    Raises
    ------
    SystemExit
        If an insert failed, or if the store differs from what was inserted.
    """
    connect(place).close()
    until = time.time() + seconds
    processes = [_forked(place, number, threads, until) for number in range(writers)]
    connections = _connections(place, until)
    reports = []
    for child, pipe in processes:
        with pipe:
            reports.append(json.load(pipe))
        os.waitpid(child, 0)
    took = time.time() - until + seconds
    errors = [error for report in reports for error in report["errors"]]
    if errors:
        raise SystemExit("\n".join(errors))
    uids = list(_inserted(reports))
    with connect(place, mode="r") as db:
        for uid in uids:
            check_run(db[uid], _documents(uid))
        damages = [str(damage) for damage in check(db)]
    if damages:
        raise SystemExit("\n".join(damages))
    documents = len(uids) * (EVENTS + 3)
    slowest = max(report["slowest"] for report in reports)
    sys.stdout.write(
        f"{writers} processes of {threads} threads: {len(uids):,} runs, {documents:,} documents, "
        f"{documents / took:,.0f} a second, the slowest insert {slowest:.2f} s, at most "
        f"{connections} connections; nothing lost or doubled\n"
    )
