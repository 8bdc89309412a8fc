"""The query language: each operator, what is refused, and what a store may rely on."""

from __future__ import annotations

import datetime
import math
import pickle
import re
import time

import numpy as np
import pytest
from hypothesis import given

from daskbroker.core import operators
from daskbroker.core.errors import BadQuery
from daskbroker.core.plain_values import equal
from daskbroker.core.query import OPERATORS, Condition, Query
from daskbroker.testing.strategies import queries, starts

NAN = float("nan")


def matches(query, **doc):
    return Query(query).matches(doc)


@pytest.mark.parametrize(
    ("test", "found", "not_found"),
    [
        (1, [1, 1.0, [2, 1]], [True, 2, "1", None, [[1]], {}]),
        (True, [True, [False, True]], [1, "True", None]),
        (None, [None, [None]], [0, False, "", []]),
        ([1, 2], [[1, 2], [[1, 2], 3]], [[2, 1], 1, [1, 2, 3]]),
        ({"b": 1, "c": 2}, [{"c": 2, "b": 1}], [{"b": 1}, {"b": 1, "c": 2, "d": 3}]),
        (NAN, [NAN], [0.0, None]),
        ({"$eq": 1}, [1, [1]], [2]),
        ({"$ne": 1}, [2, "1", True, None, [2]], [1, [1, 2]]),
        ({"$gt": 1}, [2, 1.5, [0, 2], math.inf], [1, "2", True, None, NAN]),
        ({"$gte": 1}, [1, 2], [0, "1"]),
        ({"$lt": "b"}, ["a", "", ["c", "a"]], ["b", 1, None]),
        ({"$lte": 1, "$gte": 0}, [0, 1, 0.5], [2, -1]),
        ({"$gt": False}, [True], [False, 1]),
        ({"$gte": NAN}, [NAN], [1.0]),
        ({"$gt": NAN}, [], [NAN, 1.0]),
        ({"$in": [1, "x", re.compile("^y")]}, [1, "x", "yes", ["no", "x"]], [2, "no y"]),
        ({"$in": []}, [], [1, None]),
        ({"$in": [1, "x"]}, [1.0, "x", [2, 1]], [True, "1", NAN, None, [[1]], {}]),
        ({"$nin": [1, "x"]}, [2, True, None], [1, 1.0, ["x"]]),
        ({"$exists": True}, [1, None, []], []),
        ({"$exists": False}, [], [1, None]),
        ({"$type": "number"}, [1, 1.5, ["a", 2]], [True, "1", None]),
        ({"$type": ["bool", "null"]}, [True, None], [1, "x"]),
        ({"$type": "array"}, [[], [1]], [{}, 1]),
        ({"$regex": "^a.c$"}, ["abc", ["x", "a-c"]], ["abcd", 1, None]),
        ({"$regex": "^A", "$options": "i"}, ["abc"], ["bac"]),
        (re.compile("B", re.IGNORECASE), ["abc"], ["ac"]),
        ({"$size": 2}, [[1, 2]], [[1], [1, 2, 3], "ab", {}]),
        ({"$size": 0}, [[]], [None, [1]]),
        ({"$all": [1, 2]}, [[1, 2, 3], [2, 1]], [[1], 1]),
        ({"$all": []}, [], [[], [1]]),
        ({"$elemMatch": {"$gt": 1, "$lt": 3}}, [[0, 2]], [[0, 5], 2]),
        ({"$elemMatch": {"n": 1, "m": 2}}, [[{"n": 1, "m": 2}]], [[{"n": 1}, {"m": 2}], {"n": 1}]),
        ({"$mod": [4, 1]}, [1, 5, 9.0, [2, 5]], [4, -3, "1", True, NAN, math.inf]),
        ({"$not": {"$gt": 1}}, [1, "x", None], [2]),
        ({"$mod": [2, 1]}, [3, 2**53 + 1, [2, 1]], [2, -1, 2**53, True]),
        ({"$mod": [-3, -1]}, [-4], [4, 2]),
        ({"$elemMatch": {"$gt": 1}}, [[0, 2]], [2, [[2]], [1]]),
        ({"$elemMatch": {"0": 1}}, [[{"0": 1}], [[1]]], [[1], {"0": 1}]),
    ],
    ids=repr,
)
def test_operators(test, found, not_found):
    assert [v for v in found if not matches({"a": test}, a=v)] == []
    assert [v for v in not_found if matches({"a": test}, a=v)] == []


@pytest.mark.parametrize("test", [None, {"$ne": 1}, {"$nin": [1]}, {"$not": {"$gt": 0}}])
def test_a_key_that_is_not_there_passes_what_is_negative(test):
    assert matches({"a": test})


