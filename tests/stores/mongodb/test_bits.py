"""One flipped bit in a stored column: an error that says where, however it is read."""

from __future__ import annotations

import random

import dask
import pytest
from distributed import Client

import daskbroker
from daskbroker.core.errors import BadRunWarning, StoreDamaged
from daskbroker.stores.mongodb import chunk_store
from daskbroker.testing import assert_documents_equal, make_run
from daskbroker.testing.base import insert_all

RUN = make_run(keys={"x": [row / 7 for row in range(300)], "s": ["text"] * 300}, uid="the-run")
READS = {
    "table": lambda header: header.table().compute(),
    "column": lambda header: header.table()[["x"]].compute(),
    "dataset": lambda header: header.dataset().compute(),
    "documents": lambda header: list(header.documents()),
}


def flip(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.fixture(params=[0, 2**20], ids=["columns", "whole"])
def header(mongo, request, monkeypatch):
    """A sealed run, its columns apart or together."""
    monkeypatch.setattr(chunk_store, "ONE_BUFFER_BYTES", request.param)
    insert_all(mongo, RUN)
    return mongo["the-run"]


@pytest.fixture
def column(header, raw):
    """The document that has the column x."""
    return raw.event_chunk_column.find_one({"column": {"$in": ["", "data:x"]}})


def test_a_flipped_bit_is_an_error(header, column, raw):
    for bit in random.Random(5).sample(range(8 * len(column["body"])), 25):
        body = flip(column["body"], bit)
        raw.event_chunk_column.update_one({"_id": column["_id"]}, {"$set": {"body": body}})
        for read in READS.values():
            with pytest.raises(StoreDamaged, match=r"checksum is wrong|is damaged") as caught:
                read(header)
            for part in ("run 'the-run'", "stream 'primary'", raw.name, column["chunk"]):
                assert part in str(caught.value)
    raw.event_chunk_column.replace_one({"_id": column["_id"]}, column)
    assert_documents_equal(RUN, header.documents())


@pytest.mark.parametrize("body", [None, 5, "text", b"", b"abc"])
def test_a_body_of_another_type(header, column, raw, body):
    raw.event_chunk_column.update_one({"_id": column["_id"]}, {"$set": {"body": body}})
    for read in READS.values():
        with pytest.raises(StoreDamaged, match="run 'the-run', stream 'primary'"):
            read(header)


@pytest.mark.parametrize(
    "change",
    [
        {"$unset": {"column": 1}},
        {"$set": {"column": {"a": 1}}},
        [{"$set": {"chunk": ["$chunk"]}}],
    ],
    ids=["no column", "a mapping", "a list of chunks"],
)
def test_a_column_under_no_name(header, column, raw, change):
    raw.event_chunk_column.update_one({"_id": column["_id"]}, change)
    for read in READS.values():
        with pytest.raises(StoreDamaged, match=r"run 'the-run'.*lacks its columns"):
            read(header)


def test_columns_that_were_swapped(mongo, raw, monkeypatch):
    monkeypatch.setattr(chunk_store, "ONE_BUFFER_BYTES", 0)
    insert_all(mongo, RUN)
    columns = raw.event_chunk_column
    other = columns.find_one({"column": "seq_num"})["body"]
    columns.update_one({"column": "data:x"}, {"$set": {"body": other}})
    for read in READS.values():
        with pytest.raises(
            StoreDamaged, match=r"run 'the-run'.*'data:x'.*has other rows or columns"
        ):
            read(mongo["the-run"])


def test_a_manifest_with_another_number_of_rows(header, raw):
    raw.event_chunk.update_one({}, {"$bit": {"rows": {"xor": 4}}})
    for read in READS.values():
        with pytest.raises(StoreDamaged, match="run 'the-run'"):
            read(header)


CHANGES = [
    ("seq_min", 3),  # tables would have another index
    ("seq_max", 299),
    ("time_max", 1.0),  # a selection by time would leave the chunk out
    ("first", 64),
    ("ordered", False),
    ("distinct", 1),
    ("rows", "300"),
    ("run", "the-ruo"),
    ("schema", '{"uid":["text"]}'),  # columns would be absent
    ("schema", None),
    ("journal", "gonf"),
    ("whole", None),
    ("checksums", 5),
]
"""Fields of a manifest and values that they did not have; None to remove a field."""


def test_a_manifest_that_was_changed(mongo, raw):
    insert_all(mongo, RUN)
    insert_all(mongo, other := make_run(3, keys=["x"]))
    manifest = raw.event_chunk.find_one({"run": "the-run"})
    for field, change in CHANGES:
        update = {"$unset": {field: 1}} if change is None else {"$set": {field: change}}
        raw.event_chunk.update_one({"_id": manifest["_id"]}, update)
        with pytest.raises(StoreDamaged, match=r"run 'the-run'.*manifest of chunk"):
            mongo["the-run"].table()
        raw.event_chunk.replace_one({"_id": manifest["_id"]}, manifest)
    raw.event_chunk.update_one({"_id": manifest["_id"]}, {"$bit": {"seq_min": {"xor": 4}}})
    for read in READS.values():
        with pytest.raises(StoreDamaged, match="run 'the-run'"):
            read(mongo["the-run"])
    with pytest.warns(BadRunWarning, match="run 'the-run'"):
        assert len(mongo().table(errors="skip").compute()) == 3
    assert {damage.run for damage in daskbroker.check(mongo)} == {"the-run"}
    assert_documents_equal(other, mongo[other[0][1]["uid"]].documents())


def test_a_manifest_of_an_earlier_version_has_no_checksums(mongo, raw):
    insert_all(mongo, RUN)
    raw.event_chunk.update_many({}, {"$unset": {"checksums": 1}})
    assert_documents_equal(RUN, mongo["the-run"].documents())
    assert list(daskbroker.check(mongo)) == []


def test_a_table_of_many_runs_names_the_damaged_one(mongo, header, column, raw):
    insert_all(mongo, make_run(20, keys=["x"]))
    insert_all(mongo, make_run(20, keys=["x"]))
    body = flip(column["body"], 99)
    raw.event_chunk_column.update_one({"_id": column["_id"]}, {"$set": {"body": body}})
    with pytest.raises(StoreDamaged, match="run 'the-run'"):
        mongo().table()[["x"]].compute()


def test_on_worker_processes(header, column, raw, cluster):
    body = flip(column["body"], 99)
    raw.event_chunk_column.update_one({"_id": column["_id"]}, {"$set": {"body": body}})
    with Client(cluster), dask.config.set(scheduler=None):
        for read in READS.values():
            with pytest.raises(StoreDamaged, match=r"run 'the-run', stream 'primary'.*checksum"):
                read(daskbroker.connect(header.db.uri)["the-run"])


def test_a_chunk_that_is_kept_in_the_journal_costs_its_run(mongo, raw):
    """A late event is looked for in it, as the journal has the other events, too."""
    docs = make_run(4, uid="the-run", stop=False)
    insert_all(mongo, make_run(3))
    insert_all(mongo, [*docs[:2], *docs[3:]])
    assert mongo.seal("the-run", keep_journal=True) == 1
    insert_all(mongo, [docs[2]])
    chunk = raw.event_chunk.find_one({"run": "the-run"})["_id"]
    raw.event_chunk_column.update_many({"chunk": chunk}, {"$set": {"body": b"abc"}})
    with pytest.warns(BadRunWarning, match="run 'the-run'.*damaged"):
        assert len(mongo().table(errors="skip").compute()) == 3


def test_a_note_of_the_store_without_its_id(mongo, mongo_database, raw):
    insert_all(mongo, RUN)
    for change in ({"$unset": {"store_id": 1}}, {"$set": {"store_id": 5}}):
        raw.daskbroker_meta.update_one({"_id": "store"}, change)
        with pytest.raises(StoreDamaged, match=r"daskbroker_meta has the store_id (None|5)"):
            daskbroker.connect(f"{mongo_database}?appname=other")


OLD = f"{0x5F000000:08x}{'0' * 16}"
"""Id of a chunk of the year 2020."""


def test_columns_that_no_chunk_names_are_removed_unless_they_may_be_of_a_damaged_one(
    mongo, raw, caplog
):
    insert_all(mongo, RUN)
    insert_all(mongo, make_run(3))
    chunks, columns = raw.event_chunk, raw.event_chunk_column
    chunk = chunks.find_one({"run": "the-run"})["_id"]
    # As an earlier version has stored them: only the chunk's name tells when.
    copies = list(columns.find({"chunk": chunk}, {"_id": 0, "stored": 0}))

    def as_chunk(name):
        return [{**copy, "chunk": name} for copy in copies]

    def names():
        return set(columns.distinct("chunk"))

    # A name that no chunk can have is of a damaged document, and stays.
    columns.insert_many([*as_chunk(OLD), *as_chunk(f"{OLD[:-1]}x")])
    mongo.seal()
    assert OLD not in names()
    assert f"{OLD[:-1]}x" in names()
    columns.insert_many(as_chunk(OLD))
    chunks.update_one({"_id": chunk}, {"$set": {"distinct": 7}})
    mongo.seal()
    assert OLD in names()
    chunks.update_one({"_id": chunk}, {"$set": {"distinct": 300}})
    columns.delete_many({"chunk": chunk})
    mongo.seal()
    assert OLD in names()
    assert "are kept, as other chunks are damaged" in caplog.text


def test_a_manifest_with_another_owner(mongo, mongo_database, raw):
    """Nobody asks for its chunk by that owner, so its events would be missing silently."""
    insert_all(mongo, RUN)
    insert_all(mongo, other := make_run(3))
    manifest = raw.event_chunk.find_one({"run": "the-run"})
    for change in ({"$set": {"owner": "nobody"}}, {"$unset": {"owner": 1}}):
        raw.event_chunk.update_one({"_id": manifest["_id"]}, change)
        for read in READS.values():
            with pytest.raises(StoreDamaged, match=r"run 'the-run'.*chunk of descriptor"):
                read(mongo["the-run"])
        with pytest.warns(BadRunWarning, match="run 'the-run'"):
            assert len(mongo().table(errors="skip").compute()) == 3
        raw.event_chunk.replace_one({"_id": manifest["_id"]}, manifest)
    assert_documents_equal(other, mongo[other[0][1]["uid"]].documents())
    # A store of an earlier version lacks the index until it is asked for.
    raw.event_chunk.drop_index("run_1_owner_1")
    with daskbroker.connect(f"{mongo_database}?appname=other") as db:
        assert_documents_equal(RUN, db["the-run"].documents())
        insert_all(db, make_run(3))
        assert "run_1_owner_1" not in raw.event_chunk.index_information()
        assert "event_chunk.run_1_owner_1" in db.header_source.store.create_indexes()


def test_a_chunk_that_is_missing_between_others(mongo, raw):
    run = make_run(9, uid="the-run")
    for name, doc in run:
        if name == "event" and doc["seq_num"] in (4, 7):
            mongo.seal("the-run")
        mongo.insert(name, doc)
    assert_documents_equal(run, mongo["the-run"].documents())
    raw.event_chunk.delete_one({"first": 3})
    for read in READS.values():
        with pytest.raises(StoreDamaged, match=r"run 'the-run'.*begins at event 6, the one before"):
            read(mongo["the-run"])
    with pytest.raises(StoreDamaged, match=r"begins at event 6"):
        mongo.seal("the-run")


def test_events_are_stored_behind_a_missing_chunk(mongo, mongo_database, raw):
    """What is lost already is no reason to refuse what comes."""
    *run, last, _ = make_run(9, uid="the-run")
    for name, doc in run:
        if name == "event" and doc["seq_num"] in (4, 7):
            mongo.seal("the-run")
        mongo.insert(name, doc)
    mongo.seal("the-run")
    raw.event_chunk.delete_one({"first": 3})
    with daskbroker.connect(f"{mongo_database}?appname=other") as db:
        db.insert(*last)
        assert raw.event.find_one({"uid": last[1]["uid"]})
        with pytest.raises(StoreDamaged, match="begins at event 6"):
            list(db["the-run"].documents())
