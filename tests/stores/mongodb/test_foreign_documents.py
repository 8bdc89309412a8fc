"""Documents that other programs have put into a database: one that makes no sense costs its run."""

from __future__ import annotations

import datetime
import itertools
import math
import sys
import uuid
import warnings
from collections import defaultdict
from types import SimpleNamespace

import bson
import pymongo
import pytest
from bson import DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.binary import Binary, UuidRepresentation
from bson.code import Code
from bson.datetime_ms import DatetimeMS

import daskbroker
from daskbroker import BadRunWarning
from daskbroker.cli import main
from daskbroker.core.errors import DaskbrokerError, StoreDamaged, StoreError
from daskbroker.core.search import Search
from daskbroker.stores.mongodb import (
    bad_headers,
    headers,
    journal_ranges,
    planning,
    reference_planning,
)
from daskbroker.testing import external_run, make_run
from daskbroker.testing.base import check_run, insert_all

TOKEN = uuid.UUID("12345678-1234-5678-1234-567812345678")
NUMBER = ObjectId()
VALUES = {
    "bytes": (b"\0\1", b"\0\1"),
    "UUID": (Binary.from_uuid(TOKEN), TOKEN),
    "legacy UUID": (Binary.from_uuid(TOKEN, UuidRepresentation.PYTHON_LEGACY), TOKEN),
    "binary of a user": (Binary(b"x", 128), b"x"),
    "date": (datetime.datetime(2026, 1, 1), "2026-01-01T00:00:00+00:00"),
    "date out of range": (DatetimeMS(2**60), f"{2**60} ms after 1970"),
    "timestamp": (Timestamp(5, 3), "1970-01-01T00:00:05+00:00"),
    "decimal": (Decimal128("1.5"), 1.5),
    "decimal out of range": (Decimal128("1E6000"), math.inf),
    "regex": (Regex("a.c", "im"), "/a.c/im"),
    "code": (Code("f()"), "f()"),
    "code with scope": (Code("f()", {"x": 1}), "f()"),
    "ObjectId": (NUMBER, str(NUMBER)),
    "reference": (DBRef("other", NUMBER), str(NUMBER)),
    "MinKey": (MinKey(), "MinKey"),
    "MaxKey": (MaxKey(), "MaxKey"),
    "long": (Int64(2**60), 2**60),
    "nested": ({"a": [MinKey(), {"b": b"x"}]}, {"a": ["MinKey", {"b": b"x"}]}),
    "deep": (bson.decode(bson.encode({"a": 1})), {"a": 1}),
}
ODD = (None, 5, "text", [1], {"a": 1}, MinKey(), b"x", math.nan, math.inf, 2**60, True, ...)
SOUND_VALUES = {"uid": ("text",), "seq_num": (5, 2**60), "time": (5,), "data": ({"a": 1},),
                "timestamps": ({"a": 1},)}  # fmt: skip
EVENTS = [
    pytest.param({field: value}, id=f"{field}-{'absent' if value is ... else value!r}")
    for field, sound in SOUND_VALUES.items()
    for value in ODD
    if value not in sound
] + [
    pytest.param(change, id=name)
    for name, change in {
        "_daskbroker": {"_daskbroker": 5},
        "packed": {"_daskbroker": {"packed": b"xx"}},
        "descriptors": {"descriptor": ["{run}-d"]},
        "timestamp": {"timestamps": {"x": "text", "w": 1.0}},
        "filled": {"filled": 5},
        "filled bytes": {"filled": b"x"},
    }.items()
]
DESCRIPTORS = [
    pytest.param(change, id=name)
    for name, change in {
        "no data_keys": {"data_keys": ...},
        "data_keys": {"data_keys": [1]},
        "data_key": {"data_keys": {"x": 5}},
        "shape": {"data_keys": {"x": {"shape": 5}}},
        "no uid": {"uid": ...},
        "uid": {"uid": 5},
        "name": {"name": 5},
        "configuration": {"configuration": 5},
        "device": {"configuration": {"camera": 5}},
        "hints": {"hints": "x"},
        "_daskbroker": {"_daskbroker": "x"},
        "packed": {"_daskbroker": {"packed": b"x"}},
    }.items()
]


