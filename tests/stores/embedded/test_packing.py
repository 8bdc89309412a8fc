"""Small chunks move from SQLite into packs, whoever reads or is killed meanwhile."""

from __future__ import annotations

import os
import pickle
import time

import cloudpickle
import pytest

import daskbroker
from daskbroker.core.errors import StoreError
from daskbroker.stores.embedded import packing
from daskbroker.stores.embedded.packing import pack_small_chunks
from daskbroker.stores.embedded.sealing import ORPHAN_SECONDS, sweep
from daskbroker.testing import assert_documents_equal, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.processes import Program

RUNS = [make_run(5, uid=f"run-{number}") for number in range(6)]


@pytest.fixture
def filled(db):
    for docs in RUNS:
        insert_all(db, docs)
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


def test_one_chunk_alone_is_packed(db, source):
    insert_all(db, RUNS[0])
    assert pack_small_chunks(source._database) == 1
    assert len(packs(db)) == 1
    assert_documents_equal(RUNS[0], db[-1].documents())


def test_packing_that_moves_nothing_ends_with_an_error(filled, source, monkeypatch):
    monkeypatch.setattr(packing, "_note", lambda connection, path, chunks: 0)
    with pytest.raises(StoreError, match=r"packing small chunks in .* makes no progress"):
        pack_small_chunks(source._database)
    check(filled)


def test_sealing_packs_when_many_have_come_together(db, rows_of, monkeypatch):
    monkeypatch.setattr("daskbroker.stores.embedded.events.PACK_BYTES", 10_000)
    for docs in RUNS:
        insert_all(db, docs)
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


def test_many_small_chunks_travel_as_places(db, source, rows_of):
    """A plan of many runs, and a table, are not as large as what they read."""
    uids = []
    for _ in range(12):
        docs = make_run(keys={"v": [[n / 7] * 100 for n in range(10)]})
        insert_all(db, docs)
        uids.append(docs[0][1]["uid"])
    plan = source.plan_runs(uids).events
    assert plan.records["bytes"].sum() > 12 * 8000
    travelled = pickle.loads(pickle.dumps(plan))
    assert {type(key) for key in travelled.keys} == {tuple}
    assert rows_of("chunk_body") == 0
    assert len(pickle.dumps(plan.keys)) < 12 * 200
    table = db().table("primary")
    assert len(cloudpickle.dumps(table.expr.optimize().__dask_graph__())) < 40_000
    assert table.compute().equals(pickle.loads(pickle.dumps(table)).compute())


def test_few_small_chunks_travel_as_bytes_and_stay(filled, source, rows_of):
    plan = source.plan_runs([docs[0][1]["uid"] for docs in RUNS]).events
    pickle.dumps(plan)
    assert rows_of("chunk_body") == len(RUNS)
    assert packs(filled) == []


def test_a_store_that_is_read_only_is_not_packed(filled, source, monkeypatch, rows_of):
    monkeypatch.setattr("daskbroker.stores.embedded.reader.TRAVELLING_BYTES", 0)
    with daskbroker.connect(source._database.root, mode="r") as db:
        plan = db.event_sources["embedded"].store.plan_runs(["run-0"]).events
        assert {type(key) for key in pickle.loads(pickle.dumps(plan)).keys} == {bytes}
    assert rows_of("chunk_body") == len(RUNS)
    assert packs(filled) == []


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


@pytest.mark.parametrize("place", ["_waiting", "_write"])
def test_a_packer_that_another_overtakes_moves_nothing_again(
    filled, source, rows_of, monkeypatch, place
):
    """The other one packs after this one has looked, or after it has written its pack."""
    work = getattr(packing, place)
    moved = []

    def overtaken(*args):
        result = work(*args)
        if not moved:
            moved.append(None)
            moved[0] = pack_small_chunks(source._database)
        return result

    plan = source.plan_runs([docs[0][1]["uid"] for docs in RUNS]).events
    monkeypatch.setattr(packing, place, overtaken)
    assert pack_small_chunks(source._database) == 0
    assert moved == [len(RUNS)]
    assert rows_of("chunk_body") == 0
    with source._database.read() as connection:
        named = {row[0] for row in connection.execute("SELECT path FROM chunk")}
    (pack,) = named  # the other one's; ours is an orphan, which may be swept
    old = time.time() - ORPHAN_SECONDS - 1
    for path in packs(filled):
        os.utime(path, (old, old))
    assert sweep(source._database) == 1
    assert [path.name for path in packs(filled)] == [pack.rpartition("/")[2]]
    check(filled)
    assert [table.num_rows for table in plan.read_all()] == [5] * len(RUNS)


def test_a_packer_that_another_overtakes_in_part_moves_the_rest(
    filled, source, rows_of, monkeypatch
):
    """Of the chunks in its own pack some are read from the other one's."""
    database = source._database
    waiting = packing._waiting

    def overtaken(*args):
        found = waiting(*args)
        monkeypatch.undo()
        with pytest.MonkeyPatch.context() as patch:
            rounds = iter([slice(1, 3), slice(0)])
            patch.setattr(packing, "_waiting", lambda *args: waiting(*args)[next(rounds)])
            assert pack_small_chunks(database) == 2
        return found

    monkeypatch.setattr(packing, "_waiting", overtaken)
    assert pack_small_chunks(database) == len(RUNS) - 2
    assert rows_of("chunk_body") == 0
    with database.read() as connection:
        found = connection.execute("SELECT path, count(*) FROM chunk GROUP BY path").fetchall()
    assert sorted(count for _, count in found) == [2, len(RUNS) - 2]
    check(filled)


def test_two_processes_pack_each_chunk_once(filled, source, rows_of):
    root = str(source._database.root)
    packers = [Program(PACKER, root) for _ in range(2)]
    while rows_of("chunk_body") == len(RUNS) and packers[0].returncode is None:
        time.sleep(0.05)
    check(filled)  # by numbers of chunks that move meanwhile
    moved = [int(packer.communicate()[0]) for packer in packers]
    assert [packer.returncode for packer in packers] == [0, 0]
    assert sum(moved) == len(RUNS) + 16
    assert rows_of("chunk_body") == 0
    assert len(filled().table("primary").compute()) == 5 * len(RUNS) + 3 * 16
    with daskbroker.connect(root, mode="r") as again:
        check(again)
