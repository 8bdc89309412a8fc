"""Progress is shown where somebody looks, and asks for nothing where nobody does."""

from __future__ import annotations

import sys

import dask

from daskbroker.progress import progress_bar
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all


class Uncountable:
    def __iter__(self):
        return iter(())

    def __len__(self):
        raise AssertionError("nobody looks, so nothing has to be counted")


def test_quiet_and_free_where_nobody_looks(capsys):
    with progress_bar(Uncountable(), " runs") as bar:
        bar.update()
    assert capsys.readouterr().err == ""


def test_no_standard_error_is_no_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with progress_bar(Uncountable(), " runs") as bar:
        assert bar.disable


def test_shown_in_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress_bar([1, 2, 3], " runs") as bar:
        bar.update(3)
    assert "3/3" in capsys.readouterr().err
    with progress_bar(Uncountable(), " runs", show=False):
        pass
    assert capsys.readouterr().err == ""


def test_map_shows_it_when_told(db, capsys):
    for _ in range(3):
        insert_all(db, make_run(1))
    with dask.config.set(scheduler="threads"):
        assert len(list(db().map(lambda header: header.uid, progress=True))) == 3
    assert "3/3" in capsys.readouterr().err
