"""Inserting thousands of short runs, beside the syncs of the disk that they are stored on."""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import daskbroker
from benchmarks.data import Run, insert_all, mixed_columns
from benchmarks.harness import Against, Case, Sizes, Timed, Workload
from daskbroker import DataBroker
from daskbroker.testing import RunBuilder

__all__ = [
    "DOCUMENTS",
    "PARTS",
    "NewStores",
    "memory_folder",
    "short_documents",
    "short_inserts",
]

EVENTS = 10
DOCUMENTS = EVENTS + 3
MEMORY = Path("/dev/shm")
PARTS = 20
"""In so many the thousands of runs are inserted: in one sample, some hundreds."""


def short_documents(number: int) -> list[tuple[str, dict[str, Any]]]:
    """A run of 13 documents: ten events of three numbers."""
    builder = RunBuilder(scan_id=number + 1, plan_name="scan", sample="x", motors=["m"])
    descriptor = builder.descriptor({"m": 1.0, "x": 1.0, "y": 1.0})
    for place in range(EVENTS):
        builder.event(descriptor, {"m": float(place), "x": number * 0.5, "y": place * 0.25})
    return builder.stop()


def memory_folder() -> str | None:
    """A folder in memory, where syncs cost nothing; None where the system has none."""
    return tempfile.mkdtemp(prefix="daskbroker-benchmark-", dir=MEMORY) if MEMORY.is_dir() else None


class NewStores:
    """Stores in a folder, each removed when the next one is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._broker: DataBroker | None = None

    def insert(self, runs: list[list[tuple[str, Any]]]) -> Timed:
        """The time of inserting runs into a new store, and its broker."""
        self.close()
        self._broker = daskbroker.connect(self._folder / f"store-{next(self._numbers)}")
        begin = time.perf_counter()
        for documents in runs:
            insert_all(self._broker, documents)
        return Timed(time.perf_counter() - begin, self._broker)

    def close(self) -> None:
        """Remove the present one."""
        if self._broker is not None:
            self._broker.close()
            shutil.rmtree(str(self._broker.uri))
            self._broker = None


class GrowingStore:
    """A store that gets some new short runs each time."""

    def __init__(self, folder: Path, runs: int) -> None:
        self._folder = folder
        self._broker = daskbroker.connect(folder)
        self._runs = runs
        self._inserted = 0

    def insert(self) -> Timed:
        """The time of inserting the next runs, and by how many it has others than it should."""
        seconds = sum(self.insert_one() for _ in range(self._runs))
        return Timed(seconds, len(self._broker) - self._inserted)

    def insert_one(self, then: Callable[[], None] = lambda: None) -> float:
        """The time of inserting one more run, and of what is done after it."""
        documents = short_documents(self._inserted)
        begin = time.perf_counter()
        insert_all(self._broker, documents)
        then()
        seconds = time.perf_counter() - begin
        self._inserted += 1
        return seconds

    def close(self) -> None:
        """Remove it."""
        self._broker.close()
        shutil.rmtree(self._folder)


class AppendedFile:
    """A file to which 4 KiB are added and synced, which is what "a sync of the disk" means here."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)

    def sync(self) -> None:
        """Add 4 KiB and bring them to disk."""
        self._file.write(bytes(4096))
        os.fdatasync(self._file.fileno())

    def sync_many(self, count: int) -> Timed:
        """The time of so many syncs, one after the other."""
        begin = time.perf_counter()
        for _ in range(count):
            self.sync()
        return Timed(time.perf_counter() - begin, None)

    def close(self) -> None:
        """Close and remove it."""
        self._file.close()
        Path(self._file.name).unlink()


def short_inserts(sizes: Sizes, folder: Path) -> Workload:
    """Runs of 13 documents, in memory and on disk; an insert while the log is synced.

    Each sample inserts a twentieth of the runs: all of them in five rounds of two cases, of which
    each takes a sample that does not count and one that does.
    """
    some = max(1, sizes.runs // PARTS)
    count = some * DOCUMENTS
    memory = memory_folder()
    in_memory = GrowingStore(Path(memory or folder, "in-memory"), some)
    on_disk = GrowingStore(folder / "on-disk", some)
    appended = AppendedFile(folder / "appended")
    new_stores = NewStores(folder)

    def syncs_of_a_run() -> float:
        """What a run costs more on disk than in memory, in syncs that follow a run in memory.

        Run by run in turn, and medians: whoever has computed for some milliseconds waits longer
        for its turn after a sync than a loop of nothing but syncs, if the processors are busy.
        """
        turns = [
            (on_disk.insert_one(), in_memory.insert_one(), in_memory.insert_one(appended.sync))
            for _ in range(some)
        ]
        disk, plain, synced = (statistics.median(times) for times in zip(*turns, strict=True))
        return 100 * (disk - plain) / (synced - plain)

    events = Run(mixed_columns(sizes.single_events // PARTS))
    long = [*events.head, *events.events(sizes.single_events // PARTS)]
    cases = [
        Case("in memory", in_memory.insert, _has_all, (), count, "documents"),
        Case("on disk", on_disk.insert, _has_all, (), count, "documents"),
        Case("as many syncs", lambda: appended.sync_many(some), None, (), some, "syncs"),
        Case(
            "a run's part in a sync",
            syncs_of_a_run,
            None,
            (Against("", at_most=120),),
            unit="% of a sync",
        ),
        Case("insert of an event, median", lambda: _quantile(new_stores, long, 0.5)),
        Case("insert of an event, 99 %", lambda: _quantile(new_stores, long, 0.99)),
    ]

    def close() -> None:
        for stores in (in_memory, on_disk, new_stores, appended):
            stores.close()
        if memory is not None:
            shutil.rmtree(memory)

    return Workload(cases, close)


def _has_all(missing: int) -> None:
    if missing:
        raise AssertionError(f"{missing:+,} runs more or less than were inserted")


def _quantile(stores: NewStores, documents: list[tuple[str, Any]], part: float) -> Timed:
    """Of the times of inserts into an open run, while the log is synced every second."""
    broker = stores.insert([documents[:2]]).value
    insert: Callable[..., None] = broker.insert
    times = []
    for name, doc in documents[2:]:
        begin = time.perf_counter()
        insert(name, doc)
        times.append(time.perf_counter() - begin)
    return Timed(sorted(times)[int(part * len(times))], None)
