"""Processes that are killed: writers, sealers, and the server itself."""

from __future__ import annotations

import os
import threading
import time

import pytest

import daskbroker
from daskbroker.core.errors import StoreUnavailable
from daskbroker.testing import assert_documents_equal, make_run, paged_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.crowd import main as crowd
from daskbroker.testing.mongod import Mongod
from daskbroker.testing.processes import Program

KILL = "import sys; from daskbroker.testing.kill import main; main(sys.argv[1:])"


def test_killed_writers_lose_nothing(mongod_uri):
    program = Program(KILL, "--times", 5, "--mongo", mongod_uri)
    said, errors = program.communicate(timeout=200)
    assert program.returncode == 0, said + errors
    assert "5 kills, nothing lost or doubled" in said


def test_writer_sealers_and_readers_at_once(mongo_database, capsys):
    crowd([mongo_database, "--seconds", "6"])
    said = capsys.readouterr().out
    assert "nothing lost or doubled" in said
    assert " 0 readings" not in said


def until_stored(db, name, doc):
    """Insert repeatedly while the server is down, and return how often that was."""
    for failures in range(1000):
        try:
            db.insert(name, doc)
            return failures
        except StoreUnavailable:
            time.sleep(0.05)
    raise AssertionError("the server has not come back")


def test_server_killed_while_events_are_inserted(tmp_path):
    documents = make_run(300)
    with Mongod(tmp_path) as server:
        uri = f"{server.uri}/killed?serverSelectionTimeoutMS=300"
        kills = []

        def kill():
            for _ in range(3):
                time.sleep(0.3)
                server.kill()
                time.sleep(0.1)
                server.start()
                kills.append(1)

        killer = threading.Thread(target=kill)
        with daskbroker.connect(uri) as db:
            insert_all(db, documents[:2])
            killer.start()
            failures = 0
            for name, doc in documents[2:-1]:
                failures += until_stored(db, name, doc)
                if killer.is_alive():
                    time.sleep(0.002)
            killer.join()
            failures += until_stored(db, *documents[-1])
            assert failures
            assert len(kills) == 3
            assert_documents_equal(documents, db[-1].documents())


def test_a_server_that_is_away_is_one_clear_error(tmp_path):
    documents = paged_run()
    with Mongod(tmp_path) as server:
        uri = server.uri.replace("//", "//me:s3cret@") + "/gone?serverSelectionTimeoutMS=100"
        server.kill()
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1.*does not answer") as caught:
            daskbroker.connect(uri)
        assert "s3cret" not in str(caught.value) + repr(caught.value.__cause__)
        server.start()
        with daskbroker.connect(f"{server.uri}/gone?serverSelectionTimeoutMS=100") as db:
            insert_all(db, documents[:2])
            server.kill()
            for use in (
                lambda: db[-1],
                lambda: len(db),
                lambda: list(db(plan_name="x")),
                db.seal,
            ):
                with pytest.raises(StoreUnavailable, match=r"does not answer.* Try again when"):
                    use()
            for pair in (documents[2], documents[-1]):
                with pytest.raises(StoreUnavailable, match=r"does not answer.* inserting it again"):
                    db.insert(*pair)
            server.start()
            insert_all(db, documents[2:])
            assert_documents_equal(documents, db[-1].documents())


def test_a_forked_child_makes_connections_of_its_own(mongo):
    insert_all(mongo, make_run(3))
    assert len(mongo[-1].table().compute()) == 3
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, str(len(mongo[-1].table().compute())).encode())
        os._exit(0)
    os.close(writing)
    assert os.read(reading, 10) == b"3"
    os.waitpid(child, 0)
    assert len(mongo[-1].table().compute()) == 3
