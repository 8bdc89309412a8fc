"""Checks on what comes in: sound documents pass unchanged, others are named by field."""

from __future__ import annotations

import numpy as np
import pytest

from daskbroker.core.documents import equal
from daskbroker.core.errors import BadDocument
from daskbroker.core.validate import check_keys, document_label, prepare
from daskbroker.testing import RunBuilder


def sound():
    run = RunBuilder()
    descriptor = run.descriptor({"x": 0.5})
    run.event(descriptor, {"x": 1.5})
    run.event_page(descriptor, [{"x": 1.5}, {"x": 2.5}])
    resource = run.resource()
    run.datum(resource, n=1)
    page = {"resource": resource, "datum_id": ["a", "b"], "datum_kwargs": {"n": [1, 2]}}
    run.add("datum_page", page)
    run.stream_datum(run.stream_resource("x"), descriptor, (0, 2))
    return dict(run.stop())


@pytest.mark.parametrize("name", sound())
def test_sound_documents_pass_unchanged_as_a_copy(name):
    doc = sound()[name]
    doc["extra"] = [1, 2]  # keys that no schema knows are welcome
    prepared = prepare(name, doc)
    assert equal(prepared, doc)
    doc["extra"].append(3)
    assert prepared["extra"] == [1, 2]


@pytest.mark.parametrize(
    ("name", "key", "value", "field"),
    [
        ("start", "uid", None, "uid"),
        ("start", "uid", "", "uid"),
        ("start", "uid", "a\ud800", "uid"),
        ("start", "time", float("nan"), "time"),
        ("start", "time", True, "time"),
        ("start", "time", 10**400, "time"),
        ("start", "time", 2**53 + 1, "time"),
        ("start", "hints", 5, "hints"),
        ("stop", "exit_status", "maybe", "exit_status"),
        ("stop", "run_start", 5, "run_start"),
        ("descriptor", "data_keys", 5, "data_keys"),
        ("descriptor", "data_keys", {"x": {}}, "data_keys"),
        ("descriptor", "data_keys", {"x": {"source": "s", "dtype": "odd", "shape": []}}, "dtype"),
        ("descriptor", "name", "a\ud800", "name"),
        ("resource", "resource_kwargs", None, "resource_kwargs"),
        ("stream_resource", "uri", 5, "uri"),
        ("event", "uid", 5, "uid"),
        ("event", "seq_num", 1.0, "seq_num"),
        ("event", "seq_num", True, "seq_num"),
        ("event", "seq_num", 2**63, "seq_num"),
        ("event", "time", None, "time"),
        ("event", "data", [], "data"),
        ("event", "data", {"x": b"1"}, "data.x"),
        ("event", "timestamps", {"x": "1"}, "timestamps.x"),
        ("event", "filled", {"x": 1}, "filled.x"),
        ("event", "filled", None, "filled"),
        ("datum", "datum_id", "", "datum_id"),
        ("datum", "datum_kwargs", 5, "datum_kwargs"),
        ("stream_datum", "indices", {"start": 0}, "indices"),
        ("stream_datum", "indices", {"start": 2, "stop": 1}, "indices"),
        ("stream_datum", "seq_nums", {"start": -1, "stop": 1}, "seq_nums.start"),
        ("stream_datum", "indices", {"start": 0, "stop": 2**33}, "indices"),
        ("event_page", "uid", ["a"], "seq_num"),
        ("event_page", "uid", ["a", 5], r"uid\[1\]"),
        ("event_page", "uid", ["a", ""], r"uid\[1\]"),
        ("event_page", "uid", ["a", "\ud800"], r"uid\[1\]"),
        ("event_page", "uid", "ab", "uid"),
        ("event_page", "time", [1.0, float("inf")], r"time\[1\]"),
        ("event_page", "time", [1, 2**60], r"time\[1\]"),
        ("event_page", "time", np.array([1.0, np.nan]), r"time\[1\]"),
        ("event_page", "seq_num", [1, -1], r"seq_num\[1\]"),
        ("event_page", "seq_num", np.array([1.0, 2.0]), "seq_num"),
        ("event_page", "seq_num", [[1], [2]], "seq_num"),
        ("event_page", "data", {"x": [1.0]}, "data.x"),
        ("event_page", "data", {"x": 5}, "data.x"),
        ("event_page", "timestamps", {"x": ["1", "2"]}, "timestamps.x"),
        ("event_page", "timestamps", {"x": np.zeros((2, 2))}, "timestamps.x"),
        ("event_page", "filled", {"x": [True, 1]}, "filled"),
        ("event_page", "other", [1], "other"),
        ("event_page", "other", 5, "other"),
        ("datum_page", "datum_id", ["a"], "datum_kwargs.n"),
        ("datum_page", "datum_kwargs", {"n": [1]}, "datum_kwargs.n"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_the_message_names_document_and_field(name, key, value, field):
    doc = {**sound()[name], key: value}
    with pytest.raises(BadDocument, match=rf"^{name}.*{field}"):
        prepare(name, doc)


@pytest.mark.parametrize("name", sound())
def test_each_key_that_is_needed_is_missed(name):
    needed = {
        "start": {"uid", "time"},
        "stop": {"uid", "time", "run_start", "exit_status"},
        "descriptor": {"uid", "time", "run_start", "data_keys"},
        "resource": {"uid", "spec", "root", "resource_path", "resource_kwargs"},
        "stream_resource": {"uid", "data_key", "mimetype", "uri", "parameters"},
        "event": {"uid", "descriptor", "seq_num", "time", "data", "timestamps"},
        "event_page": {"uid", "descriptor", "seq_num", "time", "data", "timestamps"},
        "datum": {"datum_id", "resource", "datum_kwargs"},
        "datum_page": {"datum_id", "resource", "datum_kwargs"},
        "stream_datum": {"uid", "descriptor", "stream_resource", "indices", "seq_nums"},
    }[name]
    for key in needed:
        doc = sound()[name]
        del doc[key]
        with pytest.raises(BadDocument, match=key):
            prepare(name, doc)


@pytest.mark.parametrize(("name", "doc"), [("odd", {}), (5, {}), ("start", None), ("event", [1])])
def test_what_is_no_document(name, doc):
    with pytest.raises(BadDocument):
        prepare(name, doc)


def test_labels():
    assert document_label("event", {"uid": "u"}) == "event 'u'"
    assert document_label("datum", {"datum_id": "d"}) == "datum 'd'"
    assert document_label("start", {"uid": 5}) == "start document"
    assert document_label("start", None) == "start document"


def test_long_messages_are_cut():
    doc = {**sound()["descriptor"], "data_keys": {"x": {"note": "y" * 10_000}}}
    with pytest.raises(BadDocument) as caught:
        prepare("descriptor", doc)
    assert len(str(caught.value)) < 600


def test_arrays_of_pages_stay_arrays_and_their_values_the_callers():
    column = np.arange(2.0)
    page = {**sound()["event_page"], "data": {"x": column}}
    prepared = prepare("event_page", page)
    column[:] = 9
    assert isinstance(prepared["data"]["x"], np.ndarray)
    assert prepared["data"]["x"].tolist() == [0.0, 1.0]


def test_undeclared_keys():
    check_keys({"x": 1}, {"x", "y"}, "event 'u'", "d")
    with pytest.raises(BadDocument, match=r"event 'u': the data keys a, b .*'d', which has x"):
        check_keys(["b", "x", "a"], ["x"], "event 'u'", "d")
