"""A replica set: what `insert` returned survives a failover, and waiting has an end."""

from __future__ import annotations

import copy
import threading
import time
import uuid
from contextlib import closing

import dask
import pymongo
import pytest

import daskbroker
from daskbroker.core.errors import ConfigError, StoreUnavailable
from daskbroker.stores.mongodb import chunk_store, sealing
from daskbroker.stores.mongodb.acknowledgement import client_options, insert_seconds
from daskbroker.stores.mongodb.database import CHUNK_COLLECTION, Database
from daskbroker.stores.mongodb.journal import row_batches
from daskbroker.stores.mongodb.sealed_rows import SEALED_MARK
from daskbroker.testing import assert_documents_equal, external_run, make_run, paged_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.crowd import main as crowd
from daskbroker.testing.kill import until_it_answers


@pytest.fixture
def name():
    return f"test_{uuid.uuid4().hex}"


def insert_until_stored(db, documents):
    for kind, doc in documents:
        until_it_answers(lambda kind=kind, doc=doc: db.insert(kind, doc))


# -- what a write waits for --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", {"w": "majority", "j": True, "wtimeout": 10_000}),
        ("?replicaSet=x", {"w": "majority", "j": True, "wtimeout": 10_000}),
        ("?w=1", {"w": 1, "j": True, "wtimeout": 10_000}),
        ("?w=3&wtimeoutMS=250", {"w": 3, "j": True, "wtimeout": 250}),
        ("?journal=false", {"w": "majority", "j": False, "wtimeout": 10_000}),
        ("?w=0", {"w": 0}),
    ],
)
def test_writes_wait_for_a_majority_unless_the_uri_says_otherwise(options, expected):
    database = Database(f"mongodb://127.0.0.1:9/db{options}")
    with closing(database):
        for collection in ("run_start", "event_descriptor", "event", "datum", CHUNK_COLLECTION):
            assert database.collection(collection).write_concern.document == expected


@pytest.mark.parametrize("level", ["linearizable", "available", "snapshot"])
def test_read_concerns_that_sessions_lack_are_refused_at_once(level):
    with pytest.raises(ConfigError, match=f"no readConcernLevel={level} in sessions"):
        daskbroker.connect(f"mongodb://127.0.0.1:9/db?readConcernLevel={level}")


def test_the_journal_may_be_given_up_and_the_majority_stays():
    database = Database("mongodb://127.0.0.1:9/db")
    with closing(database), dask.config.set({"daskbroker.mongo-journaled": False}):
        concern = database.collection("event").write_concern.document
    assert (concern["w"], concern["j"]) == ("majority", False)


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ("", 10),
        ("?timeoutMS=1500&wtimeoutMS=9000", 1.5),
        ("?wtimeoutMS=2000", 2),
        ("?socketTimeoutMS=3000", 3),
        ("?serverSelectionTimeoutMS=200", 10),
        ("?serverSelectionTimeoutMS=30000&wtimeoutMS=2000", 30),
        ("?timeoutMS=0", 0),
    ],
)
def test_how_long_an_insert_may_take(options, seconds):
    assert insert_seconds(f"mongodb://me:p?timeoutMS=1@host/db{options}") == seconds


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ("", {"serverSelectionTimeoutMS": 10_000, "connectTimeoutMS": 10_000}),
        ("?connectTimeoutMS=5", {"serverSelectionTimeoutMS": 10_000}),
        ("?SERVERSELECTIONTIMEOUTMS=5;w=1", {"connectTimeoutMS": 10_000}),
        ("?connecttimeoutms=5&serverselectiontimeoutms=6", {}),
    ],
)
def test_how_long_a_server_is_looked_for(options, limits):
    assert client_options(f"mongodb://me:p?connectTimeoutMS=1@host/db{options}") == limits


# -- failovers ---------------------------------------------------------------------------------


