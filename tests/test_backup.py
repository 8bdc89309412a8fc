"""A backup is the store as it was at one instant, made while it is written."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import daskbroker
from daskbroker.core.errors import (
    BadQuery,
    StoreDamaged,
    StoreError,
    StoreExists,
    StoreFull,
    StoreReadOnly,
)
from daskbroker.stores.embedded import backup as backing_up
from daskbroker.stores.embedded import events
from daskbroker.testing import assert_documents_equal, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.processes import Program

LARGE = make_run(keys={"x": [[float(n)] * 300 for n in range(60)]}, uid="large")
RUNS = (LARGE, make_run(20, uid="small-run"), make_run(20, uid="open-run", stop=False))


@pytest.fixture
def store(tmp_path):
    with daskbroker.connect(tmp_path / "store") as db, pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "PACK_BYTES", 0)
        for documents in RUNS:
            insert_all(db, documents)
    return tmp_path / "store"


@pytest.mark.parametrize("mode", ["r", "a"])
def test_a_backup_opens_and_is_equal(store, tmp_path, mode):
    with daskbroker.connect(store, mode=mode) as db:
        report = daskbroker.backup(db, tmp_path / "deep/backup")
        assert (report.files, report.damages) == (3, [])
        assert report.folder == tmp_path / "deep/backup"
        assert os.listdir(tmp_path / "deep") == ["backup"]
        shutil.move(store, tmp_path / "gone")
    with daskbroker.connect(tmp_path / "deep/backup") as copy:
        assert list(daskbroker.check(copy)) == []
        for documents in RUNS:
            assert_documents_equal(documents, copy[documents[0][1]["uid"]].documents())
        insert_all(copy, make_run(3))


@pytest.mark.parametrize("what", ["file", "folder", "full folder", "link"])
def test_what_is_there_is_left_alone(store, tmp_path, what):
    target = tmp_path / "there"
    if what == "file":
        target.write_text("mine")
    elif what == "link":
        target.symlink_to(tmp_path / "nowhere")
    else:
        target.mkdir()
        if what == "full folder":
            (target / "a").write_text("mine")
    before = sorted([*os.listdir(tmp_path), *target.rglob("*")], key=str)
    with (
        daskbroker.connect(store, mode="r") as db,
        pytest.raises(StoreExists, match="was not changed"),
    ):
        daskbroker.backup(db, target)
    assert sorted([*os.listdir(tmp_path), *target.rglob("*")], key=str) == before


def test_not_inside_of_the_store(store):
    with daskbroker.connect(store) as db, pytest.raises(StoreError, match="inside"):
        daskbroker.backup(db, store / "backup")


@pytest.mark.parametrize("number", [28, 13, 5], ids=["full", "forbidden", "failing"])
@pytest.mark.parametrize("call", ["fsync", "replace", "mkdir"])
def test_a_backup_that_fails_leaves_nothing(store, tmp_path, monkeypatch, number, call):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    expected = {28: StoreFull, 13: StoreReadOnly, 5: StoreError}[number]
    before = sorted(os.listdir(tmp_path))
    with daskbroker.connect(store) as db:
        with monkeypatch.context() as patch:
            patch.setattr(backing_up.os, call, fail)
            with pytest.raises(expected, match="the store is not concerned"):
                daskbroker.backup(db, tmp_path / "backup")
        assert sorted(os.listdir(tmp_path)) == before
        daskbroker.backup(db, tmp_path / "backup")


def test_all_is_synced_before_it_has_its_name(store, tmp_path, monkeypatch):
    synced, order = set(), []

    def fsync(handle):
        path = os.readlink(f"/proc/self/fd/{handle}")
        synced.add(os.path.basename(path))
        order.append(path)

    def replace(old, new):
        names = {path.name for path in old.rglob("*")} | {old.name}
        assert names <= synced, names - synced
        order.append("renamed")
        os.rename(old, new)

    monkeypatch.setattr(backing_up.os, "fsync", fsync)
    monkeypatch.setattr(backing_up.os, "replace", replace)
    with daskbroker.connect(store) as db:
        daskbroker.backup(db, tmp_path / "new/backup")
    assert order[-2:] == ["renamed", str(tmp_path / "new")]
    assert str(tmp_path) in order  # where the new folder's name is


def test_a_damaged_store_is_backed_up_as_far_as_it_goes(store, tmp_path):
    path = next(store.rglob("*.parquet"))
    path.unlink()
    with daskbroker.connect(store) as db:
        report = daskbroker.backup(db, tmp_path / "backup")
    assert [damage.path for damage in report.damages] == [str(path)]
    with daskbroker.connect(tmp_path / "backup") as copy:
        assert_documents_equal(RUNS[1], copy["small-run"].documents())


@pytest.mark.parametrize("change", [os.rename, lambda path, _: shutil.rmtree(path)])
def test_a_store_that_goes_away_meanwhile_is_an_error(store, tmp_path, monkeypatch, change):
    copy = backing_up.EmbeddedBackup._copy_database

    def copy_and_change(self, *arguments):
        copy(self, *arguments)
        change(store, tmp_path / "gone")

    monkeypatch.setattr(backing_up.EmbeddedBackup, "_copy_database", copy_and_change)
    with daskbroker.connect(store, mode="r") as db, pytest.raises(StoreError, match=str(store)):
        daskbroker.backup(db, tmp_path / "backup")
    assert set(os.listdir(tmp_path)) <= {"gone"}


def test_a_damaged_list_of_chunks_is_told(store, tmp_path):
    path = store / "daskbroker.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'chunk'"
        (page,) = connection.execute(query).fetchone()
    body = bytearray(path.read_bytes())
    body[(page - 1) * size] ^= 15  # the type of the page
    path.write_bytes(body)
    with (
        daskbroker.connect(store, mode="r") as db,
        pytest.raises(StoreDamaged, match=str(path)),
    ):
        daskbroker.backup(db, tmp_path / "backup")
    assert os.listdir(tmp_path) == ["store"]


def test_mongodb_has_tools_of_its_own(mongo_database, tmp_path):
    with (
        daskbroker.connect(mongo_database) as db,
        pytest.raises(BadQuery, match=r"^mongodb://.*mongodump"),
    ):
        daskbroker.backup(db, tmp_path / "backup")


WRITER = """
import sys, daskbroker
from daskbroker.testing import make_run
from daskbroker.stores.embedded import events
events.PACK_BYTES = 4000
with daskbroker.connect(sys.argv[1]) as db:
    while True:
        for run in (make_run(40), make_run(keys={"x": [[1.0] * 300 for _ in range(60)]})):
            for name, doc in run:
                db.insert(name, doc)
                print(name, flush=True)
