"""Fixtures of the MongoDB tests: the same documents, written by suitcase-mongo."""

from __future__ import annotations

import pymongo
import pymongo.monitoring
import pytest

import daskbroker


class Commands(pymongo.monitoring.CommandListener):
    """Records the commands that a client sends, and their read concerns."""

    def __init__(self):
        self.names = []
        self.sent = []

    def started(self, event):
        self.names.append(event.command_name)
        self.sent.append(event.command)

    def clear(self):
        self.names.clear()
        self.sent.clear()

    def succeeded(self, event):
        pass

    def failed(self, event):
        pass


@pytest.fixture
def raw(mongo_database):
    """Return the database as an object of pymongo."""
    with pymongo.MongoClient(mongo_database) as client:
        yield client.get_default_database()


@pytest.fixture
def mongo(mongo_database):
    """Return a broker on an empty database."""
    with daskbroker.connect(mongo_database) as db:
        yield db


@pytest.fixture
def commands(monkeypatch):
    """Return the commands of the clients that are created from now on."""
    listener = Commands()
    make = pymongo.MongoClient

    def listening(*args, **kwargs):
        return make(*args, event_listeners=[listener], **kwargs)

    monkeypatch.setattr(pymongo, "MongoClient", listening)
    return listener
