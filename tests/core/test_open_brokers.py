"""One broker per configuration in a process."""

from __future__ import annotations

import gc
import pickle
import threading

import pytest

import daskbroker
from daskbroker.core import open_brokers
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all


@pytest.fixture
def folder(tmp_path):
    with daskbroker.connect(tmp_path / "store") as db:
        insert_all(db, make_run(2, uid="run-abcdef"))
    return tmp_path / "store"


def test_connecting_again_gives_the_same_broker(folder):
    with daskbroker.connect(folder) as db:
        assert daskbroker.connect(str(folder)) is db
        assert daskbroker.connect(folder, mode="r") is not db
        assert daskbroker.connect(folder, timezone="Europe/Berlin") is not db


def test_a_closed_broker_is_not_given_out_again(folder):
    db = daskbroker.connect(folder)
    text = pickle.dumps(db[-1])
    db.close()
    header = pickle.loads(text)
    assert header.db is not db
    assert len(header.table().compute()) == 2
    header.db.close()


def test_a_broker_that_nobody_holds_is_forgotten(folder):
    key = daskbroker.connect(folder).key
    gc.collect()
    assert open_brokers.known(key) is None


def test_what_is_unpickled_shares_one_broker_that_stays_open(folder):
    with daskbroker.connect(folder) as db:
        texts = [pickle.dumps(value) for value in (db, db[-1], db())]
    opened = [pickle.loads(text) for text in texts]
    again = opened[0]
    assert opened[1].db is again
    del opened
    gc.collect()
    assert pickle.loads(texts[0]) is again
    again.close()


def test_threads_that_unpickle_at_once_get_one_broker(folder):
    with daskbroker.connect(folder) as db:
        text = pickle.dumps(db[-1])
    found = []
    barrier = threading.Barrier(8)

    def work():
        barrier.wait()
        found.append(pickle.loads(text).db)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1
    found[0].close()