"""


def test_backups_while_another_process_writes(store, tmp_path):
    """Each holds what was inserted before it began, and is sound and whole."""
    writer = Program(WRITER, store)
    try:
        with daskbroker.connect(store, mode="r") as db:
            for number in range(4):
                for _ in range(150):
                    assert writer.stdout.readline()
                before = [header.uid for header in db(stop={"exit_status": "success"})]
                folder = tmp_path / f"backup-{number}"
                assert daskbroker.backup(db, folder).damages == []
                with daskbroker.connect(folder, mode="r") as copy:
                    assert list(daskbroker.check(copy)) == []
                    assert set(before) <= {header.uid for header in copy}
                    for header in copy:
                        events = sum(name == "event" for name, _ in header.documents())
                        assert header.stop is None or events in (20, 40, 60)
    finally:
        writer.kill()


def test_the_command(store, tmp_path):
    def command(*arguments):
        line = [sys.executable, "-m", "daskbroker", "backup", *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    done = command("--db", store, tmp_path / "backup")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("3 files (")
    done = command("--db", store, tmp_path / "backup")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_too_many_open_files_are_an_error_and_no_damage(store, tmp_path, monkeypatch, number):
    plain = Path.open

    def fail(path, mode="r", **options):
        if mode == "rb" and path.is_relative_to(store):
            raise OSError(number, os.strerror(number), str(path))
        return plain(path, mode, **options)

    with daskbroker.connect(store) as db:
        monkeypatch.setattr(Path, "open", fail)
        with pytest.raises(StoreError, match="it is not damaged") as caught:
            daskbroker.backup(db, tmp_path / "backup")
    assert not isinstance(caught.value, StoreDamaged)
    assert os.listdir(tmp_path) == ["store"]
