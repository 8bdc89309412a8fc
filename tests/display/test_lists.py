"""Lists of runs, as they are shown and as a frame."""

from __future__ import annotations

import pickle
import re
import shutil
import sqlite3
from contextlib import closing

import pandas as pd
import pytest

import daskbroker
from daskbroker import BadRunWarning
from daskbroker.core.errors import BadQuery, FieldNotFound, StreamNotFound
from daskbroker.display.text_columns import text_width
from daskbroker.testing import RunBuilder, make_run
from daskbroker.testing.base import insert_all

SCANNED = {"hints": {"dimensions": [[["m1"], "primary"]]}}


@pytest.fixture
def some(db):
    """A run that has stopped, one that was aborted, a derived one, and one that is open."""
    times = iter(range(4))
    begin = 1_760_000_000.0
    for more in (
        {"sample": {"name": "Ag-3"}, "num_points": 4, **SCANNED},
        {"title": "the long way round", "num_points": 9, "motors": ["m1", "m2"]},
        # It repeats the plan of its source, and has rows of its own number.
        {"derived_from": {"runs": ["x"]}, "sample": "Ag-3", "num_points": 9},
        {"stop": False, "num_points": 8},
    ):
        number = next(times)
        documents = make_run(
            4, scan_id=number, uid=f"run-{number}-abcdef", time=begin + 60 * number, **more
        )
        if number == 1:
            documents[-1][1]["exit_status"] = "abort"
        insert_all(db, documents)
    return db


@pytest.fixture
def many(db):
    with db.batch():
        for number in range(130):
            insert_all(db, make_run(1, scan_id=number))
    return db


def test_a_list_tells_what_one_chooses_by(some):
    title, heads, *rows = repr(some()).split("\n")
    assert title == "<Results of all runs: 4 runs>"
    assert heads.split() == [
        "scan_id", "time", "plan", "sample", "motors", "points", "duration", "status", "uid",
    ]  # fmt: skip
    assert [" ".join(row.split()) for row in rows] == [
        "3 2025-10-09 08:56:20+00:00 count ?/8 open run-3-ab",
        "2 2025-10-09 08:55:20+00:00 count Ag-3 4 0.75 s success, derived run-2-ab",
        "1 2025-10-09 08:54:20+00:00 count the long way round m1, m2 4/9 0.75 s abort run-1-ab",
        "0 2025-10-09 08:53:20+00:00 count Ag-3 m1 4 0.75 s success run-0-ab",
    ]
    assert rows == repr(some[-4:]).split("\n")[2:] == repr(some).split("\n")[2:]
    assert some[-4:][0] == some["run-3-abcdef"] == some[rows[0].split()[-1]]


def test_times_are_in_the_zone_of_the_broker(some):
    some.timezone = "Europe/Berlin"
    assert "2025-10-09 10:56:20+02:00" in repr(some[-1:])
    assert "2025-10-09 10:56:20+02:00" in some[-1:]._repr_html_()


@pytest.mark.parametrize("width", [20, 45, 60, 72, 80, 100, 200])
def test_lists_fit_the_terminal(some, monkeypatch, width):
    insert_all(some, make_run(1, plan_name="計画" * 40, sample="e\u0301" * 90, uid="u" * 90))
    monkeypatch.setenv("COLUMNS", str(width))
    for shown in (repr(some), repr(some()), repr(some[-5:]), str(some[-1])):
        lines = shown.split("\n")[shown == str(some[-1]) :]
        assert max(map(text_width, lines)) <= width
        assert all(line.isprintable() for line in lines)
    assert width < 45 or ("uuuuuuuu" in repr(some()) and "scan_id" in repr(some()))


def test_long_lists_are_folded(many):
    text = repr(many())
    assert len(text.split("\n")) == 23
    assert text.endswith("… 110 more")
    html = many()._repr_html_()
    first, _, folded = html.partition("<details>")
    assert first.count('class="uid"') == 20
    assert folded.count('class="uid"') == 80
    assert "80 more" in folded
    assert "30 more, which are not shown" in folded
    assert "<details" not in many()[:20]._repr_html_()
    assert repr(many[-30:]).endswith("… 10 more")


