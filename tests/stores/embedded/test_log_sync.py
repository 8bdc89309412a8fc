"""When what is inserted is on disk: who syncs the log, how often, and what a failure means."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import dask
import pytest

import daskbroker
from daskbroker.core.errors import ConfigError, StoreError
from daskbroker.stores.embedded import log_sync
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.interrupts import finalizers_unheard, interrupted_calls
from daskbroker.testing.processes import Program
from daskbroker.work.copying import copy


class Syncs:
    """Each sync of a log: counted, held, or failing; else it is the system's."""

    def __init__(self):
        self.count = 0
        self.failing = 0
        self._go_on = threading.Event()
        self._go_on.set()

    @contextmanager
    def held(self):
        """Context in which no sync returns."""
        self._go_on.clear()
        try:
            yield
        finally:
            self._go_on.set()

    def __call__(self, handle):
        self.count += 1
        assert self._go_on.wait(60)
        if self.failing:
            self.failing -= 1
            raise OSError(errno.EIO, "the disk failed")
        os.fdatasync(handle)


@pytest.fixture
def syncs(monkeypatch):
    syncs = Syncs()
    monkeypatch.setattr(log_sync, "fdatasync", syncs)
    return syncs


@pytest.fixture
def opened(tmp_path):
    """Opens stores with an interval, and closes them."""
    brokers = []

    def opened(interval, name="store"):
        with dask.config.set({"daskbroker.sync-interval": interval}):
            brokers.append(daskbroker.connect(tmp_path / name))
        return brokers[-1]

    yield opened
    for broker in brokers:
        broker.close()


def log_of(broker):
    return broker.event_sources["embedded"].store._database.log


class Clock:
    """The time as the log sees it, which a test may put forward."""

    def __init__(self):
        self.ahead = 0.0

    def monotonic(self):
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(log_sync, "time", clock)
    return clock


