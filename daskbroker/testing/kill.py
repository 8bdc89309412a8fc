"""Kill inserting processes at random moments and check that nothing is lost or repeated.

``python -m daskbroker.testing.kill --times 100`` is the full number; the test suite runs a few.
With ``--mongo URI`` (of a server, without a database) a MongoDB store is used. A writer inserts
events one by one and in pages, and reports each document as stored when its ``insert`` has
returned. It is killed with SIGKILL while it journals or seals. Then the store is opened and
compared with what the writer reported, and the next writer continues the same run.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import dask

from ..connect import connect
from ..core.errors import StoreUnavailable
from .runs import claim, page_of

T = TypeVar("T")
AWAY_SECONDS = 60.0
"""A server that is away for longer does not come back."""

PAGE = 1200
RUN_EVENTS = 6000


def until_it_answers(call: Callable[[], T]) -> T:
    """Return the result of a call, which is repeated while the server is unavailable."""
    deadline = time.monotonic() + AWAY_SECONDS
    while True:
        try:
            return call()
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _insert(db: Any, name: str, doc: dict[str, Any]) -> None:
    until_it_answers(lambda: db.insert(name, doc))


def _event(descriptor: str, number: int) -> dict[str, Any]:
    return {
        "uid": f"{descriptor}-{number}",
        "descriptor": descriptor,
        "seq_num": number + 1,
        "time": 1.0e9 + number,
        "data": {"n": number, "spectrum": [float(number)] * 200},
        "timestamps": {"n": 1.0e9 + number, "spectrum": 1.0e9 + number},
        "filled": {},
    }


def _page(descriptor: str, first: int) -> dict[str, Any]:
    return page_of([_event(descriptor, number) for number in range(first, first + PAGE)])


def _begin(db: Any, run: str, stored: set[str]) -> None:
    """Insert start and descriptor of a run, again if the last writer died in between."""
    start = {"uid": run, "time": 1.0e9 + int(run[4:])}
    descriptor = {
        "uid": f"{run}-d",
        "run_start": run,
        "time": start["time"],
        "name": "primary",
        "data_keys": {"n": claim(0), "spectrum": claim([0.0] * 200)},
        "configuration": {},
        "object_keys": {},
        "hints": {},
    }
    if run not in stored:
        _insert(db, "start", start)
    _insert(db, "descriptor", descriptor)


def write_until_killed(place: str, out: int, seed: int) -> None:
    """Insert until killed and print a line for each stored event; first repeat uncertain ones."""
    choose = random.Random(seed)
    with until_it_answers(lambda: connect(place)) as db:
        runs = until_it_answers(lambda: {header.uid: header for header in db})
        number = max(len(runs) - 1, 0)
        done = until_it_answers(lambda: _count(runs[f"run-{number}"])) if runs else 0
        while True:
            run = f"run-{number}"
            _begin(db, run, set(runs))
            while done < RUN_EVENTS:
                if choose.random() < 0.02:
                    _insert(db, "event_page", _page(f"{run}-d", done))
                    done += PAGE
                else:
                    _insert(db, "event", _event(f"{run}-d", done))
                    done += 1
                os.write(out, f"{number} {done}\n".encode())
            stop = {"uid": f"{run}-s", "run_start": run, "time": 2.0e9, "exit_status": "success"}
            _insert(db, "stop", stop)
            number, done = number + 1, 0


def _count(header: Any) -> int:
    return len(header.table("primary")) if header.streams else 0


def check_store(place: str, said: dict[int, int]) -> int:
    """Compare the store with what its writers reported; return the number of events."""
    total = 0
    with connect(place) as db:
        for header in db:
            number = int(header.uid[4:])
            events = [doc for name, doc in header.documents() if name == "event"]
            numbers = [doc["data"]["n"] for doc in events]
            promised = said.get(number, 0)
            if numbers != list(range(len(numbers))):
                raise SystemExit(f"{header.uid}: events missing or doubled")
            if len(numbers) < promised:
                raise SystemExit(f"{header.uid}: {promised} were stored, {len(numbers)} are there")
            if any(doc["data"]["spectrum"] != [float(doc["data"]["n"])] * 200 for doc in events):
                raise SystemExit(f"{header.uid}: values changed")
            # A writer may have died between the start and the descriptor.
            rows = len(header.table("primary").compute()) if header.streams else 0
            if rows != len(numbers):
                raise SystemExit(f"{header.uid}: table and documents differ")
            total += len(numbers)
    return total


def _one_life(place: str, seed: int, seconds: float, said: dict[int, int]) -> None:
    """Start a writer, kill it after some seconds, and note what it reported."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            write_until_killed(place, writing, seed)
        finally:
            os._exit(1)
    os.close(writing)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    with os.fdopen(reading, "rb") as lines:
        text = lines.read().decode()
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        raise SystemExit("the writer ended before it was killed")
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            number, done = map(int, line.split())
            said[number] = done


def new_place(server: str | None, folder: str, number: int) -> str:
    """Return a place for a new store: below a folder, or a database on a server."""
    if server is None:
        return str(Path(folder, str(number)))
    return f"{server.rstrip('/')}/{Path(folder).name}_{number}"


def main(arguments: list[str] | None = None) -> None:
    """Kill ``--times`` writers on one store, and check it after each."""
    parser = argparse.ArgumentParser(prog="python -m daskbroker.testing.kill", description=__doc__)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--mongo", metavar="URI", default=None)
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**31)
    choose = random.Random(seed)
    sys.stdout.write(f"seed {seed}\n")
    events = 0
    with tempfile.TemporaryDirectory(prefix="daskbroker-kill-") as folder:
        for life in range(options.times):
            if life % 10 == 0:  # a new store, so that checking stays quick
                said: dict[int, int] = {}
                place = new_place(options.mongo, folder, life)
            with dask.config.set({"daskbroker.seal-rows": choose.choice([20, 50, 400])}):
                _one_life(place, choose.randrange(2**31), choose.uniform(0.02, 0.8), said)
            events = check_store(place, said)
    sys.stdout.write(f"{options.times} kills, nothing lost or doubled; last {events:,} events\n")


if __name__ == "__main__":
    main()
