"""Workers and a MongoDB store: one connection pool a process, workers that insert."""

from __future__ import annotations

import pickle
import threading

import functions  # beside this file; see conftest.py
import numpy as np
import pymongo
import pytest

import daskbroker
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.conformance.times import check_time_index


@pytest.fixture
def mongo(mongo_database):
    with daskbroker.connect(mongo_database) as db:
        for number in range(8):
            x = [place + number / 20 for place in range(20)]
            insert_all(db, make_run(keys={"x": x}, number=number))
        yield db


def connections(uri):
    """How many are open, by MongoDB's own count, ours included."""
    with pymongo.MongoClient(uri) as client:
        return client.admin.command("serverStatus")["connections"]["current"]


def test_a_time_index_on_workers(mongo, client):
    table = mongo().table("primary", fields=["x", "start:number"]).rename(columns={"x": "n"})
    check_time_index(table.rename(columns={"start:number": "x"}), np.random.default_rng(2))


def test_a_thousand_headers_are_one_connection_pool(mongo, mongod_uri, client):
    header = mongo[-1]
    texts = [pickle.dumps(header)] * 1000
    address = next(iter(client.nthreads()))

    def use(texts, once):
        import pickle

        found = set()
        for text in texts:
            header = pickle.loads(text)
            if once or not found:
                found.add((len(header.streams), id(header.db)))
        return len(found)

    assert client.submit(use, texts[:1], True, pure=False, workers=[address]).result() == 1
    before = connections(mongod_uri)
    assert client.submit(use, texts, True, pure=False, workers=[address]).result() == 1
    assert connections(mongod_uri) <= before + 1


def test_tables_and_maps(mongo, client):
    table = mongo().table().compute()
    assert len(table) == 160
    found = {o.header.start["number"]: o.result() for o in mongo().map(rows_and_pickle)}
    assert found == dict.fromkeys(range(8), (20, False))


def rows_and_pickle(header):
    from daskbroker.stores.planned import PlannedHeaderStore

    portable = isinstance(header.db.header_source, PlannedHeaderStore)
    return len(header.table().compute(scheduler="synchronous")), portable


def test_workers_insert_what_they_make(mongo, client, kill_worker):
    killers = [threading.Timer(delay, kill_worker) for delay in (0.2, 0.9)]
    for killer in killers:
        killer.start()
    into = mongo
    report = daskbroker.reprocess(mongo(), functions.slowly, into)
    for killer in killers:
        killer.join()
    assert not report.failed
    assert len(report.done) == 8
    again = daskbroker.reprocess(mongo(), functions.slowly, into)
    assert len(again.skipped) == 24
    assert len(into) == 24
    for source, uids in report.done.items():
        lengths = [len(into[uid].table().compute(scheduler="synchronous")) for uid in uids]
        assert lengths == [20, 3]
        assert all(into[uid].start["derived_from"]["runs"] == [source] for uid in uids)
