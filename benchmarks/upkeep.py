"""Check and backup of a large store, with and without another process that writes to it."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import daskbroker
from benchmarks.data import Run, insert_all
from benchmarks.harness import Against, Case, Sizes, Workload

__all__ = ["upkeep"]

ROWS, COLUMNS = 20_000, 20


def upkeep(sizes: Sizes, folder: Path) -> Workload:
    """Check and backup compared with a copy of the folder; rates are bytes of files per second."""
    store = _Store(folder, sizes.stored_bytes)
    least = (Against("copy of the folder", at_most=3.0),)
    cases = [
        Case("copy of the folder", store.copy, None, (), store.size, "bytes"),
        Case("check", store.check, _nothing_damaged, least, store.size, "bytes"),
        Case("backup", store.back_up, store.opens, least, store.size, "bytes"),
        Case("check, written meanwhile", store.check, _nothing_damaged, (), store.size, "bytes",
             prepare=store.write),
        Case("backup, written meanwhile", store.back_up, store.opens, (), store.size, "bytes",
             prepare=store.write),
    ]  # fmt: skip
    return Workload(cases, store.close)


def _insert_run(db: daskbroker.DataBroker, number: int) -> None:
    draw = np.random.default_rng(number)
    run = Run({f"x{place}": draw.random(ROWS) for place in range(COLUMNS)})
    insert_all(db, [*run.head, *run.pages(ROWS, lists=False), run.stop(ROWS)])


def _nothing_damaged(found: list[Any]) -> None:
    assert found == [], found


class _Store:
    """A store of at least ``size`` bytes, and a process that writes to it."""

    def __init__(self, folder: Path, size: int) -> None:
        self._place, self._copies = folder / "store", folder / "copies"
        self._copies.mkdir()
        self._names = itertools.count()
        self._writer: subprocess.Popen[bytes] | None = None
        with daskbroker.connect(self._place) as db:
            for number in itertools.count():
                _insert_run(db, number)
                self.size = sum(p.stat().st_size for p in self._place.rglob("*") if p.is_file())
                if self.size >= size:
                    break
        self._broker = daskbroker.connect(self._place, mode="r")

    def write(self) -> None:
        """Start a process that inserts runs until the end, unless it has been started."""
        if self._writer is None:
            line = [sys.executable, "-m", "benchmarks.upkeep", str(self._place)]
            self._writer = subprocess.Popen(line)

    def _new(self) -> Path:
        for old in self._copies.iterdir():
            shutil.rmtree(old)
        return self._copies / f"copy-{next(self._names)}"

    def copy(self) -> None:
        """Copy and sync the files, for comparison with a backup.

        Another process copies: closing a file of SQLite in this one would drop its locks.
        """
        target = self._new()
        subprocess.run(["cp", "-r", self._place, target], check=True)
        for path in target.rglob("*"):
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)

    def check(self) -> list[Any]:
        """Check the whole store."""
        return list(daskbroker.check(self._broker))

    def back_up(self) -> Path:
        """Make a backup, and return its folder."""
        report = daskbroker.backup(self._broker, self._new())
        assert not report.damages, report
        return report.folder

    def opens(self, folder: Path) -> None:
        """Raise if a backup is not a store, or if its newest run is damaged."""
        with daskbroker.connect(folder, mode="r") as copy:
            assert len(copy) > 0
            assert list(daskbroker.check(copy()[:1])) == []

    def close(self) -> None:
        """End the writer."""
        self._broker.close()
        if self._writer is not None:
            self._writer.kill()
            self._writer.wait()


if __name__ == "__main__":
    with daskbroker.connect(sys.argv[1]) as writing:
        for seed in itertools.count(1_000_000):
            _insert_run(writing, seed)
