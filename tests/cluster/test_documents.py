"""Documents read ahead on workers: the same ones, in order, within bounds, cancelled in time."""

from __future__ import annotations

import time

import dask
import pytest
from distributed import Client

import daskbroker
from daskbroker.testing import (
    assert_documents_equal,
    baseline_run,
    external_run,
    interleave,
    make_run,
    rewound_run,
    stream_datum_run,
)
from daskbroker.testing.base import insert_all

EVENTS = 400


@pytest.fixture
def many_chunks(tmp_path):
    """A run of two streams, in 80 chunks."""
    with (
        dask.config.set({"daskbroker.seal-rows": 10}),
        daskbroker.connect(tmp_path / "store") as db,
    ):
        insert_all(db, make_run(EVENTS, streams=("primary", "dark")))
        yield db


def locally(documents):
    """Return the documents, read without the Client."""
    with dask.config.set(scheduler="synchronous"):
        return list(documents())


def tasks(client):
    return client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))


def wait_until_idle(client):
    deadline = time.monotonic() + 10
    while tasks(client):
        assert time.monotonic() < deadline, "tasks are left on the scheduler"
        time.sleep(0.05)


def tasks_done(client):
    """Return the number of tasks that the workers have run since the last call."""

    def count(dask_worker):
        log = dask_worker.state.log  # of bounded length
        done = sum(1 for event in log if "executing" in event)
        log.clear()
        return done

    return sum(client.run(count).values())


# Small reads: each of the chunks alone.
SMALL = {"daskbroker.prefetch-bytes": "1 kiB"}


@pytest.mark.parametrize("settings", [{}, SMALL, {"daskbroker.prefetch": 1}], ids=repr)
def test_the_same_documents_as_without_workers(many_chunks, client, settings):
    header = many_chunks[-1]
    expected = locally(header.documents)
    with dask.config.set(settings):
        assert list(header.documents()) == expected
        assert list(header.documents(fields=["x"])) == locally(lambda: header.documents(fields="x"))
        assert list(header.stream("dark")) == locally(lambda: header.stream("dark"))
    wait_until_idle(client)


def test_workers_read_them(many_chunks, client):
    tasks_done(client)
    assert sum(1 for _ in many_chunks[-1].documents()) == 2 * EVENTS + 4
    assert tasks_done(client) > 0


def test_closing_early_cancels(many_chunks, client):
    with dask.config.set(SMALL | {"daskbroker.prefetch-bytes": "64 kiB"}):
        documents = many_chunks[-1].documents()
        for _ in range(100):
            next(documents)
        documents.close()
    wait_until_idle(client)


def test_few_reads_are_ahead_at_a_time(many_chunks, client):
    with dask.config.set({"daskbroker.prefetch": 3, "daskbroker.prefetch-bytes": "24 kiB"}):
        documents = many_chunks[-1].stream("primary")
        most = 0
        for number, _ in enumerate(documents):
            if number % 40 == 0:
                most = max(most, tasks(client))
    assert 1 <= most <= 3


def test_an_open_run_with_rows_in_the_journal(tmp_path, client):
    with (
        dask.config.set({"daskbroker.seal-rows": 10}),
        daskbroker.connect(tmp_path / "store") as db,
    ):
        documents = make_run(95, stop=False)
        insert_all(db, documents)
        assert_documents_equal(documents, list(db[-1].documents()))


def test_documents_of_many_runs(db, client):
    runs = [make_run(5), rewound_run(), external_run(3), baseline_run(20), stream_datum_run()]
    runs += [make_run(3, streams=("primary", "dark")) for _ in range(40)]
    insert_all(db, interleave(*runs))
    expected = locally(lambda: db().documents(fill=False))
    assert list(db().documents(fill=False)) == expected
    with dask.config.set(SMALL):  # each run is too large to be read whole
        assert list(db().documents(fill=False)) == expected
    some = db().documents(fill=False)
    next(some)
    some.close()
    wait_until_idle(client)


def test_a_worker_that_dies_is_replaced(many_chunks, client, kill_worker):
    header = many_chunks[-1]
    expected = locally(header.documents)
    with dask.config.set(SMALL):
        received = []
        for number, pair in enumerate(header.documents()):
            received.append(pair)
            if number in (50, 300):
                kill_worker()
    assert received == expected


def test_the_client_is_closed_before_the_generator(many_chunks, cluster):
    with dask.config.set(scheduler="dask.distributed"):
        with Client(cluster), dask.config.set(SMALL):
            documents = many_chunks[-1].documents()
            names = [next(documents)[0] for _ in range(4)]
        assert names == ["start", "descriptor", "descriptor", "event"]
        documents.close()
        assert list(documents) == []
    assert len(locally(many_chunks[-1].documents)) == 2 * EVENTS + 4


def test_in_a_task_there_is_no_reading_ahead_on_other_workers(many_chunks, client):
    def count(header):
        return sum(1 for _ in header.documents())

    assert [o.result() for o in many_chunks().map(count)] == [2 * EVENTS + 4]
