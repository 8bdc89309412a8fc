"""``ls``, ``show`` and ``info``, as a user calls them."""

from __future__ import annotations

import csv
import json
import os

import pytest

import daskbroker
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all

UIDS = [f"{number}a2b3c4d-1111-4222-8333-444455556666" for number in range(3)]


@pytest.fixture(params=["embedded", "mongodb"])
def store(request, tmp_path):
    """Three runs, the last one open with its events in the journal."""
    if request.param == "mongodb":
        place = request.getfixturevalue("mongo_database")
    else:
        place = str(tmp_path / "store")
    with daskbroker.connect(place) as db:
        for number, uid in enumerate(UIDS):
            known = {"sample": {"name": "gold"}, "motors": ["x"], "energy": 7.5 + number}
            known |= {"scan_id": number, "time": 1.76e9 + 1000 * number}
            insert_all(db, make_run(4, uid=uid, stop=number < 2, **known))
    return place


def test_ls_is_a_table(run, store):
    head, *rows = run("ls", "--db", store).stdout.splitlines()
    assert head.split() == [
        "scan_id", "time", "plan", "sample", "motors", "points", "duration", "status", "uid"
    ]  # fmt: skip
    assert [row.split()[-1] for row in rows] == [uid[:8] for uid in reversed(UIDS)]
    assert rows[1].split()[0] == "1"
    assert all(word in rows[1] for word in ("gold", "x", "success"))
    assert "open" in rows[0]


def test_ls_fits_the_terminal(run, store):
    for width in (20, 40, 60, 100):
        lines = run("ls", "--db", store, COLUMNS=str(width)).stdout.splitlines()
        assert max(map(len, lines)) <= width
        assert lines[1].endswith(UIDS[2][:8])
    assert "gold" not in run("ls", "--db", store, COLUMNS="40").stdout


def test_ls_of_fields(run, store):
    done = run("ls", "--db", store, "--fields", "energy,start:sample.name", "--fields", "duration")
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["uid", "energy", "start:sample.name", "duration"]
    assert rows[1].split() == [UIDS[1][:8], "8.5", "gold", "0.75", "s"]
    assert rows[0].split() == [UIDS[2][:8], "9.5", "gold"]  # it is open


def test_ls_as_csv(run, store):
    rows = list(csv.DictReader(run("ls", "--db", store, "--format", "csv").stdout.splitlines()))
    assert [row["uid"] for row in rows] == UIDS[::-1]
    assert rows[1]["duration"] == "0.75"
    assert rows[1]["exit_status"] == "success"
    assert rows[0]["exit_status"] == ""
    fields = run("ls", "--db", store, "--format", "csv", "--fields", "sample,start:sample").stdout
    found = next(csv.DictReader(fields.splitlines()))
    assert found["sample"] == "gold"
    assert json.loads(found["start:sample"]) == {"name": "gold"}


def test_ls_as_json(run, store):
    lines = run("ls", "--db", store, "--format", "json").stdout.splitlines()
    assert lines == run("ls", "--db", store, "--json").stdout.splitlines()
    assert [json.loads(line)["start"]["uid"] for line in lines] == UIDS[::-1]
    fields = run("ls", "--db", store, "--json", "--fields", "points,time", "--limit", 1).stdout
    assert json.loads(fields) == {
        "uid": UIDS[2],
        "points": None,
        "time": "2025-10-09T09:26:40+00:00",
    }


def test_ls_shows_no_escapes(run, tmp_path):
    with daskbroker.connect(tmp_path) as db:
        insert_all(db, make_run(2, sample="red\x1b[31m\nnext", title="t"))
    for options in ([], ["--format", "csv"], ["--json"], ["--fields", "sample"]):
        done = run("ls", "--db", tmp_path, *options)
        assert done.returncode == 0
        assert "\x1b" not in done.stdout
        assert len(done.stdout.splitlines()) == (1 if options == ["--json"] else 2)


def test_an_unknown_field_is_told_with_those_there_are(run, store):
    done = run("ls", "--db", store, "--fields", "enrgy")
    assert done.returncode == 1
    assert "'enrgy'" in done.stderr
    assert "scan_id" in done.stderr
    assert run("ls", "--db", store, "--format", "excel").returncode == 2
    unknown = run("ls", "--db", store, "--format", "excel").stderr
    assert all(name in unknown for name in ("table", "json", "csv"))


def test_nothing_found_is_a_note(run, store, tmp_path):
    for command in (
        ["ls", "scan_id=99", "--db", store],
        ["ls", "scan_id=99", "--db", store, "--json"],
        ["export", tmp_path / "out", "scan_id=99", "--db", store],
        ["check", "scan_id=99", "--db", store],
        ["seal", "scan_id=99", "--db", store],
        ["copy", store, tmp_path / "target", "scan_id=99"],
        ["reprocess", "os:path.exists", store, tmp_path / "target", "scan_id=99"],
    ):
        done = run(*command)
        assert done.returncode == 0, done.stderr
        assert "no run was found" in done.stderr
        assert "no run was found" not in done.stdout
        assert run(*command, "--fail-empty").returncode == 1
    assert run("ls", "--db", store, "--fail-empty").returncode == 0


