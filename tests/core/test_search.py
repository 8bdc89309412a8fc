"""A search: what ``db(...)`` takes, checked and put together."""

from __future__ import annotations

import pytest

from daskbroker.core.errors import BadQuery
from daskbroker.core.search import Search, compile_search

START = {"uid": "u", "time": 100.0, "plan_name": "scan", "sample": "silver foil"}
STOP = {"uid": "s", "time": 110.0, "exit_status": "fail", "reason": "stuck"}


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({}, True),
        ({"query": {"plan_name": "scan"}}, True),
        ({"query": {"plan_name": "count"}}, False),
        ({"since": 100, "until": 100}, True),
        ({"since": 100.1}, False),
        ({"until": 99.9}, False),
        ({"full": "silver stuck"}, True),
        ({"full": "gold"}, False),
        ({"full": "ILVE", "search": "substring"}, True),
        ({"query": {"stop": {"exit_status": "fail"}}}, True),
        ({"query": {"stop": {"exit_status": "success"}}}, False),
        ({"query": {"stop": {}}}, True),
    ],
    ids=repr,
)
def test_runs_that_match(arguments, found):
    assert compile_search(**arguments).matches(START, STOP) is found


def test_a_run_without_stop_matches_no_query_on_it():
    assert not compile_search(query={"stop": {"exit_status": {"$ne": "fail"}}}).matches(START, None)
    assert compile_search(full="silver").matches(START, None)


def test_each_query_on_descriptors_has_to_match_one_of_them():
    search = compile_search(query={"descriptor": {"name": "primary"}})
    search &= compile_search(query={"descriptor": {"name": "dark"}})
    assert search.matches_descriptors([{"name": "primary"}, {"name": "dark"}])
    assert not search.matches_descriptors([{"name": "primary"}])
    assert Search().matches_descriptors([])


def test_searches_narrow_each_other():
    both = compile_search(since=10, until=200) & compile_search(since=50, query={"a": 1})
    assert (both.since, both.until) == (50, 200)
    assert [query.source for query in both.queries] == [{"a": 1}]
    assert both.shown == (
        "since='1970-01-01 00:00:10+00:00'",
        "until='1970-01-01 00:03:20+00:00'",
        "a=1",
        "since='1970-01-01 00:00:50+00:00'",
    )
    assert (Search() & Search()) == Search()


def test_a_naive_time_is_of_the_zone():
    summer = compile_search(since="2026-07-01", timezone="Europe/Berlin").since
    assert summer == compile_search(since="2026-07-01").since - 7200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": {"stop": 5}}, "stop: needs a query"),
        ({"query": {"descriptor": ["x"]}}, "descriptor: needs a query"),
        ({"query": {"descriptor": {"$where": "1"}}}, r"descriptor: '\$where'"),
        ({"since": "someday"}, "is not a time"),
        ({"full": 5}, "full"),
        ({"full": "x", "search": "fuzzy"}, "fuzzy"),
        ({"search": "fuzzy"}, "to search for 'fuzzy' write full='fuzzy', and for a key"),
        ({"search": 5}, "regex; for a key 'search' of start documents write start={'search': …}"),
    ],
    ids=repr,
)
def test_refused(arguments, message):
    with pytest.raises(BadQuery, match=message):
        compile_search(**arguments)


@pytest.mark.parametrize(
    "word", ["stop", "data_key", "derived", "derived_from", "since", "full", "search", "a"]
)
@pytest.mark.parametrize("kind", [list, dict])
def test_what_is_nested_too_deeply_is_refused_in_few_words(word, kind):
    value = "x" * 10**6
    # Python 3.12 and 3.13 show 5,000 levels.
    for _ in range(100_000):
        value = [value] if kind is list else {"$not": value}
    alone = word in ("since", "full", "search")
    given = {word: value} if alone else {"query": {word: value}}
    with pytest.raises(BadQuery, match=r"deep|text|time") as caught:
        compile_search(**given)
    assert len(str(caught.value)) < 1000


def test_the_query_is_not_changed():
    query = {"stop": {"a": 1}, "b": 2}
    compile_search(query=query)
    assert query == {"stop": {"a": 1}, "b": 2}
