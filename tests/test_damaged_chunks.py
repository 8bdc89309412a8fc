"""Views of many runs of which a chunk turns out to be damaged: an error, or left out if asked."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import dask
import pymongo
import pytest
from distributed import Client

import daskbroker
from daskbroker import BadRunWarning
from daskbroker.core.errors import BadQuery, StoreDamaged
from daskbroker.stores.mongodb import chunk_store
from daskbroker.testing import assert_documents_equal, external_run, make_run
from daskbroker.testing.base import insert_all

KEYS = {"x": [row / 7 for row in range(30)], "s": [f"text {row}" for row in range(30)]}
LOST = range(10, 20)
"""Rows in the chunk that is damaged."""


def run_named(uid, time):
    documents = make_run(keys=KEYS, uid=uid)
    return [(documents[0][0], {**documents[0][1], "time": time}), *documents[1:]]


EARLY, BAD, LATE = (run_named(uid, n * 1e6) for n, uid in enumerate(("early", "bad", "late"), 1))
FILES = external_run(4)
FILES[0][1]["time"] = 9e6
FILES_UID = FILES[0][1]["uid"]


def insert_in_three_chunks(db, documents):
    for begin, end in ((0, 12), (12, 22), (22, None)):
        insert_all(db, documents[begin:end])
        db.seal(documents[0][1]["uid"])


def without_lost(documents):
    events = [doc for name, doc in documents if name == "event"]
    lost = {events[row]["uid"] for row in LOST}
    return [pair for pair in documents if pair[1]["uid"] not in lost]


def flipped(body):
    changed = bytearray(body)
    changed[len(changed) // 2] ^= 4
    return bytes(changed)


class Embedded:
    """Damages the small chunks of an embedded store."""

    def __init__(self, place):
        self.place = place

    def _spoil(self, run, kind, number):
        query = (
            "SELECT chunk.id FROM run JOIN sequence ON run = run.id JOIN chunk "
            "ON sequence = sequence.id WHERE run.uid = ? AND kind = ? ORDER BY first"
        )
        with closing(sqlite3.connect(self.place / "daskbroker.sqlite")) as connection:
            chunk = connection.execute(query, (run, kind)).fetchall()[number]
            select = "SELECT body FROM chunk_body WHERE id = ?"
            body = flipped(connection.execute(select, chunk).fetchone()[0])
            connection.execute("UPDATE chunk_body SET body = ? WHERE id = ?", (body, *chunk))
            connection.commit()

    def events(self, run, number):
        self._spoil(run, "event", number)

    def references(self, run):
        self._spoil(run, "datum", 0)


class Mongo:
    """Damages the chunks and references of a MongoDB store."""

    def __init__(self, place):
        self.place = place

    def _database(self):
        return closing(pymongo.MongoClient(self.place))

    def events(self, run, number):
        with self._database() as client:
            raw = client.get_default_database()
            chunk = list(raw.event_chunk.find({"run": run}).sort("first"))[number]["_id"]
            column = raw.event_chunk_column.find_one({"chunk": chunk})
            body = {"$set": {"body": flipped(column["body"])}}
            raw.event_chunk_column.update_one({"_id": column["_id"]}, body)

    def references(self, run):
        with self._database() as client:
            raw = client.get_default_database()
            resource = raw.resource.find_one({"run_start": run})["uid"]
            raw.datum.update_one({"resource": resource}, {"$set": {"datum_kwargs": 5}})


@pytest.fixture(params=["embedded", "mongo"])
def damage(request, tmp_path):
    if request.param == "embedded":
        return Embedded(tmp_path / "store")
    return Mongo(request.getfixturevalue("mongo_database"))


@pytest.fixture
def db(damage):
    """Three runs, of the one in the middle a chunk is damaged."""
    with daskbroker.connect(damage.place) as db:
        insert_all(db, EARLY)
        insert_in_three_chunks(db, BAD)
        insert_all(db, LATE)
    damage.events("bad", 1)
    with daskbroker.connect(damage.place) as db:
        yield db


@pytest.fixture(params=[False, True], ids=["here", "on a cluster"])
def somewhere(request):
    """Where chunks are read ahead: here, and on the workers of a Client."""
    if not request.param:
        yield
        return
    cluster = request.getfixturevalue("cluster")
    with Client(cluster), dask.config.set(scheduler="dask.distributed"):
        yield


def test_documents_of_many_runs_end_at_a_damaged_chunk(db, somewhere):
    with pytest.raises(StoreDamaged, match="run 'bad', stream 'primary'"):
        list(db().documents())


@pytest.mark.parametrize("prefetch_bytes", [2**27, 2**10], ids=["together", "one by one"])
def test_documents_of_many_runs_go_on_without_what_is_damaged(db, somewhere, prefetch_bytes):
    with (
        dask.config.set({"daskbroker.prefetch-bytes": prefetch_bytes}),
        pytest.warns(BadRunWarning, match="run 'bad', stream 'primary'") as caught,
    ):
        read = list(db().documents(errors="skip"))
    assert len(caught) == 1
    expected = [*LATE, *without_lost(BAD), *EARLY]
    assert_documents_equal(expected, read)


def test_documents_of_some_fields_go_on_too(db):
    with pytest.warns(BadRunWarning, match="run 'bad'"):
        read = list(db().documents(fields=["x"], errors="skip"))
    numbers = [doc["data"]["x"] for name, doc in read if name == "event"]
    kept = [row / 7 for row in range(30) if row not in LOST]
    assert numbers == [*KEYS["x"], *kept, *KEYS["x"]]


def test_a_run_with_damaged_references_is_left_out_whole(db, damage, somewhere):
    insert_all(db, FILES)
    db.close()
    damage.references(FILES_UID)
    with daskbroker.connect(damage.place) as db:
        if isinstance(damage, Embedded):  # those of MongoDB are looked at with the runs
            with pytest.raises(StoreDamaged, match=FILES_UID):
                list(db(uid=FILES_UID).documents(fill=False))
        results = db()
        with pytest.warns(BadRunWarning) as caught:
            read = list(results.documents(fill=False, errors="skip"))
        assert sorted(FILES_UID in str(one.message) for one in caught) == [False, True]
        assert [bad.uid for bad in results.bad] == [FILES_UID]
        assert_documents_equal([*EARLY, *without_lost(BAD), *LATE], read)


def test_a_dataset_leaves_runs_out_of_which_something_is_damaged(db):
    with pytest.raises(StoreDamaged, match="run 'bad'"):
        db().dataset().load()
    results = db()
    with pytest.warns(BadRunWarning, match="run 'bad'"):
        dataset = results.dataset(errors="skip")
    assert dataset.load().sizes["time"] == 60
    assert dataset["s"].values.tolist() == KEYS["s"] * 2
    assert [bad.uid for bad in results.bad] == ["bad"]


def test_a_tree_of_datasets_leaves_them_out_too(db):
    with pytest.warns(BadRunWarning, match="run 'bad'"):
        tree = db().dataset(errors="skip", combine="tree")
    assert list(tree.children) == ["early", "late"]
    assert tree.load()["late"].sizes["time"] == 30


def test_a_dataset_of_columns_that_are_sound_has_all_runs(mongo_database, monkeypatch):
    monkeypatch.setattr(chunk_store, "ONE_BUFFER_BYTES", 0)
    with daskbroker.connect(mongo_database) as db:
        insert_all(db, EARLY)
        insert_in_three_chunks(db, BAD)
        with pymongo.MongoClient(mongo_database) as client:
            raw = client.get_default_database()
            chunk = raw.event_chunk.find_one({"run": "bad"})["_id"]
            column = {"chunk": chunk, "column": "data:s"}
            body = flipped(raw.event_chunk_column.find_one(column)["body"])
            raw.event_chunk_column.update_one(column, {"$set": {"body": body}})
        assert db().dataset(fields=["x"], errors="skip").load().sizes["time"] == 60
        with pytest.warns(BadRunWarning, match="run 'bad'"):
            assert db().dataset(fields=["s"], errors="skip").load().sizes["time"] == 30


def test_bytes_that_are_lost_are_told_by_their_run(tmp_path, somewhere):
    with daskbroker.connect(tmp_path / "store") as db:
        for documents in (EARLY, BAD):
            insert_all(db, documents)
    with closing(sqlite3.connect(tmp_path / "store/daskbroker.sqlite")) as connection:
        query = "DELETE FROM chunk_body WHERE id = (SELECT max(id) FROM chunk_body)"
        connection.execute(query)
        connection.commit()
    with daskbroker.connect(tmp_path / "store") as db:
        header = db["bad"]
        for read in (
            lambda: header.table().compute(),
            lambda: header.dataset().load(),
            lambda: list(header.documents()),
        ):
            with pytest.raises(StoreDamaged, match=r"run 'bad', stream 'primary': .*lacks"):
                read()
        assert_documents_equal(EARLY, db["early"].documents())


def test_errors_is_raise_or_skip(db):
    for view in (db().table, db().dataset, lambda **kwargs: list(db().documents(**kwargs))):
        with pytest.raises(BadQuery, match="errors must be 'raise' or 'skip', not 'ignore'"):
            view(errors="ignore")
