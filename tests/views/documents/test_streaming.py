"""Streams of documents: order, selections of streams and of fields, laziness."""

from __future__ import annotations

import itertools

import pytest

from daskbroker.core.chunks import ChunkPlan
from daskbroker.core.errors import FieldNotFound, StreamNotFound
from daskbroker.testing import (
    RunBuilder,
    assert_documents_equal,
    assert_references_first,
    external_run,
    make_run,
    stream_datum_run,
)
from daskbroker.testing.base import insert_run


def test_events_of_all_streams_come_by_time(db):
    header = insert_run(db, make_run(20, streams=("primary", "dark", "flat")))
    events = [doc for name, doc in header.documents() if name == "event"]
    assert [doc["time"] for doc in events] == sorted(doc["time"] for doc in events)
    names = {d["uid"]: name for name, ds in header.descriptors.items() for d in ds}
    assert [names[doc["descriptor"]] for doc in events[:3]] == ["primary", "dark", "flat"]


def test_events_of_a_descriptor_keep_their_order_whatever_their_times(db):
    run = RunBuilder()
    descriptor = run.descriptor({"x": 0.5})
    for time in (5.0, 3.0, 4.0, 1.0):
        run.event(descriptor, {"x": time}, time=time)
    header = insert_run(db, run.stop())
    assert [d["data"]["x"] for n, d in header.documents() if n == "event"] == [5.0, 3.0, 4.0, 1.0]
    assert_references_first(header.documents())


@pytest.mark.parametrize("stream", ["primary", "dark"])
def test_one_stream_with_the_references_it_uses(db, stream):
    documents = external_run(3)
    header = insert_run(db, documents)
    part = list(header.stream(stream, fill=False))
    assert_references_first(part)
    descriptor = header.descriptors[stream][0]["uid"]
    wanted = [
        (name, doc)
        for name, doc in documents
        if name in ("start", "stop", "resource")
        or doc.get("uid") == descriptor
        or doc.get("descriptor") == descriptor
    ]
    rest = [pair for pair in part if pair[0] != "datum"]
    assert_documents_equal(wanted, rest)
    used = {doc["data"]["img"] for name, doc in part if name == "event"}
    assert used <= {doc["datum_id"] for name, doc in part if name == "datum"}


def test_a_stream_of_frames(db):
    documents = stream_datum_run()
    header = insert_run(db, documents)
    assert_documents_equal(documents, header.stream("primary", fill=False))


def test_mistakes_are_told_before_the_first_document(db):
    header = insert_run(db, make_run(1))
    with pytest.raises(StreamNotFound, match="absent"):
        header.stream("absent")
    with pytest.raises(FieldNotFound, match="absent"):
        list(header.documents(fields=["absent"]))


def test_a_selection_of_fields(db):
    run = RunBuilder(sample={"name": "Ag"})
    descriptor = run.descriptor({"x": 0.5, "y": 0.5, "img": 0.5})
    run.event(descriptor, {"x": 1.5, "y": 2.5, "img": 3.5}, filled={"img": True})
    header = insert_run(db, run.stop())
    documents = list(header.documents(fields=["x", "start:sample.name"]))
    assert_references_first(documents)
    named = dict(documents)
    assert named["descriptor"]["derived_from"] == descriptor
    assert named["event"]["descriptor"] == named["descriptor"]["uid"] != descriptor
    assert named["event"]["data"] == {"x": 1.5, "start:sample.name": "Ag"}
    assert set(named["event"]["timestamps"]) == {"x", "start:sample.name"}
    assert named["event"]["filled"] == {}
    assert set(named["descriptor"]["data_keys"]) == {"x", "start:sample.name"}
    assert list(header.documents(fields=["x", "y", "img"])) == list(header.documents())


def test_selected_documents_are_a_valid_run(db, tmp_path):
    import daskbroker

    header = insert_run(db, make_run(3, keys=("x", "y"), sample="Ag"))
    part = list(header.documents(fields=["x", "start:sample"]))
    with daskbroker.connect(tmp_path / "other") as other:
        copy = insert_run(other, part)
        assert_documents_equal(part, copy.documents())
        assert copy.table(fields=["data:start:sample"]).compute().iloc[:, 1].tolist() == ["Ag"] * 3


