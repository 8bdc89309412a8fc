"""Thousands of short runs: searches, and one table of many of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import daskbroker
from benchmarks.checks import finds, has_count
from benchmarks.data import insert_all
from benchmarks.harness import Against, Case, Sizes, Workload
from daskbroker.testing import RunBuilder

__all__ = ["EVENTS", "is_wanted", "places_of", "runs", "short_run"]

EVENTS = 20
LOOKUPS = 50


def runs(sizes: Sizes, folder: Path) -> Workload:
    """5,000 runs of 20 events: search by uid, prefix, scan_id, -1, a query; table over 200."""
    broker = daskbroker.connect(folder / "store")
    uids = []
    for number in range(sizes.runs):
        builder = short_run(number, sizes)
        insert_all(broker, builder.documents)
        uids.append(builder.uid)
    places = places_of(sizes)

    def lookups(name: str, key: Callable[[int], Any], newest: bool = False) -> Case:
        check = finds([uids[-1]] * LOOKUPS if newest else [uids[place] for place in places])
        return Case(name, lambda: [broker[key(p)] for p in places], check, (), LOOKUPS, "lookups")

    wanted = sizes.runs_in_table
    expected = [uid for number, uid in enumerate(uids) if is_wanted(number, sizes)][::-1]

    cases = [
        lookups("by uid", lambda place: uids[place]),
        lookups("by prefix", lambda place: uids[place][:10]),
        lookups("by scan_id", lambda place: place + 1),
        lookups("newest (-1)", lambda place: -1, newest=True),
        Case(
            "query, all found",
            lambda: list(broker(group="wanted")),
            finds(expected),
            (Against("databroker search", times_faster=5),),
            wanted,
            "headers",
        ),
        Case("query, count", lambda: len(broker(group="wanted")), has_count(wanted)),
        Case(
            f"search and table of {wanted:,}",
            lambda: broker(group="wanted").table().compute(),
            has_count(wanted * EVENTS),
            (Against("databroker 200 runs", times_faster=100),),
        ),
    ]
    return Workload(cases, broker.close)


def places_of(sizes: Sizes) -> list[int]:
    """Return the numbers of the runs to look up, spread evenly over the store.

    One look-up takes microseconds, so a sample is the time of many.
    """
    return [number * (sizes.runs - 1) // (LOOKUPS - 1) for number in range(LOOKUPS)]


def is_wanted(number: int, sizes: Sizes) -> bool:
    """Return whether the query finds this run; such runs are spread evenly over the store."""
    step = sizes.runs // sizes.runs_in_table
    return number % step == 0 and number // step < sizes.runs_in_table


def short_run(number: int, sizes: Sizes) -> RunBuilder:
    """Return one short run, with one page of events."""
    group = "wanted" if is_wanted(number, sizes) else "other"
    builder = RunBuilder(scan_id=number + 1, group=group, sample={"name": f"s{number % 7}"})
    descriptor = builder.descriptor({"x": 1.0, "y": 1.0, "n": 1})
    rows = [{"x": row * 0.5, "y": row * 2.0, "n": row} for row in range(EVENTS)]
    builder.event_page(descriptor, rows)
    builder.stop()
    return builder
