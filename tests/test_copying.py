"""Copying runs: all of a run or a reason, again without harm, and checked by reading back."""

from __future__ import annotations

import pymongo
import pytest
import suitcase.mongo_embedded
import suitcase.mongo_normalized

import daskbroker
from daskbroker import PageBuffer
from daskbroker.core.errors import ConfigError, StoreReadOnly
from daskbroker.testing import (
    RunBuilder,
    assert_documents_equal,
    assert_references_first,
    baseline_run,
    external_run,
    interleave,
    make_run,
    paged_run,
    ragged_run,
    rewound_run,
    stream_datum_run,
)
from daskbroker.testing.base import insert_all
from daskbroker.testing.processes import Program

LEGACY = RunBuilder()
LEGACY.resource(run_start=None)
LEGACY.stop()

RUNS = {
    "plain": make_run(5),
    "streams": make_run(30, streams=("primary", "monitor")),
    "external": external_run(),
    "late datums": external_run(late=True),
    "frames": stream_datum_run(),
    "baseline": baseline_run(40),
    "ragged": ragged_run([[1.0], [None], "text", {"b": 1, "a": float("nan")}]),
    "rewound": rewound_run(),
    "pages": paged_run(arrays=True),
    "legacy resource": LEGACY.documents,
    "open": make_run(5, stop=False),
    "empty": make_run(0),
}


@pytest.fixture
def source(tmp_path):
    with daskbroker.connect(tmp_path / "source") as broker:
        yield broker


@pytest.mark.parametrize("kind", RUNS)
def test_every_kind_of_run_arrives_as_it_is(source, db, kind):
    insert_all(source, RUNS[kind])
    report = daskbroker.copy(source, db)
    assert report.failed == {}
    assert report.copied == [source[-1].uid]
    assert report.documents == len(list(source[-1].documents(fill=False)))
    received = list(db[-1].documents(fill=False))
    assert_references_first(received)
    assert_documents_equal(RUNS[kind], received)


def test_again_is_skipped_and_harmless(source, db):
    insert_all(source, interleave(*RUNS.values()))
    first = daskbroker.copy(source, db)
    assert (len(first.copied), first.failed) == (len(RUNS), {})
    for options in ({}, {"verify": True}):
        again = daskbroker.copy(source, db, **options)
        assert again.copied == [RUNS["open"][0][1]["uid"]]  # as far as it is
        assert len(again.skipped) == len(RUNS) - 1
    assert [h.uid for h in db] == [h.uid for h in source]


def test_what_is_half_there_is_continued(source, db):
    documents = make_run(50)
    insert_all(source, documents)
    insert_all(db, documents[:20])
    assert daskbroker.copy(source, db).copied
    assert_documents_equal(documents, db[-1].documents())


def test_an_open_run_is_followed(source, db):
    documents = make_run(9)
    insert_all(source, documents[:5])
    daskbroker.copy(source, db)
    assert db[-1].stop is None
    assert_documents_equal(documents[:5], db[-1].documents())
    insert_all(source, documents[5:])
    daskbroker.copy(source, db)
    assert_documents_equal(documents, db[-1].documents())


def test_some_runs_only(source, db):
    for number in range(6):
        insert_all(source, make_run(2, scan_id=number, plan_name="scan" if number % 2 else "count"))
    daskbroker.copy(source[3], db)
    daskbroker.copy(source(plan_name="count")[:2], db)
    daskbroker.copy([source[0]], db)
    assert [h.start["scan_id"] for h in db] == [4, 3, 2, 0]


def test_one_bad_run_does_not_stop_the_others(source, db):
    for number in range(3):
        insert_all(source, make_run(2, uid=f"run-{number}"))
    insert_all(db, make_run(2, uid="run-1", sample="another"))
    report = daskbroker.copy(source, db)
    assert report.copied == ["run-0", "run-2"]
    assert list(report.failed) == ["run-1"]
    assert "different run" in report.failed["run-1"]


def test_a_copy_that_differs_is_found_and_gets_no_stop(source, db):
    documents = make_run(3)
    insert_all(source, documents)
    extra = dict(documents[2][1], uid="stranger", seq_num=9)
    insert_all(db, [*documents[:2], ("event", extra)])
    report = daskbroker.copy(source, db)
    assert "event (3 here, 4 there)" in report.failed[source[-1].uid]
    assert db[-1].stop is None


def test_a_run_whose_copy_lacks_events_is_completed(source, db):
    documents = make_run(3)
    insert_all(source, documents)
    insert_all(db, [*documents[:3], documents[-1]])  # stop before all events
    assert daskbroker.copy(source, db).copied
    assert_documents_equal(documents, db[-1].documents())


