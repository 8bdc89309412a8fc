"""Results.map: a function per run, on workers and without them."""

from __future__ import annotations

import os
import pickle
import sys
import time

import cloudpickle
import dask
import pytest

import daskbroker
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all


def total(header, factor=1, *, plus=0):
    return factor * float(header.table().compute(scheduler="synchronous")["x"].sum()) + plus


def odd_ones_fail(header):
    if header.start["number"] % 2:
        raise ValueError(f"odd number {header.start['number']}")
    return header.start["number"]


def sums(outcomes):
    return {outcome.header.start["number"]: outcome.result() for outcome in outcomes}


EXPECTED = {number: pytest.approx(190 + number) for number in range(10)}


def test_on_workers(runs, client):
    assert sums(runs.map(total)) == EXPECTED
    doubled = sums(runs.map(total, 2, plus=1))
    assert doubled == {n: pytest.approx(2 * (190 + n) + 1) for n in range(10)}


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
def test_without_a_client(runs, scheduler):
    with dask.config.set(scheduler=scheduler):
        assert sums(runs.map(total)) == EXPECTED


def test_in_processes_of_their_own(runs, client):
    pids = {outcome.result() for outcome in runs.map(lambda header: os.getpid())}
    assert pids <= set(client.run(os.getpid).values())


def test_errors_stay_beside_their_runs(runs, client):
    outcomes = list(runs.map(odd_ones_fail))
    assert len(outcomes) == 10
    for outcome in outcomes:
        number = outcome.header.start["number"]
        assert outcome.uid == outcome.header.uid
        if number % 2:
            assert isinstance(outcome.error, ValueError)
            with pytest.raises(ValueError, match=f"odd number {number}"):
                outcome.result()
        else:
            assert outcome.error is None
            assert outcome.result() == number


def test_order_of_completion(runs, client):
    def wait(header):
        time.sleep(1.5 if header.start["number"] == 9 else 0.01)
        return header.start["number"]

    numbers = [outcome.result() for outcome in runs.map(wait)]
    assert sorted(numbers) == list(range(10))
    assert numbers[-1] == 9  # the newest run is started first


def test_few_calls_are_under_way_at_a_time(runs, client):
    taken = []

    class Counted(type(runs)):
        def __iter__(self):
            for header in super().__iter__():
                taken.append(header.uid)
                yield header

    counted = Counted(runs._db, runs._search)
    outcomes = counted.map(total, in_flight=3)
    next(outcomes)
    assert len(taken) == 3
    next(outcomes)
    assert len(taken) == 4
    outcomes.close()
    assert len(taken) == 4


def test_closing_early_cancels(runs, client):
    outcomes = runs.map(lambda header: time.sleep(0.2), in_flight=10)
    next(outcomes)
    outcomes.close()
    deadline = time.monotonic() + 5
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
        assert time.monotonic() < deadline, "tasks are left on the scheduler"
        time.sleep(0.05)


def test_workers_do_not_open_an_embedded_store(runs, client):
    def opened(header):
        from daskbroker.stores.embedded import database

        count = len(header.table().compute(scheduler="synchronous"))
        list(header.documents())
        return count, len(database._open)

    found = [outcome.result() for outcome in runs.map(opened)]
    assert found == [(20, 0)] * 10


def test_a_portable_run_is_the_same_run(db):
    insert_all(db, make_run(5, streams=("primary", "dark")))
    header = db[-1]
    there = pickle.loads(pickle.dumps(header.portable()))
    assert there == header
    assert there.streams == header.streams
    assert there.table("dark").compute().equals(header.table("dark").compute())
    assert there.dataset("dark").compute().identical(header.dataset("dark").compute())
    assert list(there.documents()) == list(header.documents())
    assert there.db[header.uid] == header
    with pytest.raises(daskbroker.DaskbrokerError, match="read-only"):
        there.db.insert("start", {"uid": "x" * 8, "time": 0.0})


def test_sizes_of_pickles(db):
    insert_all(db, make_run(5, keys=[f"key_{n}" for n in range(12)]))
    header = db[-1]
    own = len(pickle.dumps((dict(header.start), dict(header.stop))))
    assert len(pickle.dumps(header)) - own < 2048
    assert len(pickle.dumps(db())) < 2048
    assert len(cloudpickle.dumps(db().map)) < 2048 + sys.getsizeof(db())


def test_bad_arguments_are_refused(runs):
    with pytest.raises(ValueError, match="in_flight"):
        next(runs.map(total, in_flight=0))
    with pytest.raises(ValueError, match="Client"):
        next(runs.map(total, client="tcp://127.0.0.1:8786"))
