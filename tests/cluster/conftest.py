"""Runs on a cluster of two worker processes, which all tests share."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import cloudpickle
import dask
import pytest
from distributed import Client

from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all

sys.path.append(str(Path(__file__).parent))
import functions

cloudpickle.register_pickle_by_value(functions)  # workers need not find the module


@pytest.fixture
def client(cluster):
    """Dask's default while the test runs, whatever the tests' own scheduler is."""
    with Client(cluster) as client, dask.config.set(scheduler="dask.distributed"):
        client.wait_for_workers(2, timeout=30)
        yield client


@pytest.fixture
def runs(db):
    """Ten runs of twenty events; the k-th has ``number=k``, x sums to 190 + k."""
    for number in range(10):
        x = [place + number / 20 for place in range(20)]
        insert_all(db, make_run(keys={"x": x, "n": list(range(20))}, number=number))
    return db()


@pytest.fixture
def kill_worker(client):
    """A callable that kills one of the worker processes and waits for nobody."""

    def kill() -> None:
        for _ in range(100):
            pids = list(client.run(os.getpid, on_error="ignore").values())
            if pids:
                os.kill(pids[0], signal.SIGKILL)
                return
            time.sleep(0.1)

    return kill