@pytest.fixture(scope="module")
def place(mongod_uri):
    name = f"test_{uuid.uuid4().hex}"
    yield f"{mongod_uri}/{name}"
    with pymongo.MongoClient(mongod_uri) as client:
        client.drop_database(name)


@pytest.fixture
def db(place, raw, monkeypatch):
    monkeypatch.setattr(bad_headers, "LOOK_SECONDS", 0.0)
    with daskbroker.connect(place) as db:
        yield db


@pytest.fixture(scope="module")
def raw(place):
    with pymongo.MongoClient(place) as client:
        database = client.get_default_database()
        database.event.create_index("uid")  # not unique, as an old database may have it
        with daskbroker.connect(place) as db:
            db.header_source.store.create_indexes()
        yield database


def changed(doc, change):
    return {key: value for key, value in {**doc, **change}.items() if value is not ...}


numbers = itertools.count()


@pytest.fixture
def three(raw, db):
    """Three runs as another program writes them, the second with changes."""

    def three(event=None, descriptor=None, start=None, stop=None, value=0.5):
        number = next(numbers)
        uids = [f"{name}-{number}" for name in ("good", "bad", "late")]
        stored = defaultdict(list)
        for place, uid in enumerate(uids):
            mine = place == 1
            claim = {"source": "a", "dtype": "number", "shape": []}
            docs = {
                "run_start": {"uid": uid, "time": number * 10.0 + place, "batch": number},
                "event_descriptor": {"uid": f"{uid}-d", "run_start": uid, "time": 1.0,
                                     "name": "primary", "data_keys": {"x": claim, "w": claim}},
                "run_stop": {"uid": f"{uid}-s", "run_start": uid, "time": 3.0,
                             "exit_status": "success"},
            }  # fmt: skip
            changes = {"run_start": start, "event_descriptor": descriptor, "run_stop": stop}
            for name, doc in docs.items():
                stored[name].append(changed(doc, (mine and changes[name]) or {}))
            for seq_num in range(1, 6):
                row = {"uid": f"{uid}-e{seq_num}", "descriptor": f"{uid}-d", "seq_num": seq_num,
                       "time": float(seq_num), "data": {"x": seq_num * 1.0, "w": 0.5},
                       "timestamps": {"x": 1.0, "w": 1.0}}  # fmt: skip
                if mine and seq_num == 3:
                    if event == {"descriptor": ["{run}-d"]}:
                        event = {"descriptor": [f"{uid}-d"]}
                    row = changed(row, event or {"data": {"x": 3.0, "w": value}})
                stored["event"].append(row)
        for name, docs in stored.items():
            raw[name].insert_many(docs)
        return SimpleNamespace(good=uids[0], bad=uids[1], late=uids[2], runs=db(batch=number))

    return three


@pytest.fixture(params=["short", "long"])
def journals(request, monkeypatch):
    """Journals that travel with plans, and such as are read in ranges."""
    if request.param == "long":
        monkeypatch.setattr(planning, "RANGE_ROWS", 2)
        monkeypatch.setattr(journal_ranges, "RANGE_ROWS", 2)
    return request.param


@pytest.mark.usefixtures("journals")
@pytest.mark.parametrize("name", VALUES)
def test_values_that_json_lacks_are_read(three, db, name):
    stored, expected = VALUES[name]
    run = three(value=stored)
    header = db[run.bad]
    assert header.table()[["x"]].compute()["x"].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert header.table()["w"].compute()[3] == expected
    assert header.dataset()["w"].values[2] == expected
    events = [doc for name, doc in header.documents() if name == "event"]
    assert events[2]["data"]["w"] == expected
    assert len(run.runs.table().compute()) == 15
    assert db.seal(run.bad) == 1
    assert header.table()["w"].compute()[3] == expected
    with daskbroker.temp() as other:
        assert not daskbroker.copy(run.runs, other).failed
        assert other[run.bad].table()["w"].compute()[3] == expected


