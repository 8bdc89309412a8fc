"""The MongoDB store passes the public conformance suite.

CI runs each state of the rows and each kind of case of a test, but not each kind in each state as
for the embedded store, whose chunks are the same; the stage ``conformance`` of ci/long.sh runs all.
"""

from __future__ import annotations

import pymongo
import pytest

from daskbroker.testing.conformance import BadRunConformance, BrokerConformance


class TestMongo(BrokerConformance):
    sample = "each value"

    @pytest.fixture
    def store_place(self, emptied_database):
        return emptied_database


class TestMongoBadRuns(BadRunConformance):
    """Documents of another writer."""

    @pytest.fixture
    def store_place(self, emptied_database):
        return emptied_database

    @pytest.fixture
    def spoil(self, store_place):
        def spoil(kind, uid):
            with pymongo.MongoClient(store_place) as client:
                raw = client.get_default_database()
                owner = raw.event_descriptor.find_one({"run_start": uid})
                collection, query, change = {
                    "start": ("run_start", {"uid": uid}, {"$set": {"_daskbroker": 5}}),
                    "stop": ("run_stop", {"run_start": uid}, {"$unset": {"time": 1}}),
                    "descriptor": (
                        "event_descriptor",
                        {"run_start": uid},
                        {"$unset": {"data_keys": 1}},
                    ),
                    "event": ("event", {"descriptor": owner["uid"]}, {"$unset": {"data": 1}}),
                }[kind]
                assert raw[collection].update_one(query, change).modified_count

        return spoil
