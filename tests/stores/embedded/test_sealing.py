"""Sealing: what makes chunks, what they hold, and what is left when it is interrupted."""

from __future__ import annotations

import errno
import json
import os
import time

import dask
import duckdb
import numpy as np
import pandas as pd
import polars
import pyarrow.parquet as pq
import pytest

import daskbroker
from daskbroker.core.errors import BadQuery, StoreError
from daskbroker.stores.embedded import document_keys, sealing
from daskbroker.testing import RunBuilder, assert_documents_equal, external_run, make_run

SPECTRA = {"x": [n / 2 for n in range(60)], "v": [[float(n)] * 300 for n in range(60)]}


def insert(db, documents):
    for name, doc in documents:
        db.insert(name, doc)


def files(folder):
    return sorted(folder.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("setting", "value"), [("daskbroker.seal-rows", 20), ("daskbroker.seal-bytes", 20 * 2500)]
)
def test_the_journal_is_sealed_when_it_has_grown(tmp_path, setting, value):
    with dask.config.set({setting: value}), daskbroker.connect(tmp_path) as db:
        documents = make_run(keys=SPECTRA, stop=False)
        insert(db, documents)
        source = db.event_sources["embedded"].store
        plan = source.plan_runs([db[-1].uid]).events
        assert plan.records["rows"].tolist()[:2] == [plan.records["rows"][0]] * 2
        assert 15 <= plan.records["rows"][0] <= 20
        assert_documents_equal(documents, db[-1].documents())


@pytest.mark.parametrize("paged", [False, True])
def test_pages_that_wait_are_not_read_again_for_each_sequence(db, monkeypatch, paged):
    looks = []

    def read_journal(connection, run, waiting):
        looks.append(run)
        return stored(connection, run, waiting)

    stored = document_keys._read_journal
    run = RunBuilder()
    for number in range(30):
        descriptor = run.descriptor({"x": 0.5}, f"stream {number}")
        rows = [{"x": float(row)} for row in range(3)]
        if paged:
            run.event_page(descriptor, rows)
        else:
            for row in rows:
                run.event(descriptor, row)
    *documents, stop = run.stop()
    insert(db, documents)
    monkeypatch.setattr(document_keys, "_read_journal", read_journal)
    insert(db, [stop])
    assert len(looks) <= 1
    insert(db, documents)  # all of them are known, wherever they are now
    assert_documents_equal([*documents, stop], db[-1].documents())


def test_a_failure_while_uids_are_noted_lets_no_repetition_in(db, source, monkeypatch):
    """What was noted in a transaction that fails is not noted, and still known."""
    run = RunBuilder()
    descriptor = run.descriptor({"x": 0.5})
    run.event(descriptor, {"x": 0.0})
    run.event_page(descriptor, [{"x": float(row)} for row in range(60)])
    *documents, stop = run.stop()
    insert(db, documents)
    claims = source._journal.claims

    def fail(*arguments):
        note(*arguments)
        raise OSError(errno.EIO, "of this test")

    note = claims.note
    monkeypatch.setattr(claims, "note", fail)
    with pytest.raises(StoreError, match="of this test"):
        source.seal(run.uid)
    monkeypatch.undo()
    insert(db, documents[-2:])  # known
    insert(db, [stop])
    assert_documents_equal([*documents, stop], db[-1].documents())


def test_a_stop_seals_all_streams_and_references(db, rows_of):
    documents = external_run(4)
    insert(db, documents[:-1])
    assert rows_of("journal") == len(documents) - 4
    insert(db, documents[-1:])
    assert rows_of("journal") == 0
    assert_documents_equal(documents, db[-1].documents(fill=False))


def test_sealing_again_does_nothing(db):
    insert(db, make_run(5, stop=False))
    assert db.seal() == 1
    assert db.seal() == 0
    assert db.seal(db[-1]) == 0


def test_one_run_is_sealed_alone(db, rows_of):
    for uid in ("run-a", "run-b"):
        insert(db, make_run(5, uid=uid, stop=False))
    assert db.seal("run-a") == 1
    assert rows_of("journal") == 5


def test_the_journal_cannot_be_kept(source):
    with pytest.raises(BadQuery, match="keep_journal is for MongoDB"):
        source.seal(keep_journal=True)


def test_other_tools_read_the_files(db, tmp_path):
    documents = make_run(keys={**SPECTRA, "label": ["a"] * 60}, uid="run-abc")
    insert(db, documents)
    (file,) = files(tmp_path)
    assert file.parent.name == "run-abc"
    assert file.name.startswith("primary-")
    frame = pd.read_parquet(file)
    assert frame["data:x"].tolist() == SPECTRA["x"]
    assert frame["seq_num"].tolist() == list(range(1, 61))
    assert frame["data:v"][3].tolist() == SPECTRA["v"][3]
    plain = polars.read_parquet(file)
    assert plain["data:x"].to_list() == SPECTRA["x"]
    assert plain["data:v"][3].to_list() == SPECTRA["v"][3]
    assert plain["data:label"].to_list() == ["a"] * 60
    columns = pq.read_metadata(file).row_group(0)
    facts = [columns.column(number) for number in range(columns.num_columns)]
    dictionaries = {one.path_in_schema for one in facts if one.has_dictionary_page}
    assert "data:label" in dictionaries
    assert dictionaries.isdisjoint({"uid", "data:x"})  # their values hardly repeat
    query = f"""SELECT sum("data:x"), max("data:v"[1]), min(uid) FROM '{file}' WHERE seq_num > 30"""
    uids = [doc["uid"] for name, doc in documents if name == "event"][30:]
    assert duckdb.sql(query).fetchall() == [(sum(SPECTRA["x"][30:]), 59.0, min(uids))]


