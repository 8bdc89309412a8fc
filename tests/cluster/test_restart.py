"""A real scheduler and worker, as on a cluster; the scheduler dies and another one comes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from distributed import Client

import daskbroker


class Cluster:
    """``dask scheduler`` and ``dask worker`` on loopback, with logs in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self._port}"
        self._processes: list[subprocess.Popen] = []

    def start(self) -> None:
        self._run("scheduler", "--host", "127.0.0.1", "--port", str(self._port), "--no-dashboard")
        self._run("worker", self.address, "--nthreads", "2", "--no-dashboard", "--no-nanny")

    def _run(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "dask", *arguments]
        log = (self._folder / f"{arguments[0]}.log").open("a")
        root = str(Path(daskbroker.__file__).parents[1])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._processes.append(
            subprocess.Popen(
                command, cwd=self._folder, stdout=log, stderr=log,
                env={**os.environ, "PYTHONPATH": paths},
            )
        )  # fmt: skip
        log.close()

    def kill(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
        self._processes.clear()


@pytest.fixture
def real_cluster(tmp_path):
    cluster = Cluster(tmp_path)
    cluster.start()
    yield cluster
    cluster.kill()


def test_objects_outlive_the_scheduler(runs, real_cluster):
    header = next(iter(runs))
    views = {
        "table": lambda client: len(header_table.compute(scheduler=client)),
        "dataset": lambda client: dataset["x"].mean().compute(scheduler=client).item(),
        "map": lambda client: sorted(o.result() for o in runs.map(number_of, client=client)),
    }
    header_table, dataset = header.table(), header.dataset()

    def number_of(header):
        return header.start["number"]

    found = []
    for attempt in range(2):
        with Client(real_cluster.address, timeout=30, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=30)
            found.append({name: view(client) for name, view in views.items()})
            if attempt == 0:
                real_cluster.kill()
                time.sleep(0.1)
                real_cluster.start()
    assert found[0] == found[1]
    assert found[0]["table"] == 20
    assert found[0]["map"] == list(range(10))


def test_calls_fail_clearly_when_the_scheduler_is_lost(runs, real_cluster):
    def slow(header):
        time.sleep(30)

    with Client(real_cluster.address, timeout=30, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=30)
        outcomes = runs.map(slow, client=client, in_flight=2)
        threading.Timer(1.0, real_cluster.kill).start()
        outcome = next(outcomes)
        assert "scheduler was lost" in str(outcome.error)
        assert outcome.header in list(runs)
        outcomes.close()
