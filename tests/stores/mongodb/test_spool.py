"""Events that wait in a local spool until MongoDB has them."""

from __future__ import annotations

import copy
import fcntl
import json
import os
import time

import dask
import pytest

import daskbroker
from daskbroker.core.errors import ConfigError, DuplicateUID, StoreFull, StoreUnavailable
from daskbroker.stores.spool import sender
from daskbroker.stores.spool.file import HEAD, SpoolFile, left_behind
from daskbroker.testing import assert_documents_equal, make_run, paged_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.mongod import Mongod
from daskbroker.testing.processes import Program
from daskbroker.testing.runs import RunBuilder

# -- the file --------------------------------------------------------------------------------


def test_records_come_back(tmp_path):
    file = SpoolFile.new(tmp_path / "made", "store")
    file.append(b"one")
    file.append(b"\0")
    file.append(b"three" * 1000)
    assert list(file.records()) == [b"one", b"\0", b"three" * 1000]
    file.clear()
    assert file.size == 0
    assert list(file.records()) == []
    file.close(remove=True)
    assert not list((tmp_path / "made").iterdir())


@pytest.mark.parametrize("lost", [1, 3, 6, 10])
def test_a_record_that_was_not_completed_is_none(tmp_path, lost):
    file = SpoolFile.new(tmp_path, "store")
    file.append(b"one")
    file.append(b"two")
    os.truncate(file.path, file.size - lost)
    assert list(file.records()) == [b"one"]
    file.close(remove=True)


def test_a_damaged_record_ends_it(tmp_path):
    file = SpoolFile.new(tmp_path, "store")
    file.append(b"one")
    file.append(b"two")
    with file.path.open("r+b") as other:
        other.seek(2 * HEAD.size + 3)
        other.write(b"T")
    assert list(file.records()) == [b"one"]
    file.close(remove=True)


def test_only_files_of_the_dead_are_left_behind(tmp_path):
    alive, dead = SpoolFile.new(tmp_path, "a"), SpoolFile.new(tmp_path, "a")
    SpoolFile.new(tmp_path, "b").close(remove=False)
    dead.append(b"x")
    dead.close(remove=False)
    found = list(left_behind(tmp_path, "a"))
    assert [list(file.records()) for file in found] == [[b"x"]]
    assert not list(left_behind(tmp_path, "a"))  # it is ours now
    for file in (*found, alive):
        file.close(remove=True)


def test_no_room_leaves_the_records_before(tmp_path, monkeypatch):
    file = SpoolFile.new(tmp_path, "store")
    file.append(b"one")
    write = os.pwrite

    def full(handle, data, place):
        if len(data) > 10:
            return write(handle, data[:10], place)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreFull, match="No space left"):
        file.append(b"two" * 10)
    monkeypatch.undo()
    file.append(b"three")
    assert list(file.records()) == [b"one", b"three"]
    file.close(remove=True)


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="mongo-spool"):
        SpoolFile.new(tmp_path / "file", "store")


# -- the store -------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "spool"
    with dask.config.set({"daskbroker.mongo-spool": path}):
        yield path


@pytest.fixture
def spooled(folder, mongo_database):
    with daskbroker.connect(mongo_database) as db:
        yield db


def sizes(folder):
    return [path.stat().st_size for path in folder.glob("*.spool")]


def test_what_was_inserted_is_read_at_once(spooled, folder):
    documents = make_run(200)
    insert_all(spooled, documents[:-1])
    assert_documents_equal(documents[:-1], spooled[-1].documents())
    insert_all(spooled, documents[-1:])
    assert_documents_equal(documents, spooled[-1].documents())
    assert sizes(folder) == [0]
    spooled.close()
    assert sizes(folder) == []


def test_other_brokers_of_the_process_see_it_at_once(spooled, mongo_database):
    documents = make_run(50)
    insert_all(spooled, documents[:-1])
    with dask.config.set({"daskbroker.mongo-spool": None}):
        other = daskbroker.connect(mongo_database, mode="r")
    assert_documents_equal(documents[:-1], other[-1].documents())
    other.close()