@pytest.mark.parametrize("name", ["date", "timestamp", "regex", "ObjectId", "MinKey", "nested"])
def test_values_that_are_shown_as_text_are_found_by_it(three, name):
    """By what a copy in another store is found by, too."""
    stored, shown = VALUES[name]
    path = "note.a" if name == "nested" else "note"
    text = shown["a"][0] if name == "nested" else shown
    run = three(start={"note": stored})
    for query in (text, {"$in": ["x", text]}, {"$gte": text[:2]}):
        assert [header.uid for header in run.runs(**{path: query})] == [run.bad]
        assert len(run.runs(**{path: query})) == 1
    for query in ({"$ne": text}, {"$nin": [text]}, {"$not": {"$gte": text[:2]}}):
        assert [header.uid for header in run.runs(**{path: query})] == [run.late, run.good]
        assert len(run.runs(**{path: query})) == 2


def test_lists_nested_deeper_than_arrow_goes(three, db):
    value = 1.0
    for _ in range(80):
        value = [value]
    run = three(value=value)
    assert db[run.bad].table()["w"].compute()[3] == value
    assert len(run.runs.table().compute()) == 15
    assert db.seal(run.bad) == 1
    assert db[run.bad].table()["w"].compute()[3] == value


@pytest.mark.parametrize("change", EVENTS)
def test_an_odd_event_costs_its_run(three, db, change):
    run = three(event=change)
    assert [header.uid for header in run.runs] == [run.late, run.bad, run.good]
    with pytest.warns(BadRunWarning, match=rf"run '{run.bad}': stream 'primary'"):
        frame = run.runs.table().compute()
    assert sorted(frame["run"].unique()) == [run.good, run.late]
    with pytest.warns(BadRunWarning):
        assert run.runs.dataset().sizes["time"] == 10
    for ask in (db[run.bad].table, db[run.bad].dataset, lambda: list(db[run.bad].documents())):
        with pytest.raises(StoreDamaged, match=rf"run '{run.bad}'"):
            ask()
    with daskbroker.temp() as other:
        report = daskbroker.copy(run.runs, other)
        assert (sorted(report.copied), list(report.failed)) == ([run.good, run.late], [run.bad])


@pytest.mark.parametrize("change", EVENTS)
def test_an_odd_event_of_a_long_journal_costs_its_run(three, db, change, monkeypatch):
    """Planned or read, it is named; other runs are read whatever it is."""
    monkeypatch.setattr(planning, "RANGE_ROWS", 2)
    monkeypatch.setattr(journal_ranges, "RANGE_ROWS", 2)
    run = three(event=change)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BadRunWarning)
        frame = run.runs.table(errors="skip").compute()
        assert {run.good, run.late} <= set(frame["run"])
        try:
            assert db.seal(run.bad) == 1
        except StoreDamaged as error:
            assert run.bad in str(error)
        assert db.seal(run.good) == db.seal(run.late) == 1
        assert {run.good, run.late} <= set(run.runs.table().compute()["run"])
    try:
        assert len(list(db[run.bad].documents())) == 8
    except StoreDamaged as error:
        assert run.bad in str(error)


@pytest.mark.parametrize("change", DESCRIPTORS)
def test_an_odd_descriptor_costs_its_run(three, db, change):
    run = three(descriptor=change)
    assert [header.uid for header in run.runs] == [run.late, run.bad, run.good]
    with pytest.warns(BadRunWarning, match=rf"run '{run.bad}'.*descriptor"):
        frame = run.runs.table().compute()
    assert sorted(frame["run"].unique()) == [run.good, run.late]
    for ask in (lambda h: h.table(), lambda h: h.streams, lambda h: list(h.documents())):
        with pytest.raises(StoreDamaged, match=rf"run '{run.bad}'.*descriptor"):
            ask(db[run.bad])
    assert db.seal(run.good) == 1


