"""``daskbroker demo``: what it shows and leaves, a second one, and README, which is made of it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from distributed import Client

import daskbroker
from ci import readme
from daskbroker.core.errors import ConfigError
from daskbroker.demo import run_demo, steps
from daskbroker.demo.making import take_live
from daskbroker.demo.picture import save_picture
from daskbroker.demo.recorded import insert_new, recorded_runs
from daskbroker.testing.base import insert_all
from daskbroker.testing.compare import assert_documents_equal

pytestmark = pytest.mark.timeout(900)  # half a minute, unless the machine is busy

ABSENT = "raise ImportError('the demo shows the same without it')\n"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder in which the demo was run, by a Python that cannot import bluesky and ophyd."""
    folder = tmp_path_factory.mktemp("demo")
    absent = tmp_path_factory.mktemp("absent")
    for name in ("bluesky.py", "ophyd.py"):
        (absent / name).write_text(ABSENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(absent), prepend=os.pathsep)
        assert readme.run_demo(folder) == ""
    return folder


def output(demo):
    return (demo / "output.txt").read_text(encoding="utf8")


def test_what_is_shown_fits_a_terminal(demo):
    told = output(demo)
    lines = [line for line in told.splitlines() if str(demo) not in line]
    assert [line for line in lines if len(line) > 80] == []
    assert "both give the same: False" not in told
    for part in ("42 new runs of bluesky", "it is in progress (live.stop is None); 31 events",
                 "40 runs done, 40 made of them; 0 skipped, 0 failed", "demo.png"):  # fmt: skip
        assert part in told


def test_readme_is_what_the_demo_makes(demo):
    command = [sys.executable, readme.__file__, "--check", "--demo", demo]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def contents(folder):
    """The rows of each run of both stores, and when the frames were written."""
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("frames.h5")}
    runs = {}
    for name in ("store", "results"):
        with daskbroker.connect(folder / "daskbroker-demo" / name, mode="r") as db:
            for header in db:
                rows = [len(header.table(stream, fill=False)) for stream in header.streams]
                runs[name, header.uid] = sum(rows)
    return runs, files


def test_a_second_demo_adds_nothing(demo, cluster, monkeypatch):
    monkeypatch.chdir(demo)
    monkeypatch.setattr(steps, "_two_workers", lambda folder: Client(cluster))
    monkeypatch.setenv("COLUMNS", "80")
    before = contents(demo)
    assert len(before[0]) == 45 + 40 + 3  # of the demo, and of what README derives
    assert len(before[1]) == 1
    said = []
    run_demo(Path("daskbroker-demo"), said.append)
    assert contents(demo) == before
    again = "\n".join(said)
    for part in ("0 new runs of bluesky", "0 new fly scan", "0 new run of 1,000 frames",
                 "it has ended; 31 events", "0 runs done, 0 made of them; 40 skipped"):  # fmt: skip
        assert part in again
    new, old = ({*readme.comparable(text)} for text in (again, output(demo)))
    assert len(new - old) <= 8  # these lines, and where they differ the rates


def test_a_demo_that_was_killed_goes_on(db):
    scan, live = next(recorded_runs("scan")), next(recorded_runs("live"))
    for run in (scan, live):
        insert_all(db, run[:20])
    assert insert_new(db, scan)
    take_live(db.uri)  # and closes what this process has open
    with daskbroker.connect(db.uri) as again:
        assert not insert_new(again, live)
        for run in (scan, live):
            assert_documents_equal(run, again[run[0][1]["uid"]].documents())


def test_a_picture_needs_matplotlib(db, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'daskbroker\[plot\]'"):
        save_picture(tmp_path / "none.png", db, db, None)


def test_the_last_line_removes_it_all(demo):
    last = output(demo).splitlines()[-1]
    command = shlex.split(last)
    assert command[:2] == ["rm", "-r"]
    subprocess.run(command, cwd=demo, check=True)
    left = {path.name for path in demo.iterdir()}
    assert left - {"data"} == {"output.txt"}  # "data" is a store that README makes afterwards
