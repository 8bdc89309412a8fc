"""Number of requests to a store: the same for one run and for thousands.

Not counted are the batches in which rows, small chunks and long answers come.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import pymongo
import pymongo.monitoring
import pytest

import daskbroker
from daskbroker.stores.embedded.database import Database
from daskbroker.testing import RunBuilder
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import datum_run, stream_run

ONE_RUN = 8
MANY_RUNS = 20
TENTH = 10
ROWS = ("event_chunk_column", "chunk_body")
"""Where rows are fetched from, by batches."""

CALLS = {
    "documents": lambda runs: list(runs.documents()),
    "table": lambda runs: runs.table(),
    "table of numbers": lambda runs: runs.table(fields=["run"]),
    "dataset": lambda runs: runs.dataset(),
}


class Commands(pymongo.monitoring.CommandListener):
    """Counts the commands that are sent to a server, by name and collection; and batches."""

    def __init__(self):
        self.counts = Counter()
        self.batches = Counter()

    def started(self, event):
        collection = event.command.get(event.command_name)
        if event.command_name == "getMore":
            self.batches[event.command["collection"]] += 1
        is_batch = event.command_name == "getMore" or collection in ROWS
        if not is_batch and event.command_name not in ("hello", "ping", "endSessions"):
            self.counts[event.command_name, collection] += 1

    def succeeded(self, event):
        pass

    def failed(self, event):
        pass


@pytest.fixture
def mongo_listener(mongo_database, monkeypatch):
    """Return a broker on MongoDB, and the counter of its commands."""
    listener = Commands()
    make = pymongo.MongoClient
    monkeypatch.setattr(
        pymongo, "MongoClient", lambda *args, **kw: make(*args, event_listeners=[listener], **kw)
    )
    with daskbroker.connect(mongo_database) as db:
        yield db, listener


@pytest.fixture
def mongo_counts(mongo_listener):
    db, listener = mongo_listener
    return db, listener.counts


@pytest.fixture
def embedded_counts(db, monkeypatch):
    """Return a broker on an embedded store, and the counter of its statements."""
    counts = Counter()

    def note(statement):
        words = statement.split()
        if words[0] == "SELECT" and not any(name in statement for name in ROWS):
            counts[statement] += 1

    read = Database.read

    @contextmanager
    def counted(self):
        with read(self) as connection:
            connection.set_trace_callback(note)
            yield connection

    monkeypatch.setattr(Database, "read", counted)
    return db, counts


@pytest.fixture(params=["mongo_counts", "embedded_counts"])
def counted(request):
    return request.getfixturevalue(request.param)


def image_run(number, events=3):
    """A run of frames that nobody reads, by datums."""
    run = RunBuilder(number=number)
    image = {"source": "x", "dtype": "array", "shape": [4, 4], "external": "FILESTORE:"}
    descriptor = run.descriptor({"img": {**image, "dtype_numpy": "<u2"}, "x": 0.5})
    resource = run.resource("AD_HDF5", resource_path=f"{number}.h5")
    for n in range(events):
        datum = run.datum(resource, point_number=n)
        run.event(descriptor, {"img": datum, "x": 0.5 * n}, filled={"img": False})
    return run


def baseline_and_images():
    """A run of images with a second stream."""
    run = image_run(0)
    baseline = run.descriptor({"temperature": 4.2}, stream="baseline")
    run.event(baseline, {"temperature": 4.3})
    return run


def store(db, documents):
    insert_all(db, documents)


def count(counts, call):
    counts.clear()
    call()
    return sum(counts.values()), dict(counts)


@pytest.mark.parametrize("make", [datum_run, stream_run])
@pytest.mark.parametrize("call", CALLS)
def test_one_run(counted, tmp_path, make, call):
    db, counts = counted
    documents, _ = make(tmp_path)
    store(db, documents)
    header = db[-1]
    header.table()  # what is learnt once of a store: its identity, its indexes
    number, what = count(counts, lambda: CALLS[call](header))
    assert number <= ONE_RUN, what


def test_one_run_of_two_streams_as_a_tree(counted, tmp_path):
    db, counts = counted
    store(db, baseline_and_images().stop())
    header = db[-1]
    header.table()
    number, what = count(counts, lambda: header.tree())
    assert number <= ONE_RUN + 4, what  # and the rows of each stream's time


@pytest.mark.parametrize("sealed", [True, False])
def test_one_run_costs_the_same_among_many(db, monkeypatch, sealed):
    """Counted in steps of SQLite's virtual machine: a scan of a table is some for each row."""
    steps = Counter()
    read = Database.read

    @contextmanager
    def counted(self):
        with read(self) as connection:
            connection.set_progress_handler(lambda: steps.update(["step"]), 1)
            yield connection
            connection.set_progress_handler(None, 0)

    monkeypatch.setattr(Database, "read", counted)
    first = image_run(0)
    store(db, first.stop() if sealed else first.documents)
    uid = db[-1].uid
    calls = {
        "by uid": lambda: db[uid],
        "by prefix": lambda: db[uid[:8]],
        "newest": lambda: db[-1],
        "table": lambda: db[uid].table(),
        "dataset": lambda: db[uid].dataset(),
        "documents": lambda: list(db[uid].documents(fill=False)),
    }
    alone = {name: count(steps, call)[0] for name, call in calls.items()}
    for number in range(1, 199):
        store(db, image_run(number).stop())
    newest = image_run(199)
    store(db, newest.stop() if sealed else newest.documents)
    among = {name: count(steps, call)[0] for name, call in calls.items()}
    assert alone == pytest.approx(among, rel=0.25)


