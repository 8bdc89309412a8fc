"""Messages as publishers send them become documents, and nothing that they name is run."""

from __future__ import annotations

import collections
import datetime
import json
import os
import pickle
import resource
import sys
import uuid
from enum import StrEnum
from fractions import Fraction

import msgpack
import msgpack_numpy
import numpy as np
import pytest

import daskbroker
from daskbroker.core.errors import BadDocument, StoreError
from daskbroker.testing import make_run
from daskbroker.testing.processes import Program
from daskbroker.work import messages, tolerant_insert
from daskbroker.work.inbox import Inbox
from daskbroker.work.messages import BadMessage, decoded
from daskbroker.work.tolerant_insert import TolerantInserter

STRUCTURED = np.array([(1, 2.5, "a"), (3, 4.5, "ß")], dtype="<i2,>f8,<U3")


DOC = {
    "data": {
        "frame": np.arange(12, dtype="<u2").reshape(3, 4),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big-endian": np.arange(3, dtype=">i4"),
        "empty": np.zeros((0, 3), "f4"),
        "text": np.array(["ab", "c"]),
        "flags": np.array([True, False]),
        "when": np.array(["2026-11-26T12:00"], "M8[s]").astype("i8"),
        "structured": STRUCTURED,
        "zero": np.array(4.5),
        "number": np.float32(1.5),
        "nested": [{"a": (np.int16(3), None, b"\x00 \x01")}],
    },
    "uid": "an event",
}


class Called:
    """Pickled as a call of something."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def assert_equal(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        for left, right in zip(one, other, strict=True):
            assert_equal(left, right)
    elif isinstance(one, (np.ndarray, np.generic)):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.tolist() == other.tolist()
    else:
        assert one == other


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_any_protocol(protocol):
    name, doc = decoded(b"abc event " + pickle.dumps(DOC, protocol))
    assert name == "event"
    assert_equal(DOC, doc)


def test_types_of_the_standard_library_and_members_of_enumerations():
    now = datetime.datetime.now(datetime.UTC)
    doc = {"when": now, "id": uuid.uuid4(), "ordered": collections.OrderedDict(a=1)}
    assert decoded(b" start " + pickle.dumps(doc)) == ("start", doc)


def test_members_of_enumerations_are_their_values(monkeypatch):
    devices = type(sys)("devices_of_a_beamline")
    devices.Mode = StrEnum("Mode", {"FAST": "fast"}, module=devices.__name__)
    with monkeypatch.context() as patch:  # known where it is published, not where it is read
        patch.setitem(sys.modules, devices.__name__, devices)
        message = b" event " + pickle.dumps({"mode": devices.Mode.FAST})
        looked_up = b" event " + pickle.dumps(Called(getattr, devices.Mode, "FAST"))
    assert decoded(message) == ("event", {"mode": "fast"})
    assert type(decoded(message)[1]["mode"]) is str
    with pytest.raises(BadMessage, match="getattr"):
        decoded(looked_up)


def test_msgpack_json_and_prefixes():
    packed = msgpack.packb(DOC["data"]["frame"], default=msgpack_numpy.encode)
    found = decoded(b" event " + msgpack.packb({"a": msgpack.unpackb(packed)}), "msgpack")
    assert_equal(found[1]["a"], DOC["data"]["frame"])
    text = json.dumps({"a b": [1, "c d"]}).encode()
    assert decoded(b"mine stop " + text, "json", b"mine") == ("stop", {"a b": [1, "c d"]})
    assert decoded(b"theirs stop " + text, "json", b"mine") is None


@pytest.mark.parametrize(
    "value",
    [
        Called(os.system, "true"), Called(eval, "1"),
        Called(np.load, "file"), Called(np.ndarray, (10**9,)), Fraction(1, 3), os.system,
        np.array([{}], object), DOC["data"]["text"].dtype,
        Called(messages.decoded, b"a", "b"), Called(pickle.loads, b"x"),
    ],
)  # fmt: skip
def test_nothing_that_a_message_names_is_run(value, tmp_path):
    with daskbroker.connect(tmp_path / "store") as db:
        try:
            found = decoded(b" start " + pickle.dumps({"uid": "abcdef", "time": 1.0, "v": value}))
        except BadMessage as error:
            assert str(error).startswith("a start ")
            return
        # What stands for a name is no value that could be stored.
        with pytest.raises(BadDocument, match="v"):
            db.insert(*found)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"", "not a prefix"), (b"start", "not a prefix"), (b" start", "not a prefix"),
        (b" strat {}", "'strat' is not the name of a document"),
        (b" \xff \xff", "is not the name of a document"),
        (b" start ", "cannot read"), (b" start \x80\x04", "cannot read"),
        (b" start " + pickle.dumps([1]), "not a mapping but a list"),
        (b" start " + pickle.dumps(DOC)[:-40], "cannot read"),
    ],
)  # fmt: skip
def test_what_is_no_message(message, said):
    with pytest.raises(BadMessage, match=said):
        decoded(message)


# -- where messages wait ---------------------------------------------------------------------


DIES = """
import os, sys
from pathlib import Path
from daskbroker.work.inbox import Inbox
inbox = Inbox(Path(sys.argv[1]), "listen-x")
for number in range(3):
    inbox.put(b"%d" % number)
