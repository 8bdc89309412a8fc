"""Small chunks move from SQLite into packs, whoever reads or is killed meanwhile."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time

import pytest

import daskbroker
from daskbroker.stores.embedded.packing import pack_small_chunks
from daskbroker.stores.embedded.sealing import ORPHAN_SECONDS, sweep
from daskbroker.testing import assert_documents_equal, make_run

RUNS = [make_run(5, uid=f"run-{number}") for number in range(6)]


@pytest.fixture
def filled(db):
    for docs in RUNS:
        for name, doc in docs:
            db.insert(name, doc)
    return db


def packs(db):
    return sorted((db.event_sources["embedded"].store._database.root / "chunks").glob("*.arrow"))


def check(db):
    for docs in RUNS:
        assert_documents_equal(docs, db[docs[0][1]["uid"]].documents())


def test_few_small_chunks_stay_in_sqlite(filled, source, rows_of):
    assert rows_of("chunk_body") == len(RUNS)
    assert pack_small_chunks(source._database, 4 * 2**20) == 0
    assert packs(filled) == []


def test_packing_moves_all_into_one_file(filled, source, rows_of):
    assert pack_small_chunks(source._database) == len(RUNS)
    assert rows_of("chunk_body") == 0
    assert len(packs(filled)) == 1
    check(filled)
    assert pack_small_chunks(source._database) == 0


def test_a_pack_has_a_largest_size(filled, source, monkeypatch):
    monkeypatch.setattr("daskbroker.stores.embedded.packing.LARGEST_PACK", 4000)
    assert pack_small_chunks(source._database) == len(RUNS)
    assert len(packs(filled)) > 1
    check(filled)


def test_sealing_packs_when_many_have_come_together(db, rows_of, monkeypatch):
    monkeypatch.setattr("daskbroker.stores.embedded.events.PACK_BYTES", 10_000)
    for docs in RUNS:
        for name, doc in docs:
            db.insert(name, doc)
    assert packs(db)
    assert rows_of("chunk_body") < len(RUNS)
    check(db)


def test_a_plan_made_before_still_reads(filled, source):
    plans = [header.table() for header in filled]
    dataset = filled[-1].dataset()
    before = [plan.compute() for plan in plans]
    pack_small_chunks(source._database)
    assert all(plan.compute().equals(frame) for plan, frame in zip(plans, before, strict=True))
    assert dataset["x"].values.tolist() == before[0]["x"].tolist()


def test_keys_that_travel_need_no_sqlite(filled, source):
    plan = source.plan_runs([docs[0][1]["uid"] for docs in RUNS]).events
    assert {type(key) for key in plan.keys} == {int}
    assert {type(key) for key in pickle.loads(pickle.dumps(plan)).keys} == {bytes}
    pack_small_chunks(source._database)
    travelled = pickle.loads(pickle.dumps(plan))
    assert {type(key) for key in travelled.keys} == {tuple}
    assert travelled.token == plan.token
    assert [travelled.read(n).num_rows for n in range(len(plan))] == [5] * len(RUNS)


def test_killed_before_the_pack_is_known_leaves_an_orphan_that_is_swept(filled, source, kill):
    with kill("daskbroker.stores.embedded.packing._note"):
        pack_small_chunks(source._database)
    (orphan,) = packs(filled)
    check(filled)
    assert sweep(source._database) == 0  # it may be another process's, in the making
    assert pack_small_chunks(source._database) == len(RUNS)
    old = time.time() - ORPHAN_SECONDS - 1
    for pack in packs(filled):
        os.utime(pack, (old, old))
    assert sweep(source._database) == 1
    assert not orphan.exists()
    assert len(packs(filled)) == 1
    check(filled)


def test_killed_while_writing_leaves_nothing_that_is_read(filled, source, kill):
    with kill("daskbroker.stores.embedded.packing.publish_file"):
        pack_small_chunks(source._database)
    assert packs(filled) == []
    check(filled)


PACKER = """
import sys, daskbroker
from daskbroker.stores.embedded.packing import pack_small_chunks
from daskbroker.testing import make_run
with daskbroker.connect(sys.argv[1]) as db:
    database = db.event_sources["embedded"].store._database
    moved = 0
    for number in range(8):
        for name, doc in make_run(3):
            db.insert(name, doc)
        moved += pack_small_chunks(database)
    print(moved)
"""


def test_two_processes_pack_each_chunk_once(filled, source, rows_of):
    root = str(source._database.root)
    command = [sys.executable, "-c", PACKER, root]
    packers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    while rows_of("chunk_body") == len(RUNS) and packers[0].poll() is None:
        time.sleep(0.05)
    check(filled)  # by numbers of chunks that move meanwhile
    moved = [int(packer.communicate()[0]) for packer in packers]
    assert [packer.returncode for packer in packers] == [0, 0]
    assert sum(moved) == len(RUNS) + 16
    assert rows_of("chunk_body") == 0
    assert len(filled().table("primary").compute()) == 5 * len(RUNS) + 3 * 16
    with daskbroker.connect(root, mode="r") as again:
        check(again)
