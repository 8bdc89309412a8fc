"""Inserts of a run of 12 columns: one event at a time, in small pages, in one large page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.checks import holds
from benchmarks.data import Run, mixed_columns
from benchmarks.harness import Against, Case, Sizes, Workload
from benchmarks.short_inserts import NewStores
from daskbroker import DataBroker

__all__ = ["insert"]


def insert(sizes: Sizes, folder: Path) -> Workload:
    """A complete run, from start to stop, into a new store each time; sealing is included."""
    run = Run(mixed_columns(sizes.events))
    events = run.events(sizes.single_events)
    small, large = list(run.pages(sizes.small_page)), list(run.pages(sizes.events))
    stores = NewStores(folder)

    def case(name: str, documents: list[Any], rows: int, goal: float) -> Case:
        whole = [*run.head, *documents, run.stop(rows)]
        return Case(
            name,
            lambda: stores.insert([whole]),
            lambda broker: _check(broker, run, rows),
            (Against("databroker insert", times_faster=goal),),
            rows,
            "events",
        )

    cases = [
        case("events one by one", events, sizes.single_events, 5),
        case(f"pages of {sizes.small_page:,}", small, sizes.events, 50),
        case(f"one page of {sizes.events:,}", large, sizes.events, 50),
    ]
    return Workload(cases, stores.close)


def _check(broker: DataBroker, run: Run, rows: int) -> None:
    table = broker[run.uid].table().compute()
    for name in ("x3", "n1", "state"):
        holds(name, run.columns[name][:rows])(table)
