"""Damaged files: one clear error, no other values, and other runs go on."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing

import dask
import pyarrow as pa
import pytest

import daskbroker
from daskbroker import BadRunWarning
from daskbroker.core.errors import DaskbrokerError, StoreDamaged
from daskbroker.stores.embedded import Database, events, journal
from daskbroker.stores.embedded.packing import location_checksum, pack_small_chunks
from daskbroker.stores.embedded.row_sequences import POSITIONS
from daskbroker.testing import assert_documents_equal, make_run
from daskbroker.testing.base import check_run, insert_all

LARGE = make_run(keys={"x": [[float(n)] * 300 for n in range(60)], "s": ["text"] * 60}, uid="large")
SMALL = make_run(20, uid="small-run", note="silver")
OPEN = make_run(20, uid="open-run", stop=False)
RUNS = {docs[0][1]["uid"]: docs for docs in (LARGE, SMALL, OPEN)}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "PACK_BYTES", 0)  # every small chunk goes into a pack at once
        with daskbroker.connect(folder) as db:
            for docs in RUNS.values():
                insert_all(db, docs)
    return folder


@pytest.fixture
def copy(store, tmp_path):
    """The store's files again, to damage."""
    return shutil.copytree(store, tmp_path / "store")


def file_of(folder, kind):
    return next(folder.rglob({"sqlite": "*.sqlite", "file": "*.parquet", "pack": "*.arrow"}[kind]))


def spoil(file, seed):
    """Flip bits, blank out, or cut; some bytes of the file, as the seed wants."""
    choose = random.Random(seed)
    data = bytearray(file.read_bytes())
    place = choose.randrange(len(data))
    if seed % 3 == 0:
        data = data[:place]
    elif seed % 3 == 1:
        data[place : place + 300] = bytes(len(data[place : place + 300]))
    else:
        for _ in range(20):
            data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
    file.write_bytes(data)


def change(folder, statement):
    with closing(sqlite3.connect(folder / "daskbroker.sqlite")) as connection:
        assert connection.execute(statement).rowcount
        connection.commit()


def use(db, uid):
    header = db[uid]
    documents = list(header.documents())
    for stream in header.streams:
        header.table(stream).compute()
        header.dataset(stream).compute()
    assert_documents_equal(RUNS[uid], documents)


@pytest.mark.parametrize("seed", range(18))
@pytest.mark.parametrize("kind", ["file", "pack"])
def test_damaged_chunks_are_errors_and_never_other_values(copy, kind, seed):
    spoil(file_of(copy, kind), seed)
    with daskbroker.connect(copy) as db:
        sound = 0
        for uid in RUNS:
            try:
                use(db, uid)
                sound += 1
            except StoreDamaged as error:
                assert str(copy) in str(error) or "chunk" in str(error)
        assert sound >= 2
        insert_all(db, make_run(2))


