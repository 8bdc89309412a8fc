"""One clock on the command line: the broker's, whatever the zone of the machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import dask
import pymongo
import pytest

import daskbroker
from daskbroker.core.clock import show_time
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all

MIDNIGHT = 1_795_647_600.0  # of 2026-11-26, in Berlin
SHOWN = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d")


@pytest.fixture(params=["embedded", "mongo"])
def place(request, tmp_path):
    return request.getfixturevalue("mongo_database") if request.param == "mongo" else tmp_path / "s"


@pytest.fixture
def store(place):
    """Runs around midnight, named by where they are in Berlin."""
    return filled(place)


@pytest.fixture
def embedded_store(tmp_path):
    """Return the same runs in an embedded store."""
    return filled(tmp_path / "store")


def filled(place):
    with daskbroker.connect(place) as db:
        for uid, time in (
            ("the-25th", MIDNIGHT - 0.25),
            ("the-26th", MIDNIGHT + 69.7),
            ("the-27th", MIDNIGHT + 86_400.0),
        ):
            insert_all(db, make_run(3, uid=uid, time=time))
    return place


COMMANDS = """
import json, sys
from daskbroker.cli import main

for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as ended:
        assert not ended.code
    print("ended")
"""


def commands(*lines, machine, zone=None):
    """Return the output of commands in a process whose machine has another time zone."""
    chosen = {} if zone is None else {"DASK_DASKBROKER__TIMEZONE": zone}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps([[*map(str, line)] for line in lines])],
        env={**os.environ, "COLUMNS": "200", "TZ": machine, **chosen},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split("ended\n")[:-1]


def uids(printed):
    return [line.split()[-1] for line in printed.splitlines()[1:]]


@pytest.mark.parametrize(
    ("machine", "zone", "offset", "on_the_26th"),
    [
        ("Asia/Tokyo", "Europe/Berlin", "+01:00", ["the-26th"]),
        ("Europe/Berlin", None, "+00:00", ["the-27th"]),
        ("Europe/Berlin", "local", "+01:00", ["the-26th"]),
        ("<+12>-12", "local", "+12:00", ["the-26th", "the-25th"]),
    ],
)
def test_what_ls_shows_on_a_day_is_what_it_finds_of_it(
    embedded_store, machine, zone, offset, on_the_26th
):
    """In real processes, on machines of several zones."""
    store = embedded_store
    ls = ("ls", "--db", store)
    day = ("--since", "2026-11-26", "--until", "2026-11-26")
    everything, found = commands(ls, (*ls, *day), machine=machine, zone=zone)
    lines = everything.splitlines()[1:]
    shown = {line.split()[-1]: SHOWN.search(line)[0] for line in lines}
    assert {time[-6:] for time in shown.values()} == {offset}
    assert [uid for uid, time in shown.items() if time.startswith("2026-11-26")] == on_the_26th
    assert uids(found) == on_the_26th


@pytest.fixture
def berlin():
    with dask.config.set({"daskbroker.timezone": "Europe/Berlin"}):
        yield


def test_what_is_printed_can_be_typed(store, run, berlin):
    lines = run("ls", "--db", store).stdout.splitlines()[1:]
    time = SHOWN.search(lines[1])[0]
    assert time == "2026-11-26 00:01:09+01:00"
    for text in (time, time[:-6], time[:-9]):
        found = run("ls", "--db", store, "--since", text, "--until", text).stdout
        assert found.splitlines()[1:] == [lines[1]]
    assert "2026-11-27 00:00:00+01:00" in run("info", store).stdout


def test_show_and_its_tables_have_the_same_clock(store, run, berlin):
    printed = run("show", "the-26th", "--db", store).stdout
    head, table = printed.splitlines()[1], printed[printed.index("\nprimary:") :]
    assert "2026-11-26 00:01:09+01:00" in head
    assert len(re.findall(r"2026-11-26 00:01:\d\d\.\d{3}\+01:00", table)) == 3


BAD_TIMES = (1.795647669e12, 1.795647669e15, 1.795647669e18, 1e300, -1e300, -5.0)


def test_no_time_of_a_run_stops_a_list(place, tmp_path, run, berlin):
    with daskbroker.connect(place) as db:
        for number, time in enumerate(BAD_TIMES):
            insert_all(db, make_run(2, uid=f"bad-{number}", time=time))
        insert_all(db, make_run(2, uid="good", time=MIDNIGHT))
    printed = run("ls", "--db", place).stdout
    assert "1795647669000.0 (as milliseconds 2026-11-26 00:01:09+01:00)" in printed
    assert "1e+300 (no time)" in printed
    assert "1970-01-01 00:59:55+01:00" in printed
    assert uids(printed) == ["bad-3", "bad-2", "bad-1", "bad-0", "good", "bad-5", "bad-4"]
    assert uids(run("ls", "--db", place, "--until", "2026-11-26").stdout) == [
        "good", "bad-5", "bad-4"
    ]  # fmt: skip
    for number, time in enumerate(BAD_TIMES):
        shown = show_time(time)  # a number alone would be taken for seconds
        ends = ("--since", shown, "--until", shown)
        assert uids(run("ls", "--db", place, *ends).stdout) == [f"bad-{number}"]
        assert run("show", f"bad-{number}", "--db", place).returncode == 0
    refused = run("ls", "--db", place, "--since", "1795647669000")
    assert refused.returncode == 1
    assert "milliseconds? Then write 1795647669.0" in refused.stderr
    for format in ("jsonl", "parquet"):
        done = run("export", tmp_path / format, "--db", place, "--format", format)
        assert done.returncode == 0
        assert len(list((tmp_path / format).glob("[!.]*"))) == len(BAD_TIMES) + 1


ABSENT = object()
FOREIGN = (ABSENT, None, True, "2026-11-26", float("nan"), float("inf"), {"at": 1}, 2**62)


def test_a_database_of_others_may_hold_any_time(mongo_database, run):
    with daskbroker.connect(mongo_database) as db:
        insert_all(db, make_run(2, uid="good", time=MIDNIGHT))
        insert_all(db, make_run(2, uid="other", time=MIDNIGHT + 1))
        with pymongo.MongoClient(mongo_database) as client:
            starts = client.get_default_database()["run_start"]
            for place, time in enumerate(FOREIGN):
                starts.insert_one(
                    {"uid": f"foreign-{place}", "scan_id": place}
                    | ({} if time is ABSENT else {"time": time})
                )
            descriptors = client.get_default_database()["event_descriptor"]
            descriptors.update_many({"run_start": "other"}, {"$unset": {"time": 1}})
        everything = {"good", "other", *(f"foreign-{place}" for place in range(len(FOREIGN)))}
        assert {header.uid for header in db()} == everything
        assert {header.uid for header in reversed(db())} == everything
        assert {header.uid for header in db()[:100]} == everything
        for header in db():
            assert header.uid in repr(header) + header._repr_html_()
        assert "foreign-3" in db()._repr_html_()
        assert [h.uid for h in db(since=MIDNIGHT, until=MIDNIGHT + 5)] == ["other", "good"]
        numbers = {"good", "other", "foreign-5", "foreign-7"}
        assert {h.uid for h in db(since=0)} == numbers
        assert {h.uid for h in db("good", "substring", since=0)} == {"good"}
        assert len(db().table("primary")) == db().dataset("primary").sizes["time"] == 4
        assert len(list(db["other"].documents())) == 5
        assert len(list(db["other"].documents(fields=["x", "start:scan_id"]))) == 5
    printed = run("ls", "--db", mongo_database).stdout
    assert set(uids(printed)) == everything
    for shown in ("None (no time)", "True (no time)", "'2026-11-26' (no time)", "nan (no time)"):
        assert shown in printed
