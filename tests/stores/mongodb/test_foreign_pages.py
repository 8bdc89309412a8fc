"""Odd documents in suitcase-mongo's layout "embedded": one that makes no sense costs its run."""

from __future__ import annotations

import copy
import warnings

import pytest
from bson import MinKey
from suitcase.mongo_embedded import Serializer

import daskbroker
from daskbroker import BadRunWarning
from daskbroker.core.errors import StoreDamaged
from daskbroker.testing import external_run, make_run
from daskbroker.testing.base import check_run

UIDS = ("first", "middle", "last")


@pytest.fixture
def runs(raw):
    """Three runs in the database, the second to be damaged."""
    made = {}
    for number, uid in enumerate(UIDS):
        made[uid] = external_run(3) if uid == "middle" else make_run(3, uid=uid)
        made[uid][0][1]["time"] = 1.0 + number
        serializer = Serializer(raw)
        for name, doc in made[uid]:
            serializer(name, copy.deepcopy(doc))
        serializer.close()
    return {docs[0][1]["uid"]: docs for docs in made.values()}


HEADER = {
    "no start": {"$unset": {"start": 1}},
    "start": {"$set": {"start": 5}},
    "empty start": {"$set": {"start": []}},
    "no uid": {"$unset": {"start.0.uid": 1}},
    "uid": {"$set": {"start.0.uid": MinKey()}},
    "stop": {"$set": {"stop": [5]}},
    "stop's time": {"$set": {"stop.0.time": "later"}},
    "_daskbroker": {"$set": {"start.0._daskbroker": 5}},
}
INSIDE = {
    "descriptors": {"$set": {"descriptors": [5]}},
    "descriptor": {"$unset": {"descriptors.0.data_keys": 1}},
    "descriptor's uid": {"$set": {"descriptors.0.uid": 5}},
    "resources": {"$set": {"resources": [5]}},
    "resource": {"$set": {"resources.0.uid": 5}},
}
PAGES = {
    "no uids": {"$unset": {"uid": 1}},
    "uid": {"$set": {"uid": [5, 5, 5]}},
    "no times": {"$unset": {"time": 1}},
    "time": {"$set": {"time.1": "text"}},
    "seq_num": {"$set": {"seq_num": 5}},
    "data": {"$set": {"data": 5}},
    "column": {"$set": {"data.x": [1]}},
    "timestamps": {"$set": {"timestamps.x": "text"}},
    "stamp": {"$set": {"timestamps.x.0": "text"}},
}
DATUMS = {
    "no datum_ids": {"$unset": {"datum_id": 1}},
    "datum_id": {"$set": {"datum_id.0": 5}},
    "kwargs": {"$set": {"datum_kwargs": 5}},
}


def check(db, runs):
    """Other runs are whole; the odd one is, or says that it is not."""
    bad = list(runs)[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BadRunWarning)
        results = db()
        listed = [header.uid for header in results]
        assert len(db()) == len(listed)
        assert len(listed) + len(results.bad) == len(runs)
        for uid, docs in runs.items():
            if uid != bad:
                assert uid in listed
                check_run(db[uid], docs)
        frame = db().table("primary", fill=False, errors="skip").compute()
        assert {uid for uid in runs if uid != bad} <= set(frame["run"])
        with daskbroker.temp() as other:
            report = daskbroker.copy(db(), other)
        assert {uid for uid in runs if uid != bad} == set(report.copied)
    try:
        list(db[bad].documents(fill=False))
        pytest.fail("it is read as if nothing were wrong")
    except (StoreDamaged, KeyError) as error:
        assert bad in str(error)


@pytest.mark.parametrize("change", [*HEADER.values(), *INSIDE.values()], ids=[*HEADER, *INSIDE])
def test_an_odd_header(raw, mongo_database, runs, change):
    assert raw.header.update_one({"start.uid": list(runs)[1]}, change).modified_count
    with daskbroker.connect(mongo_database) as db:
        check(db, runs)


def test_a_check_finds_pages_of_lost_descriptors(raw, mongo_database, runs):
    uid = list(runs)[1]
    lost = raw.header.find_one_and_update({"start.uid": uid}, {"$unset": {"descriptors": 1}})
    with daskbroker.connect(mongo_database) as db:
        told = [damage.problem for damage in daskbroker.check(db)]
    for descriptor in lost["descriptors"]:
        assert any(f"the descriptor {descriptor['uid']!r}, which is not" in one for one in told)


@pytest.mark.parametrize("change", PAGES.values(), ids=PAGES)
def test_an_odd_page_of_events(raw, mongo_database, runs, change):
    docs = list(runs.values())[1]
    descriptor = next(doc["uid"] for name, doc in docs if name == "descriptor")
    assert raw.event.update_one({"descriptor": descriptor}, change).modified_count
    with daskbroker.connect(mongo_database) as db:
        check(db, runs)


@pytest.mark.parametrize("number", [{"a": 1}, b"x", "text"], ids=str)
@pytest.mark.parametrize("kind", ["event", "datum"])
def test_a_page_of_another_id(raw, mongo_database, runs, kind, number):
    descriptor = next(doc["uid"] for name, doc in list(runs.values())[1] if name == "descriptor")
    page = raw[kind].find_one({"descriptor": descriptor} if kind == "event" else {})
    raw[kind].delete_one({"_id": page["_id"]})
    raw[kind].insert_one({**page, "_id": number})
    with daskbroker.connect(mongo_database) as db:
        check(db, runs)


@pytest.mark.parametrize("change", DATUMS.values(), ids=DATUMS)
def test_an_odd_page_of_datums(raw, mongo_database, runs, change):
    assert raw.datum.update_one({}, change).modified_count
    with daskbroker.connect(mongo_database) as db:
        check(db, runs)