def test_verify_finds_a_changed_value_behind_equal_numbers(source, db):
    documents = make_run(3)
    insert_all(source, documents)
    event = documents[2][1]
    changed = dict(event, data=dict(event["data"], x=99.0))
    insert_all(db, [*documents[:2], ("event", changed), *documents[3:]])
    assert daskbroker.copy(source, db).skipped
    assert "event" in daskbroker.copy(source, db, verify=True).failed[source[-1].uid]


def test_into_itself_or_a_reader_is_refused(source, tmp_path):
    insert_all(source, make_run(1))
    with pytest.raises(ConfigError, match="itself"):
        daskbroker.copy(source, source)
    daskbroker.connect(tmp_path / "there").close()
    with (
        daskbroker.connect(tmp_path / "there", mode="r") as reader,
        pytest.raises(StoreReadOnly, match="was opened to read only"),
    ):
        daskbroker.copy(source, reader)


def test_progress_is_told(source, db):
    insert_all(source, make_run(2500))
    told = []
    daskbroker.copy(source, db, progress=lambda header, count: told.append((header.uid, count)))
    assert told == [(source[-1].uid, 1000), (source[-1].uid, 2000)]


COPY = """
import sys, daskbroker
source, target = map(daskbroker.connect, sys.argv[1:])
daskbroker.copy(source, target, progress=lambda header, count: print(count, flush=True))
"""


def test_a_killed_copy_is_continued(tmp_path):
    documents = make_run(6000)
    source, target = tmp_path / "source", tmp_path / "target"
    with daskbroker.connect(source) as db:
        insert_all(db, PageBuffer()(documents))
    process = Program(COPY, source, target)
    while (line := process.stdout.readline()) and int(line) < 4000:
        pass
    process.kill()
    with daskbroker.connect(source) as db, daskbroker.connect(target) as there:
        assert there[-1].stop is None
        assert daskbroker.copy(db, there).copied
        assert_documents_equal(documents, there[-1].documents())


# -- pages -----------------------------------------------------------------------------------


def test_alternating_streams_share_pages_out_of_order():
    documents = make_run(10, streams=("a", "b"))
    names = [name for name, _ in PageBuffer(in_order=False)(documents)]
    assert names.count("event_page") == 2
    assert names[-1] == "stop"
    assert [n for n, _ in PageBuffer()(documents)].count("event_page") == 20


def test_datums_are_packed_and_come_before_their_events():
    documents = external_run(4)
    pages = list(PageBuffer(in_order=False)(documents))
    assert [name for name, _ in pages].count("datum_page") == 1
    assert_documents_equal(documents, pages)
    assert_references_first(pages)


def test_large_events_make_small_pages():
    builder = RunBuilder()
    descriptor = builder.descriptor({"v": [0.0]})
    for _ in range(5):
        builder.event(descriptor, {"v": [0.5] * 1_000_000})
    pages = [doc for name, doc in PageBuffer(in_order=False)(builder.stop()) if "page" in name]
    assert [len(page["uid"]) for page in pages] == [2, 2, 1]


# -- between stores --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything():
    """All kinds of runs, their documents by turns."""
    return interleave(*RUNS.values())


@pytest.fixture
def mongo(mongo_database):
    with daskbroker.connect(mongo_database) as broker:
        yield broker


def check_all(source, target):
    """A legacy resource belongs to whichever run was the newest, so both are asked."""
    for header in source:
        assert_documents_equal(
            header.documents(fill=False), target[header.uid].documents(fill=False)
        )


def test_from_a_folder_to_mongodb_and_back(source, mongo, db, everything):
    insert_all(source, everything)
    there = daskbroker.copy(source, mongo)
    assert (len(there.copied), there.failed) == (len(RUNS), {})
    check_all(source, mongo)
    back = daskbroker.copy(mongo, db)
    assert (len(back.copied), back.failed) == (len(RUNS), {})
    check_all(source, db)
    again = daskbroker.copy(source, mongo, verify=True)
    assert (len(again.skipped), again.failed) == (len(RUNS) - 1, {})


@pytest.mark.parametrize("layout", ["normalized", "embedded"])
def test_what_suitcase_wrote_is_copied(mongo_database, db, layout):
    with pymongo.MongoClient(mongo_database) as client:
        database = client.get_default_database()
        one = suitcase.mongo_normalized.Serializer(database, database)
        for documents in RUNS.values():
            if layout == "embedded":  # it takes one run
                one = suitcase.mongo_embedded.Serializer(database)
            for name, doc in documents:
                if "run_start" in doc or name != "resource":  # it asks for that
                    one(name, doc)
            if layout == "embedded":
                one.close()
    with daskbroker.connect(mongo_database, mode="r") as origin:
        report = daskbroker.copy(origin, db)
        assert report.failed == {}
        assert len(report.copied) == len(origin) == len(RUNS)
        check_all(origin, db)
    assert_documents_equal(RUNS["rewound"], db[RUNS["rewound"][0][1]["uid"]].documents())
