"""Fixtures of the conformance tests: brokers on the `place` that a test class gives."""

from __future__ import annotations

import pytest

import daskbroker


@pytest.fixture
def broker(place):
    with daskbroker.connect(place) as db:
        yield db


@pytest.fixture
def reopen(broker, place):
    opened = []

    def reopen():
        broker.close()
        opened.append(daskbroker.connect(place))
        return opened[-1]

    yield reopen
    for db in opened:
        db.close()
