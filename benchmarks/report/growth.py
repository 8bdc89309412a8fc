"""Growth of times with the number of events, chunks, runs, columns and workers.

Each case is named ``series: size``, and its amount is the size, from which the picture is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import daskbroker
from benchmarks.checks import close_to, has_count, holds
from benchmarks.cluster import client_of
from benchmarks.compressed import FILTERS, dark_frames, write_run
from benchmarks.data import Run, insert_all, mixed_columns, plain_file, wide_columns
from benchmarks.harness import Against, Case, Sizes, Workload
from benchmarks.runs import EVENTS, short_run
from benchmarks.scale import copy_chunks
from benchmarks.tables import count_events

__all__ = ["GROWTH", "Growth"]

ROWS = 20_000
"""Rows of the runs with many columns."""
COUNTED = 100_000
"""Maximum number of events for which documents are measured."""


@dataclass(frozen=True)
class Growth:
    """One picture of growth.

    Attributes
    ----------
    things
        What is counted along the horizontal axis.
    text
        Description of the measurement for the page.
    sizes, tiny
        Numbers of things: those to measure, and those to try the benchmark with.
    make
        Function from sizes and a folder to the cases.
    """

    things: str
    text: str
    sizes: tuple[int, ...]
    tiny: tuple[int, ...]
    make: Callable[[tuple[int, ...], Path, Sizes], Workload]

    def workload(self, sizes: Sizes, folder: Path) -> Workload:
        """Return the workload of the picture."""
        return self.make(self.tiny if sizes.quick else self.sizes, folder, sizes)


def _case(series: str, size: int, things: str, run: Callable[[], Any], check: Any = None) -> Case:
    return Case(f"{series}: {size:,}", run, check, (), size, things)


def _against_one(case: Case, series: str) -> Case:
    """Return a case that is compared with that of one worker."""
    return Case(
        case.name, case.run, case.check, (Against(f"{series}: 1"),), case.amount, case.things
    )


def events(counts: tuple[int, ...], folder: Path, sizes: Sizes) -> Workload:
    """Runs of 12 columns with growing numbers of events."""
    broker = daskbroker.connect(folder / "store")
    cases: list[Case] = []
    for count in counts:
        columns = mixed_columns(count)
        run = Run(columns)
        run.insert(broker)
        path = plain_file(folder / f"{count}.parquet", columns)
        cases += _event_cases(broker, run, path)
    return Workload(cases, broker.close)


def _event_cases(broker: Any, run: Run, path: Path) -> Iterable[Case]:
    rows, uid, values = run.rows, run.uid, run.columns["x3"]

    def table() -> Any:
        return broker[uid].table()

    case = partial(_case, size=rows, things="events")
    yield case("table", run=lambda: table().compute(), check=holds("x3", values))
    yield case("one column", run=lambda: table()[["x3"]].compute(), check=holds("x3", values, 1))
    yield case("table built, not computed", run=table)
    yield case("pyarrow, a plain file", run=lambda: pq.read_table(path).to_pandas())
    if rows <= COUNTED:
        counted = has_count(rows)
        yield case("documents", run=lambda: count_events(broker[uid].documents()), check=counted)


def chunks(counts: tuple[int, ...], folder: Path, sizes: Sizes) -> Workload:
    """Planning runs with growing numbers of chunks, which reads no values."""
    cases: list[Case] = []
    stack = ExitStack()
    for count in counts:
        broker = stack.enter_context(daskbroker.connect(folder / f"store-{count}"))
        run = Run(mixed_columns(sizes.rows_in_chunk))
        run.insert(broker, sizes.rows_in_chunk)
        copy_chunks(broker, count)
        cases += _chunk_cases(broker, run.uid, count)
    return Workload(cases, stack.close)


def _chunk_cases(broker: Any, uid: str, count: int) -> Iterable[Case]:
    def divisions() -> Any:
        return broker[uid].table().divisions

    case = partial(_case, size=count, things="chunks")
    yield case("table with divisions", run=divisions)
    yield case("length of the table", run=lambda: len(broker[uid].table()))
    yield case("dataset", run=lambda: broker[uid].dataset())


def runs(counts: tuple[int, ...], folder: Path, sizes: Sizes) -> Workload:
    """Searches in one store that find growing numbers of short runs."""
    broker = daskbroker.connect(folder / "store")
    for number in range(max(counts)):
        insert_all(broker, short_run(number, sizes).documents)
    cases: list[Case] = []
    for count in counts:
        cases += _run_cases(broker, count)
    return Workload(cases, broker.close)


def _run_cases(broker: Any, count: int) -> Iterable[Case]:
    query = {"scan_id": {"$lte": count}}
    case = partial(_case, size=count, things="runs")
    yield case("search", run=lambda: list(broker(**query)), check=has_count(count))
    yield case("table built", run=lambda: broker(**query).table())
    yield case(
        "table computed",
        run=lambda: broker(**query).table().compute(),
        check=has_count(count * EVENTS),
    )
    yield case("dataset built", run=lambda: broker(**query).dataset())


def columns(counts: tuple[int, ...], folder: Path, sizes: Sizes) -> Workload:
    """Runs with growing numbers of columns of floats."""
    rows = sizes.events if sizes.quick else ROWS
    broker = daskbroker.connect(folder / "store")
    cases: list[Case] = []
    for count in counts:
        run = Run(wide_columns(rows, count))
        run.insert(broker)
        cases += _column_cases(broker, run, count)
    return Workload(cases, broker.close)


def _column_cases(broker: Any, run: Run, count: int) -> Iterable[Case]:
    name = next(iter(run.columns))
    values, uid = run.columns[name], run.uid

    def mean() -> Any:
        return broker[uid].dataset().mean().compute()

    def one() -> Any:
        return broker[uid].table()[[name]].compute()

    case = partial(_case, size=count, things="columns")
    whole = holds(name, values)
    yield case("table", run=lambda: broker[uid].table().compute(), check=whole)
    yield case("one column", run=one, check=holds(name, values, 1))
    yield case("mean of the dataset", run=mean)


def workers(counts: tuple[int, ...], folder: Path, sizes: Sizes) -> Workload:
    """The mean of compressed frames, and of a table, on growing numbers of worker processes."""
    stack = ExitStack()
    broker = stack.enter_context(daskbroker.connect(folder / "store"))
    data = dark_frames(4, sizes.compressed_side, "<u2")
    frames = 4 * sizes.compressed_frames
    uid = write_run(broker, folder / "dark.h5", data, FILTERS["bitshuffle-LZ4"], frames)
    cases = []
    for count in counts:
        client = client_of(stack, count)

        def mean(client: Any = client) -> np.ndarray:
            image = broker[uid].dataset()["img"][:, 0]
            return np.asarray(image.mean("time").compute(scheduler=client))

        mean()  # its processes import what they need
        series = f"mean of {frames:,} compressed frames"
        case = _case(series, count, "workers", mean, close_to(data.mean(0)))
        cases.append(case if count == 1 else _against_one(case, series))
    return Workload(cases, stack.close)


GROWTH = {
    "growth-events": Growth(
        "events",
        "A run of 12 columns, sealed, in an embedded store. Building a table does not depend on "
        "the number of events.",
        (1_000, 10_000, 100_000, 1_000_000),
        (100, 1_000),
        events,
    ),
    "growth-chunks": Growth(
        "chunks",
        "Building a table or dataset, not computing it. Each chunk is a line of the manifest.",
        (10, 100, 1_000, 10_000),
        (10, 100),
        chunks,
    ),
    "growth-runs": Growth(
        "runs",
        f"Runs of {EVENTS} events, found by one search of a store.",
        (10, 100, 1_000),
        (5, 20),
        runs,
    ),
    "growth-columns": Growth(
        "columns",
        f"A run of {ROWS:,} events. The time for one column does not depend on how many there are.",
        (10, 30, 100, 300),
        (4, 12),
        columns,
    ),
    "growth-workers": Growth(
        "workers",
        "Worker processes of one thread each. More processes than cores bring no gain.",
        (1, 2, 4),
        (1, 2),
        workers,
    ),
}
"""Pictures of growth, by the names of their workloads."""
