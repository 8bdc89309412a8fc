"""Calling the command line: its main function, in this process to be quick."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from daskbroker.cli import main


@pytest.fixture
def run(monkeypatch, capfd):
    """``run(*arguments, cwd=None, **environment)``: exit status and what was printed."""

    def run(*arguments, cwd=None, **environment):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["daskbroker", *map(str, arguments)])
            patch.delenv("COLUMNS", raising=False)  # of the terminal that the tests are run in
            for name, value in environment.items():
                patch.setenv(name, value)
            if cwd is not None:
                patch.chdir(cwd)
            capfd.readouterr()
            with pytest.raises(SystemExit) as ended:
                main()
        printed = capfd.readouterr()
        return SimpleNamespace(returncode=ended.value.code, stdout=printed.out, stderr=printed.err)

    return run
