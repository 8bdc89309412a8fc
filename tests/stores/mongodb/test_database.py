"""Opening: names, secrets, versions, two databases, documents beyond BSON."""

from __future__ import annotations

import pickle
from contextlib import closing
from datetime import UTC, datetime

import bson
import numpy as np
import pymongo
import pytest
from bson.binary import Binary
from bson.dbref import DBRef
from bson.int64 import Int64
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument

import daskbroker
from daskbroker.core.documents import Document
from daskbroker.core.dtypes import fields_text
from daskbroker.core.errors import ConfigError, StoreError, StoreVersion
from daskbroker.core.query import Query
from daskbroker.stores.mongodb import open_store
from daskbroker.stores.mongodb.bson_documents import (
    CODEC,
    RAW_CODEC,
    decoded_alike,
    from_bson,
    to_bson,
)
from daskbroker.stores.mongodb.database import Database
from daskbroker.stores.mongodb.filters import _TYPES_AS_TEXT, query_filter
from daskbroker.stores.mongodb.reader import MongoReader
from daskbroker.testing import assert_documents_equal, external_run, make_run
from daskbroker.testing.base import insert_all


def test_no_password_is_shown():
    uri = "mongodb://me:s3cr@t@host:27017/db?authSource=admin&tlsCertificateKeyFilePassword=s3cr"
    database = Database(uri)
    for shown in (repr(database), repr(MongoReader(uri)), database.label):
        assert "s3cr" not in shown
        assert "me:" not in shown
    for bad in ("mongodb://me:s3cr%zz@host/db", "mongodb://me:s3cr@ho st:1x/db", "mongodb://h:1"):
        with pytest.raises(
            ConfigError, match=r"^mongodb://.*(must be escaped|names no database)"
        ) as caught:
            Database(bad).check_format()
        assert "s3cr" not in str(caught.value)


def test_a_reader_pickles_small_and_connects_late():
    data = pickle.dumps(MongoReader("mongodb://nowhere.invalid/db"))
    assert len(data) < 500
    assert pickle.loads(data) == MongoReader("mongodb://nowhere.invalid/db")


def test_closing_one_broker_leaves_another_on_the_same_database_open(mongo_database):
    with daskbroker.connect(mongo_database) as db:
        with daskbroker.connect(mongo_database, timezone="Europe/Berlin") as other:
            assert other is not db
            other.insert("start", {"uid": "the-run", "time": 1.0})
        other.close()
        assert db[-1].uid == "the-run"


def test_the_end_of_the_last_use_closes_a_database(mongo_database):
    database = Database.of(mongo_database)
    ends = [database.lease() for _ in range(2)]
    ends[0]()
    ends[0]()
    assert database.collection("event").find_one() is None
    ends[1]()
    with pytest.raises(StoreError, match="has been closed"):
        database.collection("event")
    assert Database.of(mongo_database) is not database


def test_a_collection_is_made_once_for_each_client(mongo_database):
    with closing(Database(mongo_database)) as database:
        first = database.collection("event")
        assert database.collection("event") is first
        assert database.collection("event", settled=True) is not first
        with pytest.raises(KeyboardInterrupt), database.limit():
            raise KeyboardInterrupt  # it may leave the client's locks held: another one is made
        second = database.collection("event")
        assert second.database.client is not first.database.client
        assert database.collection("event") is second
        assert second.find_one() is None


def test_what_counts_as_confirmed_is_read_from_a_majority(commands, mongo_database):
    with closing(Database(mongo_database)) as database:
        database.collection("event").insert_one({"uid": "one"})
        commands.clear()
        assert [doc["uid"] for doc in database.confirmed("event", {"uid": "one"})] == ["one"]
        # The write waits for all before it; what is read after it is confirmed.
        assert commands.names == ["update", "find"]
        assert commands.sent[1]["readConcern"]["level"] == "majority"


def test_a_newer_format_is_refused(mongo_database, raw):
    raw.daskbroker_meta.insert_one({"_id": "store", "format": 99, "store_id": "x"})
    with pytest.raises(StoreVersion, match="99"):
        daskbroker.connect(mongo_database)


def test_metadata_and_assets_in_two_databases(mongo_database, mongod_uri, raw):
    assets = f"{mongo_database}_assets"
    documents = external_run(3)
    with pymongo.MongoClient(mongod_uri) as client:
        try:
            settings = {"mongo": {"uri": mongo_database, "assets": assets}, "mode": "a"}
            headers, events = open_store(settings)
            with daskbroker.DataBroker(headers, events) as db:
                insert_all(db, documents)
                assert_documents_equal(documents, db[-1].documents(fill=False))
            other = client.get_database(f"{raw.name}_assets")
            assert other.datum.count_documents({}) == 6
            assert "datum" not in raw.list_collection_names()
        finally:
            client.drop_database(f"{raw.name}_assets")


