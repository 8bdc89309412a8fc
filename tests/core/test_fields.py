"""Field selection: names, patterns, namespaces, projections, and the descriptor that results."""

from __future__ import annotations

import re

import pytest

from daskbroker.core.derived_descriptors import derive_descriptor
from daskbroker.core.documents import ALL
from daskbroker.core.errors import FieldNotFound
from daskbroker.core.fields import (
    Field,
    _path,
    data_keys_of,
    project,
    select,
    shown_names,
)


def number():
    return {"source": "s", "dtype": "number", "shape": []}


CONFIGURATION = {
    "det": {
        "data": {"det_exposure": 0.5, "gain": None},
        "timestamps": {"det_exposure": 7.0},
        "data_keys": {},
    }
}
DESCRIPTOR = {
    "uid": "parent",
    "run_start": "run",
    "time": 5.0,
    "name": "primary",
    "data_keys": {key: number() for key in ("x", "y1", "y2", "time")},
    "object_keys": {"det": ["x", "y1"], "motor": ["y2"], "odd": 5},
    "hints": {"det": {"fields": ["x", "y1"], "other": 1}, "motor": {"fields": ["y2"]}},
    "configuration": CONFIGURATION,
}
LATER = {**DESCRIPTOR, "uid": "later", "data_keys": {"z": number(), "x": number()}}
START = {"uid": "run", "time": 3.0, "sample": {"name": "Ag", "tags": ["hot"]}, "a.b": 9}
STOP = {"uid": "stop", "time": 9.0, "exit_status": "success"}


def names(fields, descriptors=(DESCRIPTOR,), **options):
    return [field.name for field in select(fields, descriptors, **options)]


def test_names_of_columns():
    keys = [
        "x",
        "time",
        "seq_num",
        "uid",
        "run",
        "descriptor",
        "a",
        "ts_a",
        "ts_b",
        "start:x",
        "ts:y",
    ]
    shown = shown_names(keys)
    assert list(shown) == keys
    assert [key for key in keys if shown[key] == key] == ["x", "a", "ts_b"]
    assert all(shown[key] in (key, f"data:{key}") for key in keys)


def test_no_two_keys_share_a_name():
    keys = ["time", "data:time", "data:data:time", "ts_time", "a", "ts_a", "data:ts_a"]
    shown = shown_names(keys)
    taken = [*shown.values(), *(f"ts_{key}" for key in keys), "time", "uid", "run", "descriptor"]
    assert len(set(taken)) == len(taken)


def test_keys_of_several_descriptors_in_their_order():
    assert data_keys_of([DESCRIPTOR, LATER]) == ["x", "y1", "y2", "time", "z"]
    assert names(None, [LATER, DESCRIPTOR]) == ["time", "z", "x", "y1", "y2", "data:time"]


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        (None, ["time", "x", "y1", "y2", "data:time"]),
        (ALL, ["time", "x", "y1", "y2", "data:time"]),
        ("x", ["time", "x"]),
        (["y2", "x", "x"], ["time", "y2", "x"]),
        ([], ["time"]),
        ("y.", ["time", "y1", "y2"]),
        (re.compile("Y.", re.IGNORECASE), ["time", "y1", "y2"]),
        (["y"], "the field 'y' matches no data key; there are: x, y1, y2, time"),
        ("y", "the field 'y' matches no data key; there are: x, y1, y2, time"),
        (["time", "seq_num", "uid", "run", "descriptor"], ["time", "uid", "run", "descriptor"]),
        ("data:time", ["time", "data:time"]),
        ("data:y.", ["time", "y1", "y2"]),
        ("ts:y.", ["time", "ts_y1", "ts_y2"]),
        ("ts_x", ["time", "ts_x"]),
        ("start:sample.name", ["time", "start:sample.name"]),
        ("stop:anything", ["time", "stop:anything"]),
        ("config:det:exposure", ["time", "config:det:exposure"]),
        ("config:det:absent", "names no configuration; use .* devices are: det"),
        ("config:absent:x", "names no configuration; use .* devices are: det"),
        ("start:", "the field 'start:' matches no data key"),
        (
            "(",
            r"the field \( is neither a data key nor a valid regular expression: .*: missing",
        ),
        ("data:absent", "the field 'data:absent' matches no data key"),
        ([5], "the field 5 is neither text nor a compiled pattern"),
    ],
    ids=repr,
)
def test_select(fields, found):
    if isinstance(found, str):  # what is wrong
        with pytest.raises(FieldNotFound, match=found):
            select(fields, [DESCRIPTOR])
    else:
        assert names(fields) == found


def test_the_error_names_what_there_is():
    with pytest.raises(FieldNotFound, match=r"'absent'.*x, y1, y2, time"):
        select(["absent"], [DESCRIPTOR])
    with pytest.raises(FieldNotFound, match=r"config:<device>:<key>.*det"):
        select(["config:motor:x"], [DESCRIPTOR])


