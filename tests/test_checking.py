"""Damage is looked for, and named where it is; nothing else is, and nothing is changed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import uuid
from functools import partial

import bson
import dask
import h5py
import numpy as np
import pymongo
import pytest

import daskbroker
from daskbroker.assets.handlers.hdf5.frames import AreaDetectorHDF5
from daskbroker.core.documents import pack, unpack
from daskbroker.core.errors import StoreError, StoreUnavailable
from daskbroker.stores.embedded import events
from daskbroker.testing import external_run, make_run
from daskbroker.testing.processes import Program

LARGE = make_run(keys={"x": [[float(n)] * 300 for n in range(60)], "s": ["text"] * 60}, uid="large")
SMALL = make_run(20, uid="small-run")
OPEN = make_run(20, uid="open-run", stop=False)
BESIDE = make_run(20, uid="beside-run")
RUNS = (LARGE, SMALL, OPEN, BESIDE)


def insert_all(db, *runs):
    for documents in runs:
        for name, doc in documents:
            db.insert(name, doc)


def damages(place, **options):
    with daskbroker.connect(place, mode="r") as db:
        return list(daskbroker.check(db, **options))


def only(found):
    """The one place that is damaged; it may be so in several ways."""
    assert len({(one.run, one.stream) for one in found}) == 1, list(map(str, found))
    return found[0]


def test_a_check_that_has_not_begun_says_so(db):
    """``print(daskbroker.check(db))`` has checked nothing."""
    insert_all(db, SMALL)
    check = daskbroker.check(db)
    assert repr(check).startswith("<Check: nothing is checked yet: for damage in check, or list")
    assert list(check) == []
    assert str(check).startswith("1 run, 1 chunk, ")


# -- embedded --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A store with a chunk in a file, in a pack, in SQLite, and rows in the journal."""
    folder = tmp_path_factory.mktemp("sound") / "store"
    with daskbroker.connect(folder) as db:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(events, "PACK_BYTES", 0)  # every small chunk goes into a pack at once
            insert_all(db, LARGE, SMALL, OPEN)
        insert_all(db, BESIDE)
    return folder


@pytest.fixture
def store(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "store")


def state_of(folder):
    """All files but SQLite's index of its log and an empty log, which have no data."""
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, hashlib.md5(path.read_bytes()).digest())
        for path in folder.rglob("*")
        if path.is_file() and path.stat().st_size and not path.name.endswith("-shm")
    }


def change(folder, statement, *values):
    with sqlite3.connect(folder / "daskbroker.sqlite") as connection:
        assert connection.execute(statement, values).rowcount != 0
    connection.close()


