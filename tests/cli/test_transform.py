"""``daskbroker reprocess``, as a user calls it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import daskbroker
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all

MODULE = """
def scaled(header, factor=1):
    table = header.table()
    return table.assign(y=table["x"] * factor)


def mean(dataset):
    return dataset[["x"]].mean("time")


def broken(header):
    raise RuntimeError("no beam")
"""


@pytest.fixture
def folder(tmp_path):
    """Make a folder with a module of a user, and a store of three runs."""
    (tmp_path / "mine.py").write_text(MODULE)
    with daskbroker.connect(tmp_path / "raw") as db:
        for number in range(3):
            insert_all(db, make_run(4, number=number))
    return tmp_path


@pytest.fixture
def run(folder, run_command, monkeypatch):
    """Run the command in this folder and process, which imports the user's module again."""
    monkeypatch.setattr(sys, "path", sys.path.copy())  # the command adds the folder

    def run(*arguments):
        try:
            return run_command("reprocess", *arguments, cwd=folder)
        finally:
            sys.modules.pop("mine", None)

    return run


def test_runs_are_made_once(folder):
    """Here in processes of its own, as a user calls it."""
    call = [sys.executable, "-m", "daskbroker", "reprocess"]
    call += ["mine:scaled", "raw", "./new", "number=1", "--param", "factor=3"]
    first, again = (
        subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False)
        for _ in range(2)
    )
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert "1 run done, 1 made of them; 0 skipped, 0 failed" in first.stdout
    assert "0 runs done, 0 made of them; 1 skipped, 0 failed" in again.stdout
    with daskbroker.connect(folder / "new", create=False) as db:
        (header,) = db()
        table = header.table().compute()
        assert table["y"].tolist() == (3 * table["x"]).tolist()
        assert header.start["derived_from"]["parameters"] == {"factor": 3}


def test_of_datasets(run):
    done = run("mine:mean", "raw", "./new", "--dataset", "primary", "--limit", "2")
    assert done.returncode == 0, done.stderr
    assert "2 runs done" in done.stdout


def test_failures_are_told(run):
    done = run("mine:broken", "raw", "./new")
    assert done.returncode == 1
    assert done.stderr.count("RuntimeError: no beam") == 3


@pytest.mark.parametrize("function", ["mine:absent", "absent:scaled", "mine", "mine:", "./raw"])
def test_what_cannot_be_imported_is_told(run, function):
    done = run(function, "raw", "./new")
    assert done.returncode == 1
    assert f"daskbroker: error: {function!r} is not a module:function" in done.stderr
    assert "Traceback" not in done.stderr


def test_derived_runs_are_left_out_unless_told(folder, run):
    assert run("mine:scaled", "raw", "raw").returncode == 0
    with daskbroker.connect(folder / "raw") as db:
        assert len(db(derived=True)) == len(db(derived=False)) == 3
    done = run("mine:mean", "raw", "./means", "--dataset", "primary")
    assert "3 runs done, 3 made of them; 3 skipped, 0 failed" in done.stdout
    assert "made a new store" in done.stdout
    done = run("mine:mean", "raw", "./all", "--dataset", "primary", "--derived")
    assert "6 runs done, 6 made of them; 0 skipped, 0 failed" in done.stdout