def test_a_uid_is_there_as_a_whole(some):
    assert ">run-1-abcdef</span>" in some._repr_html_()


def test_marks_of_open_and_derived_runs(some):
    html = some()._repr_html_()
    for mark in ("open", "derived"):
        assert html.count(f">{mark}</span>") == 1
    assert ">abort</span>" in html


def test_lists_of_headers_are_lists(some):
    chosen = some[-3:]
    assert isinstance(chosen, list)
    assert chosen == list(some())[:3]
    assert isinstance(chosen[1:], daskbroker.HeaderList)
    assert type(some[[-1, -2]]) is type(some()[::2]) is daskbroker.HeaderList
    assert [h.uid for h in pickle.loads(pickle.dumps(chosen))] == [h.uid for h in chosen]
    assert repr(some[-3:-3]) == "[]"
    assert "0 runs" in some[-3:-3]._repr_html_()


def test_nothing_found_is_said(some):
    assert repr(some(scan_id=77)) == "<Results of scan_id=77: 0 runs>"
    assert "0 runs" in some(scan_id=77)._repr_html_()
    assert repr(some()[:1]).startswith("<Results of all runs: 1 run>\n")


def test_errors_of_an_empty_store_or_search_say_what_was_searched(some, tmp_path):
    empty = daskbroker.connect(tmp_path / "empty")
    store = f"the store {tmp_path / 'empty'} has no runs"
    asked = "no run was found by scan_id=77"
    for fail, error, message in (
        (lambda: empty[-1], IndexError, f"{store}; -1 is too far back"),
        (lambda: empty.v1[-2:], IndexError, f"{store}; -2 is too far back"),
        (lambda: empty.v2[-1], IndexError, store),
        (lambda: empty.header_source[-1], IndexError, "the store has no runs; -1"),
        (lambda: empty().table(), StreamNotFound, f"no stream 'primary': {store}"),
        (lambda: some(scan_id=77).dataset("x"), StreamNotFound, f"no stream 'x': {asked}"),
        (lambda: some(scan_id=77)[0], IndexError, f"{asked}; there is no run number 0"),
        (lambda: some(scan_id=77).plot(), BadQuery, "there are no runs to draw"),
        (lambda: some()[90:].table(), StreamNotFound, "these results are an empty slice"),
        (lambda: some(scan_id={"$gt": 0})[90:][0], IndexError, "this slice is empty, of what was"),
        (lambda: some()[:1].table("x"), StreamNotFound, f"run '{some()[0].uid}' has no stream 'x'"),
        (lambda: some()[:1][3], IndexError, "there is only 1 run; there is no run number 3"),
    ):
        with pytest.raises(error, match=re.escape(message)):
            fail()


def test_a_broker_that_cannot_be_read_still_has_a_name(some):
    some.close()
    assert repr(some).startswith("<DataBroker ")
    assert some._repr_html_().startswith("&lt;DataBroker ")


def test_the_frame_has_what_the_list_shows(some):
    some.timezone = "Europe/Berlin"
    frame = some().to_dataframe()
    assert list(frame.columns) == [
        "uid", "scan_id", "time", "plan_name", "sample", "motors", "points", "duration",
        "exit_status", "derived",
    ]  # fmt: skip
    assert frame["uid"].tolist() == [header.uid for header in some()]
    assert frame["scan_id"].tolist() == [3, 2, 1, 0]
    assert str(frame["time"].dtype) == "datetime64[us, Europe/Berlin]"
    assert frame["points"].tolist() == [pd.NA, 4, 4, 4]
    assert frame["duration"].dt.total_seconds().tolist()[1:] == [0.75] * 3
    assert frame["exit_status"].fillna("open").tolist() == ["open", "success", "abort", "success"]
    assert frame["derived"].tolist() == [False, True, False, False]
    heads = some().to_dataframe(["plan", "status"])
    assert list(heads) == ["uid", "plan", "status"]
    assert heads["plan"].tolist() == frame["plan_name"].tolist()
    assert heads["status"].equals(frame["exit_status"].rename("status"))
    assert frame["sample"].fillna("").tolist() == ["", "Ag-3", "the long way round", "Ag-3"]


