"""Cost of large stores, simulated: a run of 100 million events, and a million headers.

The long run has one real chunk, to which all lines of its manifest point. The headers are inserted
ten thousand per transaction.
"""

from __future__ import annotations

import time
import tracemalloc
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask

import daskbroker
from benchmarks.checks import equals, finds, has_count
from benchmarks.data import Run, mixed_columns
from benchmarks.harness import Against, Case, Sizes, Timed, Workload
from daskbroker.stores.embedded.packing import pack_small_chunks

__all__ = ["copy_chunks", "headers", "long_run"]

FIRST_TIME = 1_600_000_000.0


def long_run(sizes: Sizes, folder: Path) -> Workload:
    """10,000 chunks of 10,000 events and 12 columns: planning, divisions, a partition, memory."""
    with dask.config.set({"daskbroker.seal-rows": sizes.rows_in_chunk}):
        broker = daskbroker.connect(folder / "store")
    run = Run(mixed_columns(sizes.rows_in_chunk))
    run.insert(broker, sizes.rows_in_chunk)
    copy_chunks(broker, sizes.chunks)
    events = sizes.chunks * sizes.rows_in_chunk

    def plan() -> Any:
        header = broker[run.uid]
        return header.es_given_stream("primary").chunks_given_header(header, "primary")

    def table() -> Any:
        made = broker[run.uid].table()
        return made, made.divisions

    def check(found: Any) -> None:
        if len(found[0]) != events or found[1][-1] != events:
            raise AssertionError(f"the table has {len(found[0]):,} rows, not {events:,}")

    def partition() -> Timed:
        made = broker[run.uid].table()
        middle = made.partitions[made.npartitions // 2]
        begin = time.perf_counter()
        frame = middle.compute(scheduler="synchronous")
        return Timed(time.perf_counter() - begin, frame)

    memory = [_growth("table", table), _growth("dataset", lambda: broker[run.uid].dataset())]
    cases = [
        Case("plan", plan, has_count(sizes.chunks), (Against(at_most=1.0),)),
        Case("table with divisions", table, check, (Against(at_most=1.0),)),
        Case("dataset", lambda: broker[run.uid].dataset(), None, (Against(at_most=1.0),)),
        Case("length", lambda: len(broker[run.uid].table()), None, ()),
        Case("one partition", partition),
        *memory,
    ]
    return Workload(cases, broker.close)


def copy_chunks(broker: Any, count: int) -> None:
    """Add lines to the manifest as if the first chunk had been stored many times."""
    database = broker.header_source.store._database
    pack_small_chunks(database)
    with database.write() as connection:
        connection.execute(
            "WITH RECURSIVE copy(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM copy WHERE n < ?) "
            "INSERT INTO chunk SELECT NULL, sequence, first + n * rows, rows, bytes, "
            "seq_min + n * rows, seq_max + n * rows, time_min + n * 100, time_max + n * 100, "
            '"distinct", 1, schema, path, offset, length FROM chunk, copy '
            "WHERE first = 0 AND sequence = (SELECT id FROM sequence WHERE kind = 'event')",
            (count - 1,),
        )


def _growth(name: str, make: Callable[[], Any]) -> Case:
    """Return a case that measures the bytes that a view holds, as allocated by Python and NumPy."""
    return Case(f"memory of a {name}", lambda: _traced(make)[0], unit="B")


def _traced(make: Callable[[], Any]) -> tuple[float, float]:
    """Return the bytes that a result holds, and the peak of bytes while it was made."""
    tracemalloc.start()
    try:
        made = make()
        held, most = tracemalloc.get_traced_memory()
        del made
    finally:
        tracemalloc.stop()
    return float(held), float(most)


def headers(sizes: Sizes, folder: Path) -> Workload:
    """Searches and pages of very many headers; a million with ``--full``."""
    broker = daskbroker.connect(folder / "store")
    uids = _insert_headers(broker, sizes.headers)
    middle = sizes.headers // 2
    of_sample = len(range(7, sizes.headers, 100))

    def through() -> int:
        return sum(1 for _ in broker())

    def page(begin: int) -> Case:
        check = finds(uids[::-1][begin : begin + 20])
        return Case(f"20 headers from {begin:,}", lambda: list(broker()[begin : begin + 20]), check)

    cases = [
        Case("count", lambda: len(broker()), equals(sizes.headers)),
        Case("by uid", lambda: broker[uids[middle]].uid, equals(uids[middle])),
        Case("newest", lambda: broker[-1].uid, equals(uids[-1])),
        Case("by scan_id", lambda: broker[middle + 1].uid, equals(uids[middle])),
        Case("query, count of 1 in 100", lambda: len(broker(sample="s7")), equals(of_sample)),
        Case("query, first 20", lambda: len(list(broker(sample="s7")[:20])), None),
        Case("words, first 20", lambda: len(list(broker("quartz")[:20])), None),
        page(0),
        page(middle),
        Case(
            "all, one after the other", through, equals(sizes.headers),
            (), sizes.headers, "headers",
        ),
        Case("memory of going through all", lambda: _traced(through)[1], unit="B"),
    ]  # fmt: skip
    return Workload(cases, broker.close)


def _insert_headers(broker: Any, count: int) -> list[str]:
    """Insert start documents, ten thousand per transaction, and return their uids."""
    store = broker.header_source.store
    uids: list[str] = []
    for begin in range(0, count, 10_000):
        with store._database.write() as connection:
            for number in range(begin, min(begin + 10_000, count)):
                uids.append(str(uuid.uuid4()))
                start = {
                    "uid": uids[-1],
                    "time": FIRST_TIME + number * 60.0,
                    "scan_id": number + 1,
                    "plan_name": ("count", "scan", "rel_scan")[number % 3],
                    "sample": f"s{number % 100}",
                    "note": "quartz" if number % 1000 == 0 else "glass",
                }
                store._insert_start(connection, start)
    return uids