def test_what_insert_has_returned_survives_a_failover(members, name):
    documents = make_run(40)
    returned = []

    def write():
        for pair in documents[20:-1]:
            insert_until_stored(db, [pair])
            returned.append(pair)

    with daskbroker.connect(members.uri(name)) as db:
        insert_all(db, documents[:20])
        members.hold_secondaries()
        writer = threading.Thread(target=write)
        writer.start()
        time.sleep(1)
        assert not returned
        members.kill_primary()
        members.release_secondaries()
        writer.join()
        with daskbroker.connect(members.uri(name, appName="other"), mode="r") as other:
            assert_documents_equal(documents[:-1], other[-1].documents())
        insert_until_stored(db, documents[-1:])
        assert_documents_equal(documents, db[-1].documents())
        assert len(db[-1].table().compute()) == 40


@pytest.mark.parametrize(
    "make", [lambda: external_run(2), lambda: paged_run(2, 1200)], ids=["single", "pages"]
)
def test_what_is_not_confirmed_in_time_is_said_and_may_be_inserted_again(members, name, make):
    """Each document waits in vain, is found on the primary alone, and is stored at last."""
    documents = make()
    uri = members.uri(name, timeoutMS=1000)
    with daskbroker.connect(members.uri(name)) as patient, daskbroker.connect(uri) as db:
        insert_until_stored(db, make_run(1))
        tried = set()
        for kind, doc in documents:
            if kind not in tried:
                tried.add(kind)
                members.hold_secondaries()
                for _ in range(2):
                    began = time.monotonic()
                    with pytest.raises(
                        StoreUnavailable, match="may or may not be stored"
                    ) as caught:
                        db.insert(kind, doc)
                    assert time.monotonic() - began < 5
                    assert "inserting it again" in str(caught.value)
                members.release_secondaries()
            insert_until_stored(patient, [(kind, copy.deepcopy(doc))])
        uid = documents[0][1]["uid"]
        assert_documents_equal(documents, patient[uid].documents(fill=False))


def test_a_change_of_primary_between_columns_and_manifest(members, name, monkeypatch):
    publish = chunk_store.publish

    def after_failover(database, manifests):
        monkeypatch.setattr(sealing, "publish", publish)
        members.kill_primary()
        return publish(database, manifests)

    documents = paged_run()
    with daskbroker.connect(members.uri(name)) as db:
        monkeypatch.setattr(sealing, "publish", after_failover)
        insert_until_stored(db, documents)
        assert sealing.publish is publish
        assert_documents_equal(documents, db[-1].documents())


def test_a_lost_answer_does_not_cost_a_chunk_its_columns(members, name, monkeypatch):
    """The manifest is stored, but the primary alone has it: its columns have to stay."""
    documents = make_run(30)
    with daskbroker.connect(members.uri(name, timeoutMS=3000)) as db:
        insert_all(db, documents[:-1])
        publish = chunk_store.publish

        def held(database, manifests):
            monkeypatch.setattr(sealing, "publish", publish)
            members.hold_secondaries()
            return publish(database, manifests)

        monkeypatch.setattr(sealing, "publish", held)
        with pytest.raises(StoreUnavailable, match="does not answer, or not in time"):
            db.insert(*documents[-1])
        members.release_secondaries()
        insert_until_stored(db, documents[-1:])
        assert_documents_equal(documents, db[-1].documents())


def test_a_change_of_primary_after_rows_were_removed(members, name, monkeypatch):
    """Rows whose removal is rolled back are not taken for gone."""
    documents = make_run(30)
    remove = sealing.mark_sealed

    def then_fail_over(*arguments):
        monkeypatch.setattr(sealing, "mark_sealed", remove)
        remove(*arguments)
        members.kill_primary()

    with daskbroker.connect(members.uri(name)) as db:
        insert_all(db, documents[:-1])
        monkeypatch.setattr(sealing, "mark_sealed", then_fail_over)
        insert_until_stored(db, documents[-1:])
        assert sealing.mark_sealed is remove
        assert_documents_equal(documents, db[-1].documents())
        with pymongo.MongoClient(members.uri(name)) as client:
            events = client.get_default_database().event
            assert events.count_documents({"descriptor": {"$ne": SEALED_MARK}}) == 0


