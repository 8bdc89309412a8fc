"""The embedded store passes the public conformance suite."""

from __future__ import annotations

import pytest

from daskbroker.testing.conformance import BrokerConformance


class TestEmbedded(BrokerConformance):
    @pytest.fixture
    def store_place(self, tmp_path):
        return tmp_path / "store"
