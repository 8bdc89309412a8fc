"""Processes that fork while they use a store; see :mod:`daskbroker.testing.forks`.

``bash ci/long.sh forks`` plays the scene on a MongoDB without a spool, too.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import dask
import pytest

import daskbroker
from daskbroker.core.errors import DaskbrokerError, StoreError
from daskbroker.stores.embedded import fork_gate
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all
from daskbroker.workers import as_completed

pytestmark = pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")

SECONDS = 240
KINDS = ("embedded", "mongo with a spool")


def play(place, **environment):
    """Play a scene in a new process, as it forks with running threads."""
    command = [sys.executable, "-m", "daskbroker.testing.forks", str(place)]
    environment = {**os.environ, **environment}
    return subprocess.run(
        command, env=environment, timeout=SECONDS, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("kind", KINDS)
def test_forked_processes_share_a_store(kind, tmp_path, request):
    spool = tmp_path / "spool"
    place = tmp_path / "store"
    if kind != "embedded":
        place = request.getfixturevalue("mongo_database")
    chosen = {"DASK_DASKBROKER__MONGO_SPOOL": str(spool)} if "spool" in kind else {}
    played = play(place, **chosen)
    assert "nothing lost or doubled" in played.stdout, played.stdout + played.stderr
    assert played.stderr == ""
    assert not chosen or list(spool.iterdir()) == []


def answer_of_child(work):
    """Return the result of a call in a forked child as text, or its error."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = str(work())
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        answer = file.read()
    os.waitpid(child, 0)
    return answer


def test_a_child_of_a_process_whose_thread_stays_in_sqlite_is_told(db, monkeypatch):
    monkeypatch.setattr(fork_gate, "PATIENCE_SECONDS", 0.2)
    insert_all(db, make_run(2))
    database = db.event_sources["embedded"].store._database
    inside, done = threading.Event(), threading.Event()

    def stay():
        with database.read():
            inside.set()
            done.wait(60)

    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait(60)
    first = answer_of_child(lambda: len(db))
    second = answer_of_child(
        lambda: answer_of_child(lambda: len(daskbroker.connect(database.root)))
    )
    done.set()
    thread.join()
    assert "was forked while a thread" in first
    assert "was forked while a thread" in second
    assert answer_of_child(lambda: len(db)) == str(len(db)) == "1"


def test_a_fork_in_the_middle_of_a_reading_is_told(db):
    insert_all(db, make_run(2))
    with db.event_sources["embedded"].store._database.read() as connection:
        assert "was forked while" in answer_of_child(lambda: len(db))
        assert connection.execute("SELECT count(*) FROM header").fetchone() == (1,)


def test_a_block_that_an_interrupt_left_to_the_collector_is_no_reading(db):
    """An interrupt may come as ``__exit__`` begins, and its traceback may be part of a cycle."""
    insert_all(db, make_run(2))
    left = [db.event_sources["embedded"].store._database.read()]
    left[0].__enter__()
    left.append(left)
    del left
    assert answer_of_child(lambda: len(db)) == "1"


