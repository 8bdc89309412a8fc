"""Ctrl-C in the middle of an insert: what returned is stored, once, and the session goes on."""

from __future__ import annotations

import os
import threading

import dask
import pytest

import daskbroker
from daskbroker.testing import assert_documents_equal, make_run
from daskbroker.testing.interrupts import finalizers_unheard, insert_interrupted, journalled_run


def other_threads_go_on(db):
    documents = make_run(3)
    thread = threading.Thread(target=lambda: [db.insert(*p) for p in documents], daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert_documents_equal(documents, db[documents[0][1]["uid"]].documents())


def a_child_can_read(db):
    """An interrupt must not leave a note that a thread is in SQLite, for which forks would wait."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if len(db) else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
@finalizers_unheard()
def test_at_any_moment(tmp_path):
    """Fifteen runs: with counters that survive an interrupt, one in five has events twice."""
    runs = [journalled_run() for _ in range(15)]
    with dask.config.set({"daskbroker.seal-rows": 10}), daskbroker.connect(tmp_path) as db:
        interrupts = sum(insert_interrupted(db, one, seed) for seed, one in enumerate(runs))
        other_threads_go_on(db)
        a_child_can_read(db)
    assert interrupts > 100
    with daskbroker.connect(tmp_path) as db:
        for one in runs:
            assert_documents_equal(one, db[one[0][1]["uid"]].documents())


def test_a_transaction_that_is_left_open_is_ended_by_the_next_one(tmp_path):
    documents = make_run(3)
    with daskbroker.connect(tmp_path) as db:
        database = db.event_sources["embedded"].store._database
        left = database.write()
        left.__enter__().execute("INSERT INTO run VALUES (NULL, 'never', 0)")
        for pair in documents:
            db.insert(*pair)
        del left
        assert_documents_equal(documents, db[-1].documents())
        with database.read() as connection:
            assert connection.execute("SELECT count(*) FROM run").fetchone() == (1,)