def test_a_file_that_cannot_be_synced_is_removed(db, tmp_path, monkeypatch):
    documents = make_run(keys=SPECTRA, stop=False)
    insert(db, documents)

    def fail(file):
        raise OSError(errno.EIO, "of the disk")

    with monkeypatch.context() as patch:
        patch.setattr(sealing, "sync_file", fail)
        with pytest.raises(StoreError, match=r"of the disk|Input/output"):
            db.seal()
    assert list(tmp_path.rglob("*.part")) == []
    assert db.seal() == 1
    assert_documents_equal(documents, db[-1].documents())


def test_the_files_say_whose_they_are(db, tmp_path):
    insert(db, make_run(keys=SPECTRA, uid="run-abc"))
    note = json.loads(pq.read_schema(files(tmp_path)[0]).metadata[b"daskbroker"])
    descriptor = db[-1].descriptors["primary"][0]["uid"]
    assert note == {
        "run": "run-abc", "kind": "event", "descriptor": descriptor, "stream": "primary",
    }  # fmt: skip


@pytest.mark.parametrize("uid", ["../../outside", "a/b", "größe", "..", "CON", "x" * 300])
def test_no_uid_leads_out_of_the_folder(tmp_path, uid):
    with daskbroker.connect(tmp_path / "store") as db:
        documents = make_run(keys=SPECTRA, uid=uid, streams=["../../stream"])
        insert(db, documents)
        assert_documents_equal(documents, db[uid].documents())
    (file,) = files(tmp_path)
    assert file.parent.parent == tmp_path / "store" / "chunks"


@pytest.mark.parametrize("place", ["_write", "_move", "add_chunk"])
def test_killed_while_sealing_loses_and_doubles_nothing(tmp_path, kill, place):
    documents = make_run(keys=SPECTRA)
    with daskbroker.connect(tmp_path) as db:
        insert(db, documents[:-1])
        with kill(f"daskbroker.stores.embedded.sealing.{place}"):
            db.seal()
        assert_documents_equal(documents[:-1], db[-1].documents())
    with daskbroker.connect(tmp_path) as db:
        insert(db, documents)
        assert_documents_equal(documents, db[-1].documents())
        assert len(db[-1].table().compute()) == 60


def test_what_a_killed_process_left_is_swept(db, source, tmp_path, kill):
    insert(db, make_run(keys=SPECTRA, stop=False))
    with kill("daskbroker.stores.embedded.sealing.publish_file"):
        db.seal()
    (part,) = tmp_path.rglob("*.part")
    db.seal()
    assert part.exists()
    old = time.time() - sealing.ORPHAN_SECONDS - 1
    for path in (part, *files(tmp_path)):
        os.utime(path, (old, old))
    assert sealing.sweep(source._database) == 1
    assert not part.exists()
    assert len(files(tmp_path)) == 1


def test_two_writers_seal_the_same_rows_once(tmp_path, monkeypatch):
    """Another process seals while this one has encoded but not yet published."""
    documents = make_run(keys=SPECTRA, stop=False)
    with daskbroker.connect(tmp_path) as db:
        insert(db, documents)
        write = sealing._write
        made = []

        def meanwhile(database, sequence, table):
            if not made:
                made.append(None)
                made[0] = db.seal()
            return write(database, sequence, table)

        monkeypatch.setattr(sealing, "_write", meanwhile)
        assert db.seal() == 0
        assert made == [1]
        assert_documents_equal(documents, db[-1].documents())
        assert len(files(tmp_path)) == 1


def test_a_large_page_makes_chunks_at_once(db, rows_of):
    run = RunBuilder()
    descriptor = run.descriptor({"x": 0.5})
    rows = 2 * sealing.CHUNK_ROWS - 10
    numbers = np.arange(rows)
    page = {
        "descriptor": descriptor,
        "uid": [f"e{n}" for n in range(rows)],
        "seq_num": numbers + 1,
        "time": 1e9 + numbers,
        "data": {"x": numbers / 2},
        "timestamps": {"x": 1e9 + numbers},
        "filled": {},
    }
    insert(db, [*run.documents, ("event_page", page)])
    assert rows_of("journal") == 0
    assert rows_of("chunk") == 2
    assert len(db[-1].table()) == rows
    db.insert("event_page", {**page, "uid": page["uid"][:5], "seq_num": numbers[:5] + 1,
        "time": page["time"][:5], "data": {"x": numbers[:5] / 2},
        "timestamps": {"x": page["time"][:5]}})  # fmt: skip
    assert len(db[-1].table(duplicates="all")) == rows