class Waits(threading.Event):
    """An event that records how long a caller would wait for it."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def wait(self, timeout=None):
        self.seconds.append(timeout)
        return super().wait(timeout)


def until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def open_run(uid, events=3):
    return make_run(events, uid=uid)[:-1]


def test_a_run_that_stops_is_one_sync(opened, syncs):
    db = opened(60)
    for number in range(5):
        documents = make_run(3, uid=f"run-{number}")
        insert_all(db, documents[:-1])
        assert syncs.count == number
        db.insert(*documents[-1])
        assert syncs.count == number + 1


def test_the_same_stop_again_is_synced_too(opened, syncs):
    db = opened(60)
    documents = make_run(3, uid="run")
    insert_all(db, documents)
    db.insert(*documents[-1])  # it may be in the log of a process that died
    assert syncs.count == 2


@pytest.fixture
def running(monkeypatch):
    """The threads that sync in the background now."""
    threads = set()
    run = log_sync.LogSync._run

    def noted(log, thread):
        threads.add(thread)
        run(log, thread)
        threads.discard(thread)

    monkeypatch.setattr(log_sync.LogSync, "_run", noted)
    return threads


def test_an_open_run_is_synced_within_the_interval_and_nothing_while_idle(opened, syncs, running):
    db = opened(0.3)
    log_of(db)._end = waits = Waits()
    insert_all(db, open_run("run"))
    until(lambda: syncs.count >= 1 and log_of(db)._thread is None)
    assert 0 < max(waits.seconds) < 0.3
    assert log_of(db)._synced == log_of(db)._written
    until(lambda: not running)


def test_one_thread_syncs_while_a_run_goes_on(opened, syncs, running):
    db = opened(0.1)
    documents = iter(make_run(5000, uid="run"))
    began = time.monotonic()
    while syncs.count < 3:
        db.insert(*next(documents))
        time.sleep(0.001)
        assert len(running) <= 1
    assert 3 <= syncs.count <= (time.monotonic() - began) / 0.08 + 1


def test_an_interval_of_0_syncs_every_insert_once(opened, syncs):
    db = opened(0)
    for place, (name, doc) in enumerate(make_run(6, uid="run")):
        db.insert(name, doc)
        if name != "stop":
            assert syncs.count == place + 1
    with db.batch():
        before = syncs.count
        insert_all(db, make_run(2, uid="other"))
    assert syncs.count >= before + 5
    assert log_of(db)._thread is None


@pytest.mark.parametrize("value", [-1, "soon", float("nan")])
def test_an_interval_that_is_none_is_refused(opened, value):
    with pytest.raises(ConfigError, match="sync-interval"):
        opened(value)


def test_threads_that_stop_runs_share_syncs(opened, syncs):
    db = opened(60)
    runs = [make_run(2, uid=f"run-{number}") for number in range(8)]
    for documents in runs:
        insert_all(db, documents[:-1])
    threads = [threading.Thread(target=db.insert, args=documents[-1]) for documents in runs]
    before = log_of(db)._written
    with syncs.held():
        for thread in threads:
            thread.start()
        until(lambda: log_of(db)._written == before + 2 * len(threads))  # sealed, and the stop
    for thread in threads:
        thread.join()
    assert 1 <= syncs.count <= 2  # what was written when the first began, and the rest
    assert len(list(db())) == 8


def test_a_batch_is_synced_at_its_end(opened, syncs):
    db = opened(60)
    with db.batch():
        for number in range(5):
            insert_all(db, make_run(3, uid=f"run-{number}"))
        assert syncs.count == 0
        other = threading.Thread(target=insert_all, args=(db, make_run(3, uid="other")))
        other.start()
        other.join()
        assert syncs.count == 1  # another thread is not in it
        insert_all(db, make_run(3, uid="last"))
    assert syncs.count == 2


def test_copies_are_synced_at_their_end(opened, syncs):
    db, into = opened(60), opened(60, "into")
    with db.batch():
        for number in range(5):
            insert_all(db, make_run(3, uid=f"run-{number}"))
    syncs.count = 0
    assert len(copy(db, into).copied) == 5
    assert syncs.count == 1


def test_flush_and_close_sync_what_is_left(opened, syncs):
    db = opened(60)
    insert_all(db, open_run("run"))
    db.flush()
    assert syncs.count == 1
    db.flush()
    assert syncs.count == 1
    insert_all(db, open_run("other"))
    db.close()
    assert syncs.count == 2


def test_who_writes_nothing_syncs_nothing(opened, syncs):
    insert_all(opened(60), make_run(3, uid="run"))
    opened(60).close()
    before = syncs.count
    db = opened(60)
    assert len(db["run"].table().compute()) == 3
    db.flush()
    db.close()
    assert syncs.count == before


# -- failures --------------------------------------------------------------------------------


def test_a_sync_in_the_background_that_fails_is_an_error_of_the_next_insert(opened, syncs):
    db = opened(0.2)
    documents = make_run(4, uid="run")
    syncs.failing = 1
    with syncs.held():  # none has failed before the last is in
        insert_all(db, documents[:3])
    until(lambda: log_of(db)._trouble is not None)
    with pytest.raises(StoreError, match=r"sqlite-wal could not be synced.*the disk failed"):
        db.insert(*documents[3])
    assert len([pair for pair in db["run"].documents() if pair[0] == "event"]) == 1


def test_after_a_failed_sync_the_log_is_written_again(opened, syncs, monkeypatch):
    db = opened(60)
    documents = make_run(4, uid="run")
    insert_all(db, documents[:-1])
    syncs.failing = 2
    with pytest.raises(StoreError, match="could not be synced"):
        db.insert(*documents[-1])
    written = []
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda *a: written.append(a[1]) or pwrite(*a))
    with pytest.raises(StoreError, match="could not be synced"):
        db.insert(*documents[-1])  # tried, and failed again
    assert written
    written.clear()
    log = log_of(db)._path.read_bytes()
    db.insert(*documents[-1])
    assert b"".join(written) == log
    assert not log_of(db)._mark.exists()
    assert list(db["run"].documents())[-1] == documents[-1]


@pytest.mark.parametrize(
    "error", [None, OSError(errno.EMFILE, "at first"), KeyboardInterrupt("at first")]
)
def test_a_log_that_a_dead_process_could_not_sync_is_written_again(
    opened, syncs, tmp_path, monkeypatch, error
):
    """Also if the log could not be opened for the first insert, or that was interrupted."""
    program = """