@pytest.mark.parametrize(
    ("path", "doc", "found"),
    [
        ("a.b", {"a": {"b": 1}}, True),
        ("a.b", {"a": [{"c": 2}, {"b": 1}]}, True),
        ("a.1", {"a": [0, 1]}, True),
        ("a.1.b", {"a": [{}, {"b": 1}]}, True),
        ("a.0", {"a": {"0": 1}}, True),
        ("a.b", {"a.b": 1}, False),
        ("a.b", {"a": [[{"b": 1}]]}, False),
        ("a.0.b", {"a": [[{"b": 1}]]}, True),
        ("a.0", {"a": [[1]]}, False),
        ("a.01", {"a": [0, 1]}, False),
        ("a." + "9" * 5000, {"a": [0, 1]}, False),
        ("a.b.c", {"a": {"b": 1}}, False),
        ("", {"": 1}, True),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_paths(path, doc, found):
    assert Query({path: 1}).matches(doc) is found


@pytest.mark.parametrize(
    ("path", "doc", "found"),
    [
        ("a", {}, True),
        ("a.b", {}, True),
        ("a.b", {"a": 1}, True),
        ("a.b", {"a": [{"b": 1}, {}]}, True),
        ("a.b", {"a": [{"b": 1}]}, False),
        ("a.b", {"a": [1, None]}, False),
        ("a.b", {"a": []}, False),
        ("a.0", {"a": []}, False),
        ("a.0.b", {"a": [1]}, False),
        ("a.0.b", {"a": [[{}]]}, True),
    ],
)
def test_none_under_a_path_is_a_mapping_without_the_key(path, doc, found):
    assert Query({path: None}).matches(doc) is found
    assert Query({path: {"$in": [1.5, None]}}).matches(doc) is found
    assert Query({path: {"$ne": None}}).matches(doc) is not found


def test_logic():
    either = {"$or": [{"a": 1}, {"b": {"$gt": 1}}]}
    assert matches(either, a=1)
    assert matches(either, b=2)
    assert not matches(either, a=2, b=1)
    assert matches({"$nor": [{"a": 1}, {"b": 1}]}, a=2)
    assert not matches({"$nor": [{"a": 1}, {"b": 1}]}, b=1)
    assert matches({"$and": [{"a": 1}, {"b": 1}], "c": 1}, a=1, b=1, c=1)
    assert matches({})


@given(query=queries, doc=starts())
def test_logic_of_any_query(query, doc):
    found = Query(query).matches(doc)
    assert Query({"$and": [query]}).matches(doc) is found
    assert Query({"$or": [query, query]}).matches(doc) is found
    assert Query({"$nor": [query]}).matches(doc) is not found


@given(query=queries, doc=starts())
def test_conditions_hold_for_what_matches_and_are_all_if_exact(query, doc):
    compiled = Query(query)
    conditions = [Query({c.path: {c.operator: c.operand}}) for c in compiled.conditions]
    hold = all(condition.matches(doc) for condition in conditions)
    if compiled.matches(doc):
        assert hold
    if compiled.exact:
        assert hold is compiled.matches(doc)


def test_conditions():
    compiled = Query({"a": 1, "$and": [{"b.c": {"$gt": 2, "$lte": 5}}]})
    assert compiled.exact
    assert set(compiled.conditions) == {
        Condition("a", "$eq", 1),
        Condition("b.c", "$gt", 2),
        Condition("b.c", "$lte", 5),
    }


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"$where": "sleep(1000)"}, r"'\$where' is not allowed here"),
        ({"a": {"$where": "1"}}, r"the operator '\$where' is not allowed"),
        ({"$expr": {"$gt": ["$a", 1]}}, r"'\$expr' is not allowed here"),
        ({"a": {"$function": {"body": "f"}}}, r"the operator '\$function' is not allowed"),
        ({"$jsonSchema": {}}, r"'\$jsonSchema' is not allowed here"),
        ({"$text": {"$search": "x"}}, r"'\$text' is not allowed here"),
        ({"a": {"$gt": 1, "b": 2}}, "the operator 'b' is not allowed"),
        ({"a": {"$not": 1}}, r"\$not needs operators, such as"),
        ({"a": {"$gt": [1]}}, r"\$gt compares numbers, text or booleans, not \[1\]"),
        ({"a": {"$in": 1}}, r"\$in needs a list, not 1"),
        ({"a": {"$in": [{"$gt": 1}]}}, r"\$in takes values and patterns, not operators"),
        ({"a": {"$size": -1}}, r"\$size needs an integer of 0 or more, not -1"),
        ({"a": {"$size": True}}, r"\$size needs an integer of 0 or more, not True"),
        ({"a": {"$mod": [0, 1]}}, r"\$mod needs \[divisor, remainder\], not \[0, 1\]"),
        ({"a": {"$mod": [2]}}, r"\$mod needs \[divisor, remainder\], not \[2\]"),
        ({"a": {"$exists": "yes"}}, r"\$exists needs true or false, not 'yes'"),
        ({"a": {"$type": "javascript"}}, r"\$type takes number, int, .*, not 'javascript'"),
        ({"a": {"$elemMatch": 1}}, r"\$elemMatch needs a query, not 1"),
        ({"a": {"$regex": "("}}, r"'\(' is not a valid regular expression: missing"),
        ({"a": {"$regex": 5}}, "a pattern is text of at most 1000 characters"),
        ({"a": {"$regex": "x" * 2000}}, "a pattern is text of at most 1000 characters"),
        ({"a": {"$regex": "x", "$options": "q"}}, r"\$options takes the letters imsx, not 'q'"),
        ({"a": {"$options": "i"}}, r"\$options goes with \$regex"),
        ({"a": re.compile(b"x")}, r"query\.a: a pattern must be of text, not bytes"),
        ({"a": datetime.datetime(2026, 1, 1)}, r"query\.a: the datetime .* has no zone; give one"),
        ({"a": ...}, r"query\.a: a builtins\.ellipsis is no JSON-like value"),
        ({"a": 1j}, r"query\.a: a builtins\.complex is no JSON-like value"),
        ({5: 1}, "the key 5 is of type int; keys must be text"),
        ({"\ud800": 1}, "is no valid Unicode text"),
        ({"$or": []}, r"\$or needs a list of queries, not \[\]"),
        ({"$or": {"a": 1}}, r"\$or needs a list of queries, not \{'a': 1\}"),
        ({"$and": [1]}, "a query is a mapping, not 1"),
        ([1], "a query is a mapping, not list"),
        ("a", "a query is a mapping, not str"),
    ],
    ids=lambda given: repr(given)[:40],
)
def test_refused(query, message):
    with pytest.raises(BadQuery, match=message):
        Query(query)