@pytest.mark.parametrize("call", ["table", "table of numbers", "dataset"])
def test_one_run_that_is_open(counted, call):
    db, counts = counted
    store(db, image_run(1).documents)
    header = db[-1]
    header.table()
    number, what = count(counts, lambda: CALLS[call](header))
    assert number <= ONE_RUN + 1, what  # one is a look at whether it has stopped


@pytest.mark.parametrize("sealed", [True, False])
def test_many_runs(counted, sealed):
    db, counts = counted
    for number in range(30):
        run = image_run(number)
        store(db, run.stop() if sealed else run.documents)
    runs = db()
    runs.table()
    for name in ("table", "table of numbers", "dataset"):
        number, what = count(counts, lambda name=name: CALLS[name](runs))
        assert number <= MANY_RUNS, (name, what)
    number, what = count(counts, lambda: runs.dataset(combine="tree"))
    assert number <= MANY_RUNS + 30, what  # the rows of time, a run at a time


def test_thousands_of_runs_in_a_file(embedded_counts):
    db, counts = embedded_counts
    for _ in range(6000):
        store(db, RunBuilder().documents)
    store(db, image_run(0).stop())
    runs = db()
    runs.table()
    number, what = count(counts, lambda: runs.table())
    assert number <= MANY_RUNS + len(what), what


def test_thousands_of_runs_on_a_server(mongo_listener, mongo_database):
    db, listener = mongo_listener
    counts = listener.counts
    store(db, image_run(0).stop())
    put_many(mongo_database, 6000)
    runs = db()
    assert len(runs) == 6001
    for name in ("table", "dataset"):
        number, what = count(counts, lambda name=name: CALLS[name](runs))
        assert number <= MANY_RUNS + len({collection for _, collection in what}), (name, what)
        assert ("aggregate", "run_start") not in what  # nobody asked for the number of runs
    assert listener.batches["run_start"] <= 2 * 7
    assert listener.batches["run_stop"] == listener.batches["event_descriptor"] == 0
    assert runs.table().x.sum().compute() == 6000 / TENTH * 0.5 + 1.5


def put_many(uri, number):
    """Runs as databroker has them, straight into the collections; a tenth of them has images."""
    collections = {}
    for n in range(number):
        for name, doc in image_run(n, 0 if n % TENTH else 2).stop():
            collections.setdefault(name, []).append(doc)
    names = {"start": "run_start", "stop": "run_stop", "descriptor": "event_descriptor"}
    with pymongo.MongoClient(uri) as client:
        for name, docs in collections.items():
            client.get_default_database()[names.get(name, name)].insert_many(docs, ordered=False)
