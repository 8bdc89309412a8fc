"""The layout "embedded" of suitcase-mongo is read, and only read."""

from __future__ import annotations

import copy

import pytest
from suitcase.mongo_embedded import Serializer

import daskbroker
from daskbroker.core.errors import StoreReadOnly
from daskbroker.testing import (
    RunBuilder,
    assert_documents_equal,
    assert_references_first,
    external_run,
    make_run,
)
from daskbroker.testing.base import insert_all


def write(raw, documents, **options):
    serializer = Serializer(raw, **options)
    for name, doc in documents:
        serializer(name, copy.deepcopy(doc))
    serializer.close()


@pytest.mark.parametrize("make", [make_run, external_run])
def test_runs_are_read(raw, mongo_database, make):
    documents = make(5)
    write(raw, documents)
    with daskbroker.connect(mongo_database) as db:
        received = list(db[-1].documents(fill=False))
        assert_references_first(received)
        assert_documents_equal(documents, received)
        assert list(map(str, daskbroker.check(db))) == []


def test_pages_are_chunks_and_tables_agree(raw, mongo_database, db):
    run = RunBuilder(scan_id=7, sample={"name": "Ag"})
    descriptor = run.descriptor({"x": 0.5, "n": 1, "s": "a", "v": [0.5, 1.5], "none": 0.5})
    for number in range(60):
        data = {"x": number / 2, "n": 2**40 + number, "s": "text" * 30, "none": None}
        run.event(descriptor, {**data, "v": [number * 1.0, 1.0]})
    documents = run.stop()
    write(raw, documents, embedder_size=2000, page_size=4000)
    insert_all(db, documents)
    with daskbroker.connect(mongo_database) as mongo:
        header, expected = mongo[7], db[7].table()
        plan = header.es_given_stream("primary").chunks_given_header(header, "primary")
        assert len(plan) > 3
        table = header.table()
        assert table.dtypes.to_dict() == expected.dtypes.to_dict()
        assert table.compute().equals(expected.compute())
        assert table[["x"]].compute().equals(expected[["x"]].compute())
        assert header.dataset().compute().identical(db[7].dataset().compute())
        assert list(map(str, daskbroker.check(mongo))) == []


def test_searching(raw, mongo_database):
    for number in range(4):
        extra = {"sample": {"name": "Ag"}} if number % 2 else {}
        docs = make_run(1, scan_id=number, uid=f"run-{number}", time=float(number), **extra)
        write(raw, docs[:-1] if number == 3 else docs)
    with daskbroker.connect(mongo_database) as db:
        assert [h.uid for h in db()] == ["run-3", "run-2", "run-1", "run-0"]
        assert [h.uid for h in db(**{"sample.name": "Ag"})] == ["run-3", "run-1"]
        assert [h.uid for h in db(since=1, until=2)] == ["run-2", "run-1"]
        assert len(db(full="Ag")) == 2
        assert len(db) == 4
        assert db["run-1"].start["scan_id"] == 1
        assert db[2].uid == "run-2"
        assert db.header_source.store.find_prefix("run-") == ["run-0", "run-1", "run-2", "run-3"]


def test_it_is_read_only_and_can_be_copied(raw, mongo_database, db):
    documents = external_run(3)
    write(raw, documents)
    with daskbroker.connect(mongo_database) as mongo:
        with pytest.raises(StoreReadOnly, match="embedded"):
            mongo.insert("start", {"uid": "new", "time": 1.0})
        insert_all(db, mongo[-1].documents(fill=False))
    assert_documents_equal(documents, db[-1].documents(fill=False))
