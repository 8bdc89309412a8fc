"""Documents: immutable, equal to their plain form, the same again from bytes and text."""

from __future__ import annotations

import copy
import datetime
import json
import pickle
import subprocess
import sys
import textwrap
from enum import Enum, IntEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskbroker.core.documents import (
    ALL,
    Document,
    equal,
    from_json,
    iter_named,
    normalize,
    pack,
    plain,
    to_json,
    unpack,
)
from daskbroker.core.errors import BadDocument
from daskbroker.testing import difference

NAN = float("nan")
DOC = Document({"uid": "abc", "plan": {"name": "scan", "args": [1, {"deep": 2}]}, "items": 3})


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Name(str):
    """A text of a subclass."""


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = st.recursive(
    leaves, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4)
)


# -- Document --------------------------------------------------------------------------------


def test_attributes_are_keys_and_nested_mappings_documents() -> None:
    assert DOC.uid == "abc"
    assert type(DOC.plan) is Document
    assert DOC.plan.name == "scan"
    assert {"uid", "plan"} <= set(dir(DOC))


def test_missing_attribute_names_the_key() -> None:
    with pytest.raises(AttributeError, match="'scan_id'"):
        _ = DOC.scan_id
    assert getattr(DOC, "scan_id", 5) == 5


def test_a_key_named_like_a_method_is_reached_by_item() -> None:
    assert DOC["items"] == 3
    assert dict(DOC.items())["uid"] == "abc"


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.__setitem__("uid", 1),
        lambda d: d.__delitem__("uid"),
        lambda d: setattr(d, "uid", 1),
        lambda d: delattr(d, "uid"),
        lambda d: d.clear(),
        lambda d: d.pop("uid"),
        lambda d: d.popitem(),
        lambda d: d.setdefault("new", 1),
        lambda d: d.update(uid=1),
        lambda d: d.__ior__({"uid": 1}),
        lambda d: setattr(d.plan, "name", 1),
    ],
)
def test_changing_is_refused(change: Any) -> None:
    before = DOC.to_dict()
    with pytest.raises(TypeError, match="immutable"):
        change(DOC)
    assert before == DOC


def test_copies_to_change() -> None:
    shallow, deep = DOC.copy(), DOC.to_dict()
    shallow["uid"] = deep["plan"]["args"][1]["deep"] = "other"
    assert type(shallow) is type(deep) is type(deep["plan"]) is dict
    assert DOC == {"uid": "abc", "plan": {"name": "scan", "args": [1, {"deep": 2}]}, "items": 3}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_keeps_content_and_type(protocol: int) -> None:
    again = pickle.loads(pickle.dumps(DOC, protocol))
    assert type(again) is Document
    assert again == DOC


def test_copies_are_plain_and_deep_ones_deep() -> None:
    shallow, deep = copy.copy(DOC), copy.deepcopy(DOC)
    assert type(shallow) is type(deep) is type(deep["plan"]) is dict
    assert type(deep["plan"]["args"]) is list
    assert shallow == deep == DOC
    shallow["uid"] = deep["plan"]["args"][1]["deep"] = "other"
    deep["plan"]["args"].append(1)
    assert DOC == {"uid": "abc", "plan": {"name": "scan", "args": [1, {"deep": 2}]}, "items": 3}


def test_a_document_shares_nothing_with_what_it_was_made_of() -> None:
    inner: dict[str, Any] = {"args": [1, {"deep": 2}]}
    doc = Document(plan=inner, more=[inner])
    inner["args"][1]["deep"] = "other"
    inner["args"].append(3)
    assert doc == {"plan": {"args": [1, {"deep": 2}]}, "more": [{"args": [1, {"deep": 2}]}]}


def test_equality_and_hash() -> None:
    assert dict(DOC) == DOC == dict(DOC)
    assert Document({"a": [1, 2], "n": 1}) == {"a": (1, 2), "n": np.int64(1)}
    assert Document({"a": 1}) != {"a": 2}
    assert Document({"a": 1}) != [("a", 1)]
    assert Document({"a": NAN}) == {"a": float("nan")}
    with pytest.raises(TypeError, match="unhashable type: 'Document'"):
        hash(DOC)


def test_two_documents_with_nan_are_equal() -> None:
    assert Document({"a": [float("nan")]}) == Document({"a": [float("nan")]})


def test_looks_and_json() -> None:
    assert repr(Document(a=1)) == "Document({'a': 1})"
    assert json.loads(json.dumps(DOC)) == DOC


def test_all_is_one_object_through_pickle() -> None:
    assert pickle.loads(pickle.dumps(ALL)) is ALL
    assert type(ALL)() is ALL
    assert repr(ALL) == "ALL"


# -- normalize -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.array(7), 7),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([1, "a", None], dtype=object), [1, "a", None]),
        (np.zeros((0, 2)), []),
        ((1, (2, [3])), [1, [2, [3]]]),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Name("a"), "a"),
        ({Colour.RED: 1, np.str_("b"): 2, Name("c"): 3}, {"red": 1, "b": 2, "c": 3}),
        (Document(a=Document(b=1)), {"a": {"b": 1}}),
        (2**100, 2**100),
    ],
)
def test_normalized(given_value: Any, expected: Any) -> None:
    assert difference(expected, normalize(given_value)) is None
    assert difference({"k": [expected]}, normalize({"k": [given_value]})) is None


@pytest.mark.parametrize("subclass", [Name("a"), Level.HIGH, Document(a=1), np.float64(1.5)])
def test_normalized_types_are_plain(subclass: Any) -> None:
    assert type(normalize(subclass)) in (str, int, float, dict)