def test_a_check_may_be_ended_by_another_thread(db, monkeypatch):
    """As the collector of garbage may run in any."""
    monkeypatch.setattr(fork_gate, "PATIENCE_SECONDS", 0.2)
    insert_all(db, make_run(2))
    store = db.event_sources["embedded"].store
    with closing(sqlite3.connect(store._database.path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE damaged (x)")
        connection.execute("INSERT INTO damaged VALUES (NULL)")
        connection.execute("PRAGMA writable_schema=1")
        change = (
            "UPDATE sqlite_master SET sql='CREATE TABLE damaged (x NOT NULL)' WHERE name='damaged'"
        )
        connection.execute(change)
    found, ended = store.check_rest(), []
    assert "NULL value in damaged.x" in str(next(found))
    thread = threading.Thread(target=lambda: ended.append(found.close()))
    thread.start()
    thread.join()
    assert ended == [None]
    assert answer_of_child(lambda: len(db)) == "1"


def test_calls_that_the_parent_has_started_do_not_end_in_a_child(db):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as executor:
        ended = as_completed(lambda item: executor.submit(int, item), iter("123"), 2)
        next(ended)
        assert DaskbrokerError.__name__ in answer_of_child(lambda: list(ended))
        assert len(list(ended)) == 2


def test_runs_of_a_server_that_the_parent_goes_through(mongo_database):
    with daskbroker.connect(mongo_database) as db:
        insert_all(db, [("start", {"uid": f"run-{n:04}", "time": float(n)}) for n in range(700)])
        runs = iter(db)
        next(runs)
        assert StoreError.__name__ in answer_of_child(lambda: len(list(runs)))
        assert len(list(runs)) == 699
        assert answer_of_child(lambda: len(list(db))) == "700"


def test_threads_that_connect_at_once_get_one_broker(tmp_path):
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(daskbroker.connect(tmp_path / "new")))
        for _ in range(24)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 24
    assert len(set(map(id, got))) == 1
    got[0].close()


CHILD_OF_CLIENT = """
import os, signal, sys, warnings
import daskbroker
from daskbroker.testing import make_run
from distributed import Client

warnings.simplefilter("ignore")
documents = make_run(40)
with daskbroker.connect(sys.argv[1]) as db, Client(
    n_workers=1, processes=False, dashboard_address=None
):
    for begin, end in ((0, 20), (20, 60)):
        for name, doc in documents[begin:end]:
            db.insert(name, doc)
        db.seal()
    reading, closing = db[-1].documents(), db[-1].documents()
    next(reading)
    ahead = [next(closing) for _ in range(3)]  # the next chunk is read ahead meanwhile
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        closing.close()
        assert len(list(reading)) == 42
        assert len(list(db[-1].documents())) == 43
        try:
            db[-1].table().compute()
        except Exception as error:
            print(type(error).__name__, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert len(list(reading)) == 42
    assert len(db[-1].table().compute()) == 40
"""


def test_a_client_of_the_parent_is_closed_in_a_child(tmp_path):
    command = [sys.executable, "-c", CHILD_OF_CLIENT, str(tmp_path / "store")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    assert said.stdout == "ClosedClientError\n"


# -- what is the parent's ----------------------------------------------------------------------

CHILDREN = ["pass", "db.close()", "list(db[-1].documents())", "insert(make_run(3))", "del db"]
"""What forked children do before they end as a script does, with all that is due at its exit."""

BEGIN = """
import gc, os, signal, subprocess, sys, warnings
from pathlib import Path

import daskbroker
from daskbroker.stores.spool import sender
from daskbroker.testing import make_run

warnings.simplefilter("ignore")
sender.COLLECT_SECONDS = 100  # what is inserted waits in the spool until it is asked for
documents = make_run(20)
db = daskbroker.connect(sys.argv[1])

def insert(some):
    for name, doc in some:
        db.insert(name, doc)

def opened(kind):
    names = map(link, os.listdir("/proc/self/fd"))
    return {name for name in names if kind in name}

def link(number):
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except FileNotFoundError:  # that of the list itself
        return ""

insert(documents[:10])
"""

SPOOLED = """
(path,) = Path(sys.argv[2]).glob("*.spool")
before = path.read_bytes()
for work in sys.argv[3:]:
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        assert not opened(".spool")
        exec(work)
        gc.collect()
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0, work
    assert path.read_bytes() == before != b"", work
look = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
looked = subprocess.run([sys.executable, "-c", look, path], capture_output=True)
assert b"BlockingIOError" in looked.stderr
insert(documents[10:])
assert len(list(db[documents[0][1]["uid"]].documents())) == len(documents)
db.close()
assert not path.exists()
"""

CONNECTED = """
db.flush()
before = opened("socket:")
(source,) = db.event_sources
database = source.store._database
for work in sys.argv[2:]:
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        assert not opened(sys.argv[1])  # an embedded store's files
        assert not getattr(database, "_clients", None)  # pymongo's are of one process
        exec(work)
        gc.collect()
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0, work
insert(documents[10:])
assert len(list(db[documents[0][1]["uid"]].documents())) == len(documents)
assert opened("socket:") == before
"""

OUTLIVED = """
if os.fork() == 0:
    print(os.getpid(), flush=True)
    signal.alarm(60)
    signal.pause()
signal.pause()
"""


def script(text, *arguments, **environment):
    """A process that runs one of the scripts above."""
    command = [sys.executable, "-c", BEGIN + text, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, **environment}, **pipes)


def test_children_leave_the_spool_of_their_parent_alone(mongo_database, tmp_path):
    """The file keeps its records, and is taken by nobody, until the parent has sent them."""
    environment = {"DASK_DASKBROKER__MONGO_SPOOL": str(tmp_path)}
    process = script(SPOOLED, mongo_database, tmp_path, *CHILDREN, **environment)
    _, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors) == (0, "")


def test_a_child_that_outlives_its_parent_does_not_keep_the_spool(mongo_database, tmp_path):
    """What waits in it is sent by the next process that uses the store."""
    environment = {"DASK_DASKBROKER__MONGO_SPOOL": str(tmp_path)}
    process = script(OUTLIVED, mongo_database, tmp_path, **environment)
    child = int(process.stdout.readline())
    try:
        process.kill()
        process.wait()
        assert len(list(tmp_path.glob("*.spool"))) == 1
        with (
            dask.config.set({"daskbroker.mongo-spool": tmp_path}),
            daskbroker.connect(mongo_database) as db,
        ):
            assert len([name for name, _ in db[-1].documents() if name == "event"]) == 8
            assert list(tmp_path.iterdir()) == []
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("kind", ["embedded", "mongo"])
def test_children_leave_the_connections_of_their_parent_alone(kind, tmp_path, request):
    """They serve the parent as before, and a child makes its own."""
    place = tmp_path / "store"
    if kind == "mongo":
        place = request.getfixturevalue("mongo_database")
    process = script(CONNECTED, place, *CHILDREN)
    _, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors) == (0, "")
