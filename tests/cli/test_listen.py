"""``daskbroker listen``, RemoteDispatcher and Kafka consumers, by real proxies and processes."""

from __future__ import annotations

import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress

import pytest
import zmq
from bluesky.callbacks.zmq import Publisher

import daskbroker
from daskbroker.cli import listen
from daskbroker.core.errors import ConfigError, StoreFull
from daskbroker.testing import assert_documents_equal, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.mongod import Mongod
from daskbroker.work import tolerant_insert
from daskbroker.work.ingest import ingest
from daskbroker.work.listening import Listener
from daskbroker.work.tolerant_insert import TolerantInserter

PROXY = """
import sys
from bluesky.callbacks.zmq import Proxy
Proxy(f"127.0.0.1:{sys.argv[1]}", f"127.0.0.1:{sys.argv[2]}").start()
"""
REMOTE = """
import sys
import daskbroker
from bluesky.callbacks.zmq import RemoteDispatcher
db = daskbroker.connect(sys.argv[1])
dispatcher = RemoteDispatcher(f"127.0.0.1:{sys.argv[2]}")
dispatcher.subscribe(db.insert)
print("ready", flush=True)
dispatcher.start()
"""
DEADLINE = 120


class Process:
    """A process whose lines are read as they come."""

    def __init__(self, *arguments):
        self._process = subprocess.Popen(
            [sys.executable, "-u", *map(str, arguments)], stdout=-1, stderr=-2, text=True
        )
        self._coming = queue.Queue()
        self.lines = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self._coming.put(line)

    def wait_for(self, text):
        """Wait until a line contains this text."""
        while not any(text in line for line in self.lines):
            self.read_line()

    def read_line(self, timeout=DEADLINE):
        """Wait for the next line, and return it."""
        try:
            self.lines.append(self._coming.get(timeout=timeout))
        except queue.Empty:
            raise AssertionError(f"nothing more after {self.lines}") from None

    def end(self, number=signal.SIGTERM):
        """Send a signal, and return the exit status and all lines."""
        self._process.send_signal(number)
        status = self._process.wait(DEADLINE)
        self._reader.join()
        self._process.stdout.close()
        while not self._coming.empty():
            self.lines.append(self._coming.get())
        return status, "".join(self.lines)


@pytest.fixture
def start():
    """Return ``start(*arguments)``, which starts a process that is killed at the end."""
    begun = []

    def start(*arguments):
        begun.append(Process(*arguments))
        return begun[-1]

    yield start
    for process in begun:
        if process._process.poll() is None:
            process.end(signal.SIGKILL)


def free_ports(number):
    context = zmq.Context()
    sockets = [context.socket(zmq.PUB) for _ in range(number)]
    ports = [socket.bind_to_random_port("tcp://127.0.0.1") for socket in sockets]
    context.destroy(linger=0)
    return ports


class Wire:
    """A proxy process, with its publishers and listeners."""

    def __init__(self, start, folder):
        self._start, self.spool = start, folder / "spool"
        self.ports = free_ports(2)
        self.open_proxy()

    def open_proxy(self):
        self.proxy = self._start("-c", PROXY, *self.ports)

    def publisher(self):
        return Publisher(f"127.0.0.1:{self.ports[0]}")

    def listen(self, store, *options):
        listener = self._start(
            "-m", "daskbroker", "listen", f"zmq://127.0.0.1:{self.ports[1]}", "--db", store,
            "--spool", self.spool, *options,
        )  # fmt: skip
        listener.wait_for("connected")
        self.settle()
        return listener

    @staticmethod
    def settle():
        """Wait, as 0MQ does not tell when a subscription has reached the publisher."""
        time.sleep(0.5)


@pytest.fixture
def wire(start, tmp_path):
    return Wire(start, tmp_path)


def publish(publisher, documents):
    for name, doc in documents:
        publisher(name, doc)


def scan(uid, events=6, **more):
    return make_run(events, uid=f"{uid}-abcdef", time=time.time(), **more)


def until_taken(publisher, listener, run):
    """Publish a run until the listener has it, as publishers reconnect at an unknown time."""
    ended = f"{run[0][1]['uid'][:8]}  ended:"
    while not any(ended in line for line in listener.lines):
        publish(publisher, run)
        with suppress(AssertionError):
            listener.read_line(timeout=1)
    return run


def opened(place):
    return daskbroker.connect(place, create=False)


