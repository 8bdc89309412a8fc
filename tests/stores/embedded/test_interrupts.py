"""Ctrl-C in the middle of an insert: what returned is stored, and the session goes on."""

from __future__ import annotations

import sqlite3
import sys
import threading

import dask
import pytest

import daskbroker
from daskbroker.testing import RunBuilder, assert_documents_equal, make_run
from daskbroker.testing.interrupts import interrupted_calls


def run():
    made = RunBuilder()
    descriptor = made.descriptor({"x": 0.5, "v": [1.0] * 200})
    for number in range(25):
        made.event(descriptor, {"x": number * 0.5, "v": [number * 1.0] * 200})
    for rows in (60, 400):
        made.event_page(descriptor, [{"x": n * 0.5, "v": [n * 1.0] * 200} for n in range(rows)])
    return made.stop()


def test_at_any_moment(tmp_path):
    """Interrupted again and again, each document is inserted until its insert has returned."""
    with dask.config.set({"daskbroker.seal-rows": 10}):
        for seed in range(6):
            documents = run()
            with daskbroker.connect(tmp_path / str(seed)) as db:
                interrupts = 0
                for place, pair in enumerate(documents):
                    for attempt in range(1000):
                        done, _ = interrupted_calls(
                            [lambda pair=pair, db=db: db.insert(*pair)],
                            seed * 10**6 + place * 1000 + attempt,
                            microseconds=300 * (attempt + 1),
                        )
                        if done:
                            break
                        interrupts += 1
                assert interrupts > 20
                other_threads_go_on(db)
                assert_documents_equal(documents, db[documents[0][1]["uid"]].documents())
            with daskbroker.connect(tmp_path / str(seed)) as db:
                assert_documents_equal(documents, db[documents[0][1]["uid"]].documents())


def other_threads_go_on(db):
    documents = make_run(3)
    thread = threading.Thread(target=lambda: [db.insert(*p) for p in documents], daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert_documents_equal(documents, db[documents[0][1]["uid"]].documents())


class Interrupter:
    """Raises KeyboardInterrupt as Python does: when the N-th call of a function has returned."""

    def __init__(self, number):
        self.left, self.place = number, None

    def __call__(self, frame, event, argument):
        if event in ("call", "c_return"):
            self.left -= 1
            if self.left == 0:
                self.place = f"{frame.f_code.co_qualname}:{frame.f_lineno} ({argument})"
                sys.setprofile(None)
                raise KeyboardInterrupt


def interrupted_at(number, call):
    """The place where a call was interrupted, None where it returned before that."""
    interrupter = Interrupter(number)
    sys.setprofile(interrupter)
    try:
        call()
    except KeyboardInterrupt as error:
        return interrupter.place, error
    finally:
        sys.setprofile(None)
    return None, None


def renamed(documents, prefix):
    """The same run under other uids."""
    names = {"uid", "run_start", "descriptor"}
    return [
        (name, {key: put_before(prefix, doc[key]) if key in names else doc[key] for key in doc})
        for name, doc in documents
    ]


def put_before(prefix, uid):
    return prefix + uid if isinstance(uid, str) else [prefix + one for one in uid]


@pytest.mark.parametrize("kind", ["event", "event_page", "stop"])
def test_after_each_call_of_an_insert(tmp_path, kind):
    """Its error is kept, as a notebook does with the last traceback."""
    documents = run()
    place = next(n for n, (name, _) in enumerate(documents) if name == kind)
    number = step = 1 if kind == "event" else 7
    db = daskbroker.connect(tmp_path)
    while True:
        again = renamed(documents, f"{number}-")
        for pair in again[:place]:
            db.insert(*pair)
        where, error = interrupted_at(number, lambda pair=again[place]: db.insert(*pair))
        with sqlite3.connect(tmp_path / "daskbroker.sqlite", timeout=1) as other:
            other.execute("BEGIN IMMEDIATE")  # nobody holds the lock
            other.execute("ROLLBACK")
        other.close()
        for pair in again[place:]:
            db.insert(*pair)
        try:
            assert_documents_equal(again, db[again[0][1]["uid"]].documents())
        except AssertionError as wrong:
            wrong.add_note(f"interrupted in {where}")
            raise
        if error is None:
            break
        number += step
    assert number > 100
    other_threads_go_on(db)
    db.close()
