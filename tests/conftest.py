"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import logging
import os
import sys
import uuid
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import dask
import hypothesis
import pymongo
import pytest

import daskbroker
from daskbroker.cli import main

pytest.register_assert_rewrite("daskbroker.testing")

# How long an example takes says nothing on a machine that does other work as well.
hypothesis.settings.register_profile("daskbroker", deadline=None)
hypothesis.settings.load_profile("daskbroker")


# Benchmarks are not installed; at the end, so that the installed daskbroker is what is tested.
sys.path.append(str(Path(__file__).parents[1]))


MEMORY = Path("/dev/shm")
ROOM = 2 << 30


@pytest.hookimpl(tryfirst=True)  # before the first folder is made
def pytest_configure(config):
    """Put the folders of tests into memory, if there is enough.

    No test shows anything about the disk of the machine: what is synced is seen by calls of the
    system. ``--basetemp`` and ``PYTEST_DEBUG_TEMPROOT`` name another place.
    """
    if config.option.basetemp or not MEMORY.is_dir():
        return
    status = os.statvfs(MEMORY)
    if status.f_bavail * status.f_frsize >= ROOM and not status.f_flag & os.ST_NOEXEC:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


LONG = (
    "test_demo.py", "test_benchmarks.py", "test_examples.py", "test_powerloss.py",
    "test_forking.py", "test_faults.py", "test_failing_calls.py", "test_site.py",
    "test_tutorial.py", "test_reprocess.py",
)  # fmt: skip
"""Files of few tests that take longest; most of them wait for programs of their own."""


def pytest_collection_modifyitems(config, items):
    """Of several processes, each takes a file at a time: the longest come first, the shortest last.

    One that begins a long file at the end would run alone. Tests of other files take about the same
    time each.
    """
    if hasattr(config, "workerinput"):
        tests = Counter(item.path for item in items)
        items.sort(key=lambda item: (item.path.name not in LONG, -tests[item.path]))


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """While tests are collected there is no garbage to look for, which would take a tenth of it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish():
    """Thousands of collected tests stay to the end: the collector of garbage leaves them out.

    Otherwise each of its full rounds, which benchmarks begin with, takes half a second.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _synchronous():
    """Small computations need no threads, and errors are plainer without; nor is anything done in
    the background, but where that is what is tested.
    """
    settings = {"scheduler": "synchronous", "daskbroker.peek-after-stop": False}
    with dask.config.set(settings):
        yield


@pytest.fixture
def db(tmp_path):
    with daskbroker.connect(tmp_path / "store") as broker:
        yield broker


@pytest.fixture(scope="session")
def mongod_uri():
    """Return the URI, without a database, of ``$DASKBROKER_TEST_MONGO`` or of a new server."""
    from daskbroker.testing.mongod import mongod  # after its asserts are set to be rewritten

    given = os.environ.get("DASKBROKER_TEST_MONGO")
    if given:
        yield given.rstrip("/")
    else:
        with mongod(in_memory=True) as server:
            yield server.uri


@pytest.fixture
def mongo_database(mongod_uri):
    """Return the URI of an empty database, which is dropped afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    yield f"{mongod_uri}/{name}"
    with pymongo.MongoClient(mongod_uri) as client:
        client.drop_database(name)


@pytest.fixture(scope="session")
def running_set():
    """Start a replica set of three MongoDB servers."""
    from daskbroker.testing.mongod import replica_set

    with replica_set() as members:
        yield members


@pytest.fixture
def members(running_set):
    """Return the servers, for a test that kills or stops them; they are restored afterwards."""
    yield running_set
    running_set.mend()


@pytest.fixture(scope="module")
def log_package(tmp_path_factory):
    """Return a folder with the example store as an installed package: its module and metadata.

    Processes that are started while a test runs that uses it find it too.
    """
    example = Path(__file__).parents[1] / "examples" / "log_store.py"
    folder = tmp_path_factory.mktemp("site")
    information = folder / "log_store-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: log-store\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[daskbroker.stores]\nlog = log_store:open_log\n")
    (folder / example.name).write_text(example.read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield folder


@pytest.fixture
def run_command(monkeypatch, capfd):
    """Run a command line in this process; return its exit status and output.

    ``run_command(*arguments, cwd=None, **environment)``
    """

    def run(*arguments, cwd=None, **environment):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["daskbroker", *map(str, arguments)])
            patch.delenv("COLUMNS", raising=False)  # of the terminal that the tests are run in
            for name, value in environment.items():
                patch.setenv(name, value)
            if cwd is not None:
                patch.chdir(cwd)
            capfd.readouterr()
            with pytest.raises(SystemExit) as ended:
                main()
        printed = capfd.readouterr()
        return SimpleNamespace(returncode=ended.value.code, stdout=printed.out, stderr=printed.err)

    return run


QUIET = ("distributed", "distributed.nanny", "distributed.scheduler", "distributed.worker")
QUIET_WORKER = "import logging; logging.getLogger('distributed').setLevel(logging.CRITICAL)"


@pytest.fixture(scope="session")
def cluster():
    """Start two worker processes. Some tests kill them, and their nannies restart them."""
    from distributed import LocalCluster

    from daskbroker.testing.processes import PROCESSES

    # Workers, and the successors of those that tests kill, are forked from where other processes
    # of tests are: to import what they need would take each three seconds of a core. Demo, README
    # and examples have workers that begin with nothing, as those of users do.
    PROCESSES.Process(target=int).start()
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    settings = {
        "distributed.worker.multiprocessing-method": "forkserver",
        # Of the workers. `silence_logs` would silence pytest's own handlers too, for all tests.
        "distributed.worker.preload": [QUIET_WORKER],
        "distributed.scheduler.allowed-failures": 30,
        "distributed.comm.timeouts.connect": "10s",
        # A slow machine may take longer than the default to start a killed worker's successor;
        # the cluster would then do without.
        "distributed.deploy.lost-worker-timeout": "10 minutes",
        "distributed.admin.tick.limit": "1h",
        # Until the session ends it would look 200 times a second what its idle threads do.
        "distributed.admin.tick.interval": "1s",
        "distributed.admin.system-monitor.interval": "10s",
        "distributed.worker.profile.enabled": False,
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address="127.0.0.1:0",
            silence_logs=False, memory_limit=0,
        ) as cluster,
    ):  # fmt: skip
        yield cluster
