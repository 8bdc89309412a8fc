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
from distributed.core import Status

from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all

sys.path.append(str(Path(__file__).parent))
import functions

cloudpickle.register_pickle_by_value(functions)  # workers need not find the module


@pytest.fixture
def client(cluster):
    """Return a Client that is Dask's default during the test, in place of the local scheduler."""
    with Client(cluster) as client, dask.config.set(scheduler="dask.distributed"):
        client.wait_for_workers(2, timeout=30)
        yield client


@pytest.fixture
def runs(db):
    """Ten runs of twenty events; run k has ``number=k``, and its x sums to 190 + k."""
    for number in range(10):
        x = [place + number / 20 for place in range(20)]
        insert_all(db, make_run(keys={"x": x, "n": list(range(20))}, number=number))
    return db()


@pytest.fixture
def kill_worker(client, cluster):
    """A callable that kills one worker process, in turn, and does not wait for its successor.

    Only while both run: a nanny never replaces a process that dies before it has told the nanny
    that it started, and where the last worker is gone for good, tasks wait for ever.
    """

    nannies = list(cluster.workers.values())

    def kill() -> None:
        deadline = time.monotonic() + 60
        while not all(map(_is_running, nannies)):
            assert time.monotonic() < deadline, [nanny.status for nanny in nannies]
            time.sleep(0.05)
        os.kill(nannies[0].pid, signal.SIGKILL)
        nannies.append(nannies.pop(0))  # the other one is next

    return kill


def _is_running(nanny):
    process = nanny.process
    return process is not None and process.status is Status.running and process.is_alive()
