"""Which chunks are fetched together, which are final, and ranges of which parts were sealed."""

from __future__ import annotations

import pytest

from daskbroker.core.errors import StoreDamaged
from daskbroker.stores.mongodb import chunk_store, journal_ranges, planning, reader
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all
from daskbroker.work.summary import count_runs, summarize


@pytest.fixture
def short_ranges(monkeypatch):
    """Journals of more than ten rows are long, and cut into ranges of ten."""
    monkeypatch.setattr(planning, "RANGE_ROWS", 10)
    monkeypatch.setattr(journal_ranges, "RANGE_ROWS", 10)


def plan_of(mongo, *uids):
    source = mongo.event_sources["mongo"].store
    return source.plan_events(source.list_descriptors(uids))


def counted(mongo):
    summary = summarize(mongo)
    count_runs(summary, mongo, mongo())
    return summary.waiting, summary.sealed


@pytest.fixture
def sealed(commands, mongo, monkeypatch):
    """The plan of ten chunks, all small but the sixth."""
    uids = [f"run-{number}" for number in range(10)]
    for number, uid in enumerate(uids):
        with monkeypatch.context() as patch:
            patch.setattr(chunk_store, "ONE_BUFFER_BYTES", 0 if number == 5 else 2**20)
            insert_all(mongo, make_run(number + 1, uid=uid))
    plan = plan_of(mongo, *uids)
    assert [key[3] for key in plan.keys] == [True] * 5 + [False] + [True] * 4
    commands.clear()
    return plan


@pytest.mark.parametrize(("most", "queries"), [(128, 3), (4, 4), (3, 5), (1, 10)])
def test_small_chunks_are_fetched_by_few_queries(sealed, commands, monkeypatch, most, queries):
    monkeypatch.setattr(reader, "TOGETHER", most)
    tables = list(sealed.read_all(["seq_num", "data:x"]))
    assert commands.names == ["find"] * queries
    for index, table in enumerate(tables):
        assert table.num_rows == index + 1
        assert table.equals(sealed.read(index, ["seq_num", "data:x"]))


def test_the_damaged_one_of_many_is_named(sealed, raw):
    raw.event_chunk_column.delete_many({"chunk": sealed.keys[7][1]})
    coming = sealed.read_all()
    assert [next(coming).num_rows for _ in range(7)] == [1, 2, 3, 4, 5, 6, 7]
    with pytest.raises(StoreDamaged, match=r"run 'run-7'.*chunk"):
        next(coming)


@pytest.mark.parametrize("rows", [5, 40], ids=["short", "long"])
def test_only_sealed_chunks_are_final(mongo, short_ranges, rows):
    insert_all(mongo, make_run(rows, uid="the-run", stop=False))
    journal = plan_of(mongo, "the-run")
    assert {type(key) for key in journal.keys} == {bytes if rows == 5 else tuple}
    assert not any(map(journal.reader.is_final, journal.keys))
    assert counted(mongo) == (rows, 0)
    mongo.seal()
    sealed = plan_of(mongo, "the-run")
    assert all(map(sealed.reader.is_final, sealed.keys))
    assert counted(mongo) == (0, rows)


def test_a_range_of_which_no_column_is_read_has_its_rows(commands, mongo, short_ranges):
    insert_all(mongo, make_run(25, uid="the-run", stop=False))
    plan = plan_of(mongo, "the-run")
    assert len(plan) == 3
    for columns in ([], ["absent"], ["seq_num"]):
        commands.clear()
        tables = [plan.read(index, columns) for index in range(len(plan))]
        assert [table.num_rows for table in tables] == [10, 10, 5]
        assert commands.names == ["find"] * 3


def test_a_range_of_times_that_an_older_chunk_has_too(mongo, short_ranges):
    documents = make_run(20, uid="the-run", stop=False)
    insert_all(mongo, documents)
    mongo.seal()
    events = [doc for name, doc in documents if name == "event"]
    for number, event in enumerate([*events, *events[5:]]):
        changes = {"uid": f"more-{number}", "seq_num": 100 + number, "time": event["time"] + 0.5}
        mongo.insert("event", {**event, **changes})
    table = mongo["the-run"].table(duplicates="all")
    expected = table.compute()
    assert len(expected) == 55
    mongo.seal()
    assert table.compute().equals(expected)
