"""Twenty threads in each of four processes insert at once: a short form of the crowd's."""

from __future__ import annotations

import pytest

from daskbroker.testing import many_writers
from daskbroker.testing.crowd import main as crowd


@pytest.mark.parametrize("store", ["embedded", "mongo", "mongo, four connections"])
def test_threads_of_processes_insert_at_once(store, tmp_path, request, monkeypatch, capsys):
    place = str(tmp_path / "store")
    if store != "embedded":
        place = request.getfixturevalue("mongo_database")
        place += "?maxPoolSize=4" if "four" in store else ""
    monkeypatch.setattr(many_writers, "EVENTS", 2)
    crowd([place, "--writers", "4", "--threads", "20", "--seconds", "0.2"])
    said = capsys.readouterr().out
    assert "4 processes of 20 threads" in said
    assert "nothing lost or doubled" in said
