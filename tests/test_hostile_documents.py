"""Whatever is inserted: refused with a clear error and no trace, or given back as it was."""

from __future__ import annotations

import copy
import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import daskbroker
from daskbroker.core.errors import BadDocument, DaskbrokerError
from daskbroker.testing import RunBuilder, assert_documents_equal, external_run, make_run

ODD_ARRAYS = [
    np.ma.array([1, 2, 3], mask=[0, 1, 0]),
    np.ma.masked,
    np.array(["2026-01-01"], "datetime64[ns]"),
    np.datetime64("2026-01-01", "ns"),
    np.timedelta64(5, "ns"),
    np.longdouble(1) / 3,
    np.array([1j]),
    np.zeros(2, dtype=[("a", "i4")]),
    np.array([{"a": 1}, None, "x"], object),
    np.array([object()], object),
    np.zeros((0, 3)),
    np.zeros((2, 0)),
    np.arange(4, dtype=">i4"),
    np.array([2**64 - 1], np.uint64),
    np.array(["a", "b"]),
    np.array(5),
]
odd_texts = st.sampled_from(
    [
        "",
        "\0",
        "a\0b",
        "__class__",
        "$where",
        "a.b",
        ".",
        "\ud800",
        "../../etc/passwd",
        "x" * 70_000,
    ]
)
odd_keys = odd_texts | st.sampled_from(["uid", "time", "data", "x", "größe"]) | st.text(max_size=3)
odd_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.integers(),
    odd_texts,
    st.sampled_from([2**63, -(2**70), 10**400, 10**4000, b"bytes", {1}, 1j, int, object()]),
    st.sampled_from([datetime.datetime(2026, 1, 1), datetime.date(2026, 1, 1)]),
    st.sampled_from(ODD_ARRAYS),
)
odd_values = st.recursive(
    odd_scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_keys, inner, max_size=3),
    max_leaves=5,
)


def nested(levels, kind):
    value = 1
    for _ in range(levels):
        value = [value] if kind is list else {"a": value}
    return value


def valid_documents():
    """One of each kind, so that any may be spoilt."""
    run = RunBuilder(sample={"name": "Ag"})
    spec = {"source": "x", "dtype": "array", "shape": [1, 4, 4], "external": "STREAM:"}
    descriptor = run.descriptor({"x": 0.5, "n": 1})
    frames = run.descriptor({"img": spec}, "frames")
    run.event(descriptor, {"x": 0.5, "n": 1})
    run.event_page(descriptor, [{"x": 0.5, "n": 1}] * 3)
    run.stream_datum(run.stream_resource("img"), frames, (0, 2))
    resource = run.resource()
    run.datum(resource, point=1)
    ids = [f"{resource}/a", f"{resource}/b"]
    run.add("datum_page", {"resource": resource, "datum_id": ids, "datum_kwargs": {"n": [1, 2]}})
    return run.stop()


@st.composite
def spoilt(draw, doc):
    """The document with something odd in some place of it."""
    doc = copy.deepcopy(doc)
    place = doc
    while True:
        if isinstance(place, list):
            steps = list(range(len(place)))
        else:
            steps = [*place, *draw(st.lists(odd_keys, max_size=1))]
        if not steps:
            return doc
        step = draw(st.sampled_from(steps))
        inside = place[step] if isinstance(place, list) else place.get(step)
        if isinstance(inside, (dict, list)) and draw(st.booleans()):
            place = inside
            continue
        if isinstance(place, dict) and step in place and draw(st.integers(0, 4)) == 0:
            del place[step]
        else:
            place[step] = draw(odd_values)
        return doc


@pytest.fixture(scope="module")
def shared():
    with daskbroker.temp() as db:
        yield db


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_refused_without_a_trace_or_given_back(shared, data):
    documents = valid_documents()
    place = data.draw(st.integers(1, len(documents) - 1))
    name, doc = documents[place]
    for pair in documents[:place]:
        shared.insert(*pair)
    header = shared[documents[0][1]["uid"]]
    stored = documents[:place]
    change = data.draw(spoilt(doc))
    try:
        shared.insert(name, change)
        stored = [*stored, (name, change)]
    except DaskbrokerError as error:
        assert name in str(error) or "document" in str(error)
    header = shared[header.uid]
    assert_documents_equal(stored, header.documents(fill=False))
    for stream in header.streams:
        table = header.table(stream, fill=False, timestamps=True)
        assert len(table.compute()) == len(table)
    if data.draw(st.booleans()):
        shared.seal(header)
        assert_documents_equal(stored, header.documents(fill=False))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_spoilt_start_is_refused_or_found(shared, data):
    change = data.draw(spoilt(RunBuilder(sample={"name": "Ag"}, scan_id=3).documents[0][1]))
    count = len(shared)
    try:
        shared.insert("start", change)
    except BadDocument:
        assert len(shared) == count
    else:
        assert_documents_equal([("start", change)], shared[change["uid"]].documents())
        assert shared[change["uid"]]._repr_html_()


