"""Checks on what comes in: sound documents pass unchanged, others are named by field."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskbroker.core.documents import equal, normalize
from daskbroker.core.errors import BadDocument
from daskbroker.core.validate import (
    SCHEMA_CHECKED,
    _validators,
    check_keys,
    document_label,
    prepare,
)
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
        ("event", "data", {"x": 1j}, "data.x"),
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
        ("event_page", "seq_num", np.array([[1], [2]]), r"seq_num\[0\]"),
        ("event_page", "time", np.array([[1.0], [2.0]]), r"time\[0\]"),
        ("event_page", "time", np.array([[1.0, 2.0]] * 2), r"time\[0\]"),
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
    with pytest.raises(BadDocument, match=r"is not a document name|a document is a mapping"):
        prepare(name, doc)


def test_labels():
    assert document_label("event", {"uid": "u"}) == "event 'u'"
    assert document_label("datum", {"datum_id": "d"}) == "datum 'd'"
    assert document_label("start", {"uid": 5}) == "start document"
    assert document_label("start", None) == "start document"


def test_long_messages_are_cut():
    doc = {**sound()["descriptor"], "data_keys": {"x": {"note": "y" * 10_000}}}
    with pytest.raises(
        BadDocument, match=r"data_keys\.x: 'dtype' is a required property"
    ) as caught:
        prepare("descriptor", doc)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("name", "key", "said"),
    [
        ("descriptor", "name", "name: must be text that is not empty, not a mapping of 500 items"),
        ("descriptor", "data_keys", r"data_keys.key\d+: \d+ is not of type 'object'"),
        ("start", "group", "group: a mapping of 500 items is not of type 'string'"),
        ("stop", "exit_status", "exit_status: a mapping of 500 items is not"),
        ("event", "time", "time: must be a finite number .* not a mapping of 500 items"),
    ],
)
def test_large_values_are_counted_in_messages(name, key, said):
    doc = {**sound()[name], key: {f"key{n}": n for n in range(500)}}
    with pytest.raises(BadDocument, match=said) as caught:
        prepare(name, doc)
    assert len(str(caught.value)) < 250


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
    many = [f"key{n:03}" for n in range(500)]
    with pytest.raises(BadDocument, match=r"keys a are .* has key000, .*key009, … \(500 in all\)$"):
        check_keys(["a"], many, "event 'u'", "d")


# -- the quick check and the thorough one ------------------------------------------------------

names = st.sampled_from(SCHEMA_CHECKED)
keys = st.sampled_from(
    ["", "a.b", "a/b", "x\n", "extra", "shape", "limits", "low", "hints", "NX_class", "größe"]
)
leaves = st.sampled_from(
    [None, True, 0, -1, 1.0, 1.5, math.nan, math.inf, 1e300, 2**63, 2**64, -(2**70), 2**2047]
) | st.sampled_from(
    ["", "a", "\ud800", "<f8", "<f8\n", "STREAM:", "NXfoo\n", "NXfoo", "number", "posix", "event"]
)
values = st.recursive(
    leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(keys, v, max_size=3), max_leaves=6
)


def full():
    """Documents with a value of each kind that event-model describes."""
    docs = sound()
    limits = {"low": 0.5, "high": None}
    spec = {
        "source": "s", "dtype": "number", "shape": [None, 2], "units": "mm", "precision": 3,
        "dims": ["a"], "object_name": "x", "external": "STREAM:", "choices": ["a"],
        "dtype_numpy": [["a", "<f8"]],
        "limits": {"alarm": limits, "display": None, "hysteresis": 1.0,
        "rds": {"time_difference": 1, "value_difference": 0.5}},
    }  # fmt: skip
    configuration = {"data": {"k": 1}, "timestamps": {"k": 1.0}, "data_keys": {"k": spec}}
    docs["descriptor"] |= {
        "data_keys": {"x": spec}, "configuration": {"dev": configuration},
        "hints": {"dev": {"fields": ["x"], "NX_class": "NXmotor"}}, "object_keys": {"dev": ["x"]},
    }  # fmt: skip
    projection = {"type": "linked", "location": "event", "stream": "primary", "field": "x"}
    docs["start"] |= {
        "hints": {"dimensions": [[["x"], "primary"]]}, "sample": {"name": "Si"}, "scan_id": 5,
        "projections": [{"name": "p", "version": "1", "configuration": {},
                         "projection": {"a": projection}}],
        "data_groups": ["g"], "data_type": {"a": {"b": 1}},
    }  # fmt: skip
    docs["stop"] |= {"num_events": {"primary": 3}, "reason": "none", "data_type": 5}
    docs["resource"] |= {"path_semantics": "posix"}
    return docs


def changed(draw, doc):
    """The document with another value, or none, at some place."""
    doc = place = copy.deepcopy(doc)
    while True:
        steps = list(range(len(place))) if isinstance(place, list) else [*place, draw(keys)]
        if not steps:
            return doc
        step = draw(st.sampled_from(steps))
        there = isinstance(place, list) or step in place
        if there and isinstance(place[step], (dict, list)) and draw(st.integers(0, 3)):
            place = place[step]
            continue
        if there and not draw(st.integers(0, 3)):
            del place[step]
        else:
            place[step] = draw(values)
        return doc


def refusal(check, *arguments):
    try:
        check(*arguments)
    except BadDocument as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", SCHEMA_CHECKED)
def test_full_documents_are_accepted_at_once(name):
    quick, thorough = _validators(name)
    doc = normalize(full()[name])
    assert quick.is_valid(doc)
    assert thorough.is_valid(doc)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_the_quick_check_refuses_what_the_thorough_one_refuses(data):
    name = data.draw(names)
    doc = changed(data.draw, full()[name])
    if data.draw(st.booleans()):
        doc = changed(data.draw, doc)
    before = copy.deepcopy(doc)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daskbroker.core.validate._plainly_sound", lambda quick, doc: False)
        expected = refusal(prepare, name, doc)
    assert refusal(prepare, name, doc) == expected
    assert equal(doc, before)


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, 2**64, -(2**2047), "\ud800", {"a.b": {"": 1}}, {"\n": 1},
     np.float32(1), (1,)],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("name", SCHEMA_CHECKED)
def test_what_json_does_not_know_is_welcome_where_any_value_is(name, value):
    doc = {**sound()[name], "extra": value, "more": [{"a": value}]}
    assert equal(prepare(name, doc), normalize(doc))
