"""A broker with several event sources: streams go where the route says, and are found there."""

from __future__ import annotations

import pickle
from itertools import islice

import pytest

from daskbroker import DataBroker, check
from daskbroker.core.errors import BadQuery, ConfigError, SearchWarning
from daskbroker.stores.embedded import Database, EmbeddedEventStore, EmbeddedHeaderStore
from daskbroker.testing import (
    assert_documents_equal,
    assert_references_first,
    external_run,
    make_run,
)
from daskbroker.testing.base import insert_all


@pytest.fixture
def sources(tmp_path):
    databases = {name: Database.of(tmp_path / name) for name in ("near", "far")}
    yield databases
    for database in databases.values():
        database.close()


@pytest.fixture
def broker(sources):
    """Streams called ``dark``, and all of runs of the plan ``long``, go to the second source."""
    places = {}

    def route(descriptor):
        far = descriptor["name"] == "dark" or places.get(descriptor["run_start"]) == "long"
        return "far" if far else "near"

    db = DataBroker(
        EmbeddedHeaderStore(sources["near"]),
        {name: EmbeddedEventStore(database) for name, database in sources.items()},
        route=route,
    )
    insert = db.insert

    def noting(name, doc, **options):
        if name == "start":
            places[doc["uid"]] = doc["plan_name"]
        insert(name, doc, **options)

    db.insert = noting
    return db


def test_streams_of_one_run_in_two_sources(broker):
    docs = make_run(4, streams=("primary", "dark"))
    insert_all(broker, docs)
    header = broker[-1]
    near, far = broker.event_sources
    assert header.es_given_stream("primary") is near
    assert header.es_given_stream("dark") is far
    assert sorted(header.streams) == ["dark", "primary"]
    assert_documents_equal(docs, header.documents(fill=False))
    assert header.table("dark").compute()["x"].equals(header.table("primary").compute()["x"])


def test_references_reach_both(broker):
    docs = external_run(2)
    insert_all(broker, docs)
    header = broker[-1]
    assert_documents_equal(docs, header.documents(fill=False))
    for stream in ("primary", "dark"):
        names = [name for name, _ in header.stream(stream, fill=False)]
        assert names.count("datum") >= 2


def test_a_run_in_two_sources_is_followed(broker):
    """What both have of it comes once."""
    docs = external_run(3)
    insert_all(broker, docs[:1])
    coming = iter(docs[1:])
    given = []
    for pair in broker[-1].follow(interval=0):
        given.append(pair)
        insert_all(broker, islice(coming, 1))
    assert_documents_equal(docs, given)
    assert_references_first(given)


def test_one_table_of_runs_in_two_sources(broker):
    uids = []
    for plan in ("short", "long", "short"):
        docs = make_run(3, plan_name=plan)
        insert_all(broker, docs)
        uids.append(docs[0][1]["uid"])
    frame = broker().table().compute()
    assert frame["run"].tolist() == [uid for uid in uids for _ in range(3)]
    with pytest.raises(BadQuery, match=r"2 event sources.*tree"):
        broker().dataset()
    assert len(broker().dataset(combine="tree").children) == 3


def test_a_route_to_nowhere_is_named(sources):
    db = DataBroker(
        EmbeddedHeaderStore(sources["near"]),
        [EmbeddedEventStore(sources["near"])],
        route=lambda descriptor: "moon",
    )
    docs = make_run(1)
    db.insert(*docs[0])
    with pytest.raises(ConfigError, match="moon"):
        db.insert(*docs[1])


def test_sources_keep_their_names_and_order(sources, broker):
    near, far = broker.event_sources
    assert (near.name, far.name) == ("near", "far")
    headers = EmbeddedHeaderStore(sources["near"])
    for given in ([near, far], broker.event_sources, dict(broker.event_sources)):
        assert DataBroker(headers, given).event_sources.keys() == ["near", "far"]
    stores = [EmbeddedEventStore(database) for database in sources.values()]
    assert DataBroker(headers, stores).event_sources.keys() == ["0", "1"]
    insert_all(broker, make_run(2))
    travelled = pickle.loads(pickle.dumps(broker[-1].portable()))
    assert [source.name for source in travelled.db.event_sources] == ["near", "far"]
    with pytest.raises(ConfigError, match="two event sources are called 'near'"):
        DataBroker(headers, [near, near])
    with pytest.raises(ConfigError, match="at least one event source"):
        DataBroker(headers, [])


def test_a_data_key_is_looked_for_in_every_source(broker):
    insert_all(broker, make_run(2, keys={"x": [1.0]}, uid="only-near"))
    insert_all(broker, make_run(2, keys={"det": [1.0]}, uid="only-far", plan_name="long"))
    assert [header.uid for header in broker(data_key="det")] == ["only-far"]
    assert [header.uid for header in broker(data_key="x")] == ["only-near"]
    with pytest.warns(SearchWarning, match="The nearest known key is 'det'"):
        assert not broker(data_key="dett")


def test_a_source_that_took_no_part_in_a_run_has_lost_nothing(sources):
    """Such as the store of the headers, which had taken the events of earlier runs."""
    headers = EmbeddedHeaderStore(sources["near"])
    near, far = (EmbeddedEventStore(database) for database in sources.values())
    runs = {"old": make_run(2, uid="old"), "new": make_run(3, uid="new")}
    for uid, store in (("old", near), ("new", far)):
        insert_all(DataBroker(headers, [store]), runs[uid])
    db = DataBroker(headers, [near, far])
    assert list(check(db)) == []
    for uid, documents in runs.items():
        assert_documents_equal(documents, db[uid].documents())