def test_runs_are_inserted_repeated_and_reported(wire, tmp_path):
    store = tmp_path / "store"
    listener = wire.listen(store)
    publisher = wire.publisher()
    wire.settle()
    first, second = scan("first", scan_id=1), scan("second", scan_id=2)
    publish(publisher, first[:4])
    publish(publisher, first)  # a publisher that begins anew, and sends what it had sent
    publisher._socket.send(b"nonsense")
    publisher._socket.send(b" event \x80\x05")
    publisher._socket.send(b" start " + pickle.dumps({"uid": Evil()}))
    publish(publisher, second)
    publish(publisher, [pair for pair in second if pair[0] != "start"])
    listener.wait_for("second-a  ended:")
    # The proxy is restarted, under all of them.
    before = len(listener.lines)
    wire.proxy.end(signal.SIGKILL)
    listener.wait_for("is lost")
    wire.open_proxy()
    while not any("connected" in line for line in listener.lines[before:]):
        listener.read_line()
    third = until_taken(publisher, listener, scan("third"))
    status, lines = listener.end(signal.SIGINT)
    assert status == 0, lines
    assert lines.count("holds no document") == 1
    assert "3 messages held no document" in lines
    assert lines.count("warning") == 3  # and the lost connection
    assert "first-ab" in lines
    assert "made a new store" in lines
    with opened(store) as db:
        assert len(db) == 3
        assert_documents_equal(db["third-abcdef"].documents(), third)
        assert_documents_equal(db["first-abcdef"].documents(), first)
        assert_documents_equal(db["second-abcdef"].documents(), second)
    assert not Evil.done
    assert not list(wire.spool.glob("*"))
    publisher.close()


class Evil:
    done = False

    def __reduce__(self):
        return os.system, ("touch evil",)


def test_who_begins_in_mid_run_tells_what_lacks(wire, tmp_path):
    store = tmp_path / "store"
    publisher = wire.publisher()
    early, run = scan("early"), scan("restarted")
    listener = wire.listen(store)
    publish(publisher, run[:4])  # start, descriptor, two events
    publisher("start", scan("marker")[0][1])
    listener.wait_for("marker-a")
    assert listener.end()[0] == 0
    publish(publisher, early[:3])  # nobody listens
    publish(publisher, run[4:6])
    listener = wire.listen(store)
    publish(publisher, early[3:])
    publish(publisher, run[6:])
    listener.wait_for("restarte  ended:")
    listener.wait_for("restarted-abcdef is incomplete")
    status, lines = listener.end()
    assert status == 0
    assert "4 of 6 events of primary are stored" in lines
    assert (
        lines.count(" document is not stored: ") == 2
    )  # of the events' descriptor, and of the stop's run
    assert "were published while this listener was not connected" in lines
    with opened(store) as db:
        assert "early-abcdef" not in db
        assert [doc["seq_num"] for name, doc in db["restarted-abcdef"].documents()
                if name == "event"] == [1, 2, 5, 6]  # fmt: skip
    # What was refused is kept, and comes in when what it needs is there.
    (kept,) = wire.spool.glob("refused-*.jsonl")
    assert [json.loads(line)[0] for line in kept.read_text().splitlines()] == ["event"] * 5 + [
        "stop"
    ]
    with daskbroker.connect(store) as db:
        insert_all(db, early[:3])
        assert ingest(db, [kept]).refused == 0
        assert_documents_equal(db["early-abcdef"].documents(), early)
    publisher.close()


def test_two_listeners_bridge_the_restart_of_each_and_of_the_publisher(wire, tmp_path):
    store = tmp_path / "store"
    one, other = wire.listen(store), wire.listen(store)
    publisher = wire.publisher()
    wire.settle()
    run = scan("bridged", 8)
    publish(publisher, run[:4])
    one.wait_for("bridged-")
    one.end(signal.SIGKILL)
    publish(publisher, run[4:6])
    one = wire.listen(store)
    publisher.close()  # a RunEngine that ends in mid-run, and one that goes on
    publisher = wire.publisher()
    wire.settle()
    publish(publisher, run[6:])
    one.wait_for("ended:")
    other.wait_for("ended:")
    for listener in (one, other):
        status, lines = listener.end()
        assert status == 0
        assert "warning" not in lines
    with opened(store) as db:
        assert_documents_equal(db["bridged-abcdef"].documents(), run)
    publisher.close()


def test_while_the_store_is_away_documents_wait(wire, tmp_path):
    server = Mongod(tmp_path / "mongod")
    server.start()
    place = f"{server.uri}/runs?serverSelectionTimeoutMS=500"
    try:
        listener = wire.listen(place)
        publisher = wire.publisher()
        wire.settle()
        waited, left = scan("waited"), scan("left")
        publish(publisher, waited[:3])
        listener.wait_for("waited-a")
        server.kill()
        publish(publisher, waited[3:])
        listener.wait_for("documents wait")
        server.start()
        listener.wait_for("accepts inserts again")
        listener.wait_for("waited-a  ended:")
        server.kill()
        listener.lines.clear()
        publish(publisher, left)
        listener.wait_for("documents wait")
        status, lines = listener.end()
        assert status == 1
        assert "run daskbroker listen again to insert them" in lines
        server.start()
        listener = wire.listen(place)
        listener.wait_for("left-abc  ended:")
        assert listener.end()[0] == 0
        with opened(place) as db:
            assert_documents_equal(db["waited-abcdef"].documents(), waited)
            assert_documents_equal(db["left-abcdef"].documents(), left)
        publisher.close()
    finally:
        server.kill()