@pytest.mark.parametrize("keys", [5, None, "x"], ids=str)
def test_object_keys_that_are_no_list_are_no_devices(three, db, keys):
    run = three(descriptor={"object_keys": {"det": keys}})
    assert "object" not in db[run.bad].dataset().compute()["x"].attrs
    assert len(db[run.bad].table().compute()) == len(db[run.bad].dataset().compute()["time"])


def lost(db):
    """Return what a check says of references to what is not stored."""
    return [damage.problem for damage in db.event_sources[0].store.check_rest()]


def test_a_descriptor_that_names_no_run_is_nobodys(three, db):
    run = three(descriptor={"run_start": ...})
    assert db[run.bad].streams == []
    assert len(run.runs.table().compute()) == 10
    db.insert("start", {"uid": f"after-{run.bad}", "time": 1.0})
    assert any("event_descriptor have the run_start None" in one for one in lost(db))


STOPS = {
    "no uid": {"uid": ...},
    "no time": {"time": ...},
    "time": {"time": "later"},
    "infinite time": {"time": math.inf},
    "_daskbroker": {"_daskbroker": [1]},
    "packed": {"_daskbroker": {"packed": b"xx"}},
}


@pytest.mark.parametrize("change", STOPS.values(), ids=STOPS)
def test_an_odd_stop_costs_its_run(three, db, change):
    run = three(stop=change)
    packed = "packed" in str(change)  # what is packed the server cannot look into
    assert len(run.runs) == (3 if packed else 2)
    with pytest.warns(BadRunWarning, match=rf"run '{run.bad}'.*stop.*run_stop, _id"):
        assert [header.uid for header in run.runs] == [run.late, run.good]
    assert len(run.runs) == 2
    with pytest.raises(StoreDamaged, match=rf"run '{run.bad}'.*stop"):
        db[run.bad]


def test_a_stop_of_a_list_of_runs_is_nobodys(three, db, raw):
    run = three()
    raw.run_stop.update_one({"uid": f"{run.bad}-s"}, {"$set": {"run_start": [run.bad, "x"]}})
    assert len(run.runs) == 3
    assert [header.uid for header in run.runs] == [run.late, run.bad, run.good]
    assert [header.uid for header in db(batch=db[run.good].start["batch"])[:3]] == [
        run.late, run.bad, run.good
    ]  # fmt: skip
    assert db[run.good].stop["uid"] == f"{run.good}-s"
    assert db[run.bad].stop is None
    checked = {found.uid: found for found in db.header_source.store.check(Search())}
    assert checked[run.bad].stop is None
    assert any(f"run_stop have the run_start [{run.bad!r}, 'x']" in one for one in lost(db))


ODD_NAMES = ({"$x": 1}, ["y"], Regex("."), 5, MinKey())
"""Values in place of uids, which break a query that takes them over, or change what it finds."""


def test_odd_uids_of_others_break_no_query(mongo_database, monkeypatch):
    with (
        pymongo.MongoClient(mongo_database) as client,
        daskbroker.connect(mongo_database) as db,
    ):
        runs = [make_run(3), make_run(3, stop=False)]
        for docs in runs:
            insert_all(db, docs)
        raw = client.get_default_database()
        stops = [{"run_start": name, "uid": str(n)} for n, name in enumerate(ODD_NAMES)]
        raw.run_stop.insert_many([{**stop, "exit_status": "odd"} for stop in stops])
        raw.event.insert_many([{"descriptor": name, "uid": ObjectId()} for name in ODD_NAMES])
        assert list(db(exit_status="odd")) == []
        monkeypatch.setattr(headers, "MOST_STOPS", len(ODD_NAMES))
        sound = db(exit_status={"$in": ["odd", "success"]})
        assert [header.uid for header in sound] == [runs[0][0][1]["uid"]]
        assert db.seal() == 1
        checked = {found.uid: found for found in db.header_source.store.check(Search())}
        for docs in runs:
            check_run(db[docs[0][1]["uid"]], docs)
            assert checked[docs[0][1]["uid"]].damages == []