@pytest.mark.parametrize("kind", [list, dict])
@pytest.mark.parametrize("levels", [45, 51, 600, 5000])
def test_levels_are_counted(db, kind, levels):
    run = RunBuilder()
    descriptor = run.descriptor({"x": 0.5})
    run.event(descriptor, {"x": nested(levels, kind)})
    for pair in run.documents[:2]:
        db.insert(*pair)
    if levels > 50:
        with pytest.raises(BadDocument, match="deeper than 50"):
            db.insert(*run.documents[2])
        return
    db.insert(*run.documents[2])
    db.seal()
    assert_documents_equal(run.documents, db[-1].documents())
    assert len(db[-1].table().compute()) == 1


def test_a_value_that_contains_itself(db):
    value = []
    value.append(value)
    with pytest.raises(BadDocument, match="deeper than 50"):
        db.insert("start", {"uid": "endless", "time": 1.0, "note": value})
    assert len(db) == 0


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (Path("/data"), r"write str\(path\)"),
        (datetime.datetime(2026, 1, 1), r"write its isoformat\(\)"),
        (datetime.date(2026, 1, 1), r"write its isoformat\(\)"),
        (datetime.timedelta(1), r"write its total_seconds\(\)"),
        ({"a", "b"}, "write sorted"),
        (pd.DataFrame({"a": [1]}), r"write table\.to_dict\('list'\)"),
        (pd.DataFrame({"a": [1]}).rename_axis(columns="x"), "a DataFrame is no JSON-like value"),
        (pa.table({"a": [1]}), "a Table is no JSON-like value"),
    ],
)
def test_what_people_put_into_metadata_is_refused_with_advice(db, value, advice):
    """The array of a DataFrame had neither the names of its columns nor its index."""
    run = make_run(1)
    start = {**run[0][1], "sample": {"deep": [value]}}
    with pytest.raises(BadDocument, match=rf"start .*sample\.deep.*: .*{advice}"):
        db.insert("start", start)
    assert len(db) == 0


def test_masked_cells_are_none(db):
    run = RunBuilder(note=np.ma.array([1, 2], mask=[True, False]))
    descriptor = run.descriptor({"x": [0.5, 0.5]})
    run.event(descriptor, {"x": np.ma.array([1.5, 2.5], mask=[False, True])})
    run.event(descriptor, {"x": np.ma.array([1.5, 2.5])})
    for pair in run.documents:
        db.insert(*pair)
    documents = list(db[-1].documents())
    assert documents[0][1]["note"] == [None, 2]
    assert [doc["data"]["x"] for _, doc in documents[2:]] == [[1.5, None], [1.5, 2.5]]


def test_bulk_events_of_which_one_is_bad_leave_no_trace(db):
    run = RunBuilder()
    descriptor = run.descriptor({"x": 0.5})
    good = run.row(descriptor, {"x": 1.5})
    for pair in run.documents:
        db.insert(*pair)
    for bad in (
        {**run.row(descriptor, {"x": 2.5}), "seq_num": -1},
        run.row(descriptor, {"unknown": 2.5}),
        {**good, "data": {"x": 99.0}},
    ):
        with pytest.raises(
            BadDocument, match=r"must be an integer of 0 or more|are not declared|a different event"
        ):
            db.insert("bulk_events", {"primary": [good, bad]})
        assert_documents_equal(run.documents, db[-1].documents())


def test_bulk_datum_of_which_one_is_bad_leaves_no_trace(db):
    documents = external_run(0, stop=False)
    for pair in documents:
        db.insert(*pair)
    resource = documents[1][1]["uid"]
    bulk = {"resource": resource, "datum_ids": ["a", "a"], "datum_kwarg_list": [{"n": 1}, {"n": 2}]}
    with pytest.raises(BadDocument, match="datum 'a': a different datum"):
        db.insert("bulk_datum", bulk)
    assert_documents_equal(documents, db[-1].documents(fill=False))


def test_frames_are_counted_without_being_listed(db):
    run = RunBuilder()
    spec = {"source": "x", "dtype": "array", "shape": [1, 4, 4], "external": "STREAM:"}
    descriptor = run.descriptor({"img": spec})
    resource = run.stream_resource("img")
    run.stream_datum(resource, descriptor, (0, 2**32))
    for pair in run.documents:
        db.insert(*pair)
    table = db[-1].table(fill=False)
    assert len(table) == 2**32
    assert table.divisions[-1] == 2**32
    assert len(table.get_partition(0).compute()) > 0
    run.stream_datum(resource, descriptor, (2**32, 2**34))
    with pytest.raises(BadDocument, match=r"at most .* frames"):
        db.insert(*run.documents[-1])
