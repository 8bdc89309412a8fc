"""Inserts of a run of 12 columns: one event at a time, in small pages, in one large page."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import daskbroker
from benchmarks.data import Run, insert_all, mixed_columns
from benchmarks.harness import Against, Case, Sizes, Workload
from benchmarks.tables import holds
from daskbroker import DataBroker

__all__ = ["insert"]


def insert(sizes: Sizes, folder: Path) -> Workload:
    """A complete run, from start to stop, into a new store each time; sealing is included."""
    run = Run(mixed_columns(sizes.events))
    events = run.events(sizes.single_events)
    small, large = list(run.pages(sizes.small_page)), list(run.pages(sizes.events))
    store = _NewStore(folder)

    def case(name: str, documents: list[Any], rows: int, goal: float) -> Case:
        whole = [*run.head, *documents, run.stop(rows)]
        return Case(
            name,
            lambda: store.insert(whole),
            lambda broker: _check(broker, run, rows),
            (Against("databroker insert", times_faster=goal),),
            rows,
            "events",
            prepare=store.renew,
        )

    cases = [
        case("events one by one", events, sizes.single_events, 5),
        case(f"pages of {sizes.small_page:,}", small, sizes.events, 50),
        case(f"one page of {sizes.events:,}", large, sizes.events, 50),
    ]
    return Workload(cases, store.close)


def _check(broker: DataBroker, run: Run, rows: int) -> None:
    table = broker[run.uid].table().compute()
    for name in ("x3", "n1", "state"):
        holds(name, run.columns[name][:rows])(table)


class _NewStore:
    """An empty store, which replaces the one before it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._broker: DataBroker | None = None

    def renew(self) -> None:
        """Remove the present store, and make a new one."""
        self.close()
        self._broker = daskbroker.connect(self._folder / f"store-{next(self._numbers)}")

    def insert(self, documents: list[Any]) -> DataBroker:
        """Insert documents; this is what is timed."""
        assert self._broker is not None
        insert_all(self._broker, documents)
        return self._broker

    def close(self) -> None:
        """Remove the store."""
        if self._broker is not None:
            self._broker.close()
            shutil.rmtree(str(self._broker.uri))
            self._broker = None