def test_show_begins_with_what_matters(run, store):
    done = run("show", "1", "--db", store)
    first, *rest = done.stdout.splitlines()
    assert first == f"count 1  {UIDS[1]}"
    assert "sample:    gold" in rest[:6]
    assert "primary: 4 rows x 4 columns" in rest
    assert "energy" not in done.stdout
    assert rest[-1] == "documents: start and stop, 1 descriptor; --docs shows them"


def test_show_documents(run, store):
    lines = run("show", "1", "--db", store, "--docs").stdout.splitlines()
    for line in ("start:", "  energy: 8.5", "stop:", "descriptor of primary:"):
        assert line in lines
    assert "  time: 2025-10-09 09:10:00+00:00" in lines


def test_show_as_json(run, store):
    told = json.loads(run("show", "-1", "--db", store, "--json").stdout)
    assert told["start"]["uid"] == UIDS[2]
    assert told["stop"] is None
    assert told["streams"]["primary"]["rows"] == 4
    assert list(told["streams"]["primary"]["descriptors"][0]["data_keys"]) == ["x", "y", "n"]


def test_an_unknown_stream_is_told_with_those_there_are(run, store):
    for options in ([], ["--json"]):
        done = run("show", "1", "--db", store, "--stream", "basline", *options)
        assert done.returncode == 1
        assert "'basline'" in done.stderr
        assert "primary" in done.stderr


def test_info(run, store):
    done = run("info", store)
    lines = done.stdout.splitlines()
    assert lines[0].endswith(": 3 runs, 1 of them open")
    for line in (
        "zone:    UTC",
        "format:  1",
        "rows:    8 sealed, 4 not",
        "stream:  primary: 12 rows of 3 runs",
    ):
        assert line in lines
    assert lines[-1].endswith(UIDS[2][:8])
    assert run("seal", store).returncode == 0
    assert "rows:    12 sealed, 0 not" in run("info", store).stdout.splitlines()
    assert "sealed" not in run("info", store, "--brief").stdout


def test_info_as_json(run, store):
    told = json.loads(run("info", store, "--json").stdout)
    assert told["runs"] == 3
    assert (told["sealed"], told["waiting"]) == (8, 4)
    assert told["sources"][0]["format"] == 1
    assert told["sources"][0]["bytes"] > 10_000
    assert told["newest"] == UIDS[2]
    assert "streams" not in json.loads(run("info", store, "--json", "--brief").stdout)


def test_info_of_an_empty_store(run, tmp_path):
    with daskbroker.connect(tmp_path):
        pass
    assert ": 0 runs" in run("info", tmp_path).stdout


def test_reports_as_json(run, store, tmp_path):
    exported = json.loads(run("export", tmp_path / "a", "--db", store, "--json").stdout)
    assert exported["runs"] == 3
    assert sorted(exported["files"]) == sorted(map(str, (tmp_path / "a").glob("[!.]*")))
    assert json.loads(run("seal", store, "--json").stdout)["chunks"] == 1
    assert run("check", store, "--json").stdout == ""
    (tmp_path / "mine.yml").write_text(f"uri: {store}\n")
    config = run("config", "--json", DASKBROKER_PATH=str(tmp_path)).stdout.splitlines()
    assert json.loads(config[0])["name"] == "mine"


def test_reprocess_as_json(run, store, tmp_path, monkeypatch):
    (tmp_path / "named_tables.py").write_text("def same(header):\n    return header.table()\n")
    monkeypatch.syspath_prepend(tmp_path)
    done = run("reprocess", "named_tables:same", store, tmp_path / "new", "--json")
    told = json.loads(done.stdout)
    assert sorted(told["done"]) == sorted(UIDS[:2])
    assert list(told["skipped"]) == [UIDS[2]]
    assert "made a new store" in done.stderr


def test_uids_that_begin_alike_are_told_apart(run, tmp_path):
    with daskbroker.connect(tmp_path) as db:
        for number in range(12):
            insert_all(db, make_run(1, uid=f"beamline-7-run-{number}", time=1.76e9 + number))
    for options in ([], ["--fields", "scan_id"]):
        place = -1 if not options else 0
        _, *rows = run("ls", "--db", tmp_path, *options).stdout.splitlines()
        shown = [row.split()[place] for row in rows]
        assert shown == [f"beamline-7-run-{number}" for number in reversed(range(12))]
        first, *_ = run("show", shown[0], "--db", tmp_path).stdout.splitlines()
        assert first.endswith(f"  {shown[0]}")


COMMANDS = (
    "ls", "ls --json", "ls --format csv", "show -1", "show -1 --json", "info", "info --json",
    "config", "check", "--help", "--version", "show --help", "completion bash", "seal",
)  # fmt: skip


def test_output_that_nobody_reads_is_no_error(run, store, monkeypatch):
    """As of ``daskbroker show -1 | head``, whichever line is the one that cannot be written."""
    for command in COMMANDS:
        words = command.split()
        for buffering in (1, -1):
            reading, writing = os.pipe()
            os.close(reading)
            closed = os.fdopen(writing, "w", buffering=buffering)
            with monkeypatch.context() as patch:
                patch.setattr("sys.stdout", closed)
                done = run(*words, DASKBROKER_URI=store)
            assert (done.returncode, done.stderr) == (0, ""), command
            closed.close()  # raises if there is something left to write
    assert run("show", "no-such-run", "--db", store).returncode == 1
