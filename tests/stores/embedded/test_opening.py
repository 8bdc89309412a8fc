"""Opening and making one store by many threads and processes at once."""

from __future__ import annotations

import pickle
import sqlite3
import threading
from contextlib import closing

import pytest

import daskbroker
from daskbroker.stores.embedded import opened_folder
from daskbroker.stores.embedded.database import FILE_NAME, Database
from daskbroker.stores.embedded.opening import remove_empty_store
from daskbroker.testing import assert_documents_equal, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.processes import Program

THREADS = 8
PROCESSES = 4


def at_once(work):
    """Return the results of a call that eight threads make at the same time."""
    ready = threading.Barrier(THREADS)
    got, errors = [], []

    def call():
        ready.wait(30)
        try:
            got.append(work())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    return got


def test_threads_that_make_a_store_at_once_make_one(tmp_path):
    """With connections of their own, as threads of different processes have them."""
    for number in range(30):
        place = tmp_path / str(number)
        databases = at_once(lambda place=place: Database(place))
        assert len({database.store_id for database in databases}) == 1
        with databases[0].read() as connection:
            assert connection.execute("SELECT count(*) FROM meta").fetchone() == (1,)
        for database in databases:
            database.close()


def test_threads_that_open_a_store_at_once_share_it(tmp_path):
    for number in range(30):
        place = tmp_path / str(number)
        databases = at_once(lambda place=place: Database.of(place))
        assert len(set(map(id, databases))) == 1
        databases[0].close()


@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN IMMEDIATE"])
def test_a_file_that_another_is_making_is_waited_for(tmp_path, begin):
    """One that has no write-ahead log yet: SQLite does not wait to make that."""
    other = sqlite3.connect(tmp_path / FILE_NAME, check_same_thread=False, isolation_level=None)
    other.execute(begin)
    other.execute("SELECT count(*) FROM sqlite_master").fetchone()
    closing = threading.Timer(0.5, other.close)
    closing.start()
    database = Database(tmp_path)
    closing.join()
    assert database.meta("store_id")
    database.close()


def test_the_log_of_another_that_ended_is_not_taken_for_ours(tmp_path):
    """SQLite removes it with its last connection; we may see it before we have a connection."""
    path = tmp_path / "store"
    with daskbroker.connect(path) as db:
        insert_all(db, make_run(2))
    database = Database(path.resolve())
    while database._readers:
        database._disconnect(database._readers.pop())
    other = sqlite3.connect(path / FILE_NAME)
    other.execute("UPDATE meta SET value = value")
    other.commit()
    database.check_in_place()  # sees the other's log
    other.close()
    keeper = (path / "keeper").open("w")  # on tmpfs a new file may get the inode of one removed
    later = sqlite3.connect(path / FILE_NAME)
    later.execute("UPDATE meta SET value = value")
    later.commit()
    assert database.meta("store_id")
    later.close()
    keeper.close()
    database.close()


@pytest.fixture
def writing(tmp_path):
    """A database whose only connection is the one that writes; the log goes with that."""
    database = Database(tmp_path / "store")
    with database.write() as connection:
        connection.execute("UPDATE meta SET value = value")
    while database._readers:
        database._disconnect(database._readers.pop())
    yield database
    database.close()


def close_last(database):
    database.disconnect()
    for number in range(3):  # new files may get the inodes of those that were removed
        (database.root / f"keeper{number}").touch()


def test_a_log_may_go_while_the_place_is_checked(writing, monkeypatch):
    """What was seen of a file before it went is not noted afterwards."""
    look = opened_folder._identity
    closing = threading.Thread(target=close_last, args=(writing,))

    def look_as_the_log_goes(path):
        found = look(path)
        if path.endswith("-shm") and closing.ident is None:
            closing.start()
            closing.join(0.5)  # has to wait until this check is done
        return found

    with monkeypatch.context() as patch:
        patch.setattr(opened_folder, "_identity", look_as_the_log_goes)
        writing._opened_folder._known.clear()
        writing.check_in_place()
    closing.join()
    assert closing.ident is not None
    assert writing.meta("store_id")