@pytest.mark.parametrize(
    "value",
    [
        2**63,
        -(2**70),
        "\ud800",
        {"$where": 1},
        {"a\0b": 1},
        {"$ref": "a", "$id": 5},
        {"_daskbroker": 1},
        {"deep": [{"$x": [2**65]}]},
    ],
    ids=ascii,
)
def test_what_bson_cannot_hold_comes_back(value):
    doc = {"uid": "u", "time": 1.5, "value": value, "sample": {"good": 1, "bad": value}}
    assert from_bson(bson.decode(to_bson(doc).raw, CODEC)) == doc


def test_equal_parts_of_documents_are_decoded_once():
    part = {"x": [{"at": datetime(2026, 1, 1, tzinfo=UTC), "n": Int64(5), "b": Binary(b"1", 5)}]}
    plain = {"_id": ObjectId(), "uid": "u", "time": 1.5, "n": 5, "none": None}
    docs = [
        {**plain, "part": part, "again": part},
        {**plain, "part": part, "time": Int64(5), "b": Binary(b"1", 5)},
        {**plain, "part": {"x": [1]}, "list": [part]},
        {**plain, "part": part, "_daskbroker": {"rows": []}},
        {**plain, "part": part, "ref": DBRef("x", ObjectId())},
    ]
    encoded = [bson.encode(doc) for doc in docs]
    raw = [RawBSONDocument(one, RAW_CODEC) for one in encoded]
    found = list(decoded_alike(raw))
    assert found == [bson.decode(one, CODEC) for one in encoded]
    assert found[0]["part"] is found[0]["again"]
    assert Document(from_bson(found[0]))["part"] is found[0]["part"]  # it is frozen already


def test_arrays_come_back_with_their_dtypes_if_they_fit():
    def read(data, **side):
        return from_bson({"uid": "u", "data": data, "_daskbroker": side})["data"]

    lists = {"text": ["a"], "large": [300], "cell": 1, "odd": [1]}
    noted = {"f": "f4", "text": "f4", "large": "u1", "cell": "u1", "odd": "U1", "none": "u1"}
    found = read({**lists, "f": [0.5, float("nan")]}, arrays=noted)
    array = found.pop("f")
    assert array.dtype == "f4"
    assert np.isnan(array).tolist() == [False, True]  # what is NaN fits as well
    assert found == lists
    assert {key: type(value) for key, value in found.items()} == {
        key: type(value) for key, value in lists.items()
    }
    rows = [["data", "s"], fields_text(np.dtype([("a", "i4"), ("b", "f8")])), [2]]
    structured = read({"s": [[1, 0.5], [2, 1.5]]}, rows=[rows])["s"]
    assert structured.dtype.names == ("a", "b")
    assert structured.shape == (2,)


def test_such_runs_are_found_by_what_only_the_packed_form_tells(mongo):
    docs = make_run(1, uid="beyond", number=2**70, language="klingon", sample={"a": 2**70, "b": 1})
    insert_all(mongo, [*docs, *make_run(1, uid="other", sample={"b": 1})])
    assert [h.uid for h in mongo(number=2**70)] == ["beyond"]
    assert [h.uid for h in mongo(**{"sample.a": {"$gt": 2**65}})] == ["beyond"]
    assert len(mongo(**{"sample.b": 1})) == 2
    assert [h.uid for h in mongo(language="klingon")] == ["beyond"]
    assert_documents_equal(docs, mongo["beyond"].documents())


def or_shown(condition):
    """The filter that also finds what documents show as text."""
    return {"$or": [{"a": condition}, {"a": {"$type": list(_TYPES_AS_TEXT)}}]}


@pytest.mark.parametrize(
    ("query", "told", "exact"),
    [
        ({"a": 1}, {"a": {"$eq": 1}}, True),
        ({"a.b": {"$gte": 1, "$lt": 2}}, {"a.b": {"$gte": 1, "$lt": 2}}, True),
        ({"a": {"$regex": "^Ag"}}, {"a": {"$regex": "^Ag"}}, True),
        ({"a": {"$gte": "2026"}}, or_shown({"$gte": "2026"}), False),
        ({"a": "2026"}, {"a": {"$eq": "2026"}}, True),
        ({"a": "2026-01-01T00:00:00+00:00"}, {}, False),
        ({"a": {"$regex": r"\w+"}, "b": 1}, {"b": {"$eq": 1}}, False),
        ({"a": {"b": 1}}, {}, False),
        ({"a": {"$ne": {"b": 1}}}, {}, False),
        ({"$or": [{"a": 1}, {"b": {"c": 1}}]}, {}, False),
        ({"$nor": [{"a": {"c": 1}}]}, {}, False),
        ({"$nor": [{"a": 1}]}, {"$nor": [{"a": {"$eq": 1}}]}, True),
        ({"a": 2**70}, {}, False),
        ({"a": float("nan")}, {}, False),
        ({"a..b": 1}, {}, False),
        ({"a.b": None}, {"a.b": {"$eq": None}}, True),
    ],
    ids=repr,
)
def test_filters_tell_mongodb_only_what_it_decides_alike(query, told, exact):
    found = query_filter([Query(query)])
    assert (found.query, found.exact) == (told, exact)
