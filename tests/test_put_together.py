"""Brokers that were put together by hand: what they pickle as, and what another process opens."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest

from daskbroker import DataBroker, connect
from daskbroker.core.errors import ConfigError
from daskbroker.stores.embedded.opening import open_store as open_embedded
from daskbroker.stores.mongodb.opening import open_store as open_mongodb
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import Squares, squares, squares_run
from daskbroker.testing.processes import Program

TELL = """
import json, os, pickle, sys
os.chdir("/")
with open(sys.argv[1], "rb") as file:
    header = pickle.load(file)
print(json.dumps({
    "uid": header.uid,
    "images": [image.tolist() for image in header.table()["img"].compute()],
    "timezone": header.db.timezone,
    "root_map": header.db.root_map,
    "readable_roots": header.db.readable_roots,
}))
"""
SQUARES = {"SQUARES": "daskbroker.testing.detector_runs:Squares"}
OPTIONS = {
    "handlers": SQUARES,
    "timezone": "Asia/Tokyo",
    "root_map": {"/data": "/mnt/data"},
    "readable_roots": ["/"],
}


def told_elsewhere(header, folder):
    """What another process, in another folder, says of a pickled header and its broker."""
    path = folder / "header.pickle"
    path.write_bytes(pickle.dumps(header))
    said, errors = Program(TELL, path).communicate()
    assert errors == ""
    return json.loads(said)


@pytest.fixture
def by_hand(tmp_path):
    """A callable: a broker with a run of computed images on an embedded store, from options."""
    opened = open_embedded({"embedded": tmp_path / "store"})

    def by_hand(**options):
        broker = DataBroker(*opened, **options)
        insert_all(broker, squares_run())
        return broker

    yield by_hand
    opened.headers.close()


def check_elsewhere(broker, folder):
    """Check that another process has the same broker and run."""
    found = told_elsewhere(broker[-1], folder)
    assert found["uid"] == broker[-1].uid
    assert found["images"] == squares().tolist()
    for name in ("timezone", "root_map", "readable_roots"):
        assert found[name] == getattr(broker, name)


def test_a_folder_with_all_options(by_hand, tmp_path):
    check_elsewhere(by_hand(uri=str(tmp_path / "store"), **OPTIONS), tmp_path)


def test_a_relative_folder_is_meant_as_seen_from_here(by_hand, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_elsewhere(by_hand(uri="store", handlers=SQUARES), tmp_path)


def test_a_database(mongo_database, tmp_path):
    opened = open_mongodb({"mongo": {"uri": mongo_database}})
    with DataBroker(*opened, uri=mongo_database, **OPTIONS) as broker:
        insert_all(broker, squares_run())
        check_elsewhere(broker, tmp_path)


def test_a_store_of_others(log_package, tmp_path):
    from log_store import open_log

    uri = f"log://{tmp_path / 'store'}"
    with DataBroker(*open_log({"uri": uri, "mode": "a"}), uri=uri, **OPTIONS) as broker:
        insert_all(broker, squares_run())
        check_elsewhere(broker, tmp_path)


def test_a_handler_that_was_registered_later_travels(by_hand, tmp_path):
    broker = by_hand(uri=str(tmp_path / "store"))
    broker.register_handler("SQUARES", Squares)
    check_elsewhere(broker, tmp_path)


def test_in_this_process_a_pickle_is_the_broker_itself(by_hand, tmp_path):
    broker = by_hand(uri=str(tmp_path / "store"))
    with connect(tmp_path / "store") as connected:
        assert pickle.loads(pickle.dumps(broker)) is broker
        assert pickle.loads(pickle.dumps(broker[-1])).db is broker
        assert connected[-1] == broker[-1]


@pytest.mark.parametrize("thing", [lambda db: db, lambda db: db[-1], lambda db: db()])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "without a uri"),
        ({"uri": "nothing://x"}, r"no store opens nothing://.*file.*mongodb"),
        ({"uri": "mongodb://host"}, "MongoDB URI with a database"),
        ({"uri": "/store", "route": lambda descriptor: "embedded"}, "with a route"),
        ({"uri": "/store", "root_map": {"/data": "here"}}, "absolute path"),
        (
            {"uri": "/store", "handlers": {"X": type("Local", (), {})}},
            r"handlers.X: .*module:Class",
        ),
    ],
    ids=["no uri", "unknown scheme", "no database", "route", "relative root", "local class"],
)
def test_what_no_other_process_could_open_is_refused_when_pickled(by_hand, options, message, thing):
    broker = by_hand(**options)
    with pytest.raises(ConfigError, match=message):
        pickle.dumps(thing(broker))


def test_of_several_event_sources_none_is_left_out(tmp_path):
    first, second = (open_embedded({"embedded": tmp_path / name}) for name in "ab")
    sources = {"a": first.events["embedded"], "b": second.events["embedded"]}
    with DataBroker(first.headers, sources, uri=str(tmp_path / "a")) as broker:
        insert_all(broker, squares_run())
        with pytest.raises(ConfigError, match="several event sources"):
            pickle.dumps(broker[-1])
        assert pickle.loads(pickle.dumps(broker[-1].portable())) == broker[-1]


def test_a_pickle_makes_no_store_anew(by_hand, tmp_path, log_package):
    for uri in (tmp_path / "store", f"log://{tmp_path / 'log'}"):
        with connect(uri) as db:
            pickled = pickle.dumps(db)
        path = Path(str(uri).removeprefix("log://"))
        os.rename(path, tmp_path / "elsewhere")
        with pytest.raises(FileNotFoundError, match=r"there is no|does not exist"):
            pickle.loads(pickled)
        assert not path.exists()
        os.rename(tmp_path / "elsewhere", path)


def test_a_password_is_not_shown(by_hand):
    broker = by_hand(uri="mongodb://user:secret@host/database")
    assert "secret" not in f"{broker!r} {broker.uri}"
    assert "mongodb://" in repr(broker)
