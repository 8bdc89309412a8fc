"""Calling the command line: its main function, in this process to be quick."""

from __future__ import annotations

import pytest


@pytest.fixture
def run(run_command):
    return run_command
