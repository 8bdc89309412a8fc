"""Fixtures of the conformance tests: brokers on the `store_place` that a test class gives."""

from __future__ import annotations

import uuid

import pymongo
import pytest

import daskbroker


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


def emptied(uri):
    """The uri of a database, whose collections have their indexes and no documents.

    To make the indexes anew takes longer than most tests.
    """
    with pymongo.MongoClient(uri) as client:
        database = client.get_default_database()
        for name in database.list_collection_names():
            database[name].delete_many({})
    return uri


@pytest.fixture
def emptied_database(mongod_uri, database_name):
    """The uri of a database on the shared server."""
    return emptied(f"{mongod_uri}/{database_name}")


@pytest.fixture
def emptied_on_set(running_set, database_name):
    """The uri of a database on the replica set."""
    return emptied(running_set.uri(database_name))
