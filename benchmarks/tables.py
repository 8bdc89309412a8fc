"""Tables of one long run: compared with plain Parquet, and one column compared with many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

import daskbroker
from benchmarks.data import Run, mixed_columns, plain_file, wide_columns
from benchmarks.harness import Against, Case, Sizes, Workload

__all__ = ["table", "wide"]


def table(sizes: Sizes, folder: Path) -> Workload:
    """100k events x 12 columns: table, one column, documents, beside a plain file.

    The first read of a column in a process compares its checksums; repeated reads do not.
    """
    columns = mixed_columns(sizes.events)
    run = Run(columns)
    broker = daskbroker.connect(folder / "store")
    run.insert(broker)
    path = plain_file(folder / "plain.parquet", columns)
    cases = [
        Case("floor", lambda: pq.read_table(path).to_pandas(), holds("x3", columns["x3"], 14)),
        Case(
            "floor, one column",
            lambda: pq.read_table(path, columns=["x3"]).to_pandas(),
            holds("x3", columns["x3"], 1),
        ),
        Case(
            "table",
            lambda: broker[run.uid].table().compute(),
            holds("x3", columns["x3"], 13),
            (
                Against("floor", at_most=1.5),
                Against("databroker table", times_faster=100),
                Against("tiled table", times_faster=5),
                Against("recorded floor"),
            ),
        ),
        Case(
            "table, first read",
            lambda: broker[run.uid].table().compute(),
            holds("x3", columns["x3"], 13),
            (Against("floor", at_most=1.5), Against("table"), Against("table, never checked")),
            prepare=lambda: touch(folder / "store"),
        ),
        Case(
            "table, always checked",
            lambda: computed(broker[run.uid].table(), "always"),
            holds("x3", columns["x3"], 13),
            (Against("floor"), Against("table")),
        ),
        Case(
            "table, never checked",
            lambda: computed(broker[run.uid].table(), "never"),
            holds("x3", columns["x3"], 13),
            (Against("floor"), Against("table")),
            prepare=lambda: touch(folder / "store"),
        ),
        Case(
            "table, one column, first read",
            lambda: broker[run.uid].table()[["x3"]].compute(),
            holds("x3", columns["x3"], 1),
            (Against("floor, one column"), Against("table, one column")),
            prepare=lambda: touch(folder / "store"),
        ),
        Case(
            "table, one column",
            lambda: broker[run.uid].table()[["x3"]].compute(),
            holds("x3", columns["x3"], 1),
            (Against("floor, one column"), Against("recorded floor, one column")),
        ),
        Case(
            "documents",
            lambda: count_events(broker[run.uid].documents()),
            has_count(sizes.events),
            (Against("databroker documents", times_faster=20),),
            sizes.events,
            "documents",
        ),
    ]
    return Workload(cases, broker.close)


def wide(sizes: Sizes, folder: Path) -> Workload:
    """1M events: one column of 23 compared with the whole table."""
    columns = wide_columns(sizes.wide_events)
    run = Run(columns)
    broker = daskbroker.connect(folder / "store")
    run.insert(broker)
    cases = [
        Case(
            "whole table",
            lambda: broker[run.uid].table().compute(),
            holds("x11", columns["x11"], 24),
        ),
        Case(
            "one column",
            lambda: broker[run.uid].table()[["x11"]].compute(),
            holds("x11", columns["x11"], 1),
            (Against("whole table", at_most=1 / 8),),
        ),
    ]
    return Workload(cases, broker.close)


def touch(store: Path) -> None:
    """Change the times of chunk files, so that checksums are compared as at the first read."""
    for path in store.rglob("*.parquet"):
        path.touch()


def computed(table: Any, verify: str) -> pd.DataFrame:
    """Compute a table, with columns checked against checksums ``"always"`` or ``"never"``."""
    with dask.config.set({"daskbroker.verify": verify}):
        return table.compute()


def count_events(documents: Any) -> int:
    """Iterate over all documents, and count the events."""
    return sum(name == "event" for name, _ in documents)


def has_count(expected: int) -> Callable[[Any], None]:
    """Return a check that a number, or the length of an object, is as expected."""

    def check(found: Any) -> None:
        count = found if isinstance(found, int) else len(found)
        if count != expected:
            raise AssertionError(f"{count} came out where {expected} went in")

    return check


def holds(name: str, values: Any, columns: int | None = None) -> Callable[[Any], None]:
    """Return a check that a column of a frame has these values, and the frame this many columns."""

    def check(frame: pd.DataFrame) -> None:
        if columns is not None and len(frame.columns) != columns:
            raise AssertionError(f"the frame has {len(frame.columns)} columns, not {columns}")
        found = frame[name].to_numpy()
        if getattr(values, "ndim", 1) > 1:
            found = np.stack(list(found))
        if not np.array_equal(found, np.asarray(values, dtype=found.dtype)):
            raise AssertionError(f"column {name!r} holds other values than were stored")

    return check