def flip(folder, table, column, where):
    """Flip a bit in the middle of one cell."""
    with sqlite3.connect(folder / "daskbroker.sqlite") as connection:
        query = f"SELECT rowid, {column} FROM {table} WHERE {where}"
        number, body = connection.execute(query).fetchone()
    connection.close()
    body = bytearray(body)
    body[len(body) // 2] ^= 1
    change(folder, f"UPDATE {table} SET {column} = ? WHERE rowid = ?", bytes(body), number)


def test_a_sound_store(sound):
    with daskbroker.connect(sound, mode="r") as db:
        check = daskbroker.check(db)
        assert list(check) == []
        assert (check.runs, check.chunks, check.damages) == (4, 4, 0)
        assert check.bytes > 60 * 300 * 8


OF_RUN = {
    "start": ("header", "start", "uid = 'small-run'"),
    "stop": ("header", "stop", "uid = 'small-run'"),
    "descriptor": ("descriptor", "body", "run = (SELECT id FROM run WHERE uid = 'small-run')"),
    "journal": ("journal", "body", "1"),
    "chunk in SQLite": ("chunk_body", "body", "1"),
}
DAMAGED = {
    "start": ("small-run", None),
    "stop": ("small-run", None),
    "descriptor": ("small-run", "primary"),
    "journal": ("open-run", "primary"),
    "chunk in SQLite": ("beside-run", "primary"),
}


@pytest.mark.parametrize("what", OF_RUN)
def test_a_flipped_bit_is_named(store, what):
    flip(store, *OF_RUN[what])
    before = state_of(store)
    found = only(damages(store))
    assert (found.run, found.stream) == DAMAGED[what]
    assert "checksum" in found.problem
    assert found.path == str(store / "daskbroker.sqlite")
    assert state_of(store) == before


@pytest.mark.parametrize(("suffix", "run"), [("parquet", "large"), ("arrow", "small-run")])
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_damaged_file_is_named(store, suffix, run, how):
    path = next(store.rglob(f"*.{suffix}"))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 8
    path.unlink()
    if how != "gone":
        path.write_bytes(data if how == "flipped" else data[: len(data) // 2])
    before = state_of(store)
    found = only(damages(store))
    assert (found.run, found.stream, found.path) == (run, "primary", str(path))
    assert state_of(store) == before


@pytest.mark.parametrize("verify", ["first", "never"])
def test_checksums_are_compared_whatever_the_setting(store, verify):
    path = next(store.rglob("*.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 8
    path.write_bytes(data)
    with dask.config.set({"daskbroker.verify": verify}):
        assert only(damages(store)).path == str(path)


FACTS = {
    "rows": "UPDATE chunk SET rows = rows - 1 WHERE path LIKE '%.arrow'",
    "seq_max": "UPDATE chunk SET seq_max = 7 WHERE path LIKE '%.arrow'",
    "time_min": "UPDATE chunk SET time_min = time_min + 1 WHERE path LIKE '%.arrow'",
    "missing": "UPDATE chunk SET first = 5 WHERE path LIKE '%.arrow'",
    "another column": (
        "UPDATE chunk SET schema = (SELECT schema FROM chunk WHERE path LIKE '%.parquet') "
        "WHERE path LIKE '%.arrow'"
    ),
    "lacks the list of columns": "UPDATE chunk SET schema = 99 WHERE path LIKE '%.arrow'",
    "checksum": "UPDATE chunk SET length = length - 1 WHERE path LIKE '%.arrow'",
}


@pytest.mark.parametrize("word", FACTS)
def test_a_list_of_chunks_that_is_wrong_is_named(store, word):
    change(store, "UPDATE chunk SET ordered = 1")  # without checksum, as earlier versions
    change(store, FACTS[word])
    found = [one for one in damages(store) if one.run]
    assert {one.run for one in found} == {"small-run"}
    # Without the right number of rows, the run also has fewer documents than when it stopped.
    assert {one.stream for one in found} == {"primary", *([None] if word == "rows" else [])}
    assert any(word in one.problem for one in found)


LOST = {
    "DELETE FROM chunk_body": "lacks the bytes of the chunk",
    "DELETE FROM header WHERE uid = 'small-run'": "start document is not stored",
    "DELETE FROM descriptor WHERE id = 2": "run 'small-run': there are events whose descriptor",
    "DELETE FROM sequence WHERE id = 1": "the sequence of a chunk",
    "DELETE FROM sequence WHERE run = (SELECT id FROM run WHERE uid = 'open-run')": "that waits",
    "DELETE FROM run WHERE uid = 'small-run'": "the run of a descriptor",
    "DELETE FROM chunk_schema": "list of columns",
    "DELETE FROM chunk": "of its events are not there",
}


@pytest.mark.parametrize("statement", LOST)
def test_what_is_lost_is_noticed(store, statement):
    change(store, statement)
    assert any(LOST[statement] in str(one) for one in damages(store))


def test_a_last_row_that_is_noted_and_lost_is_noticed(store):
    """Rows are noted when they are sealed; earlier checkouts noted single ones at once."""
    change(
        store,
        "INSERT INTO document_key SELECT run << 38, sequence.id, max(journal.id) % (1 << 36) "
        "FROM journal JOIN sequence ON sequence.id = journal.id >> 36",
    )
    assert damages(store) == []
    change(store, "DELETE FROM journal WHERE id = (SELECT max(id) FROM journal)")
    expected = "run 'open-run', stream 'primary': the last 1 of its events are not there"
    assert any(expected in str(one) for one in damages(store))


def test_rows_of_the_journal_that_are_lost_are_noticed(store):
    change(store, "DELETE FROM journal WHERE id = (SELECT min(id) + 3 FROM journal)")
    found = only(damages(store))
    assert (found.run, found.stream) == ("open-run", "primary")


def test_a_stored_document_that_no_insert_would_take_is_named(store):
    with sqlite3.connect(store / "daskbroker.sqlite") as connection:
        query = "SELECT start FROM header WHERE uid = 'small-run'"
        ((body,),) = connection.execute(query).fetchall()
    connection.close()
    doc = {**unpack(body), "time": "noon"}
    change(store, "UPDATE header SET start = ? WHERE uid = 'small-run'", pack(doc))
    found = only(damages(store))
    assert (found.run, found.key) == ("small-run", "time")


def test_a_damaged_page_of_sqlite_is_named(store):
    path = store / "daskbroker.sqlite"
    with sqlite3.connect(path) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'header_scan_id'"
        ((page,),) = connection.execute(query).fetchall()
        ((size,),) = connection.execute("PRAGMA page_size").fetchall()
    connection.close()
    data = bytearray(path.read_bytes())
    data[size * (page - 1) + size - 40 : size * page] = bytes(40)
    path.write_bytes(data)
    assert any("SQLite" in one.problem and one.path == str(path) for one in damages(store))


def test_the_log_of_a_killed_writer_is_left_as_it_is(tmp_path):
    folder = tmp_path / "store"
    program = f"""
import os, daskbroker
from daskbroker.testing import make_run
db = daskbroker.connect({str(folder)!r})
for name, doc in make_run(20, uid="killed-run", stop=False):
    db.insert(name, doc)
os.kill(os.getpid(), {signal.SIGKILL})
"""
    Program(program).communicate()
    before = state_of(folder)
    assert (folder / "daskbroker.sqlite-wal").stat().st_size
    assert damages(folder) == []
    assert state_of(folder) == before


# -- both stores -----------------------------------------------------------------------------


@pytest.fixture(params=["embedded", "mongodb"])
def place(request, tmp_path):
    if request.param == "embedded":
        return tmp_path / "store"
    return request.getfixturevalue("mongo_database")


def test_lost_references_are_named(place):
    documents = list(external_run())
    gone = next(doc for name, doc in documents if name == "datum")
    with daskbroker.connect(place) as db:
        insert_all(db, [pair for pair in documents if pair[1] is not gone], SMALL)
        found = only(list(daskbroker.check(db)))
    assert (found.run, found.stream, found.key) == (documents[0][1]["uid"], "primary", "img")
    assert gone["datum_id"] in found.problem


@pytest.fixture
def frames(tmp_path):
    """An HDF5 file of two frames."""
    path = tmp_path / "frames.h5"
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = np.arange(24, dtype="u2").reshape(2, 3, 4)
    return path


def image_run(path, frames=2):
    """A run with a resource of the file, and a datum an event."""
    start, stop = {"uid": "images", "time": 1.0}, {"uid": "end", "run_start": "images"}
    claim = {"source": "x", "dtype": "array", "shape": [3, 4], "external": "FILESTORE:"}
    resource = {
        "uid": "res", "run_start": "images", "spec": "AD_HDF5", "root": str(path.parent),
        "resource_path": path.name, "resource_kwargs": {"frame_per_point": 1},
        "path_semantics": "posix",
    }  # fmt: skip
    yield "start", start
    yield "resource", resource
    yield "descriptor", {
        "uid": "desc", "run_start": "images", "time": 2.0, "name": "primary",
        "data_keys": {"img": claim},
    }  # fmt: skip
    for number in range(frames):
        datum = f"res/{number}"
        kwargs = {"point_number": number}
        yield "datum", {"datum_id": datum, "resource": "res", "datum_kwargs": kwargs}
        yield "event", {
            "uid": f"event-{number}", "descriptor": "desc", "seq_num": number + 1, "time": 3.0,
            "data": {"img": datum}, "timestamps": {"img": 3.0}, "filled": {"img": False},
        }  # fmt: skip
    yield "stop", {**stop, "time": 4.0, "exit_status": "success"}


@pytest.mark.parametrize("how", ["gone", "cut", "too few"])
def test_detector_files_are_read_where_it_is_asked(place, frames, how):
    path = frames
    with daskbroker.connect(place) as db:
        insert_all(db, image_run(path, 3 if how == "too few" else 2), SMALL)
        if how == "gone":
            path.unlink()
        elif how == "cut":
            path.write_bytes(path.read_bytes()[:900])
        assert list(daskbroker.check(db)) == []
        (found,) = daskbroker.check(db, files=True)
    assert (found.run, found.stream, found.key) == ("images", "primary", "img")
    assert found.path == str(path)


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(number, os.strerror(number)) for number in (errno.EMFILE, errno.ENOMEM)),
        OSError(f"Cannot map it: {os.strerror(errno.ENOMEM)} (of some library)"),
        MemoryError(),
    ],
    ids=["files", "memory", "text", "allocation"],
)
def test_detector_files_that_this_process_cannot_read(place, frames, monkeypatch, error):
    """What the process lacks is no damage of the file."""

    def fail(*args, **options):
        raise error

    with daskbroker.connect(place) as db:
        insert_all(db, image_run(frames))
        monkeypatch.setattr(AreaDetectorHDF5, "read", fail)
        with pytest.raises(StoreUnavailable, match="it is not damaged: this process") as caught:
            list(daskbroker.check(db, files=True))
    assert str(frames) in str(caught.value)


def test_a_detector_file_that_claims_more_than_there_is_memory(place, frames, monkeypatch):
    def fail(*args, **options):
        np.empty(2**60, "u1")

    with daskbroker.connect(place) as db:
        insert_all(db, image_run(frames))
        monkeypatch.setattr(AreaDetectorHDF5, "read", fail)
        (found,) = daskbroker.check(db, files=True)
    assert found.path == str(frames)
    assert "there is not enough memory" in found.problem


def test_detector_files_that_are_sound(place, frames):
    path = frames
    with daskbroker.connect(place) as db:
        insert_all(db, image_run(path))
        assert list(daskbroker.check(db, files=True)) == []


def test_only_some_runs(place):
    with daskbroker.connect(place) as db:
        insert_all(db, SMALL, BESIDE)
        for runs in (db["small-run"], db(uid="small-run"), [db["small-run"]], db()[:1]):
            check = daskbroker.check(runs)
            assert list(check) == []
            assert check.runs == 1


def test_the_same_while_it_is_written(place):
    writer = f"""
import daskbroker
from daskbroker.testing import make_run
with daskbroker.connect({str(place)!r}) as db:
    while True:
        for name, doc in make_run(300):
            db.insert(name, doc)
"""
    with daskbroker.connect(place) as db:
        insert_all(db, SMALL)
    process = Program(writer)
    try:
        with daskbroker.connect(place, mode="r") as db:
            while len(db) < 3:
                assert process.returncode is None
            seen = 0
            while seen < 12:
                check = daskbroker.check(db)
                assert list(check) == []
                seen = check.runs
    finally:
        process.kill()


# -- MongoDB ---------------------------------------------------------------------------------


@pytest.fixture
def database(mongo_database):
    """A database with a sealed run of columns, a small one, and one in the journal."""
    with daskbroker.connect(mongo_database) as db:
        insert_all(db, LARGE, SMALL, OPEN)
    with pymongo.MongoClient(mongo_database) as client:
        yield client.get_default_database()


def test_a_sound_database(mongo_database, database):
    assert damages(mongo_database) == []


def chunk_of(database, run):
    return database["event_chunk"].find_one({"run": run})["_id"]


def test_a_damaged_column_is_named(mongo_database, database):
    columns = database["event_chunk_column"]
    one = columns.find_one({"chunk": chunk_of(database, "large"), "column": "data:x"})
    body = bytearray(one["body"])
    body[len(body) // 2] ^= 1
    columns.update_one({"_id": one["_id"]}, {"$set": {"body": bytes(body)}})
    found = only(damages(mongo_database))
    assert (found.run, found.stream) == ("large", "primary")
    assert found.path.endswith("event_chunk_column")
    assert "data:x" in found.problem


@pytest.mark.parametrize("run", ["large", "small-run"])
def test_a_lost_column_is_named(mongo_database, database, run):
    database["event_chunk_column"].delete_one({"chunk": chunk_of(database, run)})
    found = only(damages(mongo_database))
    assert (found.run, found.stream) == (run, "primary")


@pytest.mark.parametrize("change", [lambda place: place.rename(f"{place}.away"), shutil.rmtree])
def test_a_store_that_goes_away_meanwhile_is_an_error(tmp_path, change):
    with daskbroker.connect(tmp_path / "store") as db:
        for number in range(3):
            insert_all(db, make_run(3, uid=f"run-{number}"))
        checked = daskbroker.check(db, progress=lambda _: change(tmp_path / "store"))
        with pytest.raises(StoreError, match=str(tmp_path / "store")):
            list(checked)
        assert checked.damages == 0


def test_a_wrong_manifest_is_named(mongo_database, database):
    database["event_chunk"].update_one({"run": "small-run"}, {"$set": {"seq_max": 3}})
    found = only(damages(mongo_database))
    assert (found.run, found.stream) == ("small-run", "primary")
    assert chunk_of(database, "small-run") in found.problem
    # Manifests of earlier versions have no checksums, and are compared with their chunks.
    database["event_chunk"].update_many({}, {"$unset": {"checksums": 1}})
    found = only(damages(mongo_database))
    assert (found.run, found.stream) == ("small-run", "primary")
    assert "seq_max" in found.problem


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"$unset": {"data": 1}}, "data"),
        ({"$unset": {"timestamps": 1}}, "timestamps"),
        ({"$unset": {"seq_num": 1}}, "seq_num"),
        ({"$unset": {"uid": 1}}, "uid"),
        ({"$set": {"time": "noon"}}, "time"),
        ({"$set": {"data.x": 1.0, "data.unknown": 1}}, None),
        ({"$set": {"_daskbroker": 5}}, None),
        ({"$set": {"data.x": bson.MinKey()}}, "data.x"),
        ({"$set": {"data.x": bson.Timestamp(1, 1)}}, "data.x"),
    ],
    ids=[
        "data",
        "timestamps",
        "seq_num",
        "uid",
        "time",
        "undeclared",
        "_daskbroker",
        "MinKey",
        "Timestamp",
    ],
)
def test_a_foreign_event_is_named(mongo_database, database, change, field):
    events = database["event"]
    event = events.find_one({"seq_num": 1})
    events.update_one({"_id": event["_id"]}, change)
    found = damages(mongo_database)
    assert {(one.run, one.stream) for one in found} == {("open-run", "primary")}
    named = [
        one for one in found if event["uid"] in one.problem or str(event["_id"]) in one.problem
    ]
    assert named, list(map(str, found))
    assert named[0].path.endswith(".event")
    assert named[0].key == field


