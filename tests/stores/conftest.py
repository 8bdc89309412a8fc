"""Fixtures of the conformance tests: brokers on the `store_place` that a test class gives."""

from __future__ import annotations

import pytest

import daskbroker


@pytest.fixture
def broker(store_place):
    with daskbroker.connect(store_place) as db:
        yield db


@pytest.fixture
def reopen(broker, store_place):
    opened = []

    def reopen():
        broker.close()
        opened.append(daskbroker.connect(store_place))
        return opened[-1]

    yield reopen
    for db in opened:
        db.close()
