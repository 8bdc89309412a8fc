"""The index finds what plain evaluation finds, and says truly when it alone is enough."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import daskbroker
from daskbroker.core.full_text import TextQuery
from daskbroker.core.query import Query
from daskbroker.core.search import compile_search
from daskbroker.stores.embedded import index
from daskbroker.stores.embedded.index import (
    LONGEST_TEXT,
    MOST_LEAVES,
    MOST_LOOKED_AT,
    MOST_WAITING,
    MOST_WORDS,
    narrow,
)

KEYS = ["a", "b", "a.b", "", ".", "a."]
values = st.sampled_from(
    [1, 1.0, True, 2**70, "", "x", "?", "\ud800", "b1", 0, -0.0, float("inf"), float("nan"), None]
)
documents = st.recursive(
    st.dictionaries(st.sampled_from(KEYS), values | st.lists(values, max_size=2), max_size=3),
    lambda inner: st.dictionaries(
        st.sampled_from(KEYS), inner | st.lists(inner | values, max_size=2), max_size=2
    ),
    max_leaves=4,
)
paths = st.sampled_from(["a", "b", "a.b", "", "a.", ".a", "a.a", "b.a", "a.0"])
comparisons = st.builds(
    lambda sign, value: {sign: value},
    st.sampled_from(["$gt", "$gte", "$lt", "$lte"]),
    st.sampled_from([0, 1.5, 2**70, "", "x", True, "\ud800"]),
)
tests = values | comparisons | st.builds(lambda v: {"$in": v}, st.lists(values, max_size=3))


def insert(db, docs):
    for number, doc in enumerate(docs):
        db.insert("start", {**doc, "uid": f"run-{number:03}", "time": float(number)})


def stop(db, number, **keys):
    keys = {"uid": f"stop-{number}", "run_start": f"run-{number:03}", "time": 9.0, **keys}
    db.insert("stop", {"exit_status": "success", **keys})


def uids(results):
    return [header.uid for header in results]


@pytest.fixture
def indexing_at_once(monkeypatch):
    monkeypatch.setattr(index, "MOST_WAITING", 1)


@settings(max_examples=60, deadline=None)
@example(docs=[{"a.b": 1}, {"a": {"b": 1}}], query={"a.b": 1})
@example(docs=[{"": {"a": 1}}, {"a": 1}], query={"a": 1})
@example(docs=[{"": {"a": 1}}], query={".a": 1})
@example(docs=[{"a": "\ud800"}, {"a": "?"}], query={"a": "?"})
@given(docs=st.lists(documents, min_size=1, max_size=4), query=st.dictionaries(paths, tests))
@pytest.mark.filterwarnings("ignore::daskbroker.SearchWarning")  # many find nothing
@pytest.mark.parametrize("most_waiting", [1, 3])
def test_a_search_finds_what_plain_evaluation_finds(most_waiting, docs, query):
    with pytest.MonkeyPatch.context() as patch, daskbroker.temp() as db:
        patch.setattr(index, "MOST_WAITING", most_waiting)
        insert(db, docs)
        wanted = [h.uid for h in db if Query(query).matches(h.start)]
        assert [header.uid for header in db(**query)] == wanted
        assert len(db(**query)) == len(wanted)


def narrowed(db, **arguments):
    query = arguments.pop("query", None)
    with db.header_source.store._database.read() as connection:
        return narrow(connection, compile_search(query=query, **arguments))


@pytest.mark.parametrize(
    "query", [{"a": 1}, {"a": {"$in": ["x", True]}}, {"a.b": {"$gte": 2}}, {"a": {"$lt": "x"}}]
)
def test_conditions_on_scalars_are_left_to_the_index(db, query):
    insert(db, [{"a": 1}, {"a.b": 1}])
    assert narrowed(db, query=query).exact


@pytest.mark.parametrize(
    ("values", "exact"),
    [
        ([2**62 + 1, -1, "x", "\u00e9"], True),
        ([1.5], False),  # SQLite may round it
        (["a\0b"], False),
        ([True], True),
    ],
)
def test_lists_of_more_values_than_a_statement_may_have(db, values, exact):
    docs = [{"a": a} for a in (2**62 + 1, 2**62 + 2, -1, "x", "\u00e9", 1.5, "a\0b", "a", True, 1)]
    insert(db, docs)
    query = {"a": {"$in": [*values, *(f"other {number}" for number in range(600))]}}
    assert narrowed(db, query=query).exact is exact
    wanted = [header.uid for header in db if Query(query).matches(header.start)]
    assert len(wanted) == len(values)
    assert [header.uid for header in db(**query)] == wanted
    assert len(db(**query)) == len(wanted)


@pytest.mark.parametrize(
    "query", [{"a": None}, {"a": {"$ne": 1}}, {"a": {"b": 1}}, {"a": [1]}, {"$or": [{"a": 1}]}]
)
def test_other_conditions_are_checked_on_documents(db, query):
    assert not narrowed(db, query=query).exact


@pytest.mark.parametrize(
    "doc",
    [
        {"a": "x" * (LONGEST_TEXT + 1)},
        {"a": list(range(MOST_LEAVES + 1))},
        {"a": 2**70},
        {"": 1},
    ],
    ids=["long text", "many values", "large integer", "empty key"],
)
def test_a_run_that_is_not_all_indexed_is_always_looked_at(db, doc):
    insert(db, [doc, {"a": 3}])
    assert db(a=3)[0].uid == "run-001"
    for path, value in doc.items():
        last = value[-1] if isinstance(value, list) else value
        assert uids(db(**{path: last})) == ["run-000"]
        assert len(db(**{path: last})) == 1


def test_where_many_runs_are_not_all_indexed_each_candidate_is_looked_at(db, indexing_at_once):
    insert(db, [{"a": "x" * (LONGEST_TEXT + 1)}] * (MOST_LOOKED_AT + 1) + [{"a": 3}])
    assert not narrowed(db, query={"a": 3}).exact
    assert uids(db(a=3)) == [f"run-{MOST_LOOKED_AT + 1}"]
    assert len(db(a=3)) == 1


def test_where_runs_that_are_not_indexed_are_large_each_candidate_is_looked_at(db):
    insert(db, [{"a": 3, "notes": "x" * 2**21}] * 3)
    assert not narrowed(db, query={"a": 3}).exact
    assert len(uids(db(a=3))) == len(db(a=3)) == 3


def rows_of(db, table):
    with db.header_source.store._database.read() as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def test_documents_wait_to_be_indexed_together(db):
    insert(db, [{"plan": "scan" if number % 2 else "count"} for number in range(MOST_WAITING - 1)])
    assert rows_of(db, "leaf WHERE path = 'plan'") == rows_of(db, "word") == 0
    assert len(db(plan="scan")) == len(db("scan")) == MOST_WAITING // 2 - 1
    db.insert("start", {"uid": "last", "time": 100.0, "plan": "scan"})
    assert rows_of(db, "leaf WHERE path = 'plan'") == MOST_WAITING
    assert len(db(plan="scan")) == len(db("scan")) == MOST_WAITING // 2


def test_stops_wait_on_their_own(db, indexing_at_once, monkeypatch):
    insert(db, [{"sample": "gold"}, {"sample": "gold"}])
    monkeypatch.setattr(index, "MOST_WAITING", MOST_WAITING)
    stop(db, 0, reason="beam dump")
    assert uids(db(exit_status="success")) == uids(db("dump")) == ["run-000"]
    assert uids(db("gold dump")) == ["run-000"]
    assert len(db(sample="gold", exit_status="success")) == 1
    assert len(db(sample="gold")) == len(db("gold")) == 2


def test_a_run_that_comes_during_a_search_is_not_taken_for_a_match(db):
    insert(db, [{"a": 1}] * 20)
    results = iter(db(a=1))
    assert next(results).uid == "run-019"
    # Its time puts it in a later batch of the search.
    db.insert("start", {"uid": "other", "time": 5.5, "a": 2})
    assert len(list(results)) == 19


def test_a_damaged_document_that_waits_is_named_by_each_search(db, monkeypatch):
    insert(db, [{"a": 1}, {"a": 1}])
    with db.header_source.store._database.write() as connection:
        connection.execute("UPDATE header SET start = x'00' WHERE id = 1")
    for most_waiting in (MOST_WAITING, 1):
        monkeypatch.setattr(index, "MOST_WAITING", most_waiting)
        db.insert("start", {"uid": f"next-{most_waiting}", "time": 9.0, "a": 2})
        results = db(a=1)
        with pytest.warns(daskbroker.BadRunWarning, match="run-000"):
            found = uids(results)
        assert found == ["run-001"]
        assert [bad.uid for bad in results.bad] == ["run-000"]
        assert len(results) == 1


def test_words(db):
    insert(db, [{"note": "Pure SILVER foil"}, {"note": ["gold", {"deep": "silver-plated"}]}])
    assert narrowed(db, full="silver").exact
    assert len(db("silver")) == 2
    assert len(db("silver gold")) == 1
    assert len(db("note")) == 0


def test_very_many_words_are_looked_for_in_the_documents(db):
    many = " ".join(f"w{number}" for number in range(MOST_WORDS + 10))
    insert(db, [{"note": many}, {"note": "w1"}])
    last = max(TextQuery(many).words)
    assert [header.uid for header in db(last)] == ["run-000"]
    assert len(db("w1")) == 2


def test_times_narrow(db):
    insert(db, [{}, {}, {}])
    found = narrowed(db, since=1, until=1)
    assert (found.where, found.parameters, found.exact) == ("time >= ? AND time <= ?", [1, 1], True)
