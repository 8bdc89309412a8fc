"""Helpers of the tests of the embedded store."""

from __future__ import annotations

from contextlib import contextmanager

import pytest


@pytest.fixture
def source(db):
    return db.event_sources["embedded"].store


@pytest.fixture
def rows_of(source):
    """Return the number of rows in a table of the SQLite file."""

    def rows_of(table):
        with source._database.read() as connection:
            return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]

    return rows_of


class _Killed(BaseException):
    """An exception that the code under test does not catch."""


def _die(*args, **kwargs):
    raise _Killed


@pytest.fixture
def kill():
    """Stop at the call of a function, as if the process were killed: ``with kill(name): ...``."""

    @contextmanager
    def kill(place):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(place, _die)
            try:
                yield
            except _Killed:
                return
        pytest.fail(f"{place} was never called")

    return kill
