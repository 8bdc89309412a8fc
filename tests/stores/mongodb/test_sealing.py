"""Sealing in MongoDB: what was interrupted, done twice, kept, or came late."""

from __future__ import annotations

import base64
import copy
import time

import numpy as np
import pytest
from bson.objectid import ObjectId

import daskbroker
from daskbroker.core.errors import (
    BadDocument,
    DuplicateUID,
    StoreDamaged,
    StoreError,
    StoreReadOnly,
)
from daskbroker.stores.mongodb import chunk_store, sealing
from daskbroker.stores.mongodb.sealed_rows import SEALED_MARK
from daskbroker.testing import RunBuilder, assert_documents_equal, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.runs import page_of

ROWS = {"descriptor": {"$ne": SEALED_MARK}}
"""Of the journal; the rest are marks of those that have left it."""


@pytest.fixture
def run(mongo):
    """Twenty events of an open run, in the journal."""
    documents = make_run(20, stop=False, uid="the-run")
    insert_all(mongo, documents)
    return documents


def check(db, documents):
    assert_documents_equal(documents, db["the-run"].documents())
    table = db["the-run"].table(duplicates="all")
    frame = table.compute()
    assert len(table) == len(frame) == sum(name == "event" for name, _ in documents)


def events(documents):
    return [doc for name, doc in documents if name == "event"]


def more_events(documents, count, time):
    last = events(documents)[-1]
    return [
        ("event", {**last, "uid": f"more-{time}-{n}", "seq_num": 100 + n, "time": time + n})
        for n in range(count)
    ]


def test_a_seal_that_was_cut_short_is_finished(mongo, run, raw, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sealing, "_remove_rows", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError, match="division by zero"):
            mongo.seal()
    assert raw.event.count_documents(ROWS) == 20
    assert raw.event_chunk.find_one()["journal"] == "waiting"
    check(mongo, run)
    raw.event.delete_many({"seq_num": {"$lt": 8}})  # killed while it removed the rows
    check(mongo, run)
    assert mongo.seal() == 0
    assert raw.event.count_documents(ROWS) == 0
    assert raw.event_chunk.find_one()["journal"] == "gone"
    check(mongo, run)


def test_of_two_sealers_one_wins(mongo, run, raw, monkeypatch):
    store = sealing.store_columns

    def overtaken(*arguments):
        monkeypatch.setattr(sealing, "store_columns", store)
        assert mongo.seal() == 1
        return store(*arguments)

    monkeypatch.setattr(sealing, "store_columns", overtaken)
    assert mongo.seal() == 0
    assert raw.event_chunk.count_documents({}) == 1
    assert raw.event_chunk_column.distinct("chunk") == raw.event_chunk.distinct("_id")
    check(mongo, run)


def test_a_reader_is_overtaken_by_a_sealer(mongo, run, monkeypatch):
    from daskbroker.stores.mongodb import planning

    unsealed = planning.unsealed

    def overtaken(*arguments):
        mongo.seal()
        return unsealed(*arguments)

    monkeypatch.setattr(planning, "unsealed", overtaken)
    source = mongo.event_sources["mongo"].store
    plan = source.plan_runs(["the-run"], "primary").events
    assert plan.rows == 20
    assert sum(plan.read(place).num_rows for place in range(len(plan))) == 20


def test_the_journal_is_kept_and_later_removed(mongo, run, raw):
    source = mongo.event_sources["mongo"].store
    assert source.seal(keep_journal=True) == 1
    assert source.seal(keep_journal=True) == 0
    assert raw.event.count_documents(ROWS) == 20
    check(mongo, run)
    documents = run + more_events(run, 3, time=2e9) + more_events(run, 2, time=1e9 - 100)
    insert_all(mongo, documents[-5:])
    check(mongo, documents)  # three are later than all that was sealed, two are not
    assert source.seal(keep_journal=True) == 1
    assert raw.event.count_documents(ROWS) == 25
    check(mongo, documents)
    assert source.seal() == 0
    assert raw.event.count_documents(ROWS) == 0
    check(mongo, documents)


@pytest.mark.parametrize("change", [{"uid": 5}, {"uid": ObjectId("5f" * 12)}, {"uid": {"$x": 1}},
                                    {"time": "text"}, {"time": None}], ids=str)  # fmt: skip
def test_an_odd_event_in_a_kept_journal_is_not_left_out(mongo, run, raw, change):
    source = mongo.event_sources["mongo"].store
    assert source.seal(keep_journal=True) == 1
    row = {**events(run)[-1], "_id": ObjectId(), "uid": "odd", "time": 1.0, **change}
    raw.event.insert_one(row)
    with pytest.raises(StoreDamaged, match="the-run"):
        mongo["the-run"].table().compute()


