"""The SQLite file: shared in a process, forked, closed, read while another process writes."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sqlite3
import threading
from contextlib import closing

import pymongo
import pytest

import daskbroker
from daskbroker.core.errors import (
    DaskbrokerError,
    StoreDamaged,
    StoreError,
    StoreNotFound,
    StoreReadOnly,
)
from daskbroker.stores.embedded import Database
from daskbroker.stores.embedded import database as database_module
from daskbroker.testing import assert_documents_equal, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.processes import Program


def test_one_database_of_a_folder_in_a_process(tmp_path):
    database = Database.of(tmp_path)
    assert Database.of(tmp_path / "sub" / "..") is database
    assert Database.of(tmp_path, read_only=True) is not database
    database.close()
    again = Database.of(tmp_path)
    assert again is not database
    assert again.store_id == database.store_id
    again.close()


def test_a_reader_opens_a_store_that_is_not_open_and_shares_one_that_is(tmp_path):
    Database(tmp_path).close()
    opened = Database.reading(str(tmp_path), read_only=False)
    assert Database.reading(str(tmp_path), read_only=False) is opened
    assert Database.reading(str(tmp_path), read_only=True) is not opened
    opened.close()


def test_stores_have_identities_of_their_own(tmp_path):
    first, second = Database(tmp_path / "a"), Database(tmp_path / "b")
    assert first.store_id != second.store_id
    first.close()
    second.close()


def test_a_transaction_is_all_or_nothing(tmp_path):
    database = Database(tmp_path)

    def fail():
        with database.write() as connection:
            connection.execute("INSERT INTO run VALUES (NULL, 'a', 0)")
            raise ZeroDivisionError("in the middle")

    with pytest.raises(ZeroDivisionError, match="in the middle"):
        fail()
    with closing(sqlite3.connect(database.path, timeout=0)) as other:
        assert other.execute("BEGIN IMMEDIATE").fetchone() is None  # others can write at once
    with database.read() as connection:
        assert connection.execute("SELECT count(*) FROM run").fetchone() == (0,)
    database.close()


def test_a_snapshot_sees_one_state(tmp_path):
    database = Database(tmp_path)
    count = "SELECT count(*) FROM run"
    with database.snapshot() as connection:
        assert connection.execute(count).fetchone() == (0,)
        with database.write() as writer:
            writer.execute("INSERT INTO run VALUES (NULL, 'a', 0)")
        assert connection.execute(count).fetchone() == (0,)
    with database.read() as connection:
        assert connection.execute(count).fetchone() == (1,)
    database.close()


def test_a_closed_store_says_so(tmp_path):
    db = daskbroker.connect(tmp_path)
    insert_all(db, make_run(1))
    header = db[-1]
    db.close()
    db.close()
    for use in (lambda: db[-1], lambda: header.table(), lambda: insert_all(db, make_run(1))):
        with pytest.raises(StoreError, match="has been closed"):
            use()


def test_nothing_is_made_when_only_opened(tmp_path):
    for options in ({"create": False}, {"mode": "r"}):
        with pytest.raises(StoreNotFound, match="absent"):
            daskbroker.connect(tmp_path / "absent", **options)
    assert not (tmp_path / "absent").exists()


def test_a_place_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="file"):
        daskbroker.connect(tmp_path / "file")


def test_a_foreign_sqlite_file_is_left_alone(tmp_path):
    with sqlite3.connect(tmp_path / "daskbroker.sqlite") as connection:
        connection.execute("CREATE TABLE header (x)")
    connection.close()
    with pytest.raises(StoreDamaged, match="not one of daskbroker"):
        daskbroker.connect(tmp_path)


def test_read_only_refuses_to_write_and_sees_what_others_write(tmp_path):
    with daskbroker.connect(tmp_path) as db, daskbroker.connect(tmp_path, mode="r") as reader:
        documents = make_run(3)
        for number, (name, doc) in enumerate(documents, 1):
            db.insert(name, doc)
            assert len(list(reader[-1].documents())) == number
        for write in (lambda: insert_all(reader, make_run(1)), lambda: reader.seal()):
            with pytest.raises(StoreReadOnly, match="was opened to read only"):
                write()


def _child(db, queue):
    insert_all(db, make_run(3, uid="of-the-child"))
    queue.put([len(h.table().compute()) for h in db])


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(db):
    insert_all(db, make_run(2, uid="of-the-parent"))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_child, args=(db, queue))
    child.start()
    assert sorted(queue.get(timeout=60)) == [2, 3]
    child.join()
    insert_all(db, make_run(4, uid="of-the-parent-2"))
    assert sorted(len(header.table()) for header in db) == [2, 3, 4]


WRITER = """
import sys, daskbroker
from daskbroker.testing import make_run
with daskbroker.connect(sys.argv[1]) as db:
    for number in range(int(sys.argv[2])):
        for name, doc in make_run(20):
            db.insert(name, doc)
        if number % 4 == 3:
            db.seal()