@pytest.mark.parametrize("seed", range(18))
def test_a_damaged_database_is_an_error(copy, seed):
    spoil(file_of(copy, "sqlite"), seed)
    try:
        with daskbroker.connect(copy) as db:
            for uid in RUNS:
                use(db, uid)
    except DaskbrokerError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("table", "where"),
    [("header", "uid = 'small-run'"), ("descriptor", "1"), ("journal", "1")],
)
def test_a_damaged_document_is_noticed(copy, table, where):
    column = "start" if table == "header" else "body"
    with sqlite3.connect(copy / "daskbroker.sqlite") as connection:
        (body,) = connection.execute(f"SELECT {column} FROM {table} WHERE {where}").fetchone()
        changed = bytearray(body)
        changed[len(body) // 2] ^= 1
        connection.execute(f"UPDATE {table} SET {column} = ?", (bytes(changed),))
    connection.close()
    with daskbroker.connect(copy) as db, pytest.raises(StoreDamaged, match="checksum"):
        use(db, "open-run" if table != "header" else "small-run")


@pytest.mark.parametrize("kind", ["sqlite", "file", "pack"])
def test_the_command_line_says_it_in_one_line(copy, tmp_path, kind, run_command):
    file = file_of(copy, kind)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    done = run_command("export", tmp_path / "out", "--db", copy)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("daskbroker: error: ")
    assert str(copy) in done.stderr


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE chunk SET {column} = '' WHERE sequence = {sequence}",
        "UPDATE chunk SET first = x'00' WHERE sequence = {sequence}",
        "UPDATE chunk SET first = 1 WHERE sequence = {sequence}",
        "UPDATE chunk SET rows = 'x' WHERE sequence = {sequence}",
        "UPDATE chunk SET schema = 'x' WHERE sequence = {sequence}",
        "UPDATE chunk SET path = x'00' WHERE sequence = {sequence}",
        "UPDATE chunk SET path = 'p', offset = 'x' WHERE sequence = {sequence}",
        "UPDATE descriptor SET uid = CAST(x'ff' AS TEXT) WHERE run = 2",
        "UPDATE descriptor SET uid = 'other' WHERE run = 2",
        "UPDATE descriptor SET run = 1 WHERE run = 2",
        "UPDATE sequence SET kind = 'odd' WHERE run = 2",
        "UPDATE journal SET body = 5 WHERE id / {positions} = {sequence}",
        "UPDATE journal SET rows = 7 WHERE id / {positions} = {sequence}",
    ],
)
def test_a_row_with_other_values_costs_its_run(tmp_path, statement):
    """Only documents and chunks have checksums, the columns beside them have none."""
    folder = tmp_path / "store"
    is_odd = "sequence SET" in statement
    is_open = is_odd or "journal" in statement
    runs = {uid: make_run(3, uid=uid, stop=not is_open) for uid in ("one", "two", "three")}
    with daskbroker.connect(folder) as db:
        for docs in runs.values():
            insert_all(db, docs)
    with closing(sqlite3.connect(folder / "daskbroker.sqlite")) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(chunk)")]
        (sequence,) = connection.execute(
            "SELECT sequence.id FROM sequence JOIN run ON run = run.id WHERE run.uid = 'two'"
        ).fetchone()
        connection.execute(
            statement.format(column=columns[3], sequence=sequence, positions=POSITIONS)
        )
        connection.commit()
    bad = "(one|two)" if "run = 1" in statement else "two"
    with daskbroker.connect(folder) as db:
        if is_odd:
            with pytest.raises(StoreDamaged, match=r"run 'two'.*kind: 'odd'"):
                db.seal("two")
            with pytest.warns(BadRunWarning, match=r"run 'two'.*kind: 'odd'"):
                db.seal()
            return
        if is_open:
            with pytest.warns(BadRunWarning, match=r"run 'two'"):
                db.seal()
        with pytest.warns(BadRunWarning, match=f"run '{bad}'"):
            frame = db().table().compute()
        # Both runs are bad, the one that lost its descriptor, and the one that it is listed with.
        sound = ["one", "three"] if bad == "two" else ["three"]
        assert sorted(frame["run"]) == [uid for uid in sound for _ in range(3)]
        for uid in sound:
            check_run(db[uid], runs[uid])


@pytest.mark.parametrize(
    "value", ["start = 5", "stop = 5", "time = 'x'", "time = time - 0.5", "time = 2.0"]
)
def test_a_row_of_a_run_with_other_values_costs_that_run(tmp_path, value):
    folder = tmp_path / "store"
    with daskbroker.connect(folder) as db:
        for uid in ("one", "two", "three"):
            insert_all(db, make_run(1, uid=uid))
    change(folder, f"UPDATE header SET {value} WHERE uid = 'two'")
    with daskbroker.connect(folder) as db:
        with pytest.raises(StoreDamaged, match=r"run 'two': .*(time|bytes are expected)"):
            db["two"]
        with pytest.warns(BadRunWarning, match=r"run 'two': "):
            assert sorted(header.uid for header in db()) == ["one", "three"]
    with daskbroker.connect(folder) as db:  # counted before anything is read
        assert len(db()) == 2
        assert [damage.run for damage in daskbroker.check(db)] == ["two"]