def test_a_lock_of_another_is_waited_for(tmp_path):
    """Whoever writes holds the file from the begin of the transaction on."""
    first, second = Database(tmp_path), Database(tmp_path)

    def count(database):
        for _ in range(20):
            with database.write() as connection:
                value = connection.execute("SELECT total(value) FROM meta WHERE key = 'n'")
                new = int(value.fetchone()[0]) + 1
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('n', ?)", (str(new),))

    turns = iter([first, second] * THREADS)
    at_once(lambda: count(next(turns)))
    assert first.meta("n") == str(20 * THREADS)
    first.close()
    second.close()


OPEN_AND_INSERT = """
import pickle, sys
import daskbroker
from daskbroker.testing.base import insert_all
sys.stdout.write("ready\\n")
sys.stdout.flush()
for line in sys.stdin:
    place, documents = pickle.loads(bytes.fromhex(line))
    with daskbroker.connect(place) as db:
        insert_all(db, documents)
        print(db.event_sources["embedded"].store.store_id, flush=True)
"""


@pytest.fixture(scope="module")
def openers():
    """Processes that open a store, and insert a run, when they are told to."""
    processes = [Program(OPEN_AND_INSERT) for _ in range(PROCESSES)]
    for process in processes:
        process.stdout.readline()
    yield processes
    for process in processes:
        process.communicate()


def test_processes_that_make_a_store_at_once_make_one(tmp_path, openers):
    for number in range(10):
        place = tmp_path / str(number)
        runs = [make_run(2) for _ in openers]
        for process, documents in zip(openers, runs, strict=True):
            process.stdin.write(pickle.dumps((str(place), documents)).hex() + "\n")
            process.stdin.flush()
        stores = [process.stdout.readline() or process.stderr.read() for process in openers]
        assert len(set(stores)) == 1, stores
        with daskbroker.connect(place) as db:
            assert len(db) == PROCESSES
            for documents in runs:
                assert_documents_equal(documents, db[documents[0][1]["uid"]].documents())


def test_processes_insert_the_same_run_while_each_of_them_seals(tmp_path, openers):
    """Every event is there once, whichever of them was first with it."""
    documents = make_run(300, stop=False)
    place = tmp_path / "store"
    with daskbroker.connect(place) as db:
        insert_all(db, documents[:2])
    for begin in range(2, 302, 60):
        for number, process in enumerate(openers):
            some = documents[begin : begin + 60]
            turned = some[15 * number :] + some[: 15 * number]
            process.stdin.write(pickle.dumps((str(place), turned)).hex() + "\n")
            process.stdin.flush()
        with daskbroker.connect(place) as db:
            db.seal()
        assert all(process.stdout.readline() for process in openers)
        with daskbroker.connect(place) as db:
            db.seal()
            assert_documents_equal(documents[: begin + 60], ordered(db[-1].documents()))


def ordered(documents):
    """Documents with events by ``seq_num``, as they come in the order of insertion."""
    return sorted(documents, key=lambda pair: pair[1].get("seq_num", 0))


def test_a_store_is_removed_only_if_it_has_no_run_and_is_not_open(tmp_path):
    path = tmp_path / FILE_NAME
    assert not remove_empty_store(tmp_path)
    with daskbroker.connect(tmp_path):
        pass
    with closing(sqlite3.connect(path)) as other:
        other.execute("SELECT key FROM meta").fetchall()
        assert not remove_empty_store(tmp_path)
    assert remove_empty_store(tmp_path)
    assert not list(tmp_path.iterdir())
    with daskbroker.connect(tmp_path) as db:
        insert_all(db, make_run(1, stop=False))
    assert not remove_empty_store(tmp_path)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with daskbroker.connect(tmp_path, create=False) as db:
        assert len(db) == 1
