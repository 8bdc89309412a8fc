"""The embedded store passes the public conformance suite."""

from __future__ import annotations

import pytest

import daskbroker
from daskbroker.testing.conformance import BrokerConformance


class TestEmbedded(BrokerConformance):
    @pytest.fixture
    def broker(self, tmp_path):
        with daskbroker.connect(tmp_path / "store") as db:
            yield db

    @pytest.fixture
    def reopen(self, broker, tmp_path):
        opened = []

        def reopen():
            broker.close()
            opened.append(daskbroker.connect(tmp_path / "store"))
            return opened[-1]

        yield reopen
        for db in opened:
            db.close()