def test_others_see_it_soon(spooled, raw):
    insert_all(spooled, make_run(50)[:-1])
    deadline = time.monotonic() + 10
    while raw["event"].count_documents({}) < 50:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_many_events_are_few_commands_and_a_chunk(
    commands, folder, mongo_database, raw, monkeypatch
):
    monkeypatch.setattr(sender, "COLLECT_SECONDS", 60.0)  # so that a slow machine sends as much
    documents = make_run(3000)
    with daskbroker.connect(mongo_database) as db:
        insert_all(db, documents[:2])
        commands.names.clear()
        insert_all(db, documents[2:-1])
        db.flush()
        assert len(commands.names) < 100
        assert raw["event_chunk"].count_documents({}) > 0
        insert_all(db, documents[-1:])
        assert_documents_equal(documents, db[-1].documents())


def test_with_the_journal_kept_databroker_sees_all(folder, mongo_database, raw):
    documents = make_run(3000)
    with (
        dask.config.set({"daskbroker.mongo-keep-journal": True}),
        daskbroker.connect(mongo_database) as db,
    ):
        insert_all(db, documents)
        assert raw["event"].count_documents({}) == 3000


def test_streams_and_pages_in_turn(spooled):
    run = RunBuilder()
    one, two = run.descriptor({"x": 0.5}), run.descriptor({"y": "a"}, "other")
    for number in range(5):
        run.event(one, {"x": number / 2})
        run.event_page(one, [{"x": 0.5}] * 1200)
        run.event(two, {"y": str(number)})
        run.event_page(one, [{"x": 1.5}] * 3)
    insert_all(spooled, run.stop())
    assert_documents_equal(run.documents, spooled[-1].documents())


def test_inserted_again(spooled):
    documents = paged_run()
    insert_all(spooled, documents)
    insert_all(spooled, copy.deepcopy(documents))
    assert_documents_equal(documents, spooled[-1].documents())


def test_a_different_event_is_an_error_of_the_next_call(spooled):
    documents = make_run(20)
    insert_all(spooled, documents[:12])
    spooled.flush()
    other = copy.deepcopy(documents[5][1])
    other["data"] = dict.fromkeys(other["data"], 0)
    insert_all(spooled, [("event", other)])
    insert_all(spooled, documents[12:16])
    with pytest.raises(DuplicateUID, match=other["uid"]) as caught:
        spooled.flush()
    assert "inserted before" in caught.value.__notes__[0]
    insert_all(spooled, documents[16:])
    assert_documents_equal(documents, spooled[-1].documents())


def test_a_large_event_does_not_wait(spooled, monkeypatch):
    monkeypatch.setattr(sender, "MOST_BYTES", 8000)
    run = RunBuilder()
    descriptor = run.descriptor({"x": [0.5]})
    for number in range(30):
        run.event(descriptor, {"x": [number / 2] * (300 if number % 10 == 5 else 3)})
    insert_all(spooled, run.stop())
    assert_documents_equal(run.documents, spooled[-1].documents())


def test_a_full_spool_waits_for_the_store(spooled, monkeypatch):
    monkeypatch.setattr(sender, "MOST_BYTES", 8000)
    documents = make_run(300)
    insert_all(spooled, documents)
    assert_documents_equal(documents, spooled[-1].documents())


