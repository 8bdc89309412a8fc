"""Fixtures shared by all tests."""

from __future__ import annotations

import sys
from pathlib import Path

import dask
import pytest

import daskbroker

pytest.register_assert_rewrite("daskbroker.testing")

# Benchmarks are not installed; at the end, so that the installed daskbroker is what is tested.
sys.path.append(str(Path(__file__).parents[1]))


@pytest.fixture(autouse=True)
def _synchronous():
    """Small computations need no threads, and errors are plainer without."""
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def db(tmp_path):
    with daskbroker.connect(tmp_path / "store") as broker:
        yield broker