# -- spool -------------------------------------------------------------------------------------


def test_the_spool_is_emptied_when_a_majority_has_the_events(members, name, tmp_path):
    documents = make_run(300)
    with (
        dask.config.set({"daskbroker.mongo-spool": tmp_path}),
        daskbroker.connect(members.uri(name)) as db,
    ):
        insert_all(db, documents[:50])
        db.flush()
        members.hold_secondaries()
        insert_all(db, documents[50:-1])  # returns at once
        time.sleep(1)
        assert sum(path.stat().st_size for path in tmp_path.glob("*.spool")) > 0
        members.kill_primary()
        members.release_secondaries()
        until_it_answers(db.flush)
        assert [path.stat().st_size for path in tmp_path.glob("*.spool")] == [0]
        assert_documents_equal(documents[:-1], db[-1].documents())
        insert_until_stored(db, documents[-1:])
        assert_documents_equal(documents, db[-1].documents())


# -- reading -----------------------------------------------------------------------------------


def test_a_stream_of_rows_that_breaks_off_is_an_error(members, name):
    # More than the buffers of a connection hold.
    documents = make_run(keys={"text": ["a" * 5000] * 3000})
    uri = members.uri(name)
    with (
        dask.config.set({"daskbroker.mongo-keep-journal": True}),
        daskbroker.connect(uri) as db,
    ):
        insert_all(db, documents[:2])
        db.insert("event_page", page_of(documents))
        descriptor = documents[1][1]["uid"]
        batches = row_batches(Database.of(uri), {"descriptor": descriptor}, None)
        count = len(next(batches)[0])
        members.kill_primary()
        with pytest.raises(StoreUnavailable, match="does not answer"):
            count += sum(len(rows) for rows, _ in batches)
        assert count < 3000
        assert_documents_equal(documents[:-1], db[-1].documents())


def page_of(documents):
    events = [doc for kind, doc in documents if kind == "event"]
    page = {key: [event[key] for event in events] for key in ("uid", "seq_num", "time")}
    for part in ("data", "timestamps", "filled"):
        page[part] = {key: [event[part][key] for event in events] for key in events[0][part]}
    return {**page, "descriptor": events[0]["descriptor"]}


def test_lists_tables_and_documents_in_a_failover(members, name):
    documents = make_run(100)
    with daskbroker.connect(members.uri(name)) as db:
        insert_all(db, documents)
        header = db[-1]
        members.kill_primary()
        for read in (
            lambda: [one.uid for one in db],
            lambda: len(db),
            lambda: len(header.table().compute()),
            lambda: sum(1 for kind, _ in db[-1].documents() if kind == "event"),
        ):
            assert until_it_answers(read) in (1, 100, [header.uid])


def test_workers_read_through_a_failover(members, name, cluster):
    from distributed import Client

    documents = make_run(2000)
    with daskbroker.connect(members.uri(name)) as db, Client(cluster):
        insert_all(db, documents[:2])
        db.insert("event_page", page_of(documents))
        insert_all(db, documents[-1:])
        table = db[-1].table()
        members.kill_primary()
        assert until_it_answers(lambda: len(table.compute())) == 2000


def test_secondaries_that_lag_show_nothing_old(members, name):
    """Only columns of chunks, which never change, are read where ``readPreference`` says."""
    documents = paged_run()
    uri = members.uri(name, w=1, readPreference="secondary")
    with daskbroker.connect(uri) as db:
        insert_all(db, make_run(1))
        members.hold_secondaries()
        insert_all(db, documents)
        uid = documents[0][1]["uid"]
        assert_documents_equal(documents, db[uid].documents())
        insert_all(db, copy.deepcopy(documents))
        assert_documents_equal(documents, db[uid].documents())


# -- many at once ------------------------------------------------------------------------------


def test_a_crowd_in_which_primaries_are_killed(capsys):
    crowd(["--kill-primaries", "--seconds", "12"])
    said = capsys.readouterr().out
    assert "nothing lost or doubled" in said
    assert " 0 readings" not in said
    assert " 0 failovers" not in said
