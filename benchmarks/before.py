"""Compare the cost of inserts with that of an older commit: ``python -m benchmarks.before COMMIT``.

The files of the older commit are written to a temporary folder. The two versions take turns to
insert the same documents, each time into a new store in memory and in a new process. The processor
times of all threads are compared. Then the present version inserts events for some seconds, on disk
and in memory. The delays of these inserts are printed twice: of all of them, and of those during a
background sync of the log.
"""

from __future__ import annotations

import argparse
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import daskbroker
from benchmarks.data import Run, mixed_columns
from benchmarks.short_inserts import MEMORY, memory_folder, short_documents
from daskbroker.stores.embedded import log_sync

__all__ = ["main"]

Documents = Sequence[tuple[str, Mapping[str, Any]]]
CHECKOUT = Path(__file__).resolve().parent.parent
PAUSE = 0.002
"""Seconds between two inserts whose delay is measured, similar to the pauses of a RunEngine."""

CHILD = """
import gc, pickle, sys, time
import daskbroker
warm, documents = pickle.load(open(sys.argv[1], "rb"))
gc.collect()
gc.freeze()
for number, some in enumerate((warm, documents)):
    db = daskbroker.connect(f"{sys.argv[2]}-{number}")
    begin = time.process_time()
    for name, doc in some:
        db.insert(name, doc)
    spent = time.process_time() - begin
    db.close()
print(spent)
"""
"""Program of a turn. It uses only what older versions have as well.

The documents are frozen for the garbage collector. Otherwise it traverses all of them in some turns
and not in others, which takes as long as a third of the inserts."""


def inserted(rows: int, runs: int) -> dict[str, Documents]:
    """Return the documents of each workload, by its name."""
    run = Run(mixed_columns(rows))
    single = rows // 5
    return {
        "events, one by one": [*run.head, *run.events(single), run.stop(single)],
        "pages of 100 events": [*run.head, *run.pages(100), run.stop(rows)],
        "pages of 1,000 events": [*run.head, *run.pages(1_000), run.stop(rows)],
        "short runs": [pair for number in range(runs) for pair in short_documents(number)],
    }


def turn(tree: Path, documents: Path, store: Path) -> float:
    """Return the seconds of processor time that a version takes to insert documents."""
    command = [sys.executable, "-c", CHILD, str(documents), str(store)]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(tree)}, cwd=tree, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def compare(before: Path, folder: Path, turns: int, workloads: Mapping[str, Documents]) -> None:
    """Print the median of each version and their ratio, for each workload."""
    print(f"{f'CPU seconds, median of {turns}':32}{'before':>9}{'now':>9}{'now/before':>12}")
    for name, documents in workloads.items():
        given = folder / "documents"
        given.write_bytes(pickle.dumps((short_documents(0), documents)))
        spent: list[tuple[Path, list[float]]] = [(before, []), (CHECKOUT, [])]
        for _ in range(turns):
            for tree, times in spent:
                with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as store:
                    times.append(turn(tree, given, Path(store, "store")))
        old, new = (statistics.median(times) for _, times in spent)
        print(f"{name:32}{old:9.3f}{new:9.3f}{new / old:12.2f}", flush=True)


class _Syncs:
    """Context that records when each sync of the log began and ended."""

    def __enter__(self) -> list[tuple[float, float]]:
        self._sync = log_sync.fdatasync
        found: list[tuple[float, float]] = []

        def noted(handle: int) -> None:
            begin = time.perf_counter()
            self._sync(handle)
            found.append((begin, time.perf_counter()))

        log_sync.fdatasync = noted
        return found

    def __exit__(self, *_: object) -> None:
        log_sync.fdatasync = self._sync


def delays(folder: Path, seconds: float) -> None:
    """Print how long inserts of events take, all of them and those during a background sync."""
    run = Run(mixed_columns(20_000))
    with daskbroker.connect(folder / "store") as db, _Syncs() as syncs:
        for name, doc in run.head:
            db.insert(name, doc)
        times = []
        end = time.perf_counter() + seconds
        for name, doc in run.events():
            begin = time.perf_counter()
            db.insert(name, doc)
            times.append((begin, time.perf_counter()))
            if times[-1][1] > end:
                break
            time.sleep(PAUSE)
        held = [one for one in times if any(one[0] < b and a < one[1] for a, b in syncs)]
    _print_delays(f"{folder}: all inserts", times)
    _print_delays(f"{folder}: during one of {len(syncs)} syncs", held)


def _print_delays(what: str, times: Sequence[tuple[float, float]]) -> None:
    taken = sorted(1e3 * (end - begin) for begin, end in times)
    if taken:
        median, high = (taken[int(part * len(taken))] for part in (0.5, 0.99))
        print(f"{what}: {len(taken):,}, p50 {median:.2f}, p99 {high:.2f}, max {taken[-1]:.2f} ms")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare with an older commit, and print the delays."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.before", description=__doc__)
    parser.add_argument("commit", help="the older commit")
    parser.add_argument("--repeat", type=int, default=7, help="turns of each version (7)")
    parser.add_argument("--rows", type=int, default=20_000, help="events in pages (20,000)")
    parser.add_argument("--runs", type=int, default=200, help="short runs (200)")
    parser.add_argument("--seconds", type=float, default=20.0, help="time of the delays (20)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="daskbroker-benchmark-") as scratch:
        before, folder = Path(scratch, "before"), Path(scratch)
        archive = ["git", "archive", "--output", str(folder / "before.tar"), options.commit]
        subprocess.run(archive, cwd=CHECKOUT, check=True)
        shutil.unpack_archive(folder / "before.tar", before, filter="data")
        compare(before, folder, options.repeat, inserted(options.rows, options.runs))
        delays(folder, options.seconds)
        if (memory := memory_folder()) is not None:
            delays(Path(memory), options.seconds)
            shutil.rmtree(memory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
