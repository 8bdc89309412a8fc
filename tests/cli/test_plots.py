"""The command that draws runs."""

from __future__ import annotations

import pytest

import daskbroker
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import datum_run


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    with daskbroker.connect(folder) as db:
        for documents in (make_run(4), make_run(4), datum_run(folder)[0]):
            insert_all(db, documents)
    return folder


@pytest.mark.parametrize(
    ("arguments", "file", "begin"),
    [
        (["-1"], "a.png", b"\x89PNG"),
        (["-2", "-3"], "a.svg", b"<?xml"),
        (["-3", "--y", "x", "--y", "n", "--stream", "primary"], "a.pdf", b"%PDF"),
        (["-1", "--frame", "-2"], "frame.png", b"\x89PNG"),
    ],
)
def test_plot(run, store, tmp_path, arguments, file, begin):
    done = run("plot", *arguments, "-o", tmp_path / file, "--db", store)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / file}\n"
    assert (tmp_path / file).read_bytes().startswith(begin)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-1", "-o", "a.nothing"], "a.nothing: Format 'nothing' is not supported"),
        (["-1", "-o", "missing/a.png"], "missing/a.png"),
        (["-1", "-2", "--frame", "0", "-o", "a.png"], "--frame needs one run, not 2"),
        (["-2", "--frame", "0", "-o", "a.png"], "is declared as image; choose one with --y; there"),
        (
            ["-2", "--stream", "x", "-o", "a.png"],
            "'x' is a data key: data keys are chosen with --y",
        ),
        (["-1", "--y", "z", "-o", "a.png"], "no data key 'z'"),
        (["-9", "-o", "a.png"], "only 3 runs"),
    ],
)
def test_what_cannot_be_plotted_is_one_line(run, store, tmp_path, arguments, reason):
    done = run("plot", *arguments, "--db", store, cwd=tmp_path)
    assert done.returncode == 1
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
