"""What the tests of the embedded store share."""

from __future__ import annotations

from contextlib import contextmanager

import pytest


@pytest.fixture
def source(db):
    return db.event_sources["embedded"].store


@pytest.fixture
def rows_of(source):
    """How many rows a table of the SQLite file has."""

    def rows_of(table):
        with source._database.read() as connection:
            return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]

    return rows_of


class _Killed(BaseException):
    """Nothing that the code under test would catch."""


def _die(*args, **kwargs):
    raise _Killed


@pytest.fixture
def kill():
    """As if the process were killed where a function is called: ``with kill(name): ...``."""

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
