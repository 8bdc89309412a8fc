"""The MongoDB store passes the public conformance suite."""

from __future__ import annotations

import pytest

from daskbroker.testing.conformance import BrokerConformance


class TestMongo(BrokerConformance):
    @pytest.fixture
    def store_place(self, emptied_database):
        return emptied_database