def test_keeping_by_configuration(mongo_database, raw):
    import dask

    documents = make_run(1500, uid="the-run")
    with (
        dask.config.set({"daskbroker.mongo-keep-journal": True, "daskbroker.seal-rows": 500}),
        daskbroker.connect(mongo_database) as db,
    ):
        insert_all(db, documents[:800])
        page = paged(documents[800:-1])
        db.insert("event_page", page)
        db.insert(*documents[-1])
        assert raw.event.count_documents(ROWS) == 1500
        assert raw.event_chunk.count_documents({}) >= 2
        check(db, documents)


def paged(pairs):
    """One page of events of one descriptor and the same keys."""
    rows = [doc for _, doc in pairs]
    page = {key: [row[key] for row in rows] for key in ("uid", "time", "seq_num")}
    for part in ("data", "timestamps"):
        page[part] = {key: [row[part][key] for row in rows] for key in rows[0][part]}
    return {**page, "descriptor": rows[0]["descriptor"], "filled": {}}


def test_large_pages_are_sealed_at_once_and_once(mongo, raw):
    documents = make_run(3000, uid="the-run")
    insert_all(mongo, documents[:2])
    page = paged(documents[2:-1])
    mongo.insert("event_page", page)
    assert raw.event.count_documents(ROWS) == 0
    mongo.insert("event_page", copy.deepcopy(page))
    mongo.insert(*documents[5])
    page["data"]["x"][7] = -1.0
    with pytest.raises(DuplicateUID, match=page["uid"][7]):
        mongo.insert("event_page", page)
    mongo.insert(*documents[-1])
    check(mongo, documents)


@pytest.mark.parametrize("rows", [5, 1500])
def test_a_page_with_one_uid_twice_is_kept_once_or_refused_whole(mongo, rows):
    documents = make_run(rows, uid="the-run", stop=False)
    insert_all(mongo, documents[:2])
    page = paged([*documents[2:], documents[3]])
    other = copy.deepcopy(page)
    other["data"]["x"][-1] = -1.0
    with pytest.raises(DuplicateUID, match="a different event is stored under this uid"):
        mongo.insert("event_page", other)
    check(mongo, documents[:2])
    mongo.insert("event_page", page)
    check(mongo, documents)


def test_events_sealed_by_another_process_are_known(mongo, run, mongo_database, monkeypatch):
    from daskbroker.stores.mongodb import event_writer

    monkeypatch.setattr(event_writer, "LOOK_SECONDS", 0.0)
    with daskbroker.connect(mongo_database, mode="a", timezone="Europe/Berlin") as other:
        other.seal()
    insert_all(mongo, run)
    with pytest.raises(DuplicateUID, match="a different event is stored under this uid"):
        mongo.insert("event", {**events(run)[3], "seq_num": 1000})
    check(mongo, run)


def test_an_event_that_no_document_can_hold_is_refused_whole(mongo, raw):
    run = RunBuilder()
    noise = np.random.default_rng(0).integers(0, 2**62, 2_200_000)
    descriptor = run.descriptor({"x": 0.5, "img": {"source": "x", "dtype": "array", "shape": [1]}})
    run.event(descriptor, {"x": 0.5, "img": [1]})
    insert_all(mongo, run.documents)
    before = list(run.documents)
    run.event(descriptor, {"x": 0.5, "img": noise})
    with pytest.raises(BadDocument, match=r"img.*17,.*bytes"):
        mongo.insert(*run.documents[-1])
    assert_documents_equal(before, mongo[-1].documents())
    assert set(raw.event_chunk_column.distinct("chunk")) <= set(raw.event_chunk.distinct("_id"))


def test_chunks_are_cut_where_a_column_would_not_fit(mongo, raw, monkeypatch, run):
    monkeypatch.setattr(chunk_store, "MAX_DOCUMENT_BYTES", 1500)
    monkeypatch.setattr(chunk_store, "ONE_BUFFER_BYTES", 0)
    before = notes_of(mongo)
    assert mongo.seal() > 1
    check(mongo, run)
    assert notes_of(mongo) == before


def notes_of(mongo):
    """What the chunks of all runs say of themselves."""
    source = mongo.event_sources["mongo"].store
    plan = source.plan_events(source.list_descriptors([header.uid for header in mongo()]))
    return {table.schema.metadata[b"daskbroker"] for table in plan.read_all()}


def test_the_last_row_is_sealed_too(mongo, raw, monkeypatch):
    monkeypatch.setattr(sealing, "CHUNK_ROWS", 4)
    insert_all(mongo, make_run(9, stop=False))
    assert mongo.seal() == 3
    assert [chunk["rows"] for chunk in raw.event_chunk.find().sort("first", 1)] == [4, 4, 1]
    assert raw.event.count_documents(ROWS) == 0


