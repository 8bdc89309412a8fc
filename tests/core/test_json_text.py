"""JSON text: bytes and UUIDs have a form for other programs, and an exact one for columns."""

from __future__ import annotations

import json
import uuid
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskbroker.core.codec import decode, encode
from daskbroker.core.column_kinds import MISSING
from daskbroker.core.documents import normalize, pack, unpack, unpack_document
from daskbroker.core.json_text import (
    from_extended_json,
    has_marks,
    json_form,
    marked_json,
    of_marked_json,
    to_json,
)

keys = st.sampled_from(["a", "\0", "\0bytes", "\0uuid", "\0\0bytes", "$uuid"]) | st.text(max_size=3)
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.binary(max_size=5), st.uuids()
)
values = st.recursive(
    leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(keys, v, max_size=3), max_leaves=8
)


@given(values)
def test_marked_text_is_exact(value: Any) -> None:
    text = marked_json(value)
    assert of_marked_json(text) == value
    if not has_marks(text):
        assert json.loads(text) == value


@given(st.lists(values | st.just(MISSING), min_size=1, max_size=5))
def test_columns_are_exact(cells: list[Any]) -> None:
    column = encode(cells)
    assert decode(column.array, column.arrow_field("x")) == cells


@given(values)
def test_packed_documents_are_exact(value: Any) -> None:
    assert unpack(pack({"a": value})) == {"a": value}
    assert unpack_document(pack({"a": value})) == {"a": value}
    assert normalize({"a": value}) == {"a": value}


def test_forms_are_those_of_extended_json() -> None:
    token = uuid.UUID(int=1)
    text = to_json({"b": [b"\0\1"], "u": token, "n": np.float32(1), "a": np.arange(2)})
    assert json.loads(text) == {
        "b": [{"$binary": {"base64": "AAE=", "subType": "00"}}],
        "u": {"$uuid": str(token)},
        "n": 1.0,
        "a": [0, 1],
    }
    back = from_extended_json(text)
    assert (back["b"], back["u"]) == ([b"\0\1"], token)


@pytest.mark.parametrize(
    "odd",
    [{"$uuid": "no"}, {"$uuid": 5}, {"$binary": 1}, {"$binary": {"base64": "?", "subType": "0"}}],
    ids=repr,
)
def test_what_only_looks_like_a_form_stays(odd: Any) -> None:
    assert from_extended_json(json.dumps(odd)) == odd


def test_what_has_no_form_is_named() -> None:
    with pytest.raises(TypeError, match=r"a builtins\.complex cannot be converted to JSON"):
        json.dumps([1j], default=json_form)
