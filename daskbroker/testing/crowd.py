"""A writer, sealers and readers on one MongoDB store at once, in processes of their own.

``python -m daskbroker.testing.crowd mongodb://host/database --seconds 60``. Writer and one sealer
are killed with SIGKILL every few moments and started anew. Every reading, of table and of
documents, has to be a beginning of what is written: no event missing, none twice. At the end
the store is compared with what the writers said was stored.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import dask

from ..config import connect
from .kill import check_store, write_until_killed

__all__ = ["main"]

SEAL_ROWS = 400


def _seal_for_ever(place: str, out: int, seed: int) -> None:
    """Seal everything, again and again."""
    choose = random.Random(seed)
    with connect(place) as db:
        while True:
            db.seal()
            os.write(out, b".")
            time.sleep(choose.uniform(0, 0.2))


def _read_for_ever(place: str, out: int, seed: int) -> None:
    """Read the newest runs, and see that nothing is missing or doubled."""
    choose = random.Random(seed)
    with connect(place, mode="r") as db:
        while True:
            for header in list(db[-2:]):
                if choose.random() < 0.5:
                    events = (doc for name, doc in header.documents() if name == "event")
                    numbers = [doc["data"]["n"] for doc in events]
                else:
                    numbers = _table_numbers(header)
                if numbers != list(range(len(numbers))):
                    os.write(out, f"{header.uid}: read {_gaps(numbers)}\n".encode())
                    os._exit(1)
                os.write(out, b".")
            time.sleep(0.01)


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
    """A forked process that writes to a pipe until it is killed."""

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
        """What it has written so far."""
        try:
            while piece := os.read(self._reading, 2**16):
                self._text += piece
        except BlockingIOError:
            pass
        return self._text.decode()

    def kill(self) -> str:
        """Kill it; what it has written.

        Raises
        ------
        SystemExit
            If it had ended by itself.
        """
        os.kill(self.number, signal.SIGKILL)
        _, status = os.waitpid(self.number, 0)
        text = self.said()
        os.close(self._reading)
        if not os.WIFSIGNALED(status):
            raise SystemExit(text[-1000:])
        return text


def main(arguments: list[str] | None = None) -> None:
    """Run the crowd for ``--seconds``."""
    parser = argparse.ArgumentParser(prog="python -m daskbroker.testing.crowd", description=__doc__)
    parser.add_argument("uri")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**31)
    sys.stdout.write(f"seed {seed}\n")
    choose = random.Random(seed)
    said: dict[int, int] = {}
    kills = readings = 0

    def start(work: Callable[[str, int, int], None]) -> _Process:
        return _Process(work, options.uri, choose.randrange(2**31))

    readers = [start(_read_for_ever), start(_read_for_ever)]
    sealers = [start(_seal_for_ever), start(_seal_for_ever)]
    writer = start(write_until_killed)
    deadline = time.monotonic() + options.seconds
    while time.monotonic() < deadline:
        time.sleep(choose.uniform(0.2, 2.0))
        if choose.random() < 0.5:
            _note(said, writer.kill())
            writer = start(write_until_killed)
        else:
            sealers[0].kill()
            sealers[0] = start(_seal_for_ever)
        kills += 1
    _note(said, writer.kill())
    for sealer in sealers:
        sealer.kill()
    for reader in readers:
        readings += reader.kill().count(".")
    events = check_store(options.uri, said)
    sys.stdout.write(
        f"{kills} kills, {readings} readings, {events:,} events, nothing lost or doubled\n"
    )


def _note(said: dict[int, int], text: str) -> None:
    for line in text.splitlines(keepends=True):
        if line.endswith("\n") and len(parts := line.split()) == 2:
            number, done = map(int, parts)
            said[number] = max(done, said.get(number, 0))


if __name__ == "__main__":
    main()
