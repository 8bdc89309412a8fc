"""What an insert costs in transactions, and that start and stop are one each."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle

import pytest

import daskbroker
from daskbroker.core.errors import DuplicateUID, StoreError, UnknownReference
from daskbroker.stores.embedded.format import COUNTED
from daskbroker.testing import assert_documents_equal, make_run
from daskbroker.testing.base import insert_all

EVENTS = 10


@pytest.fixture
def statements(db, source):
    """What the connection that writes has executed."""
    insert_all(db, make_run(2))
    found = []
    source._database._writer.set_trace_callback(found.append)
    return found


def count(statements, begin):
    return sum(one.startswith(begin) for one in statements)


def rows(source, query):
    with source._database.read() as connection:
        return connection.execute(query).fetchall()


def test_a_document_is_one_transaction_and_a_stop_one_more_for_its_chunk(db, statements):
    for name, doc in make_run(EVENTS):
        statements.clear()
        db.insert(name, doc)
        assert count(statements, "COMMIT") == (2 if name == "stop" else 1), name


def test_where_chunks_end_is_looked_up_for_the_first_event_only(db, statements):
    documents = make_run(EVENTS, stop=False)
    insert_all(db, documents)
    assert count(statements, "SELECT first + rows FROM chunk") == 1


def refuse(source, when):
    """Another program's trigger, which makes a part of an insert fail."""
    with sqlite3.connect(source._database.path) as connection:
        connection.execute(
            f"CREATE TRIGGER refuse BEFORE {when} BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    connection.close()


def allow(source):
    with sqlite3.connect(source._database.path) as connection:
        connection.execute("DROP TRIGGER refuse")
    connection.close()


@pytest.mark.parametrize("table", ["header", "leaf", "run"])
def test_of_a_start_that_fails_nothing_is_stored_nor_remembered(db, source, table):
    documents = make_run(EVENTS)
    refuse(source, f"INSERT ON {table}")
    with pytest.raises(StoreError, match="refused"):
        db.insert(*documents[0])
    assert rows(source, "SELECT * FROM run") == rows(source, "SELECT * FROM header") == []
    with pytest.raises(UnknownReference, match="insert its start document first"):
        db.insert(*documents[1])
    allow(source)
    other = make_run(3)  # gets the number that the first would have had
    insert_all(db, other)
    insert_all(db, documents)
    for run in (documents, other):
        assert len(db[run[0][1]["uid"]].table().compute()) == len(run) - 3


@pytest.mark.parametrize("when", ["INSERT ON journal", "INSERT ON chunk", "DELETE ON journal"])
def test_events_that_fail_are_not_known_and_those_that_fail_to_be_sealed_are(db, source, when):
    documents = make_run(EVENTS, stop=False)
    insert_all(db, documents[:6])
    refuse(source, when)
    attempt = db.seal if when != "INSERT ON journal" else partial(db.insert, *documents[6])
    with pytest.raises(StoreError, match="refused"):
        attempt()
    allow(source)
    insert_all(db, documents)
    with pytest.raises(DuplicateUID, match=documents[6][1]["uid"]):
        db.insert("event", {**documents[6][1], "time": 1.0})
    db.seal()
    assert len(db[-1].table().compute()) == EVENTS


@pytest.mark.parametrize("when", ["UPDATE ON header", "UPDATE ON run"])
def test_a_stop_that_fails_leaves_the_run_open_and_its_events_there(db, source, when):
    documents = make_run(EVENTS)
    insert_all(db, documents[:-1])
    refuse(source, when)
    with pytest.raises(StoreError, match="refused"):
        db.insert(*documents[-1])
    assert rows(source, "SELECT stopped FROM run") == [(0,)]
    assert db[-1].stop is None
    assert len(db[-1].table().compute()) == EVENTS
    allow(source)
    db.insert(*documents[-1])
    assert rows(source, "SELECT stopped FROM run") == [(COUNTED + EVENTS,)]
    assert db[-1].stop == documents[-1][1]


def test_a_different_stop_changes_nothing(db, source):
    documents = make_run(EVENTS)
    insert_all(db, documents)
    with pytest.raises(DuplicateUID, match=documents[-1][1]["uid"]):
        db.insert("stop", {**documents[-1][1], "exit_status": "abort"})
    assert db[-1].stop == documents[-1][1]


def test_a_run_of_which_an_earlier_version_has_no_start_yet_is_taken_up(db, source):
    documents = make_run(EVENTS)
    source.put_run(documents[0][1]["uid"])  # and then it was killed
    source._runs.clear()
    with pytest.raises(UnknownReference, match="insert its start document first"):
        db.insert(*documents[-1])
    insert_all(db, documents)
    assert rows(source, "SELECT count(*) FROM run") == [(1,)]
    assert len(db[-1].table().compute()) == EVENTS


class FullAtCommit:
    """A connection to a disk that is full at the end of a transaction."""

    def __init__(self, connection):
        self._connection = connection

    def execute(self, statement, *values):
        if statement == "COMMIT":
            raise sqlite3.OperationalError("database or disk is full")
        return self._connection.execute(statement, *values)

    def __getattr__(self, name):
        return getattr(self._connection, name)


class PassedOn:
    """A lock that another thread takes as soon as a transaction has failed."""

    def __init__(self, lock, then):
        self._lock, self._then = lock, then

    def __enter__(self):
        return self._lock.__enter__()

    def __exit__(self, kind, *error):
        self._lock.__exit__(kind, *error)
        if kind is not None:
            with ThreadPoolExecutor(1) as thread:
                thread.submit(self._then).result()


def test_threads_know_of_each_others_failed_transactions(db, source, monkeypatch):
    """A failed one has counted positions up: with gaps between them no chunk could be made."""
    *documents, failing, meanwhile, stop = make_run(4)
    insert_all(db, documents)
    database = source._database

    def insert():
        patched.undo()
        db.insert(*meanwhile)

    with monkeypatch.context() as patched:
        patched.setattr(database, "_writer", FullAtCommit(database._writer))
        patched.setattr(database, "_lock", PassedOn(database._lock, insert))
        with pytest.raises(StoreError, match="disk is full"):
            db.insert(*failing)
    insert_all(db, [failing, stop])
    assert [doc["uid"] for name, doc in db[-1].documents() if name == "event"] == [
        doc["uid"] for name, doc in [*documents, meanwhile, failing] if name == "event"
    ]


def test_brokers_of_one_process_know_what_the_other_has_stored(db, source):
    """They have one connection, whose own writing SQLite does not tell."""
    with daskbroker.connect(source._database.root, timezone="Asia/Tokyo") as other:
        documents = make_run(EVENTS)
        for (name, doc), broker in zip(documents, cycle((db, other))):
            broker.insert(name, doc)
        for (name, doc), broker in zip(documents, cycle((other, db))):
            broker.insert(name, doc)
        assert_documents_equal(documents, db[-1].documents())
