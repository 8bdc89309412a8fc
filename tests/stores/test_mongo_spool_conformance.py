"""The MongoDB store with a spool passes the public conformance suite, but for filling.

CI runs one case of each test, the stage ``conformance`` of ci/long.sh all.
"""

from __future__ import annotations

import dask
import pytest

from daskbroker.testing.conformance.event_pages import PageConformance
from daskbroker.testing.conformance.model import ModelConformance
from daskbroker.testing.conformance.nouns import NounConformance
from daskbroker.testing.conformance.repeats import RepeatConformance


class TestMongoSpool(ModelConformance, PageConformance, NounConformance, RepeatConformance):
    sample = "one"

    @pytest.fixture
    def store_place(self, emptied_database, tmp_path):
        with dask.config.set({"daskbroker.mongo-spool": tmp_path / "spool"}):
            yield emptied_database
