"""The MongoDB store passes the public conformance suite."""

from __future__ import annotations

import pytest

import daskbroker
from daskbroker.testing.conformance import BrokerConformance


class TestMongo(BrokerConformance):
    @pytest.fixture
    def broker(self, mongo_database):
        with daskbroker.connect(mongo_database) as db:
            yield db

    @pytest.fixture
    def reopen(self, broker, mongo_database):
        opened = []

        def reopen():
            broker.close()
            opened.append(daskbroker.connect(mongo_database))
            return opened[-1]

        yield reopen
        for db in opened:
            db.close()
