"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import dask
import pytest

import daskbroker

pytest.register_assert_rewrite("daskbroker.testing")

CORPORA = Path(os.environ.get("DASKBROKER_CORPORA", Path(__file__).parents[2] / "shared/corpora"))


@pytest.fixture(autouse=True)
def _synchronous():
    """Small computations need no threads, and errors are plainer without."""
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def db(tmp_path):
    with daskbroker.connect(tmp_path / "store") as broker:
        yield broker
