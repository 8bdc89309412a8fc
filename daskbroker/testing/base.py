"""What all themes of the conformance suite share: fixtures and small helpers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import dask
import pytest

from .compare import assert_documents_equal, assert_references_first

STATES = ("journal", "sealed", "mixed", "stopped")
"""Where a run's rows are when it is read: all in the journal, all sealed, some of both (each
while the run is open), or sealed because the run has stopped."""

Put = Callable[[Iterable[tuple[str, Any]]], Any]


def insert_all(db: Any, documents: Iterable[tuple[str, Any]]) -> None:
    """Insert documents one by one."""
    for name, doc in documents:
        db.insert(name, doc)


def insert_run(db: Any, documents: Sequence[tuple[str, Any]]) -> Any:
    """Insert the documents of a run, and return its Header."""
    insert_all(db, documents)
    return db[documents[0][1]["uid"]]


def table_of(header: Any, stream: str = "primary", **kwargs: Any) -> Any:
    """Return the computed table of a stream, with references left unfilled."""
    return header.table(stream, fill=False, **kwargs).compute()


def check_run(header: Any, documents: Iterable[tuple[str, Any]]) -> None:
    """Check that a run returns these documents, each after those that it refers to."""
    received = list(header.documents(fill=False))
    assert_references_first(received)
    assert_documents_equal(documents, received)


class Conformance:
    """Base class of all themes. A subclass in a test module must define these fixtures.

    ``broker``
        A :class:`~daskbroker.DataBroker` on an empty, writable store.
    ``reopen``
        A callable without arguments that closes the store and returns a new broker on it, opened
        as another process would.
    """

    @pytest.fixture(autouse=True)
    def _nothing_in_the_background(self) -> Iterator[None]:
        """Switch off peeking in the background, whose results would depend on thread timing."""
        with dask.config.set({"daskbroker.peek-after-stop": False}):
            yield

    @pytest.fixture(params=STATES)
    def put(self, request: pytest.FixtureRequest, broker: Any) -> Put:
        """Return a function that inserts a run and returns its header, for each of `STATES`.

        A stop document is inserted in the state ``stopped`` only.
        """
        state: str = request.param

        def put(documents: Iterable[tuple[str, Any]]) -> Any:
            pairs = list(documents)
            if state != "stopped":
                pairs = [pair for pair in pairs if pair[0] != "stop"]
            half = len(pairs) - sum(1 for name, _ in pairs if name.startswith("event")) // 2
            insert_all(broker, pairs[:half] if state == "mixed" else pairs)
            if state in ("sealed", "mixed"):
                broker.seal()
            if state == "mixed":
                insert_all(broker, pairs[half:])
            return broker[pairs[0][1]["uid"]]

        return put

    @pytest.fixture
    def put_checked(self, put: Put) -> Put:
        """Return :func:`put` that also checks that the run returns what was inserted."""

        def put_checked(documents: Iterable[tuple[str, Any]]) -> Any:
            pairs = list(documents)
            header = put(pairs)
            check_run(header, inserted(header, pairs))
            return header

        return put_checked


def inserted(header: Any, documents: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return those of the documents that the fixture ``put`` has inserted."""
    return [pair for pair in documents if pair[0] != "stop" or header.stop is not None]


def events_of(documents: Iterable[tuple[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the events among single documents."""
    return [doc for name, doc in documents if name == "event"]
