"""References that other processes store at the same moment."""

from __future__ import annotations

from contextlib import suppress

import pytest
from pymongo.errors import OperationFailure

import daskbroker
from daskbroker.core.errors import DuplicateUID
from daskbroker.stores.mongodb import references
from daskbroker.testing import assert_documents_equal
from daskbroker.testing.base import insert_all
from daskbroker.testing.runs import RunBuilder


@pytest.fixture
def run(mongo):
    """A run with a resource, whose four datums are not inserted yet."""
    run = RunBuilder(uid="the-run")
    resource = run.resource()
    for number in range(4):
        run.datum(resource, f"{resource}/{number}", point=number)
    insert_all(mongo, run.documents[:-4])
    return run


def stored_meanwhile(monkeypatch, raw, *docs):
    """Store documents as another process, after ours has looked which of them are there."""
    encode, waiting = references._encoded, list(docs)

    def encoded(*args):
        if waiting:
            raw.datum.insert_many([dict(doc) for doc in waiting])
            waiting.clear()
        return encode(*args)

    monkeypatch.setattr(references, "_encoded", encoded)


def page(datums):
    return {
        "resource": datums[0]["resource"],
        "datum_id": [datum["datum_id"] for datum in datums],
        "datum_kwargs": {"point": [datum["datum_kwargs"]["point"] for datum in datums]},
    }


@pytest.mark.parametrize("meanwhile", [[0], [1, 2], [3], [0, 1, 2, 3]], ids=str)
@pytest.mark.parametrize("as_page", [True, False], ids=["a page", "datums"])
def test_the_same_datums_are_stored_once(mongo, raw, run, monkeypatch, meanwhile, as_page):
    datums = [doc for _, doc in run.documents[-4:]]
    stored_meanwhile(monkeypatch, raw, *(datums[place] for place in meanwhile))
    pairs = [("datum_page", page(datums))] if as_page else [("datum", one) for one in datums]
    insert_all(mongo, pairs)
    ids = [doc["datum_id"] for doc in raw.datum.find()]
    assert sorted(ids) == [datum["datum_id"] for datum in datums]
    assert_documents_equal(run.documents, mongo["the-run"].documents(fill=False))


@pytest.mark.parametrize("as_page", [True, False], ids=["a page", "datums"])
def test_a_different_datum_under_the_uid_of_one_is_refused(mongo, raw, run, monkeypatch, as_page):
    datums = [doc for _, doc in run.documents[-4:]]
    stored_meanwhile(monkeypatch, raw, {**datums[2], "datum_kwargs": {"point": 99}})
    pairs = [("datum_page", page(datums))] if as_page else [("datum", one) for one in datums]
    with pytest.raises(DuplicateUID, match="a different datum is stored under this uid"):
        insert_all(mongo, pairs)


def test_datums_that_others_store_meanwhile_cost_few_commands(
    commands, mongo_database, raw, monkeypatch
):
    run = RunBuilder(uid="the-run")
    resource = run.resource()
    for number in range(200):
        run.datum(resource, f"{resource}/{number}", point=number)
    datums = [doc for _, doc in run.documents[-200:]]
    with daskbroker.connect(mongo_database) as db:
        insert_all(db, run.documents[:-200])
        stored_meanwhile(monkeypatch, raw, *datums[100:180])
        commands.clear()
        db.insert("datum_page", page(datums))
        assert len(commands.names) < 20
        assert [doc["datum_id"] for doc in raw.datum.find()].count(datums[150]["datum_id"]) == 1
        assert raw.datum.count_documents({}) == 200
        commands.clear()
        db.insert("datum_page", page(datums))
        assert len(commands.names) < 10


@pytest.mark.parametrize("others", ["none", "before", "meanwhile"])
def test_what_a_text_index_refuses_is_stored_once(mongo, raw, monkeypatch, others):
    """MongoDB takes the key `language` of a document for that of its texts, and must know it."""
    run = RunBuilder(uid="the-run", language=5)
    descriptor = run.descriptor({"language": 1.0})
    run.event(descriptor, {"language": 3.0})
    run.event(descriptor, {"language": 4.0})
    resource = run.resource(language=3)
    run.datum(resource, f"{resource}/0", language=1)
    run.datum(resource, f"{resource}/1", language=2)
    for name in ("event", "datum", "resource", "event_descriptor", "run_start"):
        with suppress(OperationFailure):  # suitcase-mongo's indexes have it
            raw[name].create_index([("$**", "text")])
    insert_all(mongo, run.documents[:-2])
    sparse = references.sparse_bson

    def after_others(doc, side):
        if "datum_id" in doc and others == "meanwhile":
            raw.datum.insert_one(sparse(doc, side))
        return sparse(doc, side)

    monkeypatch.setattr(references, "sparse_bson", after_others)
    datums = [doc for _, doc in run.documents[-2:]]
    if others == "before":
        insert_all(mongo, run.documents[-2:])
    mongo.insert(
        "datum_page",
        {
            "resource": resource,
            "datum_id": [datum["datum_id"] for datum in datums],
            "datum_kwargs": {"language": [1, 2]},
        },
    )
    insert_all(mongo, run.documents)
    assert raw.datum.count_documents({}) == raw.event.count_documents({}) == 2
    assert_documents_equal(run.documents, mongo["the-run"].documents(fill=False))
