"""The MongoDB store on a replica set passes the public conformance suite.

A single server differs in how documents are written and read back, so CI runs the parts about that,
one case of each test; the stage ``conformance`` of ci/long.sh sets ``DASKBROKER_WHOLE_CONFORMANCE``
and runs all of it.
"""

from __future__ import annotations

import os

import pytest

from daskbroker.testing.conformance import BrokerConformance
from daskbroker.testing.conformance.event_pages import PageConformance
from daskbroker.testing.conformance.live import LiveConformance
from daskbroker.testing.conformance.model import ModelConformance
from daskbroker.testing.conformance.nouns import NounConformance
from daskbroker.testing.conformance.repeats import RepeatConformance

PARTS: tuple[type, ...] = (
    ModelConformance, PageConformance, NounConformance, RepeatConformance, LiveConformance,
)  # fmt: skip
if os.environ.get("DASKBROKER_WHOLE_CONFORMANCE"):
    PARTS = (BrokerConformance,)


class TestMongoReplicaSet(*PARTS):  # type: ignore[misc]
    sample = "one"

    @pytest.fixture
    def store_place(self, emptied_on_set):
        return emptied_on_set
