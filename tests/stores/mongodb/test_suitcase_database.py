"""A database that the real suitcase-mongo has written opens as it is."""

from __future__ import annotations

import copy
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import bson
import pymongo
import pytest
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from suitcase.mongo_normalized import Serializer

import daskbroker
from daskbroker.core.errors import ClaimWarning, DuplicateUID
from daskbroker.core.layouts import DATUM
from daskbroker.stores.mongodb import indexes, journal_ranges, planning, reference_planning
from daskbroker.stores.mongodb.database import Database
from daskbroker.testing import (
    RunBuilder,
    assert_documents_equal,
    assert_references_first,
    external_run,
    make_run,
    rewound_run,
    stream_datum_run,
)
from daskbroker.testing.base import insert_all
from daskbroker.testing.claim_runs import LEGACY, claim_run


@pytest.fixture
def suitcase(raw):
    """Inserts documents as databroker does."""
    serializer = Serializer(raw, raw)
    serializer.create_indexes()

    def insert(documents):
        for name, doc in documents:
            serializer(name, copy.deepcopy(doc))

    return insert


@pytest.fixture
def short_ranges(monkeypatch):
    """Journals of more than ten rows are long, and cut into ranges of ten."""
    monkeypatch.setattr(planning, "RANGE_ROWS", 10)
    monkeypatch.setattr(journal_ranges, "RANGE_ROWS", 10)


def check_same(header, documents):
    received = list(header.documents(fill=False))
    assert_references_first(received)
    assert_documents_equal(documents, received)


@pytest.mark.parametrize("make", [make_run, external_run, rewound_run])
def test_documents_and_tables_are_those_of_an_embedded_store(suitcase, mongo_database, make, db):
    documents = make()
    suitcase(documents)
    insert_all(db, documents)
    with daskbroker.connect(mongo_database, mode="r") as mongo:
        header, expected = mongo[-1], db[-1]
        check_same(header, documents)
        assert (header.start, header.stop) == (expected.start, expected.stop)
        for stream in expected.streams:
            table = header.table(stream, fill=False).compute()
            assert table.equals(expected.table(stream, fill=False).compute())
            assert table.dtypes.equals(expected.table(stream, fill=False).dtypes)


@pytest.mark.parametrize("make", [make_run, external_run, rewound_run])
def test_check_finds_nothing(suitcase, raw, mongo_database, short_ranges, make):
    suitcase(make(50) if make is not rewound_run else make())
    before = {name: list(raw[name].find()) for name in raw.list_collection_names()}
    with daskbroker.connect(mongo_database, mode="r") as mongo:
        check = daskbroker.check(mongo)
        assert list(map(str, check)) == []
        assert check.runs == 1
    assert before == {name: list(raw[name].find()) for name in raw.list_collection_names()}


def test_opening_and_reading_changes_nothing(suitcase, raw, mongo_database):
    suitcase(make_run(3))
    before = {name: list(raw[name].find()) for name in raw.list_collection_names()}
    with daskbroker.connect(mongo_database) as db:
        list(db[-1].documents())
        db[-1].table().compute()
    assert {name: list(raw[name].find()) for name in raw.list_collection_names()} == before


def run_of_many_types(events=45):
    """Values of all kinds, some kinds only in some rows."""
    run = RunBuilder()
    keys = {"x": 0.5, "n": 1, "s": "a", "v": [0.5, 1.5], "mixed": 1, "late": 0.5, "a.b": 1.5}
    descriptor = run.descriptor(keys)
    for number in range(events):
        run.event(
            descriptor,
            {
                "x": number / 2,
                "n": 2**40 + number,
                "s": str(number),
                "v": [number * 1.0, 0.5],
                "mixed": number if number < 30 else "text",
                "late": None if number == 37 else number * 1.0,
                "a.b": number * 1.5,
            },
        )
    return run.stop()


def test_long_journals_are_cut_into_ranges_of_one_dtype(suitcase, short_ranges, mongo_database, db):
    documents = run_of_many_types()
    suitcase(documents)
    insert_all(db, documents)
    with daskbroker.connect(mongo_database) as mongo:
        header, expected = mongo[-1], db[-1].table()
        plan = header.es_given_stream("primary").chunks_given_header(header, "primary")
        assert plan.records["rows"].tolist() == [10, 10, 10, 10, 5]
        assert plan.records["seq_min"].tolist() == [1, 11, 21, 31, 41]
        table = header.table()
        assert table.dtypes.to_dict() == expected.dtypes.to_dict()
        assert table.compute().equals(expected.compute())
        assert len(header.table()) == 45
        assert table[["s"]].compute().equals(expected[["s"]].compute())
        assert header.dataset()["v"].shape == (45, 2)
        assert header.dataset().compute().identical(db[-1].dataset().compute())
        check_same(header, documents)