def test_timestamps_of_the_selected_keys():
    assert names(["x", "y1"], timestamps=True) == ["time", "x", "y1", "ts_x", "ts_y1"]
    assert names(["start:uid"], timestamps=True) == ["time", "start:uid"]


@pytest.mark.parametrize(
    ("role", "key", "value"),
    [
        ("start", "sample.name", "Ag"),
        ("start", "sample.tags.0", "hot"),
        ("start", "sample.tags.5", None),
        ("start", "sample", {"name": "Ag", "tags": ["hot"]}),
        ("start", "a.b", 9),
        ("start", "absent.x", None),
        ("stop", "exit_status", "success"),
        ("config", "det:det_exposure", 0.5),
        ("config", "det:exposure", 0.5),
        ("config", "det:gain", None),
        ("config", "motor:x", None),
    ],
)
def test_project(role, key, value):
    assert project(Field(role, key, "shown"), START, STOP, DESCRIPTOR) == value


def test_project_without_stop_is_none():
    assert project(Field("stop", "exit_status", "shown"), START, None, DESCRIPTOR) is None


def derived(fields, descriptor=DESCRIPTOR):
    return derive_descriptor(descriptor, select(fields, [descriptor]), START, STOP)


def test_all_fields_leave_the_descriptor_as_it_is():
    assert derived(None) == (DESCRIPTOR, {}, {})


def test_a_selection_makes_a_descriptor_that_names_its_parent():
    descriptor, data, stamps = derived(["y2", "x"])
    assert (data, stamps) == ({}, {})
    assert descriptor["derived_from"] == "parent" != descriptor["uid"]
    assert list(descriptor["data_keys"]) == ["x", "y2"]
    assert descriptor["object_keys"] == {"det": ["x"], "motor": ["y2"], "odd": 5}
    assert descriptor["hints"] == {
        "det": {"fields": ["x"], "other": 1},
        "motor": {"fields": ["y2"]},
    }
    assert descriptor["configuration"] == CONFIGURATION


def test_the_uid_depends_on_parent_and_selection_alone():
    uid = derived(["x"])[0]["uid"]
    assert derived("x")[0]["uid"] == uid
    assert derived(["x", "time"])[0]["uid"] == uid
    assert derived(["y1"])[0]["uid"] != uid
    assert derived(["x", "start:uid"])[0]["uid"] != uid
    assert derived(["x"], {**DESCRIPTOR, "uid": "other"})[0]["uid"] != uid


def test_projections_become_data_keys_with_their_times():
    descriptor, data, stamps = derived(
        ["x", "start:sample.tags", "stop:exit_status", "config:det:exposure", "config:det:gain"]
    )
    assert data == {
        "start:sample.tags": ["hot"],
        "stop:exit_status": "success",
        "config:det:exposure": 0.5,
        "config:det:gain": None,
    }
    assert list(stamps.values()) == [3.0, 9.0, 7.0, 5.0]
    keys = descriptor["data_keys"]
    assert keys["start:sample.tags"] == {
        "source": "start:sample.tags",
        "dtype": "array",
        "shape": [1],
    }
    assert keys["config:det:exposure"]["dtype"] == "number"


def test_a_descriptor_without_optional_keys():
    least = {
        "uid": "least",
        "run_start": "run",
        "time": 1.0,
        "data_keys": {"x": number(), "y": number()},
    }
    descriptor, _, _ = derived(["x"], least)
    assert descriptor.keys() == {*least, "derived_from"}


def test_a_sign_that_only_looks_like_a_digit_is_no_place_in_a_list():
    """``isdigit`` is true of "²", which ``int`` refuses."""
    assert _path({"tags": ["hot", "old"]}, "tags.1") == "old"
    assert _path({"tags": ["hot", "old"]}, "tags.²") is None


@pytest.mark.parametrize("keys", [("x", "data:x", "ts_x"), ("time", "data:time", "data:data:time")])
def test_each_column_is_selected_by_its_name(keys):
    descriptors = [{"data_keys": {key: {} for key in keys}}]
    for key, name in shown_names(keys).items():
        assert [field.key for field in select(name, descriptors)] == ["", key]


def test_names_of_any_type_in_a_descriptor_are_pruned():
    """As another program may have stored them."""
    descriptor = {"uid": "d", "run_start": "r", "data_keys": {"x": {}, "y": {}}}
    descriptor |= {
        "object_keys": {"det": ["x", {}, ["y"]]},
        "hints": {"det": {"fields": [{}, "x"]}},
    }
    derived, *_ = derive_descriptor(descriptor, select("x", [descriptor]), {}, None)
    assert derived["object_keys"] == {"det": ["x"]}
    assert derived["hints"] == {"det": {"fields": ["x"]}}