def test_a_forked_child_has_a_spool_of_its_own(spooled, folder):
    documents = make_run(60)
    insert_all(spooled, documents[:30])
    child = os.fork()
    if child == 0:
        insert_all(spooled, documents[30:40])
        spooled.flush()
        os._exit(0 if len(sizes(folder)) == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
    # One that ends at once, as those of multiprocessing do, leaves its events to whoever reads.
    child = os.fork()
    if child == 0:
        insert_all(spooled, documents[40:50])
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert_documents_equal(documents[:50], spooled[-1].documents())
    insert_all(spooled, documents[50:])
    assert_documents_equal(documents, spooled[-1].documents())


# -- deaths ----------------------------------------------------------------------------------


def test_the_server_may_be_away_for_a_while(tmp_path, folder, caplog):
    documents = make_run(400)
    uri = "{}/away?serverSelectionTimeoutMS=200"
    with (
        Mongod(tmp_path / "db") as server,
        daskbroker.connect(uri.format(server.uri)) as db,
    ):
        insert_all(db, documents[:50])
        server.kill()
        insert_all(db, documents[50:300])  # no error
        for use in (db.flush, lambda: db[-1].table(), lambda: db.insert(*documents[-1])):
            with pytest.raises(StoreUnavailable, match="does not answer"):
                use()
        assert sum(sizes(folder)) > 0
        server.start()
        insert_all(db, documents[300:])
        assert_documents_equal(documents, db[-1].documents())
    assert "events wait in the spool" in caplog.text


def test_closing_while_the_server_is_away(tmp_path, folder):
    documents = make_run(100)
    with Mongod(tmp_path / "db") as server:
        uri = f"{server.uri}/closing?serverSelectionTimeoutMS=200"
        db = daskbroker.connect(uri)
        insert_all(db, documents[:50])
        server.kill()
        insert_all(db, documents[50:60])
        with pytest.raises(StoreUnavailable, match=r"\d+ events wait in .*\.spool"):
            db.close()
        assert len(sizes(folder)) == 1
        server.start()
        with daskbroker.connect(uri) as again:
            insert_all(again, documents[60:])
            assert_documents_equal(documents, again[-1].documents())
        assert sizes(folder) == []


INSERT = """
import dask, json, sys, daskbroker
uri, folder, path = sys.argv[1:]
with dask.config.set({"daskbroker.mongo-spool": folder}):
    db = daskbroker.connect(uri)
documents = json.load(open(path))
for name, doc in documents[:2]:
    db.insert(name, doc)
print("ready", flush=True)
sys.stdin.readline()
for name, doc in documents[2:]:
    db.insert(name, doc)
print("done", flush=True)
sys.stdin.readline()
"""


def test_writer_and_server_both_die(tmp_path, folder):
    """What was inserted while the server was away is sent by the next process."""
    documents = json.loads(json.dumps(make_run(500)))
    (tmp_path / "documents").write_text(json.dumps(documents[:-1]))
    with Mongod(tmp_path / "db") as server:
        uri = f"{server.uri}/both?serverSelectionTimeoutMS=200"
        writer = Program(INSERT, uri, folder, tmp_path / "documents")
        assert writer.stdout.readline() == "ready\n"
        server.kill()
        writer.stdin.write("\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == "done\n"
        writer.kill()
        server.start()
        with daskbroker.connect(uri) as db:
            assert_documents_equal(documents[:-1], db[-1].documents())
            insert_all(db, documents[-1:])
            assert_documents_equal(documents, db[-1].documents())
        assert sizes(folder) == []


KILL = """
import sys, dask
from daskbroker.testing.kill import main
dask.config.set({"daskbroker.mongo-spool": sys.argv[1]})
main(sys.argv[2:])
"""


def test_killed_writers_lose_nothing(mongod_uri, folder):
    program = Program(KILL, folder, "--times", 4, "--mongo", mongod_uri)
    said, errors = program.communicate(timeout=200)
    assert program.returncode == 0, said + errors
    assert "4 kills, nothing lost or doubled" in said


def test_a_new_file_is_not_taken_for_one_that_was_left(tmp_path, monkeypatch):
    """Another process may look for files between the making of one and its lock."""
    lock, looks = fcntl.flock, []

    def look_first(*arguments):
        if not looks:
            looks.append(None)
            for file in left_behind(tmp_path, "store"):
                file.close(remove=True)
        lock(*arguments)

    monkeypatch.setattr(fcntl, "flock", look_first)
    file = SpoolFile.new(tmp_path, "store")
    file.append(b"an event")
    assert looks
    assert list(tmp_path.iterdir()) == [file.path]
    assert list(left_behind(tmp_path, "store")) == []
    file.close(remove=False)
    (left,) = left_behind(tmp_path, "store")
    assert list(left.records()) == [b"an event"]
    left.close(remove=True)