def test_normalized_copy_is_private() -> None:
    array, inner = np.array([1.0, 2.0]), [1]
    out = normalize({"a": array, "b": inner}, arrays=True)
    array[0], inner[0] = 99.0, 99
    assert out["a"].tolist() == [1.0, 2.0]
    assert out["b"] == [1]


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.arange(6, dtype=">i2").reshape(2, 3)[:, ::2], "int16"),
        (np.zeros(2, np.float16), "float32"),
        (np.array([True]), "bool"),
        (np.ones((2, 2), order="F"), "float64"),
    ],
)
def test_kept_arrays_are_native_and_contiguous(array: np.ndarray, dtype: str) -> None:
    out = normalize(array, arrays=True)
    assert out.dtype == np.dtype(dtype)
    assert out.dtype.isnative
    assert out.flags.c_contiguous
    assert out.tolist() == array.tolist()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({1, 2}, "set"),
        (datetime.datetime(2026, 1, 1), "datetime"),
        (1j, "complex"),
        (object(), "object"),
        (np.array([1j]), "complex128"),
        (np.array(["2026"], "M8[s]"), "datetime64"),
        (np.datetime64("2026"), "date"),
        ({1: "a"}, "the key 1 is of type int"),
        ({None: "a"}, "NoneType"),
    ],
)
def test_refused_with_the_path(bad: Any, reason: str) -> None:
    with pytest.raises(BadDocument, match=reason) as caught:
        normalize({"md": {"sample": [0, bad]}}, "start 'abc'")
    assert str(caught.value).startswith("start 'abc'.md.sample")


# -- equal, plain ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (1, 1.0, True),
        (True, 1, False),
        (0, False, False),
        (True, np.True_, True),
        (NAN, float("nan"), True),
        (NAN, 1.0, False),
        ([NAN, 1], (float("nan"), 1), True),
        ([1, 2], np.array([1, 2]), True),
        (np.array([[1.5]]), [[1.5]], True),
        ([1], [1, 2], False),
        ([1], 1, False),
        ([1, "a", 2.5], [1.0, "a", 2.5], True),
        ([0.5, 1.0], [0.5, 2.0], False),
        ([1, True], [1, 1], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ({"a": 1}, {"b": 1}, False),
        ("1", 1, False),
        (None, 0, False),
        (2**60 + 1, float(2**60), False),
    ],
)
def test_equal(a: Any, b: Any, same: bool) -> None:
    assert equal(a, b) is same
    assert equal(b, a) is same


@given(values)
def test_every_value_equals_its_copy(value: Any) -> None:
    assert equal(value, copy.deepcopy(value))


def test_plain_gives_lists_and_dicts() -> None:
    out = plain(Document(a=(np.array([1, 2]), Document(b=3))))
    assert difference({"a": [[1, 2], {"b": 3}]}, out) is None
    assert type(out["a"][1]) is dict


# -- bytes and text --------------------------------------------------------------------------


@given(values)
def test_pack_is_lossless(value: Any) -> None:
    assert difference(value, unpack(pack(value))) is None


@given(values)
def test_json_is_lossless(value: Any) -> None:
    assert difference(value, from_json(to_json(value))) is None


@pytest.mark.parametrize(
    "value", [2**64, -(2**63) - 1, 10**300, {"a": [2**200]}, "\ud800", {"\udfff": "\ud800"}]
)
def test_hard_values_as_bytes_and_text(value: Any) -> None:
    assert unpack(pack(value)) == value
    assert from_json(to_json(value)) == value


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="u1").reshape(2, 3),
        np.array([[0.5, NAN, np.inf]]),
        np.array([True, False]),
        np.arange(4, dtype="<u8") + np.uint64(2**63),
        np.zeros((2, 1, 3), np.float32),
    ],
)
def test_packed_arrays_keep_dtype_and_shape(array: np.ndarray) -> None:
    out = unpack(pack({"a": [array]}))["a"][0]
    np.testing.assert_array_equal(out, array, strict=True)


def test_packing_anything_else_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        pack({"a": object()})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.0, None, True]}, '{"a":[1,2.0,null,true]}'),
        ([NAN, float("inf"), float("-inf")], "[NaN,Infinity,-Infinity]"),
        (np.array([1, 2]), "[1,2]"),
        ("ü", '"\\u00fc"'),
    ],
)
def test_json_text(value: Any, text: str) -> None:
    assert to_json(value) == text


# -- iter_named ------------------------------------------------------------------------------


def test_pairs_pass_through_lazily() -> None:
    pairs = iter_named([("start", {"uid": "a"}), ["stop", DOC], "broken"])
    assert next(pairs) == ("start", {"uid": "a"})
    assert next(pairs) == ("stop", DOC)
    with pytest.raises(BadDocument, match="documents: item 2 is no"):
        next(pairs)


@pytest.mark.parametrize("item", ["ab", ("start",), (1, {}), ("start", [1]), None, ("a", {}, 1)])
def test_what_is_no_pair_is_refused(item: Any) -> None:
    with pytest.raises(BadDocument, match="item 0"):
        list(iter_named([item]))


def test_packing_is_ours_where_msgpack_is_patched():
    """As importing bluesky's clients of Kafka does, for the whole process."""
    script = """
        import msgpack_numpy, numpy as np
        from daskbroker.core.documents import pack, unpack
        before = pack({"x": np.arange(3, dtype="u2")})
        msgpack_numpy.patch()
        after = pack({"x": np.arange(3, dtype="u2")})
        assert before == after
        assert unpack(after)["x"].dtype == "u2"
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    assert subprocess.run(command, check=False).returncode == 0
