"""The journal: rows and pages in the order they came, each document once."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import daskbroker
from daskbroker.core.chunks import to_ipc
from daskbroker.core.errors import DuplicateUID
from daskbroker.core.layouts import EVENT, encode_rows
from daskbroker.core.packed import pack
from daskbroker.stores.embedded import document_keys
from daskbroker.stores.embedded.database import Database
from daskbroker.stores.embedded.events import EmbeddedEventStore
from daskbroker.stores.embedded.journal import encoded
from daskbroker.stores.embedded.uid_keys import KEY_BITS
from daskbroker.testing import (
    RunBuilder,
    assert_documents_equal,
    expand_documents,
    external_run,
    make_run,
)

ROWS = 60
"""Enough for a page to be kept as columns."""


@pytest.fixture
def run():
    return RunBuilder()


@pytest.fixture
def descriptor(run):
    return run.descriptor({"x": 0.5, "label": "a"})


def page(run, descriptor, rows=ROWS):
    return run.event_page(descriptor, [{"x": n / 2, "label": str(n)} for n in range(rows)])


def mixed(run, descriptor):
    run.event(descriptor, {"x": 0.0, "label": "first"})
    page(run, descriptor)
    run.event(descriptor, {"x": 0.0, "label": "between"})
    page(run, descriptor, 3)
    page(run, descriptor)
    run.event(descriptor, {"x": 0.0, "label": "last"})
    return run.documents


def insert(db, documents):
    for name, doc in documents:
        db.insert(name, doc)


def test_a_page_is_one_row_and_a_short_one_single_rows(db, run, descriptor, rows_of):
    insert(db, mixed(run, descriptor))
    assert rows_of("journal") == 3 + 2 + 3
    assert rows_of("chunk") == 0
    assert rows_of("document_key") == 0
    db.seal()
    assert rows_of("document_key") == 3 + 3 + 2 * ROWS


@pytest.mark.parametrize("sealed", [False, True])
def test_pages_among_single_rows_come_out_in_order(db, run, descriptor, rows_of, sealed):
    documents = mixed(run, descriptor)
    insert(db, documents)
    if sealed:
        db.seal()
        assert rows_of("journal") == 0
        assert rows_of("chunk") == 1
    received = list(db[-1].documents())
    assert_documents_equal(documents, received)
    numbers = [doc["seq_num"] for name, doc in received if name == "event"]
    assert numbers == list(range(1, 2 * ROWS + 3 + 4))
    assert len(db[-1].table().compute()) == len(numbers)


@pytest.mark.parametrize("sealed", [False, True])
def test_rows_of_a_page_again_change_nothing(db, run, descriptor, rows_of, sealed):
    documents = mixed(run, descriptor)
    insert(db, documents)
    if sealed:
        db.seal()
    before = rows_of("chunk"), rows_of("journal")
    insert(db, copy.deepcopy(documents))
    insert(db, expand_documents(documents))
    assert (rows_of("chunk"), rows_of("journal")) == before
    assert_documents_equal(documents, db[-1].documents())


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("place", [0, ROWS - 1])
def test_another_event_under_the_uid_of_a_row_is_refused(db, run, descriptor, sealed, place):
    whole = page(run, descriptor)
    insert(db, run.documents)
    if sealed:
        db.seal()
    rows = [doc for name, doc in expand_documents(run.documents) if name == "event"]
    other = {**rows[place], "time": 1.0}
    with pytest.raises(DuplicateUID, match=rows[place]["uid"]):
        db.insert("event", other)
    more = run.event_page(descriptor, [{"x": 0.5, "label": "new"}] * ROWS)
    more["uid"][place] = whole["uid"][place]
    with pytest.raises(DuplicateUID, match=whole["uid"][place]):
        db.insert("event_page", more)
    assert len(db[-1].table()) == ROWS


def test_a_page_that_is_stored_in_part_is_completed(db, run, descriptor):
    whole = page(run, descriptor)
    rows = [doc for name, doc in expand_documents(run.documents) if name == "event"]
    insert(db, run.documents[:2])
    db.insert("event", rows[7])
    db.insert("event", rows[3])
    db.insert("event_page", whole)
    assert_documents_equal(run.documents, db[-1].documents())
    assert db[-1].table().compute().index.tolist() == list(range(1, ROWS + 1))


def test_a_uid_twice_in_a_page(db, run, descriptor):
    twice = page(run, descriptor)
    for key, values in (("uid", twice["uid"]), ("seq_num", twice["seq_num"])):
        twice[key] = [*values[:-1], values[0]]
    insert(db, run.documents[:2])
    with pytest.raises(DuplicateUID, match=twice["uid"][0]):
        db.insert("event_page", twice)
    assert len(db[-1].table()) == 0


def test_free_numbers_are_noted_together(db, run, descriptor, rows_of, monkeypatch):
    monkeypatch.setattr(document_keys, "_insert_key", None)  # notes one
    insert(db, mixed(run, descriptor))
    db.seal()
    assert rows_of("document_key") == 3 + 3 + 2 * ROWS


def other_process(db):
    """The event source of this store as another process has it, with a connection of its own."""
    return EmbeddedEventStore(Database(Path(str(db.uri))))


@pytest.mark.parametrize("sealed", [False, True])
def test_what_other_processes_have_stored_is_known(db, run, descriptor, rows_of, sealed):
    documents = mixed(run, descriptor)
    insert(db, documents[:3])
    other = other_process(db)
    for name, doc in documents:
        if name.startswith("event"):
            other.insert(name, copy.deepcopy(doc))
    if sealed:
        other.seal()
    insert(db, copy.deepcopy(documents))
    other.close()
    assert_documents_equal(documents, db[-1].documents())
    for name, doc in copy.deepcopy(documents[2:4]):
        doc["time"] = -1.0 if name == "event" else [-1.0] * ROWS
        with pytest.raises(DuplicateUID, match=doc["uid"] if name == "event" else doc["uid"][0]):
            db.insert(name, doc)


def read_entries(monkeypatch):
    """A list that grows with each entry of the journal that is read for its uids."""
    found = []

    def keys_of(*arguments):
        found.append(arguments)
        return stored(*arguments)

    stored = document_keys._keys_of
    monkeypatch.setattr(document_keys, "_keys_of", keys_of)
    return found


@pytest.mark.parametrize("shared", [False, True])
def test_only_what_others_have_put_into_the_journal_of_the_run_is_read(db, shared, monkeypatch):
    runs = [make_run(30, stop=False) for _ in range(2)]
    own, others = (runs[0], runs[0]) if shared else runs
    for documents in runs:
        insert(db, documents[:2])
    other = other_process(db)
    read = read_entries(monkeypatch)
    for number in range(2, 32, 2):
        db.insert(*own[number])
        other.insert(*others[number + 1])
    other.close()
    if not shared:
        assert read == []
        return
    assert len(read) == 29  # each one by the process that did not insert it
    insert(db, copy.deepcopy(own))
    assert_documents_equal(own, db[own[0][1]["uid"]].documents())


def test_numbers_of_what_others_have_sealed_are_not_kept(db, run, descriptor, source, monkeypatch):
    monkeypatch.setattr(document_keys, "MOST_NUMBERS", 5)
    own = run.event(run.descriptor({"x": 0.5}, "monitor"), {"x": 0.5})
    insert(db, run.documents)
    other = other_process(db)
    for _ in range(20):
        run.event(descriptor, {"x": 0.5, "label": "a"})
        other.insert(*run.documents[-1])
        db.insert("event", copy.deepcopy(own))
        other.seal()
    other.close()
    (waiting,) = source._journal.claims._waiting.values()
    assert len(waiting.numbers) <= 7
    assert_documents_equal(run.documents, db[-1].documents())


def test_a_store_in_which_waiting_events_are_noted(db, run, descriptor, rows_of, source):
    """Earlier checkouts noted single events at once."""
    documents = mixed(run, descriptor)
    insert(db, documents[:3])
    with source._database.write() as connection:
        (sequence,) = source._sequences.values()
        source._journal.claims.note(connection, sequence, 0, [documents[2][1]["uid"]])
    source._journal.forget()  # as if it had just been opened
    insert(db, documents)
    db.seal()
    insert(db, copy.deepcopy(documents))
    assert rows_of("document_key") == 3 + 3 + 2 * ROWS
    assert_documents_equal(documents, db[-1].documents())


@pytest.mark.parametrize("seed", range(2))
def test_whatever_processes_do_in_turn_each_document_is_stored_once(db, monkeypatch, seed):
    """Two processes repeat documents, seal and reopen; few numbers, and few held in memory."""
    choose = random.Random(seed)
    count = 60 + 400 * seed
    set_numbers(monkeypatch, lambda uid: sum(uid.encode()) % count)
    monkeypatch.setattr(document_keys, "MOST_NUMBERS", 3)
    runs = [make_run(10, stop=False), external_run(3, stop=False), mixed_run(2)]
    stores = [db.event_sources["embedded"].store, other_process(db)]
    for documents in runs:
        insert(db, documents[:1])
    done = [1] * len(runs)
    while any(count < len(documents) for count, documents in zip(done, runs)):
        which = choose.randrange(len(runs))
        store = choose.choice(stores)
        last = min(done[which], len(runs[which]) - 1)
        for number in [last, *choose.sample(range(1, last + 1), min(2, last))]:
            store.insert(*copy.deepcopy(runs[which][number]))
        done[which] = last + 1
        if choose.random() < 0.1:
            store.seal(choose.choice([None, runs[which][0][1]["uid"]]))
        if choose.random() < 0.1:
            stores[1].close()
            stores[1] = other_process(db)
    for documents in runs:
        name, last = copy.deepcopy(documents[-1])
        with pytest.raises(DuplicateUID, match=last["uid"] if name == "event" else last["uid"][0]):
            stores[1].insert(name, {**last, "time": 1.0 if name == "event" else [1.0] * ROWS})
    stores[1].close()
    for documents in runs:
        assert_documents_equal(documents, db[documents[0][1]["uid"]].documents(fill=False))


def mixed_run(singles):
    run = RunBuilder()
    descriptor = run.descriptor({"x": 0.5, "label": "a"})
    for _ in range(singles):
        run.event(descriptor, {"x": 0.0, "label": "single"})
        page(run, descriptor)
    return run.documents


@pytest.mark.parametrize("as_page", [False, True])
def test_uids_in_waiting_pages_of_another_stream(db, run, descriptor, as_page):
    whole = page(run, descriptor)
    other = run.descriptor({"x": 0.5}, "monitor")
    insert(db, run.documents)
    if as_page:
        doc = run.event_page(other, [{"x": 0.5}] * ROWS)
        doc["uid"][7] = whole["uid"][3]
    else:
        doc = run.event(other, {"x": 0.5}, uid=whole["uid"][3])
    with pytest.raises(DuplicateUID, match=whole["uid"][3]):
        db.insert(*run.documents[-1])
    assert len(db[-1].table("monitor")) == 0
    insert(db, [run.stop()[-1]])
    assert len(db[-1].table()) == ROWS


def test_one_uid_in_two_runs_is_two_events(db):
    for uid in ("run-a", "run-b"):
        run = RunBuilder(uid)
        run.event(run.descriptor({"x": 0.5}), {"x": 0.5}, uid="same")
        insert(db, run.documents)
        assert_documents_equal(run.documents, db[uid].documents())


def set_numbers(monkeypatch, number):
    """Let a function of the uid give the number of a document in its run."""

    def uid_key(uid, kind, run):
        return (run << KEY_BITS) + number(uid)

    def uid_keys(uids, kind, run):
        return np.array([uid_key(uid, kind, run) for uid in uids])

    monkeypatch.setattr(document_keys, "uid_key", uid_key)
    monkeypatch.setattr(document_keys, "uid_keys", uid_keys)


def test_uids_of_equal_key_are_told_apart(db, run, descriptor, rows_of, monkeypatch):
    set_numbers(monkeypatch, lambda uid: 7 + len(uid) % 3)
    for number in range(4):
        run.event(descriptor, {"x": number / 2, "label": "a"})
    for _ in range(3):
        page(run, descriptor)
    insert(db, run.documents)
    assert rows_of("journal") == 4 + 3 * ROWS  # a page of taken numbers goes row by row
    insert(db, copy.deepcopy(run.documents))
    assert rows_of("journal") == 4 + 3 * ROWS
    assert_documents_equal(run.documents, db[-1].documents())


def test_a_later_document_may_have_the_number_of_one_in_a_waiting_page(
    db, run, descriptor, monkeypatch
):
    """Its own number is taken, and the next one is that of a page which is not noted yet."""
    numbers = {}

    def number(uid):
        return numbers.setdefault(uid, 98 + len(numbers))

    set_numbers(monkeypatch, number)
    first = run.event(descriptor, {"x": 0.0, "label": "first"})
    page(run, descriptor)
    last = run.event(descriptor, {"x": 0.0, "label": "last"})
    numbers |= {first["uid"]: 99, last["uid"]: 99}
    insert(db, run.documents)
    insert(db, copy.deepcopy(run.documents))
    insert(db, [run.stop()[-1]])
    insert(db, copy.deepcopy(run.documents))
    assert_documents_equal(run.documents, db[-1].documents())


@pytest.mark.parametrize("rows", [1, ROWS])
def test_a_sequence_goes_on_after_reopening(tmp_path, rows):
    run = RunBuilder()
    descriptor = run.descriptor({"x": 0.5, "label": "a"})
    done = 0
    for _ in range(4):
        page(run, descriptor, rows)
        run.event(descriptor, {"x": 0.5, "label": "a"})
        with daskbroker.connect(tmp_path) as db:
            insert(db, run.documents[done:])
            insert(db, run.documents[-1:])
            done = len(run.documents)
            assert_documents_equal(run.documents, db[-1].documents())
            if done % 4 == 0:
                db.seal()


def test_a_failed_insert_leaves_counters_right(db, run, descriptor):
    page(run, descriptor)
    insert(db, run.documents)
    bad = run.event_page(descriptor, [{"x": 0.5, "label": "new"}] * ROWS)
    bad["uid"][-1] = bad["uid"][0]
    with pytest.raises(DuplicateUID, match=r"a different event of run .* is stored under this uid"):
        db.insert("event_page", bad)
    del run.documents[-1]
    run.event(descriptor, {"x": 0.5, "label": "after"}, ROWS + 1)
    insert(db, run.documents[-1:])
    db.seal()
    assert_documents_equal(run.documents, db[-1].documents())
    assert db[-1].table().divisions == (1, ROWS + 1)


def test_pages_of_arrays_and_of_lists_give_the_same(db, run, descriptor):
    first, second = page(run, descriptor), page(run, descriptor)
    second["data"] = {key: np.array(column) for key, column in second["data"].items()}
    second["time"] = np.array(second["time"])
    insert(db, run.documents)
    table = db[-1].table().compute()
    assert table["x"].tolist() == first["data"]["x"] * 2
    assert table["label"].tolist() == first["data"]["label"] * 2


# -- tables of what waits ----------------------------------------------------------------------


def sizes(entries, **limits):
    """Position and rows of the tables that entries of the journal become."""
    sequence = SimpleNamespace(number=0, layout=EVENT, metadata={})
    return [(place, table.num_rows) for place, table in encoded(entries, sequence, **limits)]


def entries_of(*counts):
    """Entries of the journal: a page of so many rows, or a single row where it is None."""
    place, entries = 0, []
    for count in counts:
        rows = [
            {"uid": f"e{place + n}", "descriptor": "d", "seq_num": place + n + 1,
             "time": 1.0 * place + n, "data": {"x": n}, "timestamps": {"x": 1.0}}
            for n in range(count or 1)
        ]  # fmt: skip
        body = pack(rows[0]) if count is None else to_ipc(encode_rows(EVENT, rows, {}))
        entries.append((place, count, body))
        place += len(rows)
    return entries


def test_single_rows_are_tables_together_and_each_page_is_one():
    assert sizes(entries_of(None, None, 4, None, 3, 2, None)) == [
        (0, 2), (2, 4), (6, 1), (7, 3), (10, 2), (12, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("counts", "most_rows", "expected"),
    [
        ([None] * 5, 3, [(0, 3)]),
        ([None] * 3, 3, [(0, 3)]),
        ([2, None, 2, None], 5, [(0, 2), (2, 1), (3, 2)]),
        ([50, None], 10, [(0, 50)]),  # the first is taken however large it is
        ([None, 50], 10, [(0, 1)]),
        ([10, None], 10, [(0, 10)]),
        ([None, None], 0, [(0, 1)]),
    ],
)
def test_no_more_rows_are_taken_than_a_chunk_holds(counts, most_rows, expected):
    assert sizes(entries_of(*counts), most_rows=most_rows) == expected


def test_no_more_bytes_are_taken_than_a_chunk_holds():
    entries = entries_of(None, None, 40)
    first, second, page = (len(body) for _, _, body in entries)
    for most, expected in [
        (1, [(0, 1)]),
        (first + second - 1, [(0, 1)]),
        (first + second, [(0, 2)]),
        (first + second + page, [(0, 2), (2, 40)]),
    ]:
        assert sizes(entries, most_bytes=most) == expected
    assert sizes(entries_of(40, None), most_bytes=1) == [(0, 40)]
