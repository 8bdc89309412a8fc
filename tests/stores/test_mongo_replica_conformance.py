"""The MongoDB store on a replica set passes the public conformance suite."""

from __future__ import annotations

import uuid

import pymongo
import pytest

from daskbroker.testing.conformance import BrokerConformance


class TestMongoReplicaSet(BrokerConformance):
    @pytest.fixture
    def store_place(self, running_set):
        name = f"test_{uuid.uuid4().hex}"
        yield running_set.uri(name)
        with pymongo.MongoClient(running_set.uri()) as client:
            client.drop_database(name)
