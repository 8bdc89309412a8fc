"""Runs that are looked at."""

from __future__ import annotations

import dask
import pytest


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """Pictures are made however busy the machine is; a terminal has 160 columns."""
    monkeypatch.setenv("COLUMNS", "160")
    with dask.config.set({"daskbroker.picture-seconds": 120}):
        yield
