"""The MongoDB store on a replica set passes the public conformance suite."""

from __future__ import annotations

import pytest

from daskbroker.testing.conformance import BrokerConformance


class TestMongoReplicaSet(BrokerConformance):
    @pytest.fixture
    def store_place(self, emptied_on_set):
        return emptied_on_set
