"""A store whose folder, or a part of it, is moved, deleted or replaced while it is open."""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import contextmanager

import pytest

import daskbroker
from daskbroker.core.errors import StoreError
from daskbroker.stores.embedded.packing import pack_small_chunks
from daskbroker.stores.embedded.sealing import sweep
from daskbroker.testing import assert_documents_equal, make_run, paged_run
from daskbroker.testing.base import insert_all

LARGE = paged_run(1, 6000)


def contents(folder):
    return {path: path.stat().st_mtime_ns if path.is_file() else None for path in folder.rglob("*")}


def replaced_by_a_copy(place):
    copy = place.with_name("copy")
    shutil.copytree(place, copy)
    place.rename(place.with_name("aside"))
    copy.rename(place)


def made_anew(place):
    shutil.rmtree(place)
    daskbroker.connect(place).close()


CHANGES = {
    "moved": lambda place: place.rename(place.with_name("aside")),
    "deleted": shutil.rmtree,
    "a copy": replaced_by_a_copy,
    "made anew": made_anew,
    "an empty folder": lambda place: (place.rename(place.with_name("aside")), place.mkdir()),
    "file deleted": lambda place: (place / "daskbroker.sqlite").unlink(),
    "file replaced": lambda place: _swap(place / "daskbroker.sqlite"),
    "log deleted": lambda place: (place / "daskbroker.sqlite-wal").unlink(),
    "log replaced": lambda place: _swap(place / "daskbroker.sqlite-wal"),
    "index of the log deleted": lambda place: (place / "daskbroker.sqlite-shm").unlink(),
    "chunks moved": lambda place: (place / "chunks").rename(place.with_name("aside")),
    "chunks replaced": lambda place: _swap_folder(place / "chunks"),
}


def _swap(path):
    shutil.copy(path, path.with_name("other"))
    os.replace(path.with_name("other"), path)


def _swap_folder(path):
    shutil.copytree(path, path.with_name("other"))
    path.rename(path.with_name("aside"))
    path.with_name("other").rename(path)


@pytest.fixture(params=CHANGES, ids=str)
def changed(request, tmp_path):
    """A broker, its place, and its run, of which all but the stop is stored."""
    place = tmp_path / "store"
    db = daskbroker.connect(place)
    insert_all(db, LARGE)
    run = make_run(5)
    insert_all(db, run[:-2])
    time.sleep(0.15)  # until one look at the folder is enough
    insert_all(db, run[-2:-1])
    table = db[LARGE[0][1]["uid"]].table()
    CHANGES[request.param](place)
    yield db, place, run, table
    db.close()


WRITES = (
    lambda db, run: db.insert(*run[-2]),
    lambda db, run: db.insert(*run[-1]),
    lambda db, run: insert_all(db, paged_run(1, 6000)),
    lambda db, run: db.seal(),
)


def test_nothing_is_written_afterwards(changed):
    db, place, run, _ = changed
    before = contents(place.parent)
    for write in WRITES:
        with pytest.raises(StoreError, match="moved, deleted or replaced"):
            write(db, run)
    assert contents(place.parent) == before


def test_nothing_is_read_afterwards(changed):
    db, _, run, _ = changed
    for read in (
        lambda: list(db()),
        lambda: len(db),
        lambda: db[run[0][1]["uid"]],
        lambda: db.seal(),
    ):
        with pytest.raises(StoreError, match="moved, deleted or replaced"):
            read()


def test_a_table_that_was_made_before_is_right_or_an_error(changed):
    _, _, _, table = changed
    try:
        total = table["n"].sum().compute()
    except StoreError as error:
        assert re.search("replaced by another one|is not there|is missing", str(error))
    else:
        assert total == sum(range(6000))


def test_a_broker_is_opened_anew_and_goes_on(tmp_path):
    place = tmp_path / "store"
    old = daskbroker.connect(place)
    run = make_run(5)
    insert_all(old, run[:4])
    replaced_by_a_copy(place)
    with pytest.raises(StoreError, match="Open the store again"):
        old.insert(*run[4])
    with daskbroker.connect(place) as db:
        insert_all(db, run)
        assert_documents_equal(run, db[-1].documents())
    old.close()
    with daskbroker.connect(tmp_path / "aside") as db:
        assert_documents_equal(run[:4], db[-1].documents())


