"""References that other processes store at the same moment."""

from __future__ import annotations

import pytest

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
    for name, doc in run.documents[:-4]:
        mongo.insert(name, doc)
    return run


def stored_meanwhile(monkeypatch, raw, *docs):
    """Store documents as another process, after ours has looked which of them are there."""
    encode, waiting = references._encoded, list(docs)

    def encoded(*args):
        while waiting:
            raw.datum.insert_one(dict(waiting.pop()))
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
