"""The fixtures of databroker's test functions, made with daskbroker.

``DASKBROKER_FACE`` names the attribute of a DataBroker that replaces databroker's own object, such
as ``v1``. If it is empty, the DataBroker itself does.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from operator import attrgetter
from types import SimpleNamespace

import pytest

pytest.register_assert_rewrite("databroker.tests.test_broker", "databroker.tests.test_v2.generic")

from bluesky import RunEngine  # noqa: E402
from ophyd import sim  # noqa: E402

import daskbroker  # noqa: E402
from daskbroker.testing.mongod import mongod  # noqa: E402

FACE = os.environ.get("DASKBROKER_FACE", "")
STORES = ("embedded", "mongodb")
numbers = itertools.count()


@pytest.fixture(scope="session")
def server():
    """Return the URI of a MongoDB server."""
    with mongod() as running:
        yield running.uri


@pytest.fixture(scope="session")
def open_broker(server):
    """Return ``open_broker(store)``, which makes a broker on a new store, kept until the end."""
    kept = []

    def open_broker(store):
        if store == "embedded":
            broker = daskbroker.temp()
        else:
            broker = daskbroker.connect(f"{server}/suite_{next(numbers)}")
        broker.register_handler("NPY_SEQ", sim.NumpySeqHandler, overwrite=True)
        kept.append(broker)
        return broker

    yield open_broker
    for broker in kept:
        broker.close()


def faced(broker):
    """Return the object that replaces databroker's."""
    return attrgetter(FACE)(broker) if FACE else broker


@pytest.fixture(params=STORES, scope="module")
def db(request, open_broker):
    """Return a broker for all tests of a module, as in databroker's suite."""
    return faced(open_broker(request.param))


@pytest.fixture(params=STORES)
def db_empty(request, open_broker):
    """Return a new broker for each test."""
    return faced(open_broker(request.param))


@pytest.fixture(params=STORES)
def broker_factory(request, open_broker):
    """Return a function that makes brokers, for tests that need more than one."""
    return lambda: faced(open_broker(request.param))


@pytest.fixture
def RE():
    """Return a RunEngine without subscriptions."""
    loop = asyncio.new_event_loop()
    engine = RunEngine({}, loop=loop)
    yield engine
    if engine.state not in ("idle", "panicked"):
        engine.halt()
    loop.call_soon_threadsafe(loop.stop)
    engine._th.join()
    loop.close()


@pytest.fixture
def hw():
    """Return simulated devices."""
    return sim.hw()


@pytest.fixture(scope="module", params=STORES)
def bundle(request, open_broker, example_data):
    """Return the catalog of catalogs, with one run, for the generic tests of version 2."""
    broker = open_broker(request.param)
    uid, docs = example_data
    for name, doc in docs:
        broker.insert(name, doc)
    face = faced(broker)
    return SimpleNamespace(
        cat={"xyz": face, "xyz_with_transforms": face},
        uid=uid,
        docs=docs,
        remote=False,
        serializer_partial=lambda: broker.insert,
    )
