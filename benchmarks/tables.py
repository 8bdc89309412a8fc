"""Tables of one long run: compared with plain Parquet, and one column compared with many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import pandas as pd
import pyarrow.parquet as pq

import daskbroker
from benchmarks.checks import has_count, holds
from benchmarks.data import Run, mixed_columns, plain_file, wide_columns
from benchmarks.harness import Against, Case, Sizes, Workload
from daskbroker import DataBroker

__all__ = ["count_events", "table", "wide", "wide_cases"]


def table(sizes: Sizes, folder: Path) -> Workload:
    """100k events x 12 columns: table, one column, documents, beside a plain file.

    The first read of a column in a process compares its checksums; repeated reads do not, unless
    the time of the chunk file has changed.
    """
    columns = mixed_columns(sizes.events)
    run = Run(columns)
    broker = daskbroker.connect(folder / "store")
    run.insert(broker)
    path = plain_file(folder / "plain.parquet", columns)
    whole, one = holds("x3", columns["x3"], 13), holds("x3", columns["x3"], 1)

    def change_times() -> None:
        for chunk in (folder / "store").rglob("*.parquet"):
            chunk.touch()

    def read() -> pd.DataFrame:
        return broker[run.uid].table().compute()

    def read_one() -> pd.DataFrame:
        return broker[run.uid].table()[["x3"]].compute()

    def read_checked(verify: str) -> pd.DataFrame:
        with dask.config.set({"daskbroker.verify": verify}):
            return read()

    floor, floor_of_one = Against("floor"), Against("floor, one column")
    cases = [
        Case("floor", lambda: pq.read_table(path).to_pandas(), holds("x3", columns["x3"], 14)),
        Case("floor, one column", lambda: pq.read_table(path, columns=["x3"]).to_pandas(), one),
        Case(
            "table",
            read,
            whole,
            (
                Against("floor", at_most=1.5),
                Against("databroker table", times_faster=100),
                Against("tiled table", times_faster=5),
                Against("recorded floor"),
            ),
        ),
        Case(
            "table, first read",
            read,
            whole,
            (Against("floor", at_most=1.5), Against("table"), Against("table, never checked")),
            prepare=change_times,
        ),
        Case(
            "table, always checked",
            lambda: read_checked("always"),
            whole,
            (floor, Against("table")),
        ),
        Case(
            "table, never checked",
            lambda: read_checked("never"),
            whole,
            (floor, Against("table")),
            prepare=change_times,
        ),
        Case(
            "table, one column, first read",
            read_one,
            one,
            (floor_of_one, Against("table, one column")),
            prepare=change_times,
        ),
        Case(
            "table, one column",
            read_one,
            one,
            (floor_of_one, Against("recorded floor, one column")),
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
    broker = daskbroker.connect(folder / "store")
    return Workload(wide_cases(broker, sizes), broker.close)


def wide_cases(broker: DataBroker, sizes: Sizes) -> list[Case]:
    """Insert 1M events of 23 columns; return the cases of the whole table and of one column."""
    columns = wide_columns(sizes.wide_events)
    run = Run(columns)
    run.insert(broker)
    return [
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


def count_events(documents: Any) -> int:
    """Iterate over all documents, and count the events."""
    return sum(name == "event" for name, _ in documents)