def test_documents_are_made_as_they_are_asked_for(db):
    documents = make_run(4)
    header = insert_run(db, documents[:-1])
    stream = header.documents()
    first = list(itertools.islice(stream, 3))
    assert [name for name, _ in first] == ["start", "descriptor", "event"]
    db.insert(*documents[-1])
    assert [name for name, _ in stream] == ["event"] * 3


def test_what_is_given_out_cannot_change_what_comes_next(db):
    header = insert_run(db, make_run(keys={"v": [[1, [2]], [1, [2]], [1, [2]]]}))
    for name, doc in header.documents():
        if name == "event":
            assert doc["data"]["v"] == [1, [2]]
            with pytest.raises(TypeError, match="immutable"):
                doc["data"]["v"][1].append(3)
            with pytest.raises(TypeError, match="immutable"):
                doc["filled"]["v"] = True


def run_with_baseline(key="det"):
    run = RunBuilder()
    baseline = run.descriptor({"motor": 0.5}, stream="baseline")
    run.event(baseline, {"motor": 1.5})
    descriptor = run.descriptor({key: 0.5})
    run.event(descriptor, {key: 2.5})
    run.event(baseline, {"motor": 3.5})
    return run.stop()


def data_of(documents):
    return [doc["data"] for name, doc in documents if name == "event"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["det"], [{"det": 2.5}]),
        (["motor"], [{"motor": 1.5}, {"motor": 3.5}]),
        ("d.*", [{"det": 2.5}]),
        (["det", "motor"], [{"motor": 1.5}, {"det": 2.5}, {"motor": 3.5}]),
        (["start:scan_id", "det"], [{"start:scan_id": 7, "det": 2.5}]),
        (["time"], [{}, {}, {}]),
    ],
)
def test_a_stream_without_any_of_the_fields_is_left_out(db, fields, expected):
    documents = run_with_baseline()
    documents[0][1]["scan_id"] = 7
    header = insert_run(db, documents)
    found = list(header.documents(fields=fields))
    assert data_of(found) == expected
    assert found[0][0] == "start"
    assert found[-1][0] == "stop"
    descriptors = {doc["uid"] for name, doc in found if name == "descriptor"}
    assert descriptors == {doc["descriptor"] for name, doc in found if name == "event"}


def test_a_run_without_any_of_the_fields_is_left_out(db):
    insert_run(db, run_with_baseline("det"))
    other = insert_run(db, run_with_baseline("other"))
    found = list(db().documents(fields=["other"]))
    assert data_of(found) == [{"other": 2.5}]
    assert [doc["uid"] for name, doc in found if name == "start"] == [other.uid]
    assert len(data_of(db().documents(fields=["det", "other"]))) == 2
    with pytest.raises(FieldNotFound, match=r"none of the runs has it.*'absent'"):
        list(db().documents(fields=["det", "absent"]))


def test_without_a_name_every_stream(db):
    header = insert_run(db, run_with_baseline())
    assert_documents_equal(header.documents(), header.stream())
    assert data_of(header.stream("baseline")) == [{"motor": 1.5}, {"motor": 3.5}]


@pytest.mark.parametrize(("count", "reads"), [(3, 4), (20, 2)])
def test_stream_datums_of_many_descriptors_are_read_once(db, monkeypatch, count, reads):
    read = []
    stored = ChunkPlan.read
    monkeypatch.setattr(
        ChunkPlan, "read", lambda plan, *args: read.append(plan) or stored(plan, *args)
    )
    run = RunBuilder()
    claim = {"source": "x", "dtype": "array", "shape": [1, 4, 4], "external": "STREAM:"}
    resource = run.stream_resource("img")
    for number in range(count):
        descriptor = run.descriptor({"img": claim, "x": 0.5})
        for frame in (2 * number + 1, 2 * number):  # not in the order of their events
            run.stream_datum(resource, descriptor, (frame, frame + 1))
        for _ in range(2):
            run.event(descriptor, {"x": 0.5})
    documents = run.stop()
    header = insert_run(db, documents)
    db.seal()
    found = list(header.documents(fill=False))
    assert_documents_equal(documents, found)
    firsts = [doc["seq_nums"]["start"] for name, doc in found if name == "stream_datum"]
    assert firsts == list(range(1, 2 * count + 1))
    assert sum("data_keys" not in plan.descriptors[0] for plan in read) <= reads
