"""Inserting a run of 12 columns: one event at a time, in small pages, in one large page."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import daskbroker
from benchmarks.data import Run, insert_all, mixed_columns
from benchmarks.harness import Against, Case, Sizes, Workload
from benchmarks.tables import has_count

__all__ = ["insert"]


def insert(sizes: Sizes, folder: Path) -> Workload:
    """A whole run, start to stop, into a new store each time; sealing included."""
    run = Run(mixed_columns(sizes.events))
    events = run.events(sizes.single_events)
    small, large = list(run.pages(sizes.small_page)), list(run.pages(sizes.events))
    fresh = _Stores(folder)

    def case(name: str, documents: list[Any], rows: int, goal: float) -> Case:
        whole = [*run.head, *documents, run.stop(rows)]
        against = (Against("databroker insert", times_faster=goal),)
        return Case(name, fresh.inserting(whole, run.uid), has_count(rows), against, rows, "events")

    cases = [
        case("events one by one", events, sizes.single_events, 5),
        case(f"pages of {sizes.small_page:,}", small, sizes.events, 50),
        case(f"one page of {sizes.events:,}", large, sizes.events, 50),
    ]
    return Workload(cases)


class _Stores:
    """New stores, each removed when the next one is made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()

    def inserting(self, documents: list[Any], uid: str) -> Callable[[], Any]:
        """A callable that inserts documents into a new store; it gives the run's lazy table."""

        def run() -> Any:
            number = next(self._numbers)
            shutil.rmtree(self._folder / f"store-{number - 1}", ignore_errors=True)
            broker = daskbroker.connect(self._folder / f"store-{number}")
            insert_all(broker, documents)
            return broker[uid].table()

        return run