def test_a_folder_that_comes_back_is_the_same(tmp_path):
    place, aside = tmp_path / "store", tmp_path / "aside"
    run = make_run(5)
    with daskbroker.connect(place) as db:
        insert_all(db, run[:4])
        place.rename(aside)
        with pytest.raises(StoreError, match="cannot be found"):
            db.insert(*run[4])
        aside.rename(place)
        insert_all(db, run)
        assert_documents_equal(run, db[-1].documents())


def test_what_a_copy_has_sealed_meanwhile_is_never_read_or_overwritten(tmp_path):
    """Chunks at the same positions have different names in a store and in its copy."""
    place = tmp_path / "store"
    old = daskbroker.connect(place)
    start, descriptor = make_run(keys={"x": [[0.5] * 100] * 400})[:2]
    insert_all(old, [start, descriptor])
    shutil.copytree(place, tmp_path / "copy")

    def page(value):
        run = make_run(keys={"x": [[value] * 100] * 400})
        run[1][1].update(uid=descriptor[1]["uid"], run_start=start[1]["uid"])
        return [(n, {**d, "descriptor": descriptor[1]["uid"]}) for n, d in run[2:-1]]

    insert_all(old, page(1.0))
    old.seal()
    table = old[-1].table()
    place.rename(tmp_path / "aside")
    (tmp_path / "copy").rename(place)
    with daskbroker.connect(place) as db:
        insert_all(db, page(2.0))
        db.seal()
        with pytest.raises(StoreError, match="was replaced by another one"):
            table.compute()
    old.close()


def test_the_log_of_a_store_may_go_when_nobody_has_it_open(tmp_path):
    """Connections close before a fork, so another process may be the last one."""
    run = make_run(5)
    with daskbroker.connect(tmp_path) as db:
        insert_all(db, run[:4])
        if os.fork() == 0:
            with daskbroker.connect(tmp_path) as own:
                insert_all(own, run)
            os._exit(0)
        _, status = os.wait()
        assert status == 0
        insert_all(db, run)
        assert_documents_equal(run, db[-1].documents())


@pytest.fixture
def replaced_after_a_look(tmp_path, monkeypatch):
    """A store with a small chunk, an orphan and a large one; its folder is replaced when asked.

    ``run()`` is called while its first look into SQLite is the last moment in which the folder is
    that of the store.
    """
    place = tmp_path / "store"
    with daskbroker.connect(place) as db:
        insert_all(db, make_run(5))
        insert_all(db, LARGE)
        orphan = place / "chunks" / "left.part"
        orphan.write_bytes(b"of a process that was killed")
        os.utime(orphan, (1, 1))
        database = db.event_sources["embedded"].store._database
        read = database.read

        @contextmanager
        def read_and_replace():
            with read() as connection:
                yield connection
            replaced_by_a_copy(place)

        monkeypatch.setattr(database, "read", read_and_replace)
        yield database, place


@pytest.mark.parametrize("run", [pack_small_chunks, sweep])
def test_files_of_the_other_store_are_left_alone(replaced_after_a_look, run):
    database, place = replaced_after_a_look
    before = {path.relative_to(place): path.is_file() for path in place.rglob("*")}
    with pytest.raises(StoreError, match="moved, deleted or replaced"):
        run(database)
    assert {path.relative_to(place): path.is_file() for path in place.rglob("*")} == before


def test_a_folder_that_has_just_been_moved_is_not_made_again(tmp_path, monkeypatch):
    place = tmp_path / "store"
    with daskbroker.connect(place) as db:
        insert_all(db, LARGE[:2])
        folders = db.event_sources["embedded"].store._database.folders
        make = folders.make

        def move_and_make(folder):
            place.rename(tmp_path / "aside")
            make(folder)

        monkeypatch.setattr(folders, "make", move_and_make)
        with pytest.raises(StoreError, match=str(place)):
            insert_all(db, LARGE[2:])
        assert not place.exists()