import errno, os, sys, daskbroker
from daskbroker.stores.embedded import log_sync
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all
def fail(handle):
    raise OSError(errno.EIO, "the disk failed")
log_sync.fdatasync = fail
db = daskbroker.connect(sys.argv[1])
try:
    insert_all(db, make_run(3, uid="run"))
except daskbroker.core.errors.StoreError:
    os._exit(7)
"""
    place = tmp_path / "store"
    done = Program(program, place)
    done.communicate()
    assert done.returncode == 7
    mark = place / log_sync.MARK
    assert mark.exists()
    db = opened(60)
    if error is not None:

        def fail(log):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(log_sync.LogSync, "open", fail)
            with pytest.raises((StoreError, KeyboardInterrupt), match="at first"):
                insert_all(db, make_run(3, uid="other"))
    insert_all(db, make_run(3, uid="other"))
    assert syncs.count == 2  # once the bytes that were there, once the stop
    assert not mark.exists()
    assert sorted(header.uid for header in db) == ["other", "run"]


def test_threads_that_share_a_failed_sync_all_get_the_error(opened, syncs):
    db = opened(60)
    runs = [make_run(2, uid=f"run-{number}") for number in range(4)]
    for documents in runs:
        insert_all(db, documents[:-1])
    syncs.failing = 10
    errors = []

    def stop(documents):
        try:
            db.insert(*documents[-1])
        except StoreError as error:
            errors.append(error)

    threads = [threading.Thread(target=stop, args=(documents,)) for documents in runs]
    before = log_of(db)._written
    with syncs.held():
        for thread in threads:
            thread.start()
        until(lambda: log_of(db)._written == before + 2 * len(threads))
    for thread in threads:
        thread.join()
    assert len(errors) == 4


@pytest.fixture
def slow(opened, syncs):
    """A store of which a sync has begun that does not end, and documents of an open run."""
    db = opened(60)
    documents = make_run(40, uid="run")[:-1]
    insert_all(db, documents[:3])
    thread = threading.Thread(target=log_of(db).sync)
    with syncs.held():
        thread.start()
        until(lambda: syncs.count == 1)
        yield db, documents[3:]
    thread.join()


def test_inserts_go_on_while_a_sync_is_slow_up_to_ten_intervals(slow, syncs, clock):
    db, documents = slow
    clock.ahead = 9 * 60
    insert_all(db, documents[:20])
    clock.ahead = 10 * 60 + 1
    late = threading.Thread(target=db.insert, args=documents[20])
    with syncs.held():
        late.start()
        until(lambda: log_of(db)._changed._waiters)
        assert len([pair for pair in db["run"].documents() if pair[0] == "event"]) == 21
    late.join()
    assert len([pair for pair in db["run"].documents() if pair[0] == "event"]) == 22


def test_a_disk_that_does_not_answer_is_an_error(slow, clock, monkeypatch):
    monkeypatch.setattr(log_sync, "PATIENCE_SECONDS", 0.2)
    db, documents = slow
    clock.ahead = 10 * 60 + 1
    with pytest.raises(StoreError, match="has not been synced for"):
        db.insert(*documents[0])


def test_an_interrupt_while_the_log_is_synced_stops_nobody_else(opened, syncs, monkeypatch):
    db = opened(60)
    documents = make_run(3, uid="run")
    insert_all(db, documents[:-1])

    def interrupted(handle):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(log_sync, "fdatasync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            db.insert(*documents[-1])
    other = threading.Thread(target=db.insert, args=documents[-1])
    other.start()
    other.join(10)
    assert not other.is_alive()
    assert syncs.count == 1


# -- interrupts ------------------------------------------------------------------------------


def test_an_interrupt_as_the_log_is_about_to_be_synced_leaves_no_file_open(opened, monkeypatch):
    db = opened(0)

    class Interrupted:
        """A lock of which the block is entered and an interrupt comes at its end."""

        def __enter__(self):
            pass

        def __exit__(self, *what):
            raise KeyboardInterrupt("pressed")

    db.insert(*open_run("run")[0])
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(log_of(db), "_lock", Interrupted())
        with pytest.raises(KeyboardInterrupt, match="pressed"):
            log_of(db)._bring_to_disk()
    assert len(os.listdir("/proc/self/fd")) == before


@finalizers_unheard()
def test_interrupts_at_any_moment_of_a_sync_leave_no_file_open(opened):
    db = opened(0)
    db.insert(*open_run("run")[0])
    before = len(os.listdir("/proc/self/fd"))
    _, interrupted = interrupted_calls([log_of(db)._bring_to_disk] * 500, 1, microseconds=40)
    log_of(db)._bring_to_disk()
    assert interrupted
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("begun", [False, True])
def test_an_interrupt_as_the_background_sync_begins(opened, syncs, monkeypatch, begun):
    """It was never made again: after ten intervals each insert was an error a minute later."""
    db = opened(0.02)
    first, *others = open_run("run")
    start = log_sync.start_new_thread

    def interrupted(*what):
        if begun:
            start(*what)
        raise KeyboardInterrupt("pressed")

    with monkeypatch.context() as patch:
        patch.setattr(log_sync, "start_new_thread", interrupted)
        with pytest.raises(KeyboardInterrupt, match="pressed"):
            db.insert(*first)
    insert_all(db, [first, *others])
    until(lambda: log_of(db)._synced == log_of(db)._written)


def test_a_background_sync_that_could_not_begin(opened, syncs, clock, monkeypatch):
    """As where the memory is used up: the system makes a thread, which ends at once."""
    db = opened(60)
    monkeypatch.setattr(log_sync, "start_new_thread", lambda *what: None)
    first, *others = open_run("run")
    db.insert(*first)
    clock.ahead = 60 * log_sync.MOST_INTERVALS
    insert_all(db, others)
    assert syncs.count == 1


# -- processes -------------------------------------------------------------------------------


def test_parent_and_forked_child_sync_for_themselves(opened, syncs):
    db = opened(0.2)
    insert_all(db, open_run("parent"))
    child = os.fork()
    if child == 0:
        syncs.count = 0
        try:
            insert_all(db, make_run(3, uid="child"))
            insert_all(db, open_run("open"))
            until(lambda: log_of(db)._synced == log_of(db)._written)
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0
    before = syncs.count
    insert_all(db, make_run(3, uid="after"))
    assert syncs.count > before
    assert {header.uid for header in db} == {"parent", "child", "open", "after"}
    until(lambda: log_of(db)._thread is None)


def test_what_is_inserted_last_is_synced_when_the_program_ends(tmp_path):
    program = """
import os, sys, daskbroker
from daskbroker.stores.embedded import log_sync
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all
def told(handle):
    os.fdatasync(handle)
    print("synced", flush=True)
log_sync.fdatasync = told
db = daskbroker.connect(sys.argv[1])
insert_all(db, make_run(3, uid="run")[:-1])
print("inserted", flush=True)
"""
    environment = {**os.environ, "DASK_DASKBROKER__SYNC_INTERVAL": "60"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "store")],
        check=True, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.stdout.split() == ["inserted", "synced"]
