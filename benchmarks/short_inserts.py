"""Inserts of thousands of short runs, compared with syncs of the disk that they are stored on."""

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
"""Number of samples over which the runs are divided: each sample inserts some hundreds."""


def short_documents(number: int) -> list[tuple[str, dict[str, Any]]]:
    """Return the 13 documents of a short run: ten events of three numbers."""
    builder = RunBuilder(scan_id=number + 1, plan_name="scan", sample="x", motors=["m"])
    descriptor = builder.descriptor({"m": 1.0, "x": 1.0, "y": 1.0})
    for place in range(EVENTS):
        builder.event(descriptor, {"m": float(place), "x": number * 0.5, "y": place * 0.25})
    return builder.stop()


def memory_folder() -> str | None:
    """Make a folder in memory, where syncs cost nothing; None if the system has no such folder."""
    return tempfile.mkdtemp(prefix="daskbroker-benchmark-", dir=MEMORY) if MEMORY.is_dir() else None


class NewStores:
    """Stores in a folder, of which each replaces the one before it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._broker: DataBroker | None = None

    def insert(self, runs: list[list[tuple[str, Any]]]) -> Timed:
        """Insert runs into a new store; return the time and the broker of the store."""
        self.close()
        self._broker = daskbroker.connect(self._folder / f"store-{next(self._numbers)}")
        begin = time.perf_counter()
        for documents in runs:
            insert_all(self._broker, documents)
        return Timed(time.perf_counter() - begin, self._broker)

    def close(self) -> None:
        """Remove the present store."""
        if self._broker is not None:
            self._broker.close()
            shutil.rmtree(str(self._broker.uri))
            self._broker = None


class GrowingStore:
    """A store that gets some more short runs with each sample."""

    def __init__(self, folder: Path, runs: int) -> None:
        self._folder = folder
        self._broker = daskbroker.connect(folder)
        self._runs = runs
        self._inserted = 0

    def insert(self) -> Timed:
        """Insert the next runs; return the time, and how many runs too many the store has."""
        seconds = sum(self.insert_one() for _ in range(self._runs))
        return Timed(seconds, len(self._broker) - self._inserted)

    def insert_one(self, then: Callable[[], None] = lambda: None) -> float:
        """Insert one more run, then call ``then``; return the time of both."""
        documents = short_documents(self._inserted)
        begin = time.perf_counter()
        insert_all(self._broker, documents)
        then()
        seconds = time.perf_counter() - begin
        self._inserted += 1
        return seconds

    def close(self) -> None:
        """Remove the store."""
        self._broker.close()
        shutil.rmtree(self._folder)


class AppendedFile:
    """A file to which 4 KiB are appended and synced: the meaning of "a sync of the disk" here."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)

    def sync(self) -> None:
        """Append 4 KiB and sync them to disk."""
        self._file.write(bytes(4096))
        os.fdatasync(self._file.fileno())

    def sync_many(self, count: int) -> Timed:
        """Return the time of ``count`` syncs, one after the other."""
        begin = time.perf_counter()
        for _ in range(count):
            self.sync()
        return Timed(time.perf_counter() - begin, None)

    def close(self) -> None:
        """Close and remove the file."""
        self._file.close()
        Path(self._file.name).unlink()


def short_inserts(sizes: Sizes, folder: Path) -> Workload:
    """Runs of 13 documents, in memory and on disk, and single inserts while the log is synced.

    Each sample inserts a twentieth of the runs. Two cases insert runs, and each sample is preceded
    by a run that is not counted, so all runs are inserted after five rounds.
    """
    some = max(1, sizes.runs // PARTS)
    count = some * DOCUMENTS
    memory = memory_folder()
    in_memory = GrowingStore(Path(memory or folder, "in-memory"), some)
    on_disk = GrowingStore(folder / "on-disk", some)
    appended = AppendedFile(folder / "appended")
    new_stores = NewStores(folder)

    def syncs_of_a_run() -> float:
        """Return the additional time of a run on disk, as a percentage of the time of one sync.

        The additional time is that of a run on disk minus that of a run in memory. The time of a
        sync is that of one which follows a run in memory, minus the run: on a busy machine a
        process that has computed for some milliseconds waits longer after a sync than a loop of
        syncs alone. The three are taken in turn, and their medians are compared.
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


def _has_all(excess: int) -> None:
    if excess:
        raise AssertionError(f"the store has {excess:+,} runs compared with those inserted")


def _quantile(stores: NewStores, documents: list[tuple[str, Any]], part: float) -> Timed:
    """Return a quantile of the times of single inserts; the log is synced every second."""
    broker = stores.insert([documents[:2]]).value
    insert: Callable[..., None] = broker.insert
    times = []
    for name, doc in documents[2:]:
        begin = time.perf_counter()
        insert(name, doc)
        times.append(time.perf_counter() - begin)
    return Timed(sorted(times)[int(part * len(times))], None)