STARTS = {
    "no uid": {"uid": ...},
    "uid": {"uid": 5},
    "empty uid": {"uid": ""},
    "uids": {"uid": ["a", "b"]},
    "_daskbroker": {"_daskbroker": 5},
    "packed text": {"_daskbroker": {"packed": "x"}},
    "packed": {"_daskbroker": {"packed": b"xx"}},
}


@pytest.mark.parametrize("change", STARTS.values(), ids=STARTS)
def test_an_odd_start_costs_its_run(three, db, change):
    run = three(start=change)
    # The server cannot look into what is packed, so the run is counted until it has been read.
    assert len(run.runs) == (3 if change == STARTS["packed"] else 2)
    with pytest.warns(BadRunWarning, match="start.*run_start, _id") as caught:
        assert [header.uid for header in run.runs] == [run.late, run.good]
    assert len(run.runs) == 2
    assert len(caught) == 1
    (bad,) = run.runs.bad
    assert bad.uid == (run.bad if "_daskbroker" in change else None)
    with pytest.warns(BadRunWarning):
        assert len(run.runs.table().compute()) == 10
    db.insert("start", {"uid": f"after-{run.bad}", "time": 1.0})


HINTS = (["x"], 5, {"dimensions": 5}, {"dimensions": [[None, "primary"]]},
         {"dimensions": [[[{}, None], "primary"], [5], None]})  # fmt: skip


def test_odd_hints_cost_nothing(three, db):
    """They only name the coordinates of a Dataset."""
    for hints in HINTS:
        run = three(start={"hints": hints})
        assert run.runs.dataset().sizes["time"] == db[run.bad].dataset().sizes["time"] * 3 == 15
    run = three(start={"hints": {"dimensions": [["x", "primary"]]}})
    assert "x" in db[run.bad].dataset().coords


def test_two_runs_with_one_descriptor_are_not_mixed(mongo_database):
    """Without the unique index; the events name only the descriptor."""
    runs = [make_run(3, uid=f"run-{number}", time=number * 10.0) for number in range(3)]
    with pymongo.MongoClient(mongo_database) as client:
        raw = client.get_default_database()
        for docs in runs:
            for name, doc in docs:
                if name == "descriptor" and doc["run_start"] == "run-2":
                    doc["uid"] = runs[1][1][1]["uid"]
                name = {"start": "run_start", "stop": "run_stop"}.get(name, name)
                raw["event_descriptor" if name == "descriptor" else name].insert_one(dict(doc))
    with daskbroker.connect(mongo_database) as db:
        with pytest.warns(BadRunWarning, match="run 'run-2'.*has the uid .* of one of 'run-1'"):
            frame = db().table().compute()
        assert frame["run"].tolist() == ["run-0"] * 3 + ["run-1"] * 3


def test_what_was_put_right_is_there_again(three, db, raw):
    run = three(stop={"time": "later"})
    assert len(run.runs) == 2
    raw.run_stop.update_one({"run_start": run.bad}, {"$set": {"time": 3.0}})
    assert len(run.runs) == len(list(run.runs)) == 3


@pytest.mark.parametrize("hours", [0, 12, -99], ids=["in time", "behind", "another ahead"])
@pytest.mark.parametrize("name", ["run_start", "run_stop"])
def test_a_bad_one_that_comes_after_the_first_look_is_left_out(three, raw, name, hours):
    run = three()
    raw.run_stop.delete_one({"run_start": run.bad})
    assert len(run.runs) == 3
    now = datetime.datetime.now(datetime.UTC)
    written = now - datetime.timedelta(hours=hours)
    if hours < 0:  # so much is the clock of another client ahead that has inserted before
        other = {"_id": ObjectId.from_datetime(written), "uid": f"{run.bad}-other", "time": 1.0}
        raw[name].insert_one({**other, "run_start": f"{run.bad}-other"})
        assert len(run.runs) == 3
        written = now
    number = ObjectId.from_datetime(written).binary[:4] + ObjectId().binary[4:]
    batch = raw.run_start.find_one({"uid": run.bad})["batch"]
    document = {
        "run_start": {"uid": f"{run.bad}-later", "time": 1.0, "batch": batch, "_daskbroker": 5},
        "run_stop": {"uid": f"{run.bad}-later", "run_start": run.bad},
    }
    raw[name].insert_one({"_id": ObjectId(number), **document[name]})
    sound = 3 if name == "run_start" else 2
    assert len(run.runs) == sound
    with pytest.warns(BadRunWarning):
        assert len(list(run.runs)) == sound
    raw[name].delete_one({"uid": f"{run.bad}-other"})