def test_lost_and_damaged_columns_are_named(mongo, run, raw, monkeypatch):
    monkeypatch.setattr(chunk_store, "ONE_BUFFER_BYTES", 0)
    mongo.seal()
    table = mongo["the-run"].table()
    body = bytearray(raw.event_chunk_column.find_one({"column": "data:y"})["body"])
    body[len(body) // 2] ^= 1
    raw.event_chunk_column.update_one({"column": "data:y"}, {"$set": {"body": bytes(body)}})
    with pytest.raises(StoreDamaged, match=r"data:y.*checksum"):
        table.compute()
    raw.event_chunk_column.delete_one({"column": "data:x"})
    with pytest.raises(StoreDamaged, match="data:x"):
        table[["x"]].compute()
    assert len(table[["n"]].compute()) == 20


def test_columns_that_no_chunk_names_are_swept(mongo, run, raw, monkeypatch):
    mongo.seal()
    raw.event_chunk.delete_many({})
    mongo.seal()
    assert raw.event_chunk_column.count_documents({}) == 1  # it may be of a sealer at work
    monkeypatch.setattr(sealing, "ORPHAN_SECONDS", -10.0)
    mongo.seal()
    assert raw.event_chunk_column.count_documents({}) == 0


def test_clients_with_wrong_clocks_sweep_nothing_that_is_being_written(mongo, raw, monkeypatch):
    now, publish = time.time, sealing.publish
    slow, fast = (lambda: now() - 7200), (lambda: now() + 7200)

    def overtaken(*arguments):
        monkeypatch.setattr(time, "time", fast)
        mongo.seal()
        return publish(*arguments)

    monkeypatch.setattr(sealing, "publish", overtaken)
    documents = make_run(2000, uid="the-run")
    insert_all(mongo, documents[:2])
    monkeypatch.setattr(time, "time", slow)
    mongo.insert("event_page", page_of([doc for name, doc in documents if name == "event"]))
    mongo.insert(*documents[-1])
    check(mongo, documents)


def test_a_store_opened_to_read_is_not_written(mongo, run, mongo_database, raw):
    with daskbroker.connect(mongo_database, mode="r") as db:
        for use in (lambda: db.insert(*run[0]), lambda: db.insert(*run[3]), db.seal):
            with pytest.raises(StoreReadOnly, match="was opened to read only"):
                use()
        check(db, run)


def test_a_page_with_a_column_that_is_too_large_is_refused_whole(mongo, raw):
    run = RunBuilder()
    descriptor = run.descriptor({"x": "a"})
    large = base64.b64encode(np.random.default_rng(0).bytes(13_000_000)).decode()
    run.event_page(descriptor, [{"x": large}, {"x": "a"}])
    insert_all(mongo, run.documents[:-1])
    with pytest.raises(BadDocument, match="17,"):
        mongo.insert(*run.documents[-1])
    assert len(mongo[-1].table()) == 0
    assert raw["event_chunk_column"].count_documents({}) == 0


# -- loops without progress ------------------------------------------------------------------


@pytest.fixture
def one_chunk(mongo, run, raw):
    """A store that takes no second chunk of a run, by another program's index."""
    mongo.seal()
    raw["event_chunk"].create_index("run", unique=True)
    return run


def test_chunks_that_cannot_be_published_end_sealing(mongo, one_chunk):
    more = more_events(one_chunk, 5, 2e9)
    insert_all(mongo, more)
    with pytest.raises(StoreError, match=r"sealing the events of descriptor .* makes no progress"):
        mongo.seal()
    check(mongo, one_chunk + more)


@pytest.mark.parametrize("waiting", [False, True])
def test_pages_that_cannot_be_published_are_refused(mongo, one_chunk, waiting):
    more = more_events(one_chunk, 2 if waiting else 0, 2e9)
    insert_all(mongo, more)
    page = page_of([doc for _, doc in more_events(one_chunk, 1200, 3e9)])
    with pytest.raises(StoreError, match="makes no progress"):
        mongo.insert("event_page", page)
    check(mongo, one_chunk + more)


def test_an_event_too_large_for_the_journal_that_cannot_be_published_is_refused(mongo, one_chunk):
    (event,) = [doc for _, doc in more_events(one_chunk, 1, 2e9)]
    data = {**event["data"], "x": "ab" * 8_500_000}
    with pytest.raises(StoreError, match="makes no progress"):
        mongo.insert("event", {**event, "data": data})
    check(mongo, one_chunk)
