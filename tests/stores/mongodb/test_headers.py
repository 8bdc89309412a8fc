"""What the server is asked for when runs are listed and searched, and what it is told to index."""

from __future__ import annotations

import logging

import pymongo
import pytest

import daskbroker
from daskbroker.stores.mongodb import headers
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all


@pytest.fixture
def listed(commands, mongo):
    """Nine runs of three purposes; each third one has failed."""
    for number in range(9):
        status = "fail" if number % 3 == 0 else "success"
        documents = make_run(1, uid=f"run-{number}")
        documents[0][1]["purpose"] = f"of-{number // 3}"
        documents[-1][1]["exit_status"] = status
        insert_all(mongo, documents)
    list(mongo())
    commands.clear()
    return mongo


def conditions(command):
    """The query on starts that a command has, as one list of conditions."""
    query = command.get("filter") or command["pipeline"][0]["$match"]
    return [one for both in query.get("$and", [query]) for one in both.get("$and", [both])]


def test_a_search_of_starts_and_stops_is_narrowed_by_both(listed, commands):
    found = listed(purpose="of-1", stop={"exit_status": "fail"})
    assert [header.uid for header in found] == ["run-3"]
    asked = [one for one in commands.sent if "run_start" in one.values()]
    assert asked
    for command in asked:
        assert {"purpose": {"$eq": "of-1"}} in conditions(command)
        assert any(set(one) == {"uid"} for one in conditions(command))


def test_few_runs_are_listed_by_one_query(listed, commands, monkeypatch):
    monkeypatch.setattr(headers, "FIRST_BATCH", 3)
    for count, names in [(2, []), (3, []), (4, ["find", "find"])]:
        commands.clear()
        runs = list(listed[-count:])
        assert [run.uid for run in runs] == [f"run-{8 - place}" for place in range(count)]
        assert [run.stop["exit_status"] for run in runs][-1] in ("fail", "success")
        assert [name for name in commands.names if name != "aggregate"] == names


@pytest.mark.parametrize(
    "show",
    [lambda db: db[-1], lambda db: list(db[-3:]), lambda db: list(db())],
    ids=["newest", "slice", "all"],
)
def test_a_list_without_an_index_of_times_tells_of_it(mongo_database, caplog, show):
    with pymongo.MongoClient(mongo_database) as client:
        runs = [{"uid": f"run-{n}", "time": float(n)} for n in range(4)]
        client.get_default_database().run_start.insert_many(runs)
    with daskbroker.connect(mongo_database, mode="r") as db:
        with caplog.at_level(logging.WARNING, logger="daskbroker"):
            show(db)
        assert any("time" in record.getMessage() for record in caplog.records)
