"""Let a writer, sealers and readers use one MongoDB store at once, each in its own process.

Run by ``python -m daskbroker.testing.crowd mongodb://host/database --seconds 60``. The writer and
one sealer are killed with SIGKILL every few moments and started again. Each table and each stream
of documents that is read must be a prefix of what is written, without missing or repeated events.
At the end the store is compared with what the writers reported as stored.

With ``--step-down`` the primary of a replica set is made to step down every few moments. With
``--kill-primaries`` in place of a uri the crowd uses a replica set of its own, whose primary is
killed with SIGKILL, often while the secondaries lag, and started again.

With ``--writers 4 --threads 20`` no process is killed: 4 processes of 20 threads insert at once,
into any store (:mod:`.many_writers`).
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import dask
import pymongo
from pymongo.errors import AutoReconnect

from ..connect import connect
from ..core.errors import StoreUnavailable
from .kill import AWAY_SECONDS, check_store, until_it_answers, write_until_killed
from .many_writers import insert_at_once
from .mongod import ReplicaSet, replica_set

SEAL_ROWS = 400


def _seal_for_ever(place: str, out: int, seed: int) -> None:
    """Seal all runs in an endless loop."""
    choose = random.Random(seed)
    with until_it_answers(lambda: connect(place)) as db:
        while True:
            until_it_answers(db.seal)
            os.write(out, b".")
            time.sleep(choose.uniform(0, 0.2))


def _read_for_ever(place: str, out: int, seed: int) -> None:
    """Read the newest runs in an endless loop; check that no event is missing or repeated."""
    choose = random.Random(seed)
    with until_it_answers(lambda: connect(place, mode="r")) as db:
        while True:
            for header in until_it_answers(lambda: list(db[-2:])):
                read = _document_numbers if choose.random() < 0.5 else _table_numbers
                try:
                    numbers = read(header)
                except StoreUnavailable:
                    continue
                if numbers != list(range(len(numbers))):
                    os.write(out, f"{header.uid}: read {_gaps(numbers)}\n".encode())
                    os._exit(1)
                os.write(out, b".")
            time.sleep(0.01)


def _document_numbers(header: Any) -> list[int]:
    return [doc["data"]["n"] for name, doc in header.documents() if name == "event"]


def _table_numbers(header: Any) -> list[int]:
    if "primary" not in header.streams:
        return []
    with dask.config.set(scheduler="synchronous"):
        numbers = header.table("primary", fields=["n"], duplicates="all").compute()["n"]
    return [int(number) for number in numbers]


def _gaps(numbers: list[int]) -> str:
    doubled = len(numbers) - len(set(numbers))
    missing = sorted(set(range(max(numbers) + 1)) - set(numbers))
    return f"{len(numbers)} events, {doubled} doubled, {len(missing)} missing {missing[:5]}"


class _Process:
    """Forked process that writes to a pipe until it is killed."""

    def __init__(self, work: Callable[[str, int, int], None], place: str, seed: int) -> None:
        self._reading, writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._text = b""
        self.number = os.fork()
        if self.number == 0:
            os.close(self._reading)
            with dask.config.set({"daskbroker.seal-rows": SEAL_ROWS}):
                try:
                    work(place, writing, seed)
                except BaseException as error:
                    os.write(writing, f"\n{type(error).__name__}: {error}\n".encode())
                os._exit(1)
        os.close(writing)

    def said(self) -> str:
        """Return what the process has written so far."""
        try:
            while piece := os.read(self._reading, 2**16):
                self._text += piece
        except BlockingIOError:
            pass
        return self._text.decode()

    def end(self) -> None:
        """Kill the process if it has not ended."""
        if self.number:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(self.number, signal.SIGKILL)
                os.waitpid(self.number, 0)

    def kill(self) -> str:
        """Kill the process and return what it has written.

        Raises
        ------
        SystemExit
            If the process had already ended.
        """
        os.kill(self.number, signal.SIGKILL)
        _, status = os.waitpid(self.number, 0)
        self.number = 0
        text = self.said()
        os.close(self._reading)
        if not os.WIFSIGNALED(status):
            raise SystemExit(text[-1000:])
        return text


class _Failovers:
    """Makes another member of a replica set its primary, in one of several ways."""

    def __init__(self, uri: str, members: ReplicaSet | None, choose: random.Random) -> None:
        self._uri, self._members, self._choose = uri, members, choose
        self.count = 0

    def __call__(self) -> None:
        self.count += 1
        if self._members is None:
            client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(self._uri)
            with client, suppress(AutoReconnect):  # it may close our connection
                client.admin.command({"replSetStepDown": 10, "force": True})
            return
        if self._choose.random() < 0.5:  # what has not reached the others will be rolled back
            self._members.hold_secondaries()
            time.sleep(self._choose.uniform(0, 0.5))
        self._members.kill_primary()
        self._members.release_secondaries()
        time.sleep(self._choose.uniform(0, 2.0))
        self._members.mend()


def main(arguments: list[str] | None = None) -> None:
    """Run the crowd for ``--seconds``."""
    parser = argparse.ArgumentParser(prog="python -m daskbroker.testing.crowd", description=__doc__)
    parser.add_argument("uri", nargs="?")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--step-down", action="store_true")
    parser.add_argument("--kill-primaries", action="store_true")
    parser.add_argument("--writers", type=int, help="processes that only insert")
    parser.add_argument("--threads", type=int, default=20, help="in each of them (20)")
    options = parser.parse_args(arguments)
    if (options.uri is None) != options.kill_primaries:
        parser.error("give either a uri or --kill-primaries")
    if options.writers is not None:
        if options.kill_primaries or options.step_down:
            parser.error("--writers only insert")
        insert_at_once(options.uri, options.writers, options.threads, options.seconds)
        return
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**31)
    sys.stdout.write(f"seed {seed}\n")
    choose = random.Random(seed)
    with ExitStack() as stack:
        members = stack.enter_context(replica_set()) if options.kill_primaries else None
        uri = options.uri if members is None else members.uri("crowd")
        changes = members is not None or options.step_down
        fail_over = _Failovers(uri, members, choose) if changes else None
        _run(uri, options.seconds, choose, fail_over)


def _run(uri: str, seconds: float, choose: random.Random, fail_over: _Failovers | None) -> None:
    said: dict[int, int] = {}
    kills = readings = 0
    running: list[_Process] = []

    def start(work: Callable[[str, int, int], None]) -> _Process:
        process = _Process(work, uri, choose.randrange(2**31))
        running.append(process)
        return process

    try:
        readers = [start(_read_for_ever), start(_read_for_ever)]
        sealers = [start(_seal_for_ever), start(_seal_for_ever)]
        writer = start(write_until_killed)
        _wait_for_begin(writer)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(choose.uniform(0.2, 2.0))
            if fail_over is not None and choose.random() < 0.5:
                fail_over()
            elif choose.random() < 0.5:
                _note(said, writer.kill())
                writer = start(write_until_killed)
                kills += 1
            else:
                sealers[0].kill()
                sealers[0] = start(_seal_for_ever)
                kills += 1
        _note(said, writer.kill())
        for sealer in sealers:
            sealer.kill()
        for reader in readers:
            readings += reader.kill().count(".")
    finally:
        for process in running:
            process.end()
    events = until_it_answers(lambda: check_store(uri, said))
    changes = "" if fail_over is None else f"{fail_over.count} failovers, "
    sys.stdout.write(
        f"{kills} kills, {changes}{readings} readings, {events:,} events, nothing lost or doubled\n"
    )


def _wait_for_begin(writer: _Process) -> None:
    """Wait until a run is stored; on a busy machine a new store takes a while."""
    deadline = time.monotonic() + AWAY_SECONDS
    while not writer.said() and time.monotonic() < deadline:
        time.sleep(0.05)


def _note(said: dict[int, int], text: str) -> None:
    for line in text.splitlines(keepends=True):
        if line.endswith("\n") and len(parts := line.split()) == 2:
            number, done = map(int, parts)
            said[number] = max(done, said.get(number, 0))


if __name__ == "__main__":
    main()
