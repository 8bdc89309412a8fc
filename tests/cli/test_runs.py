"""Commands on runs, as a user calls them."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pandas as pd
import pytest

import daskbroker
from daskbroker.testing import assert_documents_equal, assert_references_first, make_run
from daskbroker.testing.base import insert_all
from daskbroker.work.ingest import ingest
from daskbroker.work.recordings import find_recordings, read_recording

CORPORA = Path(os.environ.get("DASKBROKER_CORPORA", Path(__file__).parents[3] / "shared/corpora"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    with daskbroker.connect(folder) as db:
        for number in range(3):
            insert_all(db, make_run(4, scan_id=number, uid=f"run-{number}-abcdef"))
    return folder


@pytest.mark.skipif(not CORPORA.exists(), reason="recorded runs are not part of the repository")
def test_every_recorded_run_comes_back(db):
    report = ingest(db, [CORPORA])
    assert report.refused == 0, report.refusals
    recorded = {}
    for file in find_recordings(CORPORA):
        for item in read_recording(file):
            recorded.setdefault(item.run, []).append((item.name, item.doc))
    assert len(recorded) == len(db) > 90
    for uid, documents in recorded.items():
        received = list(db[uid].documents(fill=False))
        assert_references_first(received)
        assert_documents_equal(documents, received)


def test_ls_and_show(run, store):
    done = run("ls", "--db", store, "scan_id=1")
    assert done.stdout.splitlines()[1].split()[-1] == "run-1-ab"
    assert "4 rows x 4 columns" in run("show", "-1", "--db", store).stdout
    line = json.loads(run("ls", "--db", store, "--json", "--limit", 1).stdout)
    assert line["start"]["uid"] == "run-2-abcdef"


def test_export_comes_back(run, store, tmp_path):
    assert run("export", tmp_path / "a", "--db", store).returncode == 0
    done = run("ingest", tmp_path / "a", "--db", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    with daskbroker.connect(store) as db, daskbroker.connect(tmp_path / "again") as again:
        for header in db:
            assert_documents_equal(header.documents(), again[header.uid].documents())


def test_export_parquet(run, store, tmp_path):
    done = run("export", tmp_path, "--db", store, "--format", "parquet", "scan_id=0")
    assert done.returncode == 0, done.stderr
    frame = pd.read_parquet(tmp_path / "run-0-abcdef/primary.parquet")
    with daskbroker.connect(store) as db:
        assert frame["x"].tolist() == db[0].table().compute()["x"].tolist()


@pytest.mark.parametrize(
    "arguments",
    [
        ("ls", "--db", "nowhere"),
        ("show", "absent", "--db", "STORE"),
        ("ls", "--db", "STORE", "$where=1"),
        ("ls", "--db", "STORE", "nonsense"),
        ("export", "out", "--db", "STORE", "--format", "excel"),
        ("ingest", "nowhere.json", "--db", "./new"),
    ],
    ids=" ".join,
)
def test_errors_are_one_line(run, store, tmp_path, arguments):
    done = run(*(str(store) if a == "STORE" else a for a in arguments), cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("form", ["lines", "array", "packed"])
def test_a_truncated_file_gives_what_is_whole(db, tmp_path, form):
    documents = make_run(5)
    text = "\n".join(map(json.dumps, documents)) if form != "array" else json.dumps(documents)
    data = text.encode()[:-20]
    file = tmp_path / "run.json"
    file.write_bytes(gzip.compress(data)[:-9] if form == "packed" else data)
    report = ingest(db, [file])
    assert report.refused == 1
    assert "run.json" in report.refusals[0].reason
    assert_documents_equal(documents[: report.documents], db[-1].documents())
    assert report.documents > 0


def test_one_run_is_exported_into_a_file_by_its_name(run, store, tmp_path):
    done = run("export", tmp_path / "a.nc", "--uid", "-1", "--db", store)
    assert (done.returncode, done.stdout) == (0, f"1 file of 1 run in {tmp_path / 'a.nc'}\n")
    assert (tmp_path / "a.nc").is_file()
    for arguments, reason in {
        ("all.nc",): "'all.nc' is the name of a file, but runs are exported into a folder",
        ("a.xlsx", "--uid", "-1"): "no format has the suffix '.xlsx'",
        ("out", "--stream", "x"): "choose another one by --format, or leave out --stream",
        ("out", "--partition", "run"): "--partition needs the format parquet",
        ("out", "--to", "a=b"): "--to gives the locations in references",
        ("out", "--fill", "--format", "csv"): "so it has references; leave out --fill",
    }.items():
        refused = run("export", *arguments, "--db", store, cwd=tmp_path)
        assert refused.returncode == 1
        assert reason in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.nc"]


def test_a_bare_word_that_is_no_name_makes_no_store(run, store, tmp_path):
    assert run("export", tmp_path / "a", "--db", store).returncode == 0
    for command in (("ingest", "a"), ("ls",)):
        for options, environment in (
            (("--db", "beamlin"), {}),
            ((), {"DASKBROKER_URI": "beamlin"}),
        ):
            done = run(*command, *options, cwd=tmp_path, **environment)
            assert done.returncode == 1
            assert "'beamlin' is neither a store" in done.stderr
            assert "given as a path, ./beamlin\n" in done.stderr
    assert not (tmp_path / "beamlin").exists()


def test_without_a_place_and_without_a_store_it_says_what_to_give(run, tmp_path):
    done = run("ls", DASKBROKER_URI="", XDG_DATA_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "no daskbroker store at" in done.stderr
    assert "the default place; name another one by --db PLACE, or set DASKBROKER_URI" in done.stderr


def test_ingest_of_a_mistyped_path_makes_no_store(run, tmp_path):
    done = run("ingest", "absent.jsonl", "--db", tmp_path / "new", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "daskbroker: error: no such file or folder: absent.jsonl\n"
    assert not list(tmp_path.iterdir())


def test_ingest_says_that_it_made_a_store(run, store, tmp_path, mongo_database):
    assert run("export", tmp_path / "a", "--db", store).returncode == 0
    for place in (tmp_path / "new", mongo_database):
        first, again = (run("ingest", tmp_path / "a", "--db", place) for _ in range(2))
        assert first.returncode == again.returncode == 0, first.stderr + again.stderr
        assert first.stdout.count("made a new store") == 1
        assert "made a new store" not in again.stdout


def test_words_of_a_search_on_the_command_line(run, store):
    nothing = run("ls", "--db", store, "exit_status=fail")
    assert nothing.stdout == ""
    assert nothing.stderr == "daskbroker: no run was found\n"
    assert run("ls", "--db", store, "derived=false", "data_key=x").stdout.count("run-") == 3
    assert run("ls", "--db", store, 'start={"scan_id": 1}', "since=1970").stdout.count("run-") == 1
    done = run("ls", "--db", store, "scan_di=1")
    assert done.stderr.startswith("daskbroker: warning: no run was found")
    assert "The nearest known key is 'scan_id'" in done.stderr
    twice = run("ls", "--db", store, "since=1970", "--since", "1980")
    assert "since is given twice: 1970 and '1980'" in twice.stderr
    for words, told in {
        "search=surf": "write full=surf, and for a key 'search' of start documents write 'start=",
        'scan_id="1"': "Write scan_id=1\n",
        "plan_name=[1]": """write 'plan_name={"$in": […]}'""",
        "uid=run-0-": "use daskbroker show run-0-\n",
        "reason=x": """write 'stop={"reason": …}'""",
        'stop={"time": "1"}': """Write 'stop={"time": 1}'""",
    }.items():
        assert told in run("ls", "--db", store, words).stderr
    for text in ("999999", "abcdef"):
        assert "daskbroker ls lists the runs\n" in run("show", text, "--db", store).stderr


def test_derived_runs_are_marked(run, tmp_path):
    with daskbroker.connect(tmp_path) as db:
        insert_all(db, make_run(4, uid="raw-run-0"))
        insert_all(db, daskbroker.table_to_stream(db[-1].table(), header=db[-1]))
    _, derived, raw = run("ls", "--db", tmp_path).stdout.splitlines()
    assert "success, derived" in derived
    assert "derived" not in raw
    assert "made of:   raw-run-0" in run("show", "-1", "--db", tmp_path).stdout
