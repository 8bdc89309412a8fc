"""A store that was opened by a symbolic link, which leads elsewhere later."""

from __future__ import annotations

import os
import pickle
import shutil

import pytest

import daskbroker
from daskbroker.core.errors import StoreError
from daskbroker.testing import assert_documents_equal, make_run, paged_run
from daskbroker.testing.base import insert_all

RUN = make_run(5)
LARGE = paged_run(1, 6000)


def contents(folder):
    return {path: path.stat().st_mtime_ns if path.is_file() else None for path in folder.rglob("*")}


def point(link, target):
    """Let a link lead elsewhere, as ``ln -sfn`` does."""
    other = link.with_name("other-link")
    other.symlink_to(target)
    os.replace(other, link)


CHANGES = {
    "of the folder, to another store": ("store", lambda link, other: point(link, other)),
    "of the folder, to a new folder": ("store", lambda link, other: _new_folder(link)),
    "of the folder, removed": ("store", lambda link, other: link.unlink()),
    "of the folder above": ("beamline/store", lambda link, other: point(link.parent, other.parent)),
}


def _new_folder(link):
    link.unlink()
    link.mkdir()


@pytest.fixture(params=CHANGES, ids=str)
def changed(request, tmp_path):
    """A broker that was opened by a link, the store, the other one, the link; a run and a table."""
    store, other = tmp_path / "this" / "store", tmp_path / "that" / "store"
    daskbroker.connect(other).close()
    daskbroker.connect(store).close()
    given, change = CHANGES[request.param]
    links = tmp_path / "links"
    links.mkdir()
    link = links / given
    if link.parent == links:
        link.symlink_to(store)
    else:
        link.parent.symlink_to(store.parent)
    with daskbroker.connect(link) as db:
        insert_all(db, LARGE)
        insert_all(db, RUN[:-2])
        table = db[LARGE[0][1]["uid"]].table()
        change(link, other)
        yield db, store, other, link, table


@pytest.mark.parametrize(
    "write",
    [
        lambda db: db.insert(*RUN[-2]),
        lambda db: db.insert(*RUN[-1]),
        lambda db: insert_all(db, paged_run(1, 6000)),
        lambda db: db.seal(),
    ],
    ids=["event", "stop", "page", "seal"],
)
def test_nothing_is_written_afterwards(changed, write):
    db, store, other, _, _ = changed
    before = contents(store), contents(other)
    with pytest.raises(StoreError, match="was moved, deleted or replaced"):
        write(db)
    assert (contents(store), contents(other)) == before


def test_nothing_is_read_afterwards(changed):
    db = changed[0]
    with pytest.raises(StoreError, match="was moved, deleted or replaced"):
        db[-1]
    assert not db.is_in_place


def test_a_table_that_was_made_before_is_of_the_store_it_was_made_of(changed):
    *_, table = changed
    assert len(table.compute()) == 6000


def test_who_has_opened_the_folder_itself_goes_on(changed):
    db, store, *_ = changed
    with daskbroker.connect(store) as same:
        insert_all(same, RUN)
        assert_documents_equal(RUN, same[RUN[0][1]["uid"]].documents())
    with pytest.raises(StoreError, match="was moved, deleted or replaced"):
        db.insert(*RUN[-1])


def test_the_link_opened_anew_leads_to_what_is_there_now(changed):
    _, store, _, link, _ = changed
    with daskbroker.connect(link) as now:
        assert now.uri != str(store)
        assert len(now) == 0
        insert_all(now, RUN)
        assert_documents_equal(RUN, now[-1].documents())


def test_a_pickle_is_of_the_store_it_was_made_of(tmp_path):
    with daskbroker.connect(tmp_path / "store") as db:
        insert_all(db, RUN)
    daskbroker.connect(tmp_path / "other").close()
    link = tmp_path / "link"
    link.symlink_to("store")
    with daskbroker.connect(link) as db:
        pickled = pickle.dumps(db[-1])
    point(link, "other")
    assert_documents_equal(RUN, pickle.loads(pickled).documents())


def test_a_link_that_is_put_back_is_the_same_store(tmp_path):
    store, link = tmp_path / "store", tmp_path / "link"
    daskbroker.connect(store).close()
    link.symlink_to(store)
    with daskbroker.connect(link) as db:
        insert_all(db, RUN[:3])
        link.unlink()
        with pytest.raises(StoreError, match="cannot be found"):
            db.insert(*RUN[3])
        link.symlink_to(store)
        insert_all(db, RUN)
        assert_documents_equal(RUN, db[-1].documents())
    shutil.rmtree(store)
