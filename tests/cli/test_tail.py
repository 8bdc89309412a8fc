"""``daskbroker tail``, while another process writes."""

from __future__ import annotations

import json
import time

import pytest

import daskbroker
from daskbroker.testing import assert_documents_equal, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.processes import Program
from daskbroker.work.ingest import ingest

MAIN = "from daskbroker.cli import main; main()"


@pytest.fixture(params=["embedded", "mongodb"])
def store(request, tmp_path):
    if request.param == "mongodb":
        place = request.getfixturevalue("mongo_database")
    else:
        place = str(tmp_path / "store")
    with daskbroker.connect(place) as db:
        insert_all(db, make_run(3, scan_id=0, uid="old-run-abcdef"))
    return place


@pytest.fixture
def tail(store):
    """Return ``tail(*options)``, which starts the command; it is killed at the end."""
    begun = []

    def tail(*options):
        begun.append(Program(MAIN, "tail", "--db", store, *options))
        return begun[-1]

    yield tail
    for process in begun:
        process.kill()


def write(store, number):
    known = {"scan_id": number, "sample": "gold", "motors": ["x"], "time": time.time()}
    with daskbroker.connect(store) as db:
        for name, doc in make_run(3, uid=f"run-{number}-abcdef", **known):
            db.insert(name, doc)
            time.sleep(0.05)


def test_runs_in_progress_and_new_ones_are_followed(tail, store):
    documents = make_run(4, scan_id=1, uid="run-1-abcdef", time=time.time() - 100, motors=["x"])
    with daskbroker.connect(store) as db:
        insert_all(db, documents[:4])  # start, descriptor, two events
        process = tail("--limit", "2", "--timeout", "60")
        lines = [process.stdout.readline()]
        insert_all(db, documents[4:])
    write(store, 2)
    rest, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    lines += rest.splitlines()
    assert "old-run" not in "".join(lines)
    first = [line for line in lines if line.startswith("run-1-ab")]
    second = [line for line in lines if line.startswith("run-2-ab")]
    assert "run 1 count" in first[0]
    assert "events before" in first[1]
    assert "ended:  success" in first[-1]
    assert "gold" in second[0]
    assert len(second) == 5
    assert "primary 1  x=1" in second[1]


def test_what_tail_writes_as_json_comes_back_as_runs(tail, store, tmp_path):
    process = tail("--limit", "2", "--timeout", "60", "--json")
    with daskbroker.connect(store) as db:
        insert_all(db, make_run(2, uid="run-1-abcdef", time=time.time(), stop=False))
        lines = [process.stdout.readline()]
        insert_all(db, [("stop", _stop(db["run-1-abcdef"]))])
    write(store, 2)
    rest, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    file = tmp_path / "tail.jsonl"
    file.write_text("".join(lines) + rest)
    with daskbroker.connect(tmp_path / "again") as again, daskbroker.connect(store) as db:
        assert ingest(again, [file]).refused == 0
        for uid in ("run-1-abcdef", "run-2-abcdef"):
            assert_documents_equal(db[uid].documents(), again[uid].documents())
    assert json.loads(lines[0])[0] == "start"


def _stop(header):
    return {
        "uid": f"stop of {header.uid}",
        "run_start": header.uid,
        "time": time.time(),
        "exit_status": "success",
        "num_events": {"primary": 2},
    }


def test_a_run_that_stays_open_is_named_after_the_timeout(tail, store):
    with daskbroker.connect(store) as db:
        insert_all(db, make_run(2, uid="run-1-abcdef", time=time.time() - 9, stop=False))
    process = tail("--timeout", "2")
    output, errors = process.communicate(timeout=120)
    assert "run-1-ab" in output
    assert "2" in errors
    assert "run-1-abcdef" in errors
    assert "Traceback" not in errors