def test_a_lost_stop_costs_its_run(tmp_path):
    with daskbroker.connect(tmp_path / "store") as db:
        for uid in ("one", "two", "old"):
            insert_all(db, make_run(1, uid=uid))
        insert_all(db, make_run(1, uid="open", stop=False))
    change(tmp_path / "store", "UPDATE header SET stop = NULL WHERE uid <> 'two'")
    # As an earlier version notes it, which cannot be told from a stop that is just being stored.
    change(tmp_path / "store", "UPDATE run SET stopped = 1 WHERE uid = 'old'")
    with daskbroker.connect(tmp_path / "store") as db:
        assert len(db()) == 3
        for results, sound in (
            (db(), ["open", "old", "two"]),
            (db(stop={"exit_status": "success"}), ["two"]),
        ):
            with pytest.warns(BadRunWarning, match=r"run 'one': its stop document is not stored"):
                assert [header.uid for header in results] == sound
        assert [header.uid for header in db(exit_status="open")] == ["open", "old"]
        with pytest.raises(StoreDamaged, match=r"run 'one': its stop document is not stored"):
            db["one"]
        assert {(d.run, "stop document is not" in d.problem) for d in daskbroker.check(db)} == {
            ("one", True),
            ("old", True),
        }


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM descriptor WHERE run = 2 AND stream = 'primary'",
        "DELETE FROM run WHERE id = 2",
        "UPDATE run SET uid = 'twp' WHERE id = 2",
        "UPDATE sequence SET kind = 'odd' WHERE run = 2",
        "UPDATE sequence SET owner = owner + 90 WHERE run = 2 AND kind = 'event'",
        "UPDATE descriptor SET stream = 'other' WHERE run = 2 AND stream = 'primary'",
        "DELETE FROM sequence WHERE id = (SELECT min(id) FROM sequence WHERE run = 2)",
        "UPDATE sequence SET run = 93 WHERE id = (SELECT max(id) FROM sequence WHERE run = 2)",
        "UPDATE sequence SET id = id + 90 WHERE id = (SELECT max(id) FROM sequence WHERE run = 2)",
        "DELETE FROM chunk WHERE sequence = (SELECT min(id) FROM sequence WHERE run = 2)",
        "UPDATE sequence SET id = 1 << 62 WHERE id = (SELECT max(id) FROM sequence WHERE run = 2)",
        "UPDATE run SET uid = CAST(uid AS BLOB) WHERE id = 2",
        "UPDATE descriptor SET uid = CAST(uid AS BLOB) WHERE run = 2",
    ],
)
def test_a_lost_row_that_leads_to_events_costs_its_run(tmp_path, statement):
    """All documents that are left have their checksums."""
    folder = tmp_path / "store"
    with daskbroker.connect(folder) as db:
        for uid in ("one", "two", "three"):
            insert_all(db, make_run(2, uid=uid, streams=("primary", "baseline")))
    change(folder, statement)
    with daskbroker.connect(folder) as db:
        with pytest.raises(StoreDamaged, match=r"run 'two'"):
            list(db["two"].documents())
        results = db()
        with pytest.warns(BadRunWarning, match=r"run 'two'"):
            found = [doc["uid"] for name, doc in results.documents() if name == "start"]
        assert found == ["one", "three"]
        assert [one.uid for one in results.bad] == ["two"]
        if "stream =" not in statement or "DELETE" in statement:
            with pytest.warns(BadRunWarning, match=r"run 'two'"):
                assert sorted(set(db().table().compute()["run"])) == ["one", "three"]
        assert "two" in {damage.run for damage in daskbroker.check(db)}


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM chunk WHERE first = 2",
        "UPDATE chunk SET sequence = 77 WHERE first = 2",
        "UPDATE chunk SET first = 3 WHERE first = 2",
    ],
)
def test_a_lost_chunk_costs_its_run(tmp_path, statement):
    folder = tmp_path / "store"
    with dask.config.set({"daskbroker.seal-rows": 2}), daskbroker.connect(folder) as db:
        insert_all(db, make_run(6, uid="one"))
        insert_all(db, make_run(1, uid="two"))
    with closing(sqlite3.connect(folder / "daskbroker.sqlite")) as connection:
        connection.execute(statement)
        connection.commit()
    with daskbroker.connect(folder) as db:
        for read in (
            lambda h: h.table().compute(),
            lambda h: list(h.documents()),
            lambda h: h.dataset(),
        ):
            with pytest.raises(StoreDamaged, match=r"run 'one'.*one begins at"):
                read(db["one"])
        with pytest.warns(BadRunWarning, match=r"run 'one'"):
            assert set(db().table().compute()["run"]) == {"two"}
        assert len(list(daskbroker.check(db))) >= 1


