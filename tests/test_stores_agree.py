"""The embedded store and the MongoDB store give the same results for the same documents."""

from __future__ import annotations

import uuid

import pymongo
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import daskbroker
from daskbroker.testing import assert_documents_equal, assert_references_first, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.strategies import queries, runs, starts

quick = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def database(mongod_uri):
    """A database of MongoDB, without daskbroker."""
    with pymongo.MongoClient(mongod_uri) as client:
        name = f"agree_{uuid.uuid4().hex}"
        yield client[name]
        client.drop_database(name)


@pytest.fixture(scope="module")
def both(mongod_uri, database):
    """A broker on each store, for runs that do not get in each other's way."""
    uri = f"{mongod_uri}/{database.name}"
    with daskbroker.temp() as embedded, daskbroker.connect(uri) as mongo:
        yield embedded, mongo


@quick
@given(documents=runs(), sealed=st.sampled_from([None, "seal", "keep"]))
def test_documents_and_tables(both, documents, sealed):
    for db in both:
        insert_all(db, documents)
    header, other = (db[documents[0][1]["uid"]] for db in both)
    if sealed:
        both[0].seal(header)
        both[1].event_sources["mongo"].store.seal(header.uid, keep_journal=sealed == "keep")
    assert (header.start, header.stop) == (other.start, other.stop)
    assert header.descriptors == other.descriptors
    received = list(other.documents())
    assert_references_first(received)
    assert_documents_equal(header.documents(), received)
    for stream in header.streams:
        for duplicates in ("last", "all"):
            table, same = (h.table(stream, duplicates=duplicates) for h in (header, other))
            assert same.dtypes.to_dict() == table.dtypes.to_dict()
            assert len(same) == len(table)
            assert same.compute().map(repr).equals(table.compute().map(repr))
        dataset, same = (h.dataset(stream).compute() for h in (header, other))
        assert repr(same) == repr(dataset)


@pytest.fixture(scope="module")
def searched(both):
    """Runs to search in, added to by the examples."""
    return both


@settings(quick, max_examples=40)
@given(metadata=st.lists(starts(), max_size=3), query=queries)
@pytest.mark.filterwarnings("ignore::daskbroker.SearchWarning")  # many find nothing
def test_searches(searched, database, metadata, query):
    """MongoDB itself finds the same."""
    embedded, mongo = searched
    for start in metadata:
        doc = make_run(0, stop=False, **start)[0][1]
        for db in searched:
            db.insert("start", doc)
    found = [header.uid for header in embedded(**query)]
    assert [header.uid for header in mongo(**query)] == found
    assert len(mongo(**query)) == len(found)
    assert [header.uid for header in mongo(**query)[1:3]] == found[1:3]
    assert {start["uid"] for start in database["run_start"].find(query, ["uid"])} == set(found)


WORDS = ["silver", "SILVER", "gold leaf", "leaf", "7", "größe", "the"]


@pytest.mark.parametrize("search", ["text", "substring", "regex"])
@pytest.mark.parametrize("full", WORDS)
def test_texts(searched, full, search):
    embedded, mongo = searched
    for note in (["silver", 7], {"a": "gold leaf"}, "the größe", None):
        doc = make_run(0, stop=False, note=note)[0][1]
        for db in searched:
            db.insert("start", doc)
    found = [header.uid for header in embedded(full=full, search=search)]
    assert [header.uid for header in mongo(full=full, search=search)] == found
    assert len(mongo(full=full, search=search)) == len(found)
