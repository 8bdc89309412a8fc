"""Documents of bluesky-kafka are inserted, also after a consumer that ended in mid-run.

The clients are real, and so is what goes over the socket; the broker is the one that librdkafka
brings for tests.
"""

from __future__ import annotations

import time

import pytest
from bluesky_kafka import BlueskyConsumer, Publisher
from confluent_kafka import Producer

import daskbroker
from daskbroker.testing import assert_documents_equal, make_run

TOPIC = "xyz.bluesky.runengine.documents"
SECONDS = 60


@pytest.fixture
def servers():
    """Addresses of the brokers."""
    owner = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    known = owner.list_topics(timeout=SECONDS).brokers.values()
    return ",".join(f"{broker.host}:{broker.port}" for broker in known), owner


def consume(servers, db, enough):
    """Insert as a consumer of the beamline's group, until there is enough."""
    taken = []

    def take(consumer, topic, name, doc):
        db.insert(name, doc)
        taken.append(name)
        if name == "stop":
            consumer.commit(asynchronous=False)

    config = {"auto.offset.reset": "earliest", "enable.auto.commit": False}
    config["session.timeout.ms"] = 6000  # the broker waits so long for the consumer before
    consumer = BlueskyConsumer(
        [TOPIC], servers, "daskbroker", consumer_config=config, process_document=take
    )
    deadline = time.monotonic() + SECONDS
    consumer.start(lambda: len(taken) < enough and time.monotonic() < deadline)
    return taken


def test_a_consumer_goes_on_after_the_last_run_that_it_has_in_whole(servers, tmp_path):
    addresses, _ = servers
    publisher = Publisher(TOPIC, addresses, "key", flush_on_stop_doc=True)
    first, second = make_run(4, uid="first-abcdef"), make_run(5, uid="second-abcdef")
    for pair in first + second:
        publisher(*pair)
    with daskbroker.connect(tmp_path / "store") as db:
        begun = consume(addresses, db, len(first) + 4)
        assert begun[-4:] == ["start", "descriptor", "event", "event"]
    with daskbroker.connect(tmp_path / "store") as db:
        # It had ended in mid-run: the second run comes from its start once more.
        assert consume(addresses, db, len(second)) == [name for name, _ in second]
        assert len(db) == 2
        assert_documents_equal(db["first-abcdef"].documents(), first)
        assert_documents_equal(db["second-abcdef"].documents(), second)
