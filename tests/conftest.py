"""Fixtures shared by all tests."""

from __future__ import annotations

import dask
import pytest

import daskbroker

pytest.register_assert_rewrite("daskbroker.testing")


@pytest.fixture(autouse=True)
def _synchronous():
    """Small computations need no threads, and errors are plainer without."""
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def db(tmp_path):
    with daskbroker.connect(tmp_path / "store") as broker:
        yield broker