def test_ranges_of_a_plan_are_read_right_after_they_were_sealed(
    suitcase, short_ranges, mongo_database
):
    documents = run_of_many_types()
    suitcase(documents)
    with daskbroker.connect(mongo_database) as mongo:
        table, dataset = mongo[-1].table(), mongo[-1].dataset()
        expected = table.compute()
        assert mongo.seal() == 1
        assert table.compute().equals(expected)
        assert table[["mixed"]].compute().equals(expected[["mixed"]])
        assert dataset["x"].values.tolist() == expected["x"].tolist()
        assert mongo[-1].table().compute().equals(expected)


def test_planning_takes_few_queries(suitcase, short_ranges, mongo_database, commands):
    for number in range(5):
        suitcase(make_run(3, uid=f"short-{number}"))
    suitcase(run_of_many_types())
    with daskbroker.connect(mongo_database, mode="r") as mongo:
        source = mongo.event_sources["mongo"].store
        runs = [header.uid for header in mongo]
        descriptors = source.list_descriptors(runs)
        assert len(descriptors) == 6
        source.plan_events(
            descriptors
        )  # learns the identity of the store, and which indexes there are
        commands.names.clear()
        source._ranges_of_journals.clear()
        plan = source.plan_events(descriptors)
        assert plan.rows == 5 * 3 + 45
        # All descriptors are counted by one, the short ones read by one, the long one by one.
        assert [name for name in commands.names if name != "getMore"] == ["aggregate"] * 3
        with daskbroker.connect(mongo_database) as writer:
            writer.seal()
        commands.names.clear()
        assert source.plan_events(descriptors).rows == 5 * 3 + 45
        assert commands.names == ["aggregate"]


def test_a_column_is_read_without_the_others(suitcase, mongo_database, commands):
    suitcase(run_of_many_types())
    with daskbroker.connect(mongo_database) as mongo:
        mongo.seal()
        plan = mongo.event_sources["mongo"].chunks_given_header(mongo[-1], "primary")
        read = plan.read(0, ["data:x", "absent", "seq_num"])
        assert read.column_names == ["data:x", "seq_num"]
        assert plan.read(0, []).num_rows == 45


def test_a_long_journal_is_streamed_range_by_range(
    suitcase, short_ranges, mongo_database, commands
):
    documents = run_of_many_types(300)
    suitcase(documents)
    with daskbroker.connect(mongo_database) as mongo:
        stream = mongo[-1].documents()
        assert [next(stream)[0] for _ in range(3)] == ["start", "descriptor", "event"]
        begun = commands.names.count("find")
        assert sum(name == "event" for name, _ in stream) == 299
        assert commands.names.count("find") - begun > 15  # of 30 ranges


def test_legacy_resources_without_uid_or_run(suitcase, raw, mongo_database):
    documents = external_run(3)
    suitcase(documents)
    number = ObjectId()
    old = next(doc for name, doc in documents if name == "resource")
    raw.resource.delete_many({})
    legacy = {k: v for k, v in old.items() if k not in ("uid", "run_start")}
    raw.resource.insert_one({"_id": number, **legacy})
    raw.datum.update_many({}, {"$set": {"resource": str(number)}})
    expected = []
    for name, doc in documents:
        if name == "resource":
            doc = {**legacy, "uid": str(number)}
        elif name == "datum":
            doc = {**doc, "resource": str(number)}
        expected.append((name, doc))
    with daskbroker.connect(mongo_database, mode="r") as db:
        check_same(db[-1], expected)
        db[-1].table(fill=False).compute()


def test_many_datums_are_read_in_ranges(suitcase, mongo_database, monkeypatch):
    monkeypatch.setattr(reference_planning, "INLINE_DATUMS", 5)
    monkeypatch.setattr(reference_planning, "RANGE_DATUMS", 4)
    documents = external_run(5)
    suitcase(documents)
    with daskbroker.connect(mongo_database, mode="r") as db:
        plan = db.event_sources["mongo"].store.plan_references([DATUM], [db[-1].uid])["datum"]
        assert plan.records["rows"].tolist() == [4, 4, 2]
        check_same(db[-1], documents)


def test_a_stream_resource_of_two_runs_has_the_frames_of_each_apart(raw, mongo_database):
    collections = {"start": "run_start", "descriptor": "event_descriptor", "stop": "run_stop"}
    runs = []
    for frames in (2, 3):
        run = RunBuilder()
        spec = {"source": "x", "dtype": "array", "shape": [1, 4, 4], "external": "STREAM:"}
        descriptor = run.descriptor({"img": spec})
        resource = run.stream_resource("img", uid="shared")
        run.stream_datum(resource, descriptor, (0, frames))
        runs.append(run.stop(num_events={"primary": frames}))
    for documents in runs:
        for name, doc in documents:
            raw[collections.get(name, name)].insert_one(copy.deepcopy(doc))
    with daskbroker.connect(mongo_database, mode="r") as mongo:
        for documents in runs:
            header = mongo[documents[0][1]["uid"]]
            check_same(header, documents)
            frames = documents[-1][1]["num_events"]["primary"]
            assert len(header.table(fields=["seq_num"])) == frames
        assert len(mongo().table(fields=["seq_num"])) == 5


