"""The MongoDB store with a spool passes the public conformance suite, but for filling."""

from __future__ import annotations

import dask
import pytest

import daskbroker
from daskbroker.testing.model import ModelConformance, PageConformance
from daskbroker.testing.nouns import NounConformance


class TestMongoSpool(ModelConformance, PageConformance, NounConformance):
    @pytest.fixture(autouse=True)
    def _spool(self, tmp_path):
        with dask.config.set({"daskbroker.mongo-spool": tmp_path / "spool"}):
            yield

    @pytest.fixture
    def broker(self, mongo_database, _spool):
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
