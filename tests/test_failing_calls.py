"""Calls of the system that fail, one after the other; see daskbroker/testing/faults.py."""

from __future__ import annotations

import re

import pytest

from daskbroker.testing import faults


@pytest.mark.parametrize(("session", "most"), [("embedded", 3), ("spool", 1), ("export", 1)])
def test_a_call_that_fails_is_told_of_and_loses_nothing(session, most, capfd):
    with pytest.raises(SystemExit) as ended:
        faults.main(["--most", str(most), "--sessions", session])
    printed, errors = capfd.readouterr()
    assert ended.value.code == 0, printed + errors
    counted = {kind: int(n) for n, kind in re.findall(r"(\d+) (\w+)[,;]", printed)}
    assert {"write", "sync", "rename", "mkdir", "open", "unlink"} <= counted.keys()
    assert counted["write"] > (20 if session == "export" else 300)  # SQLite's are among them
    assert counted["rename"] >= (3 if session == "export" else 5)  # chunks, of a page at once too
    assert ", 0 with a wrong outcome" in printed


def test_errors_are_given_by_name_or_number(monkeypatch, capsys):
    driven = []
    monkeypatch.setenv(faults.LIBRARY, "built")
    monkeypatch.setattr(faults, "_drive", driven.append)
    faults.main(["--errors", "24", "EIO"])
    assert driven[0].errors == ["EMFILE", "EIO"]
    for given in ("EFOO", "9999"):
        with pytest.raises(SystemExit, match="2"):
            faults.main(["--errors", given])
        assert f"there is no error '{given}'" in capsys.readouterr().err