"""


def writers(folder, count, runs):
    return [Program(WRITER, folder, runs) for _ in range(count)]


def test_processes_that_make_a_store_at_once_share_it(tmp_path):
    made = writers(tmp_path / "new", 3, 4)
    problems = [writer.communicate()[1] for writer in made]
    assert problems == [""] * 3
    with daskbroker.connect(tmp_path / "new", mode="r") as db:
        assert len(db) == 12
        assert len(db().table("primary").compute()) == 12 * 20


CREATORS = """
import multiprocessing, sys, daskbroker
from daskbroker.stores.openers import opener_of
daskbroker.connect, opener_of("file"), opener_of("mongodb")  # imported once, not by each child
context = multiprocessing.get_context("fork")
rounds, count = int(sys.argv[2]), 24

def work(place, number):
    together.wait()
    try:
        with daskbroker.connect(place) as db:
            db.insert("start", {"uid": f"run-{number}", "time": 1.0})
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)

for turn in range(rounds):
    place = f"{sys.argv[1]}_{turn}{sys.argv[3]}"
    together = context.Barrier(count)
    processes = [context.Process(target=work, args=(place, number)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    with daskbroker.connect(place, create=False) as db:
        print(len(db))
"""


@pytest.mark.parametrize("kind", ["embedded", "mongo"])
def test_processes_that_open_a_new_store_together_all_succeed(kind, tmp_path, request):
    place, rounds, options = tmp_path / "new", 4, ""
    if kind == "mongo":
        place, rounds = f"{request.getfixturevalue('mongo_database')}_new", 1
        options = "?timeoutMS=120000"  # the machine may have other work
    program = Program(CREATORS, place, rounds, options)
    said, errors = program.communicate(timeout=240)
    if kind == "mongo":
        with pymongo.MongoClient(f"{place}_0") as client:
            client.drop_database(client.get_default_database().name)
    assert said.split("\n") == ["24"] * rounds + [""]
    assert errors == ""


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "loop", "file", "file/sub", "\ud800"])
@pytest.mark.parametrize("mode", ["a", "r"])
def test_a_place_where_no_store_can_be(tmp_path, name, mode):
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(
        DaskbrokerError, match=r"cannot be a folder|the store at|there is no daskbroker store at"
    ):
        daskbroker.connect(f"{tmp_path}/{name}", mode=mode)


def test_reading_while_another_process_writes(tmp_path):
    """What is read is always whole, and neither is ever told that the store is locked."""
    daskbroker.connect(tmp_path).close()
    (writer,) = writers(tmp_path, 1, 12)
    counts = []
    with daskbroker.connect(tmp_path, mode="r") as db:
        while writer.returncode is None:
            events = 0
            for header in db[-3:]:
                numbers = header.table().compute().index.tolist() if header.streams else []
                assert numbers == list(range(1, len(numbers) + 1))
                if header.stop is not None:
                    assert len(numbers) == 20
                events += len(numbers)
            counts.append(len(db))
    assert writer.communicate()[1] == ""
    assert counts == sorted(counts)
    assert len(set(counts)) > 2


def test_threads_insert_runs_at_once(db):
    runs = [make_run(30, uid=f"run-{number}-abc") for number in range(4)]
    problems = []

    def work(documents):
        try:
            insert_all(db, documents)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(documents,)) for documents in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    for documents in runs:
        assert_documents_equal(documents, db[documents[0][1]["uid"]].documents())


def test_few_connections_stay_open(db, source):
    insert_all(db, make_run(2))
    header = db[-1]
    threads = [threading.Thread(target=lambda: header.table().compute()) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = [os.readlink(f"/proc/self/fd/{n}") for n in _descriptors() if _is_link(n)]
    assert sum(path.startswith(str(source._database.root)) for path in held) < 30


def _descriptors():
    return os.listdir("/proc/self/fd")


def _is_link(number):
    return os.path.islink(f"/proc/self/fd/{number}")


def test_connections_that_nobody_closes_are_closed(tmp_path):
    """Python 3.13 warns of those that it finds open; they go with their broker, or at the end."""
    broker = daskbroker.connect(tmp_path / "dropped")
    insert_all(broker, make_run(2))
    assert len(broker[-1].table()) == 2
    database = broker.header_source.store._database
    dropped = set(database._connections)
    assert len(dropped) == 2
    del broker, database
    gc.collect()
    lasting = daskbroker.connect(tmp_path / "lasting")
    insert_all(lasting, make_run(2))
    assert len(lasting) == 1
    connections = set(lasting.header_source.store._database._connections)
    database_module._at_exit()
    for connection in dropped | connections:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
    insert_all(lasting, make_run(2))  # by new ones
    assert len(lasting) == 2
    lasting.close()