def test_duplicate_resource_uids_come_once(suitcase, raw, mongo_database):
    documents = external_run(3)
    suitcase(documents)
    again = raw.resource.find_one({}, {"_id": 0})
    raw.resource.insert_one(again)
    with daskbroker.connect(mongo_database, mode="r") as db:
        check_same(db[-1], documents)


def test_missing_indexes_are_told_of_and_made(raw, mongo_database, caplog):
    serializer = Serializer(raw, raw)
    for name, doc in make_run(3):
        serializer(name, doc)
    indexes._warned.clear()
    caplog.set_level(logging.WARNING, "daskbroker")
    with daskbroker.connect(mongo_database) as db:
        assert len(db[-1].table().compute()) == 3
        assert "has no index on 'descriptor'" in caplog.text
        made = db.header_source.store.create_indexes()
        assert "event.uid_1" in made
        assert db.header_source.store.create_indexes() == []
    assert "descriptor_-1_time_1" in raw.event.index_information()


def test_an_index_of_an_earlier_version_is_told_of_and_replaced(raw, mongo_database):
    """It had no descriptor, so it refuses references of a run that repeats another's uids."""
    first, second = stream_datum_run(), stream_datum_run()
    assert [name for name, _ in first[2:4]] == ["stream_resource", "stream_datum"]
    resource = first[2][1]["uid"]
    second[2][1]["uid"] = resource
    for _, doc in second[3:-1]:
        doc["stream_resource"] = resource
    second[3][1]["uid"] = first[3][1]["uid"]
    with daskbroker.connect(mongo_database) as db:
        insert_all(db, first)
        raw.stream_datum.drop_indexes()
        raw.stream_datum.create_index([("uid", 1), ("stream_resource", 1)], unique=True)
        with pytest.raises(
            DuplicateUID, match="the index on the command line by `daskbroker index"
        ):
            insert_all(db, second)
        assert "stream_datum.uid_1_stream_resource_1_descriptor_1" in (
            db.header_source.store.create_indexes()
        )
        insert_all(db, second)
        for docs in (first, second):
            check_same(db[docs[0][1]["uid"]], docs)


def test_an_index_that_another_process_has_just_dropped(raw, mongo_database):
    """Each of several processes that replace it at once finds it, and one of them drops it."""
    ready = threading.Barrier(4)

    def replace(database):
        ready.wait()
        database.create_indexes(["stream_datum"])

    with closing(Database(mongo_database)) as database, ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            raw.stream_datum.create_index([("uid", 1), ("stream_resource", 1)], unique=True)
            list(pool.map(replace, [database] * 4))
            assert "uid_1_stream_resource_1" not in raw.stream_datum.index_information()


def test_what_is_journalled_is_what_suitcase_would_have_written(suitcase, raw, mongod_uri, mongo):
    """Collection by collection and index by index."""
    documents = external_run(3, stop=False)
    with pymongo.MongoClient(mongod_uri) as client:
        other = client[f"{raw.name}_other"]
        serializer = Serializer(other, other)
        serializer.create_indexes()
        for name, doc in documents:
            serializer(name, copy.deepcopy(doc))
            mongo.insert(name, doc)
        try:
            for name in other.list_collection_names():
                hide = {"_id": 0}
                assert list(raw[name].find({}, hide)) == list(other[name].find({}, hide))
                assert (
                    other[name].index_information().items()
                    <= {**raw[name].index_information()}.items()
                )
        finally:
            client.drop_database(other)


def test_what_files_hold_is_kept_beside_the_collections_of_databroker(
    suitcase, raw, mongo_database, tmp_path
):
    """They stay as they are, byte for byte; plain seal opens no file, to read makes no index."""
    documents, data = claim_run(tmp_path, [8, 6, 0], **LEGACY)
    suitcase(documents)
    before = _content_of(raw)
    with daskbroker.connect(mongo_database) as db:
        with pytest.warns(ClaimWarning, match="8, 6, 0"):
            image = db[-1].dataset()["img"]
        assert (image.dtype, image.shape) == ("uint16", (4, 1, 6, 8))
        assert (image.values == data[:, None]).all()
    after = _content_of(raw)
    assert len(after.pop("daskbroker_peek")[0]) == 1
    assert after == before


def test_plain_seal_opens_no_file(suitcase, raw, mongo_database, tmp_path):
    documents, _ = claim_run(tmp_path, [8, 6, 0], **LEGACY)
    suitcase(documents)
    with daskbroker.connect(mongo_database) as db:
        db.seal()
    assert raw["daskbroker_peek"].find_one() is None


def _content_of(database):
    """Documents and indexes of each collection, as bytes."""
    raw = database.with_options(bson.CodecOptions(document_class=RawBSONDocument))
    return {
        name: (
            sorted(doc.raw for doc in raw[name].find()),
            sorted(str(one) for one in database[name].index_information()),
        )
        for name in raw.list_collection_names()
    }
