"""Positions that sealed chunks have: refused, and found where an earlier version stored rows."""

from __future__ import annotations

import sqlite3

import pytest

import daskbroker
from daskbroker.core.errors import DuplicateUID, StoreError
from daskbroker.core.layouts import EVENT
from daskbroker.stores.embedded import Database, journal
from daskbroker.stores.embedded.packing import pack_small_chunks
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all, table_of
from daskbroker.testing.runs import page_of

WIDE = {"x": [n / 2 for n in range(200)], "v": [[float(n)] * 300 for n in range(200)]}


def sequence_of(source, documents):
    """The sequence of the first descriptor, as the process knows it."""
    run, descriptor = documents[0][1]["uid"], documents[1][1]["uid"]
    return source._sequences[EVENT.kind, descriptor, run]


@pytest.fixture(params=["small", "wide"])
def documents(request):
    return (
        make_run(200, stop=False) if request.param == "small" else make_run(keys=WIDE, stop=False)
    )


@pytest.fixture
def misplaced(db, source, documents, monkeypatch):
    """A store as a forked child of an earlier version left it: 60 and 12 rows below the end."""
    insert_all(db, documents[:102])
    db.seal()
    insert_all(db, documents[102:112])
    with monkeypatch.context() as earlier:
        earlier.setattr(journal, "check_next_position", lambda *_: None)
        sequence_of(source, documents).next = 10
        page = page_of([doc for _, doc in documents[112:172]])
        db.insert("event_page", page)
        insert_all(db, documents[172:184])
    root = source._database.root
    db.close()
    return root


def uids(documents):
    return sorted(doc["uid"] for name, doc in documents if name == "event")


def check(db, documents):
    header = db[-1]
    assert uids(header.documents()) == uids(documents)
    assert sorted(table_of(header, fields=["uid"], duplicates="all")["uid"]) == uids(documents)
    assert header.dataset().sizes["time"] == len(uids(documents))


def test_they_are_in_every_view_and_sealing_moves_them(misplaced, documents, caplog):
    expected = documents[:184]
    with daskbroker.connect(misplaced, mode="r") as db:
        check(db, expected)
    with daskbroker.connect(misplaced) as db:
        assert db.seal() == 1
        (record,) = [r.getMessage() for r in caplog.records if "positions" in r.getMessage()]
        assert "72 rows" in record
        assert documents[0][1]["uid"] in record
        assert "'primary'" in record
        check(db, expected)
        assert db.seal() == 0
        insert_all(db, expected)  # again: each is known
        check(db, expected)
        insert_all(db, documents[184:])
        db.seal()
        check(db, documents)
        for _, doc in (documents[20], documents[120], documents[180]):
            with pytest.raises(
                DuplicateUID, match=r"a different event of run .* is stored under this uid"
            ):
                db.insert("event", {**doc, "seq_num": 999})


def test_inserting_moves_them_too(misplaced, documents, caplog):
    with daskbroker.connect(misplaced) as db:
        insert_all(db, documents[184:])
        check(db, documents)
        assert "72 rows" in caplog.text
        run = documents[0][1]
        db.insert("stop", {"uid": "the-stop", "run_start": run["uid"], "time": 3e9,
                           "exit_status": "success"})  # fmt: skip
        check(db, documents)


@pytest.mark.parametrize("as_page", [False, True])
def test_an_append_below_the_sealed_end_is_refused(db, source, as_page):
    documents = make_run(90, stop=False)
    insert_all(db, documents[:22])
    db.seal()
    insert_all(db, documents[22:30])
    sequence_of(source, documents).next = 4
    rest = [doc for _, doc in documents[30:]]
    name, doc = ("event_page", page_of(rest)) if as_page else ("event", rest[0])
    with pytest.raises(StoreError, match="sealed chunks hold all positions below 20"):
        db.insert(name, doc)
    check(db, documents[:30])
    db.insert(name, doc)  # the process has looked anew
    insert_all(db, documents[30:])
    db.seal()
    check(db, documents)


# -- loops without progress --------------------------------------------------------------------


def break_store(source, statement):
    """Make another program's trigger part of the store."""
    with sqlite3.connect(source._database.path) as connection:
        connection.execute(statement)
    connection.close()


def test_rows_that_do_not_leave_the_journal_end_sealing(db, source):
    insert_all(db, make_run(20, stop=False))
    break_store(
        source,
        "CREATE TRIGGER stay BEFORE DELETE ON journal BEGIN SELECT RAISE(IGNORE); END",
    )
    with pytest.raises(StoreError, match=r"sealing the events of run .* makes no progress"):
        db.seal()


def test_chunks_that_do_not_leave_sqlite_end_packing(db, source):
    insert_all(db, make_run(20))
    break_store(
        source,
        "CREATE TRIGGER stay BEFORE DELETE ON chunk_body BEGIN SELECT RAISE(IGNORE); END",
    )
    with pytest.raises(StoreError, match=r"packing small chunks in .* makes no progress"):
        pack_small_chunks(source._database)


def test_sealing_never_writes_over_the_file_of_a_chunk(misplaced, documents):
    database = Database.of(misplaced)
    with database.read() as connection:
        named = [row[0] for row in connection.execute("SELECT path FROM chunk") if row[0]]
    before = {name: (misplaced / name).read_bytes() for name in named}
    with daskbroker.connect(misplaced) as db:
        db.seal()
    assert before == {name: (misplaced / name).read_bytes() for name in named}
