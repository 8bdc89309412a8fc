"""Events that processes insert again right after another one has sealed them."""

from __future__ import annotations

import multiprocessing
import time

import pytest

import daskbroker
from daskbroker.core.errors import DuplicateUID
from daskbroker.stores.mongodb import event_writer, sealed_rows
from daskbroker.testing import assert_documents_equal, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.runs import page_of

RUN = make_run(40, stop=False, uid="the-run")
EVENTS = [doc for name, doc in RUN if name == "event"]
STOP = ("stop", {"uid": "s", "run_start": "the-run", "time": 1e9, "exit_status": "success"})
FORK = multiprocessing.get_context("fork")


class Other:
    """Another process that has the database open, and does what it is told."""

    def __init__(self, uri):
        self._pipe, theirs = FORK.Pipe()
        self._process = FORK.Process(target=_obey, args=(uri, theirs))
        self._process.start()

    def begin(self, work, *arguments):
        self._pipe.send((work, arguments))

    def end(self):
        found = self._pipe.recv()
        if isinstance(found, Exception):
            raise found
        return found

    def do(self, work, *arguments):
        self.begin(work, *arguments)
        return self.end()

    def close(self):
        self._pipe.send(None)
        self._process.join(60)


def _obey(uri, pipe):
    with daskbroker.connect(uri) as db:
        while (told := pipe.recv()) is not None:
            work, arguments = told
            try:
                pipe.send(work(db, *arguments))
            except Exception as error:
                pipe.send(error)


def seal(db):
    db.seal()


def seal_until(db, deadline):
    while time.time() < deadline:
        db.seal()


def singly(events):
    return [("event", doc) for doc in events]


def as_page(events):
    return [("event_page", page_of(events))]


@pytest.fixture
def others(mongo_database):
    """Three other processes, made when they are asked for."""
    made = []

    def make():
        made.append(Other(mongo_database))
        return made[-1]

    yield make
    for other in made:
        other.close()


@pytest.fixture
def late(monkeypatch):
    """What others have sealed is not looked up again, however long a test takes."""
    monkeypatch.setattr(event_writer, "LOOK_SECONDS", 600.0)


def check(db, documents):
    assert_documents_equal(documents, db["the-run"].documents())
    assert len(db["the-run"].table(duplicates="all").compute()) == len(EVENTS)
    assert list(daskbroker.check(db)) == []


@pytest.mark.parametrize("again", [singly, as_page], ids=["events", "a page"])
def test_two_processes_insert_again_what_a_third_has_just_sealed(mongo, others, late, again):
    insert_all(mongo, RUN[:2])
    first, second, sealer = others(), others(), others()
    first.do(insert_all, singly(EVENTS[:1]))
    second.do(insert_all, singly(EVENTS))
    sealer.do(seal)
    first.begin(insert_all, again(EVENTS))
    second.begin(insert_all, again(EVENTS))
    first.end()
    second.end()
    check(mongo, RUN)
    sealer.do(insert_all, [STOP])
    check(mongo, [*RUN, STOP])


@pytest.mark.parametrize("again", [singly, as_page], ids=["events", "a page"])
def test_a_different_event_under_the_uid_of_one_just_sealed_is_refused(mongo, others, late, again):
    insert_all(mongo, RUN)
    others().do(seal)
    changed = [{**doc, "seq_num": doc["seq_num"] + 1000} for doc in EVENTS[:3]]
    with pytest.raises(DuplicateUID, match="a different event is stored under this uid"):
        insert_all(mongo, again(changed))
    check(mongo, RUN)


def test_events_that_no_journal_holds_are_stored_once_by_several_processes(
    mongo, others, late, monkeypatch
):
    monkeypatch.setattr(event_writer, "MAX_DOCUMENT_BYTES", 10)
    insert_all(mongo, RUN[:2])
    first, second = others(), others()
    first.do(insert_all, singly(EVENTS[:1]))
    second.do(insert_all, singly(EVENTS[:2]))
    first.begin(insert_all, singly(EVENTS))
    second.begin(insert_all, singly(EVENTS))
    first.end()
    second.end()
    check(mongo, RUN)


