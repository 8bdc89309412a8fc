"""Documents given out go through what else reads or fills documents, and stay as they are."""

from __future__ import annotations

import asyncio
import copy

import bluesky.plans as bp
import event_model
import pytest
import suitcase.mongo_normalized
from bluesky import RunEngine
from bluesky.callbacks import LiveTable
from bluesky.callbacks.best_effort import BestEffortCallback
from ophyd.sim import NumpySeqHandler, hw
from pymongo import MongoClient

from daskbroker.core.documents import plain
from daskbroker.testing import assert_documents_equal
from daskbroker.views.documents.paging import PageBuffer

HANDLERS = {"NPY_SEQ": NumpySeqHandler}


@pytest.fixture
def documents(db, tmp_path):
    (tmp_path / "frames").mkdir()
    devices = hw(str(tmp_path / "frames"))
    loop = asyncio.new_event_loop()
    engine = RunEngine({}, loop=loop, context_managers=[])
    engine.subscribe(db.insert)
    md = {"sample": {"name": "Si", "sizes": [1, 2]}}
    engine(bp.scan([devices.det, devices.img], devices.motor, -1, 1, 3, md=md))
    loop.call_soon_threadsafe(loop.stop)
    engine._th.join()
    loop.close()
    return list(db[-1].documents(fill=False))


@pytest.fixture(autouse=True)
def unchanged(documents):
    before = [(name, plain(doc)) for name, doc in documents]
    yield
    assert_documents_equal(before, documents)


def frames(pairs):
    return [doc["data"]["img"] for name, doc in pairs if name == "event"]


def test_a_filler_fills_copies(documents):
    with event_model.Filler(HANDLERS, inplace=False) as filler:
        filled = [filler(name, doc) for name, doc in documents]
    assert [frame.shape for frame in frames(filled)] == [(10, 10)] * 3
    assert {type(frame) for frame in frames(documents)} == {str}


def test_a_filler_in_place_needs_documents_that_can_be_changed(documents):
    def fill(pairs):
        with event_model.Filler(HANDLERS, inplace=True) as filler:
            for name, doc in pairs:
                filler(name, doc)

    with pytest.raises(TypeError, match="immutable"):
        fill(documents)
    changeable = [(name, copy.deepcopy(doc)) for name, doc in documents]
    fill(changeable)
    assert [frame.shape for frame in frames(changeable)] == [(10, 10)] * 3


def test_event_model_takes_pages_apart_and_puts_them_together(documents):
    pages = [doc for name, doc in PageBuffer()(documents) if name == "event_page"]
    events = [doc for name, doc in documents if name == "event"]
    apart = [event for page in pages for event in event_model.unpack_event_page(page)]
    assert_documents_equal([("event", e) for e in events], [("event", e) for e in apart])
    assert event_model.pack_event_page(*events) == plain(pages[0])
    for name, doc in documents:
        assert event_model.sanitize_doc(doc) == doc
        event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)


def test_callbacks_run_over_them(documents, capsys):
    best_effort = BestEffortCallback()
    best_effort.disable_plots()
    for callback in (event_model.DocumentRouter(), LiveTable(["det"]), best_effort):
        for name, doc in documents:
            callback(name, doc)
    assert capsys.readouterr().out.count("generator scan") == 2


def test_a_consumer_may_copy_and_change_what_is_inside(documents):
    (resource,) = (doc for name, doc in documents if name == "resource")
    before = resource.to_dict()
    for copied in (copy.copy(resource), copy.deepcopy(resource)):
        copied["parameters"] = copied.pop("resource_kwargs")
        copied["parameters"]["dataset"] = copied["parameters"].pop("path", "")
        assert copied.keys() - resource.keys() == {"parameters"}
        assert resource.to_dict() == before


def test_suitcase_stores_them(documents, mongod_uri):
    with MongoClient(mongod_uri) as client:
        names = "suitcase_of_documents", "suitcase_assets"
        serializer = suitcase.mongo_normalized.Serializer(*(client[name] for name in names))
        for name, doc in documents:
            serializer(name, copy.copy(doc))
        (start,) = client[names[0]]["run_start"].find({}, {"_id": 0})
        for name in names:
            client.drop_database(name)
    assert start == documents[0][1]
