"""Fixtures of the conformance tests: brokers on the `store_place` that a test class gives."""

from __future__ import annotations

import os
import uuid
import zlib
from collections import defaultdict

import pymongo
import pytest

import daskbroker


def with_each_value(cases):
    """Return few cases of a test, but such as have each value of each of its parametrizations."""
    values = {item: set(enumerate(item.callspec._idlist)) for item in cases}
    wanted = set().union(*values.values())
    kept = []
    while wanted:
        kept.append(max(cases, key=lambda item: len(values[item] & wanted)))
        wanted -= values[kept[-1]]
    return kept


SAMPLES = {"one": lambda cases: cases[:1], "each value": with_each_value}


@pytest.hookimpl(trylast=True)  # after -k: of the cases that were asked for
def pytest_collection_modifyitems(config, items):
    """Run only a sample of classes that define one, unless all tests are requested.

    What a test notices in the other cases (values, orders, claims) does not differ between stores
    that share their code; the embedded store runs all cases. A class with ``sample = "one"`` runs
    one case of each test, with ``sample = "each value"`` as many as have each value of each
    parameter once: of rows in four states and ten kinds of values, ten cases in place of forty.
    Which ones follows from their names, so over all tests the states are spread over the kinds.
    """
    if os.environ.get("DASKBROKER_WHOLE_CONFORMANCE"):
        return
    cases = defaultdict(list)
    for item in items:
        if getattr(item.cls, "sample", None) is not None:
            cases[item.cls, item.originalname].append(item)
    left_out = set()
    for (cls, name), group in cases.items():
        if len(group) > 1:
            group.sort(key=lambda item: zlib.crc32(f"{name}{item.name}".encode()))
            left_out.update(set(group).difference(SAMPLES[cls.sample](group)))
    if left_out:
        config.hook.pytest_deselected(items=sorted(left_out, key=lambda item: item.nodeid))
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def broker(store_place):
    with daskbroker.connect(store_place) as db:
        yield db


@pytest.fixture
def reopen(broker, store_place):
    opened = []

    def reopen():
        broker.close()
        opened.append(daskbroker.connect(store_place))
        return opened[-1]

    yield reopen
    for db in opened:
        db.close()


@pytest.fixture(scope="session")
def database_name():
    return f"test_{uuid.uuid4().hex}"


def empty(database):
    """Remove all documents of a database, and leave its collections with their indexes.

    To make the indexes anew takes longer than most tests.
    """
    for name in database.list_collection_names():
        database[name].delete_many({})


@pytest.fixture(scope="session")
def shared_database(mongod_uri, database_name):
    """Return a database on the shared server, by a client that is opened once."""
    with pymongo.MongoClient(mongod_uri) as client:
        yield client[database_name]


@pytest.fixture
def emptied_database(mongod_uri, shared_database):
    """Return the URI of a database on the shared server."""
    empty(shared_database)
    return f"{mongod_uri}/{shared_database.name}"


@pytest.fixture
def emptied_on_set(running_set, database_name):
    """Return the URI of a database on the replica set."""
    with pymongo.MongoClient(running_set.uri()) as client:
        empty(client[database_name])
    return running_set.uri(database_name)
