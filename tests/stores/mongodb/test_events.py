"""Which run a document belongs to that names none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from bson.objectid import ObjectId

from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.runs import RunBuilder


def test_the_current_run_is_the_one_that_started_last(mongo, raw):
    store = mongo.event_sources["mongo"].store
    assert store.current_run() is None
    for uid in ("z", "a", "m"):
        mongo.insert(*make_run(0, uid=uid)[0])
        assert store.current_run() == uid
    for uid in ("of-another-program", 5):  # a number can be no uid
        later = ObjectId.from_datetime(datetime.now(UTC) + timedelta(minutes=1 + (uid == 5)))
        raw.run_start.insert_one({"_id": later, "uid": uid, "time": 0.0})
        assert store.current_run() == "of-another-program"


def test_a_legacy_resource_is_of_the_run_that_started_last(mongo):
    runs = [RunBuilder(uid=uid) for uid in ("z", "a")]
    for run in runs:
        mongo.insert(*run.documents[0])
    resource = runs[1].resource()
    del runs[1].documents[-1][1]["run_start"]
    runs[1].datum(resource, point=1)
    insert_all(mongo, runs[1].documents[1:])
    kinds = [[name for name, _ in mongo[run.uid].documents()] for run in runs]
    assert kinds == [["start"], ["start", "resource", "datum"]]