def test_many_bad_ones_are_named_within_bounds(mongo_database):
    with pymongo.MongoClient(mongo_database) as client:
        starts = client.get_default_database().run_start
        starts.insert_many([{"time": float(n)} for n in range(500)])
        starts.insert_one({"uid": "sound", "time": -1.0})
    with daskbroker.connect(mongo_database) as db:
        assert len(db) == 1
        results = db()
        with pytest.warns(BadRunWarning) as caught:
            assert [header.uid for header in results] == ["sound"]
        assert len(caught) == 11
        assert "`bad` of the results" in str(caught[-1].message)
        assert len(results.bad) == 500
        with pytest.warns(BadRunWarning):
            assert db[-1].uid == "sound"


# -- references ------------------------------------------------------------------------------

RESOURCES = {
    "resource": [("resource", {"uid": 5}), ("resource", {"_daskbroker": 5})],
    "datum": [
        ("datum", {"datum_id": ...}), ("datum", {"datum_id": 5}), ("datum", {"datum_kwargs": ...}),
        ("datum", {"datum_kwargs": 5}), ("datum", {"_daskbroker": 5}),
    ],
}  # fmt: skip


@pytest.mark.parametrize("ranges", [False, True], ids=["inline", "ranges"])
@pytest.mark.parametrize(
    ("kind", "change"), [pair for some in RESOURCES.values() for pair in some], ids=str
)
def test_odd_references_cost_their_run(mongo_database, kind, change, ranges, monkeypatch):
    if ranges:
        monkeypatch.setattr(reference_planning, "INLINE_DATUMS", 2)
    runs = [external_run(3), external_run(3), external_run(3)]
    with daskbroker.connect(mongo_database) as db:
        for docs in runs:
            insert_all(db, docs)
        first = next(doc for name, doc in runs[1] if name == kind)
        key = "uid" if kind == "resource" else "datum_id"
        with pymongo.MongoClient(mongo_database) as client:
            sets = {k: v for k, v in change.items() if v is not ...}
            unset = {k: 1 for k, v in change.items() if v is ...}
            client.get_default_database()[kind].update_one(
                {key: first[key]}, {"$set": sets} if sets else {"$unset": unset}
            )
        bad = runs[1][0][1]["uid"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BadRunWarning)
            starts = []
            for header in db():
                try:
                    list(header.documents(fill=False))
                    starts.append(header.uid)
                except StoreDamaged as error:
                    assert bad in str(error)
            assert {docs[0][1]["uid"] for docs in runs} - set(starts) <= {bad}
            assert len(db().table(fill=False).compute()) == 9
            with daskbroker.temp() as other:
                copied = daskbroker.copy(db(), other)
            assert len(copied.copied) >= 2
            assert set(copied.failed) <= {bad}


@pytest.mark.parametrize("number", [{"a": 1}, b"x", "text", "5f" * 12], ids=str)
def test_a_datum_of_another_id_costs_its_run(mongo_database, number, monkeypatch):
    monkeypatch.setattr(reference_planning, "INLINE_DATUMS", 2)
    runs = [external_run(3), external_run(3)]
    with daskbroker.connect(mongo_database) as db:
        for docs in runs:
            insert_all(db, docs)
        first = next(doc for name, doc in runs[1] if name == "datum")
        with pymongo.MongoClient(mongo_database) as client:
            datums = client.get_default_database().datum
            stored = datums.find_one_and_delete({"datum_id": first["datum_id"]})
            datums.insert_one({**stored, "_id": number})
        good, bad = (db[docs[0][1]["uid"]] for docs in runs)
        assert len(list(good.documents(fill=False))) == len(runs[0])
        with pytest.raises(StoreDamaged, match=rf"{bad.uid}.*its _id is no ObjectId"):
            list(bad.documents(fill=False))