@pytest.mark.parametrize(
    "query",
    [
        {"a": {"$in": list(range(200_000))}},
        {"$or": [{"a": n} for n in range(2000)]},
        {str(n): n for n in range(2000)},
    ],
    ids=["values", "parts", "keys"],
)
def test_too_long_is_refused(query):
    with pytest.raises(BadQuery, match="more than"):
        Query(query)


def test_values_of_a_long_list_are_not_compared_one_by_one(monkeypatch):
    compared = []
    monkeypatch.setattr(operators, "equal", lambda *pair: compared.append(pair) or equal(*pair))
    query = Query({"a": {"$in": [*range(5000), "x"]}, "b": {"$nin": list(range(5000))}})
    assert query.matches({"a": 4999, "b": -1})
    assert not query.matches({"a": -1})
    assert compared == []


@pytest.mark.parametrize("around", [lambda q: {"$or": [q]}, lambda q: {"a": {"$not": q}}])
@pytest.mark.parametrize("levels", [40, 5000])
def test_too_deep_is_refused(around, levels):
    query = {"$gt": 1}
    for _ in range(levels):
        query = around(query)
    with pytest.raises(BadQuery, match="deeper"):
        Query(query)


def test_the_message_names_the_allowed_operators_and_the_query():
    with pytest.raises(BadQuery, match=r"stop: the operator '\$bad'.*\$elemMatch") as caught:
        Query({"a": {"$bad": 1}}, "stop")
    assert all(operator in str(caught.value) for operator in OPERATORS)


def test_a_pattern_that_takes_for_ever_is_given_up():
    query = Query({"a": {"$regex": "^(a|aa)+$"}})
    began = time.process_time()
    with pytest.raises(BadQuery, match="took longer"):
        query.matches({"a": "a" * 60 + "b"})
    assert time.process_time() - began < 10


def test_values_are_copied_and_made_plain():
    wanted = [np.int64(1)]
    query = Query({"a": {"$in": wanted}, "t": datetime.datetime(1970, 1, 2, tzinfo=datetime.UTC)})
    wanted.append(2)
    assert query.source == {"a": {"$in": [1]}, "t": 86400.0}
    assert matches({"a": (1, 2)}, a=[1, 2])


def test_equality_pickle_and_truth():
    query = Query({"a": re.compile("x", re.IGNORECASE)})
    again = pickle.loads(pickle.dumps(query))
    assert again == query
    assert hash(again) == hash(query)
    assert again.matches({"a": "X"})
    assert query
    assert not Query(None)
    assert query != Query({"a": 1})
    assert repr(query) == "Query({'a': {'$regex': 'x', '$options': 'i'}})"
