"""Full text: what is looked through, and by which method."""

from __future__ import annotations

import pickle

import pytest

from daskbroker.core.errors import BadQuery
from daskbroker.core.full_text import TextQuery, document_words, leaf_texts, words

START = {
    "uid": "3a8f",
    "plan_name": "grid_scan",
    "sample": {"name": "Größe Ag-3", "tags": ["HOT", ["wet", {"deep": "end"}]]},
    "scan_id": 42,
    "temperature": 1.5,
    "on": True,
    "nothing": None,
}


def test_words_are_folded_runs_of_letters_digits_and_underscores():
    assert words("Straße, Ag-3: grid_scan") == ["strasse", "ag", "3", "grid_scan"]
    assert words("…") == []


def test_values_are_looked_through_and_keys_are_not():
    found = list(leaf_texts(START))
    assert found == [
        "3a8f", "grid_scan", "Größe Ag-3", "HOT", "wet", "end", "42", "1.5",
    ]  # fmt: skip
    assert "plan_name" not in document_words(START)
    assert document_words(START, None, {"reason": "stuck"}) >= {"hot", "grösse", "stuck", "42"}


@pytest.mark.parametrize(
    ("full", "search", "found"),
    [
        ("hot", "text", True),
        ("Hot GRÖSSE", "text", True),
        ("hot cold", "text", False),
        ("grid", "text", False),
        ("sample", "text", False),
        ("42", "text", True),
        ("rid_sc", "substring", True),
        ("ag-3", "substring", True),
        ("hot cold", "substring", False),
        ("^grid", "regex", True),
        ("^scan", "regex", False),
        ("ag-[0-9]", "regex", False),
        ("(?i)ag-[0-9]", "regex", True),
    ],
)
def test_methods(full, search, found):
    assert TextQuery(full, search).matches(START, None) is found


def test_start_and_stop_are_looked_through_together():
    assert TextQuery("hot stuck").matches(START, {"reason": "stuck"})


@pytest.mark.parametrize(
    ("full", "search", "message"),
    [
        ("x", "fuzzy", "not one of text, substring, regex"),
        ("", "text", "must be text"),
        ("  ", "substring", "must be text"),
        (5, "text", "must be text"),
        ("--", "text", "no word"),
        ("(", "regex", "is not a valid regular expression"),
    ],
)
def test_refused(full, search, message):
    with pytest.raises(BadQuery, match=message):
        TextQuery(full, search)


def test_words_for_an_index():
    assert TextQuery("b a b").words == ["a", "b"]
    assert TextQuery("b", "substring").words is None
    again = pickle.loads(pickle.dumps(TextQuery("b", "regex")))
    assert repr(again) == "TextQuery('b', 'regex')"