# -- the command line ------------------------------------------------------------------------


@pytest.fixture
def run_command(monkeypatch, capfd):
    def run_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["daskbroker", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        return SimpleNamespace(status=ended.value.code, out=printed.out, err=printed.err)

    return run_command


@pytest.mark.parametrize("command", ["seal", "copy", "jsonl", "parquet"])
def test_commands_go_on_and_name_it_once(three, place, run_command, tmp_path, command):
    run = three(event={"data": ...})
    term = f"batch={run.runs[0].start['batch']}"
    arguments = {
        "seal": ("seal", place, term),
        "copy": ("copy", place, tmp_path / "copy", term),
        "jsonl": ("export", tmp_path, term, "--db", place),
        "parquet": ("export", tmp_path, term, "--db", place, "--format", "parquet"),
    }[command]
    done = run_command(*arguments)
    assert done.status == 1
    (line,) = done.err.strip().splitlines()
    assert run.bad in line
    assert "lacks 'data'" in line
    said = {"seal": "2 chunks", "copy": "2 runs", "jsonl": "2 files", "parquet": "2 files"}
    assert said[command] in done.out


def test_ls_and_info_leave_it_out(three, place, run_command):
    run = three(stop={"time": ...})
    listed = run_command("ls", "--db", place, f"batch={run.runs[0].start['batch']}")
    assert listed.status == 0
    shown = [line.split()[-1] for line in listed.out.splitlines()[1:]]
    for beginning, uid in zip(shown, (run.late, run.good), strict=True):
        assert uid.startswith(beginning)
    (line,) = listed.err.strip().splitlines()
    assert line.startswith("daskbroker: warning: ")
    assert run.bad in line
    assert run_command("info", place).status == 0
    shown = run_command("show", run.bad, "--db", place)
    assert shown.status == 1
    assert "stop document lacks 'time'" in shown.err


def test_no_error_is_somebody_elses(three, db):
    """Whatever is wrong, it is an error of daskbroker that names the run."""
    run = three(event={"data": ...})
    for ask in (db[run.bad].table, db[run.bad].tree, lambda: db.seal(run.bad)):
        with pytest.raises(DaskbrokerError, match=run.bad):
            ask()


def test_views_are_read_as_collections_are(mongo_database):
    """As a facility may show part of its database to some users; views have no indexes."""
    docs = make_run(3, uid="the-run")
    names = {"start": "run_start", "stop": "run_stop", "descriptor": "event_descriptor"}
    with pymongo.MongoClient(mongo_database) as client:
        raw = client.get_default_database()
        for name, doc in docs:
            raw[f"all_{names.get(name, name)}"].insert_one(dict(doc))
        for name in (*names.values(), "event"):
            raw.create_collection(name, viewOn=f"all_{name}", pipeline=[])
    with daskbroker.connect(mongo_database) as db:
        assert [header.uid for header in db(plan_name="count")] == ["the-run"]
        check_run(db[-1], docs)
        with pytest.raises(StoreError, match="run_start is a view"):
            db.insert("start", {"uid": "another", "time": 1.0})


def test_views_of_chunks_are_read(mongo_database):
    with daskbroker.connect(mongo_database) as db:
        insert_all(db, docs := make_run(3, uid="the-run"))
    with pymongo.MongoClient(mongo_database) as client:
        raw = client.get_default_database()
        for name in ("event_chunk", "event_chunk_column"):
            raw[name].rename(f"all_{name}")
            raw.create_collection(name, viewOn=f"all_{name}", pipeline=[])
    with daskbroker.connect(f"{mongo_database}?appname=other") as db:
        check_run(db[-1], docs)
