"""Ctrl-C in a session with a real RunEngine: paused and resumed, or aborted, nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import bluesky.plan_stubs as bps
import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from ophyd.sim import det, motor

import daskbroker
from daskbroker.testing import assert_documents_equal, assert_references_first


@pytest.fixture(params=["embedded", "mongo"])
def place(request, tmp_path):
    if request.param == "embedded":
        return tmp_path / "store"
    return request.getfixturevalue("mongo_database")


@pytest.fixture
def db(place):
    with daskbroker.connect(place) as db:
        yield db


@pytest.fixture
def engine(db):
    """An engine with its handler of Ctrl-C, as in a session."""
    loop = asyncio.new_event_loop()
    engine = RunEngine({}, loop=loop)
    engine.received = []
    engine.subscribe(lambda name, doc: engine.received.append((name, doc)))
    engine.subscribe(db.insert)
    yield engine
    loop.call_soon_threadsafe(loop.stop)
    engine._th.join()
    loop.close()


class Session:
    """A plan that waits for Ctrl-C after some of its steps, and a thread that presses it."""

    def __init__(self, engine):
        self._engine = engine
        self._waiting, self._pressed = threading.Event(), threading.Event()

    def plan(self, steps, waits):
        yield from bps.open_run()
        for step in range(steps):
            yield from bps.checkpoint()
            yield from bps.mv(motor, step)
            yield from bps.trigger_and_read([det, motor])
            if step in waits:
                self._waiting.clear()
                self._pressed.clear()
                self._thread = threading.Thread(target=self._press, daemon=True)
                self._thread.start()
                yield from bps.wait_for([self._wait])
        yield from bps.close_run()

    def is_paused_by(self, work):
        """Do something that is paused by Ctrl-C, which nobody presses any more after that."""
        with pytest.raises(RunEngineInterrupted, match="is entering a paused state"):
            work()
        self._thread.join(60)

    async def _wait(self):
        self._waiting.set()
        while not self._pressed.is_set():  # gone through again when the engine is resumed
            await asyncio.sleep(0.01)

    def _press(self):
        """The first time asks for a pause at the next checkpoint, the second one for one now."""
        self._waiting.wait(60)
        deadline = time.monotonic() + 60
        while self._engine.state == "running" and time.monotonic() < deadline:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)
        self._pressed.set()


def check(place, db, engine):
    for broker in (db, daskbroker.connect(place, mode="r")):
        received = list(broker[-1].documents())
        assert_references_first(received)
        assert_documents_equal(engine.received, received)
        assert not list(daskbroker.check(broker))
        if broker is not db:
            broker.close()


def test_pressed_while_it_runs_and_resumed(place, db, engine):
    session = Session(engine)
    session.is_paused_by(lambda: engine(session.plan(30, waits=(4, 17))))
    session.is_paused_by(engine.resume)
    engine.resume()
    assert engine.received[-1][1]["exit_status"] == "success"
    check(place, db, engine)
    assert db[-1].table()["motor"].compute().tolist() == list(range(30))
    assert len(db[-1].table(duplicates="all")) == 32


@pytest.mark.parametrize("how", ["abort", "stop", "halt"])
def test_pressed_while_it_runs_and_ended(place, db, engine, how):
    session = Session(engine)
    session.is_paused_by(lambda: engine(session.plan(30, waits=(9,))))
    getattr(engine, how)()
    check(place, db, engine)
    assert len(db[-1].table()) == 10
