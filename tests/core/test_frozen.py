"""The insides of documents: nobody changes them, and all that reads dicts and lists takes them."""

from __future__ import annotations

import copy
import json
import pickle
import pprint
from collections.abc import Callable
from typing import Any

import bson
import cloudpickle
import dask.base
import msgpack
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from daskbroker.core.documents import Document, normalize, plain
from daskbroker.core.frozen import FrozenDict, FrozenList, freeze

CONTENT: dict[str, Any] = {
    "uid": "abc",
    "sample": {"name": "Si", "sizes": [1.5, {"unit": "mm"}, [1, 2]], "empty": {}},
    "motors": ["x", "y"],
    "none": None,
}
DOC = Document(CONTENT)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4),
)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["sample"].__setitem__("name", "Ge"),
        lambda d: d["sample"].update(name="Ge"),
        lambda d: d["sample"].pop("name"),
        lambda d: d["sample"].__ior__({"name": "Ge"}),
        lambda d: d["sample"].setdefault("new", 1),
        lambda d: d["sample"]["sizes"].append(1),
        lambda d: d["sample"]["sizes"][1].__setitem__("unit", "m"),
        lambda d: d["sample"]["sizes"][2].__setitem__(0, 5),
        lambda d: d["sample"]["sizes"].__delitem__(0),
        lambda d: d["motors"].sort(),
        lambda d: d["motors"].reverse(),
        lambda d: d["motors"].extend(["z"]),
        lambda d: d["motors"].insert(0, "z"),
        lambda d: d["motors"].remove("x"),
        lambda d: d["motors"].pop(),
        lambda d: d["motors"].clear(),
        lambda d: d["motors"].__iadd__(["z"]),
        lambda d: d["motors"].__imul__(2),
        lambda d: setattr(d["motors"], "name", 1),
        lambda d: d.sample["sizes"].append(1),
        lambda d: next(iter(d.values())) and d.get("motors").append("z"),
        lambda d: dict(d)["sample"].update(name="Ge"),
        lambda d: {**d}["sample"].update(name="Ge"),
        lambda d: d["sample"]["sizes"][1:][0].clear(),
        lambda d: (d["sample"]["sizes"] + [])[1].clear(),
        lambda d: (d["sample"] | {})["sizes"].clear(),
        lambda d: Document(d)["motors"].append("z"),
        lambda d: pickle.loads(pickle.dumps(d))["motors"].append("z"),
    ],
)
def test_changing_the_insides_is_refused(change: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"immutable.*deepcopy"):
        change(DOC)
    assert plain(DOC) == CONTENT


def test_arrays_inside_are_not_written_to() -> None:
    given_array = np.arange(3.0)
    doc = Document(data={"img": given_array}, rows=[given_array])
    for array in (doc["data"]["img"], doc["rows"][0]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 9
    given_array[0] = 1.0  # the caller's own stays its own
    private = copy.deepcopy(doc)
    private["data"]["img"][1] = 7.0
    assert doc["data"]["img"][1] == 1.0
    assert copy.copy(doc)["data"]["img"] is doc["data"]["img"]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda d: d.copy(), plain])
def test_copies_are_changed_alone(copied: Callable[[Any], Any]) -> None:
    whole, inside, items = copied(DOC), copied(DOC["sample"]), copied(DOC["sample"]["sizes"])
    for changed in (whole["sample"]["sizes"], inside["sizes"], items):
        changed[1]["unit"] = "m"
        changed[2].append(3)
        changed.append("new")
    whole["sample"].update(name="Ge")
    inside["empty"]["full"] = whole["new"] = 1
    assert plain(DOC) == CONTENT


@given(values)
def test_frozen_values_equal_what_they_were_made_of(value: Any) -> None:
    found = freeze(value)
    assert found == value
    assert value == found
    assert plain(found) == normalize(found) == copy.deepcopy(found) == value
    assert json.dumps(found) == json.dumps(value)
    assert repr(found) == repr(value)
    assert freeze(found) is found or isinstance(found, float)


@given(values)
def test_copies_are_plain_at_every_level(value: Any) -> None:
    def kinds(part: Any) -> set[type]:
        inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        return {type(part)}.union(*map(kinds, inner))

    frozen = freeze({"a": value})
    for copied in (copy.copy(frozen), copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))):
        assert not kinds(copied) & {FrozenDict, FrozenList, Document}


def test_what_is_shared_inside_a_deep_copy_stays_shared() -> None:
    part = freeze({"a": [1]})
    copied = copy.deepcopy(Document(one=part, two=part))
    assert copied["one"] is copied["two"]


def test_insides_are_dicts_and_lists_to_everybody() -> None:
    inside = DOC["sample"]
    assert isinstance(inside, dict)
    assert isinstance(inside["sizes"], list)
    assert json.loads(json.dumps(inside, indent=1)) == json.loads(json.dumps(DOC))["sample"]
    assert yaml.safe_load(yaml.safe_dump(inside)) == CONTENT["sample"]
    assert yaml.safe_dump(dict(DOC)) == yaml.safe_dump(DOC) == yaml.safe_dump(CONTENT)
    assert yaml.dump(DOC, Dumper=yaml.CSafeDumper) == yaml.safe_dump(CONTENT)
    assert yaml.dump(inside) == yaml.dump(CONTENT["sample"])
    assert msgpack.unpackb(msgpack.packb(DOC)) == CONTENT
    assert bson.decode(bson.encode(DOC)) == CONTENT
    assert pprint.pformat(inside) == pprint.pformat(CONTENT["sample"])
    assert str(inside) == str(CONTENT["sample"])
    assert dask.base.tokenize(inside) == dask.base.tokenize(freeze(CONTENT["sample"]))
    assert cloudpickle.loads(cloudpickle.dumps(DOC)) == CONTENT
    assert {**inside} == inside | {} == CONTENT["sample"]
    assert sorted(DOC["motors"], reverse=True) == ["y", "x"]
    assert DOC["motors"] + ["z"] == ["x", "y", "z"]
    assert pd.DataFrame([DOC, DOC])["motors"].tolist() == [["x", "y"]] * 2
    assert pa.array([inside["sizes"][2]]).to_pylist() == [[1, 2]]
    assert np.asarray(inside["sizes"][2]).tolist() == [1, 2]


def test_looks_of_a_document_show_plain_insides() -> None:
    assert repr(Document(a={"b": [1]})) == "Document({'a': {'b': [1]}})"


def test_tuples_stay_tuples() -> None:
    doc = Document(a=(1, [2]))
    assert type(doc["a"]) is tuple
    with pytest.raises(TypeError, match="immutable"):
        doc["a"][1].append(3)