def test_consumers_of_one_queue_while_others_seal(mongo, others):
    """Nothing is patched: three insert all events, as fast as they can, and two seal."""
    insert_all(mongo, RUN[:2])
    consumers, sealers = [others() for _ in range(3)], [others() for _ in range(2)]
    deadline = time.time() + 3
    for sealer in sealers:
        sealer.begin(seal_until, deadline)
    for place, consumer in enumerate(consumers):
        own = EVENTS[place * 10 :] + EVENTS[: place * 10]
        consumer.begin(insert_all, singly(own * 3))
    for other in (*consumers, *sealers):
        other.end()
    insert_all(mongo, [STOP])
    check(mongo, [*RUN, STOP])


# -- the marks -------------------------------------------------------------------------------


def test_what_is_left_of_sealed_rows_is_their_uids_for_a_while(mongo, raw, monkeypatch):
    insert_all(mongo, RUN)
    mongo.seal()
    marks = list(raw.event.find())
    assert {mark["uid"] for mark in marks} == {doc["uid"] for doc in EVENTS}
    chunk = raw.event_chunk.find_one()["_id"]
    for mark in marks:
        assert mark.keys() == {"_id", "uid", "descriptor", "time", "chunk"}
        assert mark["descriptor"] == "daskbroker:sealed"
        assert mark["chunk"] == chunk
        assert abs(mark["time"] - time.time()) < 60
    check(mongo, RUN)
    mongo.seal()
    assert raw.event.count_documents({}) == len(EVENTS)
    monkeypatch.setattr(sealed_rows, "REMOVE_EVERY_SECONDS", 0.0)
    mongo.seal()
    assert raw.event.count_documents({}) == len(EVENTS)  # they are younger than a minute
    raw.event.update_many({"uid": EVENTS[0]["uid"]}, {"$inc": {"time": -61}})
    insert_all(mongo, [STOP])
    assert raw.event.count_documents({}) == len(EVENTS) - 1
    raw.event.update_many({}, {"$inc": {"time": -61}})
    mongo.seal()
    assert raw.event.count_documents({}) == 0
    check(mongo, [*RUN, STOP])


def test_many_marks_are_removed_some_at_a_time(mongo, raw, monkeypatch):
    monkeypatch.setattr(sealed_rows, "MOST_REMOVED", 30)
    insert_all(mongo, RUN[:2])
    marks = [
        {"uid": f"old-{n}", "descriptor": sealed_rows.SEALED_MARK, "time": n, "chunk": "c"}
        for n in range(100)
    ]
    raw.event.insert_many(marks)
    for left in (70, 40, 10, 0, 0):
        mongo.seal()
        assert raw.event.count_documents({}) == left


def test_who_comes_when_the_marks_are_gone_looks_again(mongo, others, raw, late, monkeypatch):
    insert_all(mongo, RUN)
    others().do(seal)
    raw.event.delete_many({})
    monkeypatch.setattr(event_writer, "MARK_SECONDS", 0.0)
    insert_all(mongo, singly(EVENTS[:5]))
    assert raw.event.count_documents({}) == 0
    check(mongo, RUN)


@pytest.mark.parametrize("as_what", [singly, as_page], ids=["events", "a page"])
def test_an_event_of_another_descriptor_may_have_the_uid_of_a_sealed_one(
    mongo, others, late, as_what
):
    insert_all(mongo, RUN)
    others().do(seal)
    start = {**RUN[0][1], "uid": "other-run"}
    descriptor = {**RUN[1][1], "uid": "other-descriptor", "run_start": "other-run"}
    events = [{**doc, "descriptor": "other-descriptor"} for doc in EVENTS[:4]]
    head = [("start", start), ("descriptor", descriptor)]
    insert_all(mongo, head + as_what(events))
    assert_documents_equal(head + singly(events), mongo["other-run"].documents())
    check(mongo, RUN)