@pytest.mark.parametrize(
    ("name", "doc", "words"),
    [
        ("run_start", {"time": 1.0}, ("uid", "_id")),
        ("run_start", {"uid": "odd", "time": 1.0, "_daskbroker": 5}, ("start", "_id")),
        ("run_start", {"uid": "odd"}, ("odd", "time")),
        ("run_stop", {"uid": "s", "run_start": "open-run", "time": "noon"}, ("open-run", "time")),
        ("run_stop", {"uid": "s", "run_start": "nowhere", "time": 1.0}, ("nowhere", "run_stop")),
        ("event_descriptor", {"uid": "d", "run_start": "open-run"}, ("open-run", "data_keys")),
        ("event_descriptor", {"uid": "d", "run_start": "nowhere", "time": 1.0}, ("nowhere",)),
        ("event", {"uid": "e", "descriptor": "nowhere"}, ("nowhere", "event")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_foreign_document_is_named(mongo_database, database, name, doc, words):
    database[name].insert_one(dict(doc))
    found = damages(mongo_database)
    assert any(all(word in str(one) for word in words) for one in found), list(map(str, found))
    assert not any("small-run" in str(one) or "large" in str(one) for one in found)


# -- stores of others ------------------------------------------------------------------------


@pytest.mark.usefixtures("log_package")
def test_a_store_of_others_is_checked_by_its_contract(tmp_path):
    place = f"log://{tmp_path / 'store'}"
    with daskbroker.connect(place) as db:
        insert_all(db, *RUNS)
        check = daskbroker.check(db)
        assert list(check) == []
        assert (check.runs, check.chunks) == (4, 4)


# -- the command -----------------------------------------------------------------------------


def test_the_command(store, run_command):
    command = partial(run_command, "check")
    done = command(store)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("4 runs, 4 chunks")
    path = next(store.rglob("*.arrow"))
    path.unlink()
    done = command(store)
    first, last = done.stdout.splitlines()
    assert done.returncode == 1
    assert first.startswith("damaged: run 'small-run', stream 'primary': ")
    assert str(path) in first
    assert "1 damaged" in last
    done = command(store, "--json", "uid=small-run")
    found = json.loads(done.stdout)
    assert found.keys() == {"run", "stream", "key", "path", "problem"}
    assert (found["run"], found["path"]) == ("small-run", str(path))
    assert command("--db", store, "uid=large").returncode == 0


def test_no_more_than_so_much_is_named_of_one_run(mongo_database):
    with daskbroker.connect(mongo_database) as db:
        insert_all(db, make_run(1, uid="many", stop=False))
        descriptor = db["many"].descriptors["primary"][0]["uid"]
    bad = [{"uid": uuid.uuid4().hex, "descriptor": descriptor} for _ in range(1500)]
    with pymongo.MongoClient(mongo_database) as client:
        client.get_default_database()["event"].insert_many(bad)
    found = damages(mongo_database)
    assert 1000 <= len(found) <= 1002