def test_a_remote_dispatcher_inserts_and_goes_on_after_an_error(wire, start, tmp_path):
    store = tmp_path / "store"
    remote = start("-c", REMOTE, store, wire.ports[1])
    remote.wait_for("ready")
    publisher = wire.publisher()
    wire.settle()
    run = scan("remote")
    publish(publisher, scan("early")[1:])  # in mid-run: each insert is an error in its log
    publish(publisher, run)
    publish(publisher, run)
    deadline = time.monotonic() + DEADLINE
    with daskbroker.connect(store) as db:
        while "remote-abcdef" not in db or db["remote-abcdef"].refresh().stop is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert_documents_equal(db["remote-abcdef"].documents(), run)
        assert len(db) == 1
    assert "UnknownReference" in remote.end(signal.SIGKILL)[1]
    publisher.close()


def test_wrong_addresses(run, tmp_path):
    for address in ("http://localhost:5568", "zmq://localhost", "localhost:x"):
        done = run("listen", address, "--db", tmp_path / "store")
        assert done.returncode == 1
        assert "is not an address of a 0MQ proxy" in done.stderr
    assert not list(tmp_path.iterdir())


def test_without_pyzmq(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zmq", None)
    done = run("listen", "zmq://localhost:5568", "--db", tmp_path / "s", "--spool", tmp_path / "t")
    assert done.returncode == 1
    assert "pip install 'daskbroker[zmq]'" in done.stderr
    assert not list((tmp_path / "t").iterdir())


def opened_of(spool):
    """Count this process's files of a spool, and what sockets of 0MQ are made of.

    Threads of earlier tests open and close others.
    """
    found = Counter()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            target = os.readlink(f"/proc/self/fd/{name}")
            found["spool"] += target.startswith(str(spool))
            found["eventfd"] += "[eventfd]" in target
    return found


def test_a_connection_that_cannot_be_made_leaves_nothing_open(tmp_path):
    with daskbroker.connect(tmp_path / "store") as db:
        listener = Listener(db, "zmq://no host:5568", tmp_path / "spool")
        before = opened_of(tmp_path / "spool")
        threads = threading.active_count()
        with pytest.raises(ConfigError, match="0MQ cannot connect to tcp://no host:5568"):
            listener.run()
        after = opened_of(tmp_path / "spool")
        assert after["spool"] == 0 < before["spool"]
        assert after["eventfd"] <= before["eventfd"]
        assert threading.active_count() <= threads


def test_output_that_cannot_be_written_stops_nothing(monkeypatch):
    full = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")
    monkeypatch.setattr(sys, "stdout", full)
    lines = listen._Lines("UTC")
    for name, doc in scan("unheard"):
        lines.show(name, doc)
    listen._tell("connected")
    assert not lines._starts  # until the stop
    with pytest.raises(OSError, match="No space left"):
        full.close()


def test_an_error_of_receiving_is_raised(wire, tmp_path):
    def fail(line):
        raise MemoryError(line)

    with daskbroker.connect(tmp_path / "store") as db:
        listener = Listener(db, f"zmq://127.0.0.1:{wire.ports[1]}", wire.spool, tell=fail)
        with pytest.raises(MemoryError, match="connected to tcp"):
            listener.run()
    assert not list(wire.spool.iterdir())


def test_a_message_that_is_lost_is_no_success(tmp_path, monkeypatch):
    told = []
    with daskbroker.temp() as db:
        listener = Listener(db, "zmq://127.0.0.1:1", tmp_path, warn=told.append)
        with monkeypatch.context() as patch:
            patch.setattr(
                listener._inbox, "put", lambda _: (_ for _ in ()).throw(StoreFull("full"))
            )
            listener.stop()
            listener._put(b"message")
        assert not listener.run()
    assert told[1] == "a message of 7 bytes is lost: full"


def test_problems_are_reported_for_ever(tmp_path, monkeypatch):
    """Also when more are known than are remembered."""
    monkeypatch.setattr(tolerant_insert, "MOST_NAMED", 3)
    told = []
    with daskbroker.temp() as db:
        inserter = TolerantInserter(
            db, tmp_path / "refused.jsonl", told.append, lambda seconds: False
        )
        for number in range(8):
            event = {"run_start": f"run{number}", "descriptor": "nosuch", "seq_num": 1, "time": 1.0}
            event |= {"data": {}, "timestamps": {}}
            for uid in ("one", "two"):  # of the second event the reason is known
                assert not inserter.insert("event", {**event, "uid": uid})
                assert len(told) == number + 1
            assert f"run{number}" in told[-1]
    assert len((tmp_path / "refused.jsonl").read_text().splitlines()) == 16