def test_a_number_in_place_of_a_chunk_is_not_that_of_another(tmp_path):
    folder = tmp_path / "store"
    with daskbroker.connect(folder) as db:
        for uid in ("one", "two"):
            insert_all(db, make_run(2, uid=uid))
    change(folder, "UPDATE chunk_body SET body = 2 WHERE id = 1")
    with daskbroker.connect(folder) as db:
        for read in (lambda h: h.table().compute(), lambda h: list(h.documents())):
            with pytest.raises(StoreDamaged, match="run 'one'"):
                read(db["one"])
        assert len(db["two"].table()) == 2


SHIFTS = {
    "offset": "(SELECT offset FROM chunk WHERE sequence = 2)",
    "seq_min": "seq_min - 1",
    "time_max": "time_max + 64",
    "bytes": "x'00'",
    "ordered": "ordered + 1",
}


@pytest.mark.parametrize("column", SHIFTS)
def test_a_row_of_the_list_of_chunks_has_a_checksum(tmp_path, column):
    folder = tmp_path / "store"
    with daskbroker.connect(folder) as db:
        for uid in ("one", "two"):
            insert_all(db, make_run(2, uid=uid))
        pack_small_chunks(Database.of(folder))
        insert_all(db, make_run(2, uid="unpacked"))
    change(folder, f"UPDATE chunk SET {column} = {SHIFTS[column]} WHERE sequence = 1")
    with daskbroker.connect(folder) as db:
        with pytest.raises(StoreDamaged, match=r"run 'one'.*the list of its chunks"):
            db["one"].table()
        with pytest.warns(BadRunWarning, match=r"run 'one'"):
            assert set(db().table().compute()["run"]) == {"two", "unpacked"}


def test_chunks_that_an_earlier_version_has_packed(tmp_path):
    folder = tmp_path / "store"
    with daskbroker.connect(folder) as db:
        for uid in ("one", "two", "three"):
            insert_all(db, make_run(2, uid=uid))
        pack_small_chunks(Database.of(folder))
        before = db().table().compute()
    with closing(sqlite3.connect(folder / "daskbroker.sqlite")) as connection:
        for number, *place in connection.execute(
            "SELECT id, path, offset, length FROM chunk WHERE id < 3"
        ).fetchall():
            connection.execute(
                "UPDATE chunk SET ordered = CASE id WHEN 1 THEN ordered - ? ELSE 1 END "
                "WHERE id = ?",
                (location_checksum(*place), number),
            )
        connection.commit()
    with daskbroker.connect(folder) as db:
        assert db().table().compute().equals(before)


def test_a_journal_that_memory_is_too_small_for_is_no_damage(copy, monkeypatch):
    def fail(*args):
        raise pa.ArrowMemoryError("malloc failed")

    with daskbroker.connect(copy) as db:
        monkeypatch.setattr(journal, "encode_rows", fail)
        with pytest.raises(MemoryError, match="malloc failed"):
            db().table(errors="skip")
        monkeypatch.undo()
        assert "open-run" in set(db().table()["run"].compute())
