"""A beamline on one machine: a RunEngine, a proxy, two listeners, an analyst, a backup, a cluster.

Each is a process of its own. In the middle of a run a listener is restarted, and the store is
removed.
"""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed import Client, LocalCluster

import daskbroker
from daskbroker.core.errors import StoreReadOnly

TAKE_RUNS = Path(__file__).with_name("take_runs.py")


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError("this takes too long")
        time.sleep(0.1)


class Beamline:
    """The processes of a beamline, with their logs in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder / "store"
        self.published, self.subscribed = free_port(), free_port()
        self.processes: dict[str, subprocess.Popen] = {}

    def start(self, name: str, *command: object) -> None:
        with open(self.log(name), "w") as log:
            arguments = [sys.executable, "-u", *map(str, command)]
            self.processes[name] = subprocess.Popen(arguments, stdout=log, stderr=log)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def end(self, name: str) -> int:
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(60)

    def start_proxy(self) -> None:
        proxy = (
            "from bluesky.callbacks.zmq import Proxy; Proxy('127.0.0.1:{}', '127.0.0.1:{}').start()"
        )
        self.start("proxy", "-c", proxy.format(self.published, self.subscribed))

    def start_listener(self, name: str) -> None:
        self.start(
            name, "-m", "daskbroker", "listen", f"zmq://127.0.0.1:{self.subscribed}",
            "--db", self.store, "--spool", self.folder / "spool",
        )  # fmt: skip
        until(lambda: "connected" in self.log(name).read_text())

    def take_run(self, points: int, sample: str) -> None:
        self.start("RunEngine", TAKE_RUNS, f"127.0.0.1:{self.published}", points, sample)

    def run_engine_ends(self) -> str:
        """Return the uid of the run that it has taken."""
        process = self.processes.pop("RunEngine")
        assert process.wait(120) == 0, self.log("RunEngine").read_text()
        return self.log("RunEngine").read_text().split()[-1]


@contextmanager
def beamline() -> Iterator[Beamline]:
    with tempfile.TemporaryDirectory() as folder:
        made = Beamline(Path(folder))
        try:
            yield made
        finally:
            for name in list(made.processes):
                made.end(name)


def rows(db: daskbroker.DataBroker) -> int:
    """Return the number of rows of the newest run; 0 if there is none."""
    return len(db[-1].table()) if len(db) and db[-1].streams else 0


def main() -> None:
    with beamline() as here:
        here.start_proxy()
        for name in ("listener-1", "listener-2"):
            here.start_listener(name)

        # A listener is restarted in the middle of a run; the other one receives what it misses.
        here.take_run(12, "gold")
        with daskbroker.connect(here.store, create=False, mode="r") as db:
            until(lambda: rows(db) > 2)
            here.end("listener-1")
            here.start_listener("listener-1")
            uid = here.run_engine_ends()
            until(lambda: db[uid].stop)
            print("restarted in mid-run:", len(db[uid].table()), "of 12 events")

            # An analyst reads, and can change nothing.
            try:
                db.insert("start", {"uid": "not-from-a-beamline", "time": time.time()})
            except StoreReadOnly:
                print("an analyst's insert is refused")

        # The store is gone in the middle of a run: inserts raise, the scan goes on, documents wait.
        here.take_run(8, "silver")
        until(lambda: here.log("listener-2").read_text().count(" run ") > 1)
        away = here.store.rename(here.folder / "away")
        uid = here.run_engine_ends()
        print("the scan has ended; the store is not there:", not here.store.exists())
        until(lambda: "documents wait" in here.log("listener-2").read_text())
        away.rename(here.store)

        # Every night, while runs may be taken.
        with daskbroker.connect(here.store, create=False, mode="r") as db:
            until(lambda: uid in db and db[uid].stop)
            print("after the store was away:", len(db[uid].table()), "of 8 events")
        here.take_run(4, "copper")
        backup = here.folder / "backup"
        subprocess.run(
            [sys.executable, "-m", "daskbroker", "backup", backup, "--db", here.store],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        here.run_engine_ends()
        for name in ("listener-1", "listener-2"):
            print(name, "ends with status", here.end(name))

        # All runs on workers, which read the store's files themselves.
        with (
            LocalCluster(
                n_workers=2, dashboard_address=":0", silence_logs=logging.ERROR
            ) as cluster,
            Client(cluster),
            daskbroker.connect(backup, create=False, mode="r") as copy,
            daskbroker.connect(here.store, create=False, mode="r") as db,
        ):
            print("in the backup:", copy[uid].table()["det"].max().compute())
            table = db().table(fields=["motor", "det", "start:sample"])
            print(table.groupby("start:sample")["det"].max().compute().round(3).to_dict())


if __name__ == "__main__":
    main()