assert inbox.first() == b"0"
inbox.drop()
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda body: body + b"half a reco", [b"0", b"1", b"2", b"new"]),
        (lambda body: body + bytes(64), [b"0", b"1", b"2", b"new"]),
        (lambda body: body.replace(b"1", b"?"), [b"0", b"2", b"new"]),
    ],
    ids=["half a record", "zeros", "a flipped bit"],
)
def test_what_a_dead_process_left_comes_first(tmp_path, damage, expected):
    Program(DIES, tmp_path).communicate()
    (left,) = tmp_path.glob("*.spool")
    left.write_bytes(damage(left.read_bytes()))
    inbox = Inbox(tmp_path, "listen-x")
    other = Inbox(tmp_path, "listen-x")  # at the same time: takes none of it
    inbox.put(b"new")
    found = []
    while (message := inbox.first()) is not None:
        found.append(message)
        inbox.drop()
    assert found == expected
    assert inbox.first(timeout=0.01) is None
    inbox.put(b"last")
    (path,) = inbox.close()
    assert other.first() is None
    assert other.close() == []
    assert {file.name for file in tmp_path.iterdir()} == {path.name, f"{left.stem}.refused"}
    again = Inbox(tmp_path, "listen-x")
    assert again.first() == b"last"
    again.drop()
    assert again.close() == []


def test_a_message_that_is_damaged_while_it_waits_holds_up_no_others(tmp_path):
    inbox = Inbox(tmp_path, "listen-x")
    for message in (b"0", b"1", b"2"):
        inbox.put(message)
    (own,) = tmp_path.glob("*.spool")
    with own.open("r+b") as file:
        file.seek(-10, os.SEEK_END)  # the last byte of the second record
        assert file.read(1) == b"1"
        file.seek(-10, os.SEEK_END)
        file.write(b"?")
    found = []
    while (message := inbox.first()) is not None:
        found.append(message)
        inbox.drop()
    assert found == [b"0", b"2"]
    # What could not be read is kept, and does not hold the file of later messages.
    assert (tmp_path / f"{own.stem}.refused").exists()
    inbox.put(b"3")
    assert (inbox.first(), inbox.waiting) == (b"3", 1)
    inbox.drop()
    assert inbox.close() == []
    assert [file.name for file in tmp_path.iterdir()] == [f"{own.stem}.refused"]


@pytest.mark.parametrize("place", [0, 8], ids=["length", "body"])
def test_damage_with_nothing_readable_behind_it_is_kept(tmp_path, place, caplog):
    inbox = Inbox(tmp_path, "listen-x")
    inbox.put(b"aaaa")
    (own,) = tmp_path.glob("*.spool")
    whole = own.read_bytes()
    own.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    assert inbox.first() is None
    inbox.put(b"bbbb")
    assert inbox.first() == b"bbbb"
    inbox.drop()
    assert inbox.close() == []
    assert [file.name for file in tmp_path.iterdir()] == [f"{own.stem}.refused"]
    assert "cannot be read" in caplog.text


def test_a_file_that_is_deleted_is_followed_by_another(tmp_path):
    inbox = Inbox(tmp_path, "listen-x")
    inbox.put(b"0")
    next(tmp_path.glob("*.spool")).unlink()
    inbox.put(b"1")
    assert [file.stat().st_size for file in tmp_path.glob("*.spool")] == [9]
    for message in (b"0", b"1"):
        assert inbox.first() == message
        inbox.drop()
    assert (inbox.waiting, inbox.close()) == (0, [])


# -- inserting -------------------------------------------------------------------------------


def test_a_refused_document_that_has_no_room_spoils_no_others(db, tmp_path):
    told, kept = [], tmp_path / "refused.jsonl"
    inserter = TolerantInserter(db, kept, told.append, lambda seconds: True)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for uid in ("one", "two", "three"):
        start = {"uid": uid, "time": "never"}
        # Files may then be 3 bytes longer.
        if uid == "two":
            most = kept.stat().st_size + 3
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
        try:
            assert not inserter.insert("start", start)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [json.loads(line)[1]["uid"] for line in kept.read_text().splitlines()] == [
        "one",
        "three",
    ]
    assert ["only 3 bytes could be written" in line for line in told] == [False, True, False]


def test_an_error_of_the_store_is_waited_for_and_any_other_is_outlived(db, tmp_path, monkeypatch):
    told, kept = [], tmp_path / "refused.jsonl"
    inserter = TolerantInserter(db, kept, told.append, lambda seconds: True)
    monkeypatch.setattr(tolerant_insert, "SETTLE_SECONDS", 0.0)
    insert, failures = db.insert, iter([StoreError("the disk is away")] * 3)

    def failing(name, doc):
        if doc.get("uid") == "odd":
            raise TypeError("a mistake in the code")
        for failure in failures:
            raise failure
        insert(name, doc)

    monkeypatch.setattr(db, "insert", failing)
    documents = make_run(3, uid="run-abcdef")
    for name, doc in documents[:-1]:
        assert inserter.insert(name, doc)
    assert told == [
        "the store accepts no inserts, and documents wait until it does: the disk is away",
        "the store accepts inserts again",
    ]
    assert list(inserter.open_runs) == ["run-abcdef"]
    odd = documents[2][1] | {"uid": "odd", "data": {"x": object()}}
    assert not inserter.insert("event", odd)
    assert "run-abcdef" in told[-1]
    assert "a mistake in the code" in told[-1]
    assert "cannot be written to" in told[-1]
    other = documents[2][1] | {"data": {"x": 99.0}}
    assert not inserter.insert("event", other)
    assert "a different" in told[-1] or "uid" in told[-1]
    assert str(kept) in told[-1]
    assert inserter.insert(*documents[-1])
    inserter.count_events()
    assert len(told) == 4
    assert not inserter.open_runs
    ending = TolerantInserter(db, kept, told.append, lambda seconds: False)
    failures = iter([StoreError("away once more")])
    with pytest.raises(StoreError, match="once more"):
        ending.insert(*documents[0])