def test_the_frame_has_any_metadata(db):
    for gain in (1, 2):
        run = RunBuilder(sample={"name": "Ag", "holes": [1, gain]}, gain=gain)
        settings = {"det": {"data": {"det_gain": gain * 10}, "timestamps": {}, "data_keys": {}}}
        run.event(run.descriptor({"det": 0.5}, configuration=settings), {"det": 1.0})
        insert_all(db, run.stop(reason="done"))
    insert_all(db, make_run(1))
    fields = ["gain", "start:sample.name", "sample.holes", "stop:reason", "config:det:gain", "time"]
    frame = db().to_dataframe(fields)
    assert list(frame.columns) == ["uid", *fields]
    assert frame["gain"].tolist()[1:] == [2, 1]
    assert frame["sample.holes"].tolist() == [None, [1, 2], [1, 1]]
    assert frame["stop:reason"].tolist() == ["", "done", "done"]
    assert frame["config:det:gain"].tolist()[1:] == [20, 10]
    with pytest.raises(FieldNotFound, match="'gian'"):
        db().to_dataframe("gian")
    with pytest.raises(BadQuery, match="fields"):
        db().to_dataframe([3])


def test_the_frame_leaves_out_runs_whose_configuration_cannot_be_read(tmp_path):
    settings = {"det": {"data": {"det_gain": 10}, "timestamps": {}, "data_keys": {}}}
    with daskbroker.connect(tmp_path / "store") as db:
        for uid in ("one", "two"):
            run = RunBuilder(uid)
            run.descriptor({"det": 0.5}, configuration=settings)
            insert_all(db, run.stop())
    with closing(sqlite3.connect(tmp_path / "store" / "daskbroker.sqlite")) as connection:
        connection.execute("UPDATE descriptor SET body = x'00' WHERE run = 2")
        connection.commit()
    with daskbroker.connect(tmp_path / "store") as db:
        results = db()
        with pytest.warns(BadRunWarning, match="run 'two': descriptor"):
            frame = results.to_dataframe("config:det:gain")
        assert frame["uid"].tolist() == ["one"]
        assert [one.uid for one in results.bad] == ["two"]
        assert results.to_dataframe("scan_id")["uid"].tolist() == ["two", "one"]


def test_the_frame_of_nothing_and_of_many(many):
    assert many(scan_id=-1).to_dataframe().shape == (0, 10)
    assert many(scan_id=-1).to_dataframe(["anything"]).shape == (0, 2)
    frame = many().to_dataframe()
    assert frame["scan_id"].tolist() == list(range(129, -1, -1))


def test_times_of_no_calendar_are_no_time_in_a_frame(db):
    for time in (1e300, 1.76e12, -1e300, 1.76e9):
        insert_all(db, make_run(1, time=time))
    assert db().to_dataframe()["time"].isna().sum() == 3


def test_durations_and_points_that_no_column_holds_are_missing_in_a_frame(db):
    for time, points in ((1e300, 2**70), (1.76e15, -(2**70)), (-1e300, 5), (1.76e9, None)):
        insert_all(db, make_run(1, time=time, num_points=points, stop=False))
        stop = {"uid": f"stop-{time}", "run_start": db(time=time)[0].uid, "time": 1.76e9 + 1}
        db.insert(
            "stop", {**stop, "exit_status": "success", "num_events": {"primary": points or 1}}
        )
    frame = db().to_dataframe()
    seconds = dict(zip(frame["points"].fillna(0), frame["duration"].dt.total_seconds()))
    assert frame["duration"].isna().sum() >= 2
    assert seconds[1] == 1.0
    assert frame["points"].isna().sum() == 2


def test_results_of_a_store_that_cannot_be_read_are_shown_with_the_reason(db, tmp_path):
    insert_all(db, make_run(1))
    found = db(plan_name="<count>")
    shutil.rmtree(tmp_path / "store")
    assert repr(found).startswith("<Results of plan_name='<count>'> ")
    assert "store" in repr(found).partition("> ")[2]
    assert found._repr_html_().startswith("&lt;Results of plan_name=&#x27;&lt;count&gt;")
