"""Patterns of users: what they match, and when they are given up."""

from __future__ import annotations

import re
import time

import pytest

from daskbroker.core.errors import BadQuery
from daskbroker.core.patterns import full_matches, search_pattern

SLOW = "^(a|aa)+$"
TEXT = "a" * 60 + "b"


def test_those_that_match_fully_in_their_order():
    texts = ["xa", "a", "b", "ab", "a1"]
    assert full_matches("a.?", texts, "here") == ["a", "ab", "a1"]
    assert full_matches(re.compile("A.?", re.IGNORECASE), texts, "here") == ["a", "ab", "a1"]
    assert full_matches("c", texts, "here") == []


def test_a_search_finds_a_part():
    assert search_pattern("B", "i", "here")("abc")
    assert not search_pattern("B", "", "here")("abc")


def test_many_texts_have_a_second_together():
    # Each of them alone takes less.
    texts = ["a" * 22 + "b"] * 10_000
    began = time.monotonic()
    with pytest.raises(BadQuery, match=r"here: .* took longer than \d+\.\d s on 10,000 names"):
        full_matches(SLOW, texts, "here")
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    "match",
    [
        lambda: full_matches(SLOW, ["x", TEXT], "here"),
        lambda: search_pattern(SLOW, "", "here")(TEXT),
    ],
    ids=["full", "search"],
)
def test_the_error_says_how_long_it_took(match):
    began = time.monotonic()
    with pytest.raises(BadQuery, match="took longer") as caught:
        match()
    (seconds,) = re.findall(r"longer than (.*) s on", str(caught.value))
    assert 0.9 < float(seconds) < time.monotonic() - began + 0.1
