"""A server that asks for a password, a client with one connection, a network that is slow."""

from __future__ import annotations

import socket
import threading
import time
from urllib.parse import quote

import pymongo
import pytest

import daskbroker
from daskbroker.core.errors import StoreReadOnly, StoreUnavailable
from daskbroker.testing import assert_documents_equal, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.mongod import Mongod

PASSWORD = "s3cret p@ss"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """Return the address of a server with an administrator, and a user who may read ``db``."""
    with Mongod(tmp_path_factory.mktemp("guarded"), "--auth") as server:
        with pymongo.MongoClient(server.uri) as client:
            client.admin.command("createUser", "boss", pwd=PASSWORD, roles=["root"])
        with pymongo.MongoClient(server.uri, username="boss", password=PASSWORD) as client:
            roles = [{"role": "read", "db": "db"}]
            client.admin.command("createUser", "reader", pwd="r", roles=roles)
        yield server.uri.removeprefix("mongodb://").rstrip("/")


def place(host, database="db", user="boss", password=PASSWORD, **options):
    more = "".join(f"&{name}={value}" for name, value in options.items())
    return f"mongodb://{user}:{quote(password, safe='')}@{host}/{database}?authSource=admin{more}"


def test_users(guarded):
    documents = make_run(3)
    with daskbroker.connect(place(guarded)) as db:
        insert_all(db, documents)
        db.seal()
        assert_documents_equal(documents, db[-1].documents())
        assert PASSWORD.split()[0] not in repr(db)
    with daskbroker.connect(place(guarded, user="reader", password="r")) as db:
        assert_documents_equal(documents, db[-1].documents())
        with pytest.raises(StoreReadOnly, match="not authorized"):
            insert_all(db, make_run(1))
    for wrong in (place(guarded, password="no-such-password"), f"mongodb://{guarded}/db"):
        with (
            pytest.raises(StoreReadOnly, match="check user, password and roles") as caught,
            daskbroker.connect(wrong) as db,
        ):
            insert_all(db, make_run(1))
        assert "no-such-password" not in str(caught.value)


def test_one_connection_for_many_threads(guarded):
    """Who does not get it in time is told so, and inserts again."""
    runs = [make_run(10) for _ in range(6)]

    def work(documents):
        for name, doc in documents:
            for _ in range(500):
                try:
                    db.insert(name, doc)
                    break
                except StoreUnavailable:
                    continue

    options = {"maxPoolSize": 1, "waitQueueTimeoutMS": 20}
    with daskbroker.connect(place(guarded, "pool", **options)) as db:
        threads = [threading.Thread(target=work, args=[one]) for one in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for documents in runs:
            assert_documents_equal(documents, db[documents[0][1]["uid"]].documents())


@pytest.fixture
def slow(guarded):
    """Return a function from a delay in seconds to the address of a proxy with that delay."""
    listeners = []

    def pump(here, there, delay):
        try:
            while data := here.recv(65536):
                time.sleep(delay)
                there.sendall(data)
        except OSError:
            pass
        finally:
            here.close()
            there.close()

    def serve(listener, delay):
        host, port = guarded.split(":")
        while True:
            try:
                here, _ = listener.accept()
            except OSError:
                return
            there = socket.create_connection((host, int(port)))
            for pair in ((here, there), (there, here)):
                threading.Thread(target=pump, args=[*pair, delay], daemon=True).start()

    def proxy(delay):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threading.Thread(target=serve, args=[listener, delay], daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield proxy
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_a_slow_network(slow):
    documents = make_run(4)
    with daskbroker.connect(place(slow(0.005), "slow", directConnection="true")) as db:
        insert_all(db, documents)
        assert_documents_equal(documents, db[-1].documents())
    options = {"directConnection": "true", "timeoutMS": 500}
    with (
        pytest.raises(StoreUnavailable, match="not in time"),
        daskbroker.connect(place(slow(2.0), "slow", **options)) as db,
    ):
        insert_all(db, make_run(1))
