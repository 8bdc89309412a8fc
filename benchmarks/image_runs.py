"""Planning one table of thousands of runs with detector files, filled and not filled."""

from __future__ import annotations

import os
from pathlib import Path

import daskbroker
from benchmarks.data import image_key, image_run, insert_all
from benchmarks.harness import Against, Case, Sizes, Workload
from daskbroker.testing.files import frames, write_hdf5

__all__ = ["image_runs"]

SIDE = 16
FRAMES = 3


def image_runs(sizes: Sizes, folder: Path) -> Workload:
    """5,000 runs of three frames, each in a file of its own."""
    first = write_hdf5(folder / "0.h5", frames(FRAMES, (SIDE, SIDE)))
    broker = daskbroker.connect(folder / "store")
    for number in range(sizes.runs):
        path = folder / f"{number}.h5"
        if number:
            os.link(first, path)
        insert_all(broker, image_run(image_key(SIDE), path, FRAMES, number).documents)
    cases = [
        Case("table, planned, fill=False", lambda: broker().table(fill=False)),
        Case(
            "table, planned",
            lambda: broker().table(),
            None,
            (Against("table, planned, fill=False", at_most=2.0),),
            sizes.runs,
            "runs",
        ),
        Case("dataset, planned", lambda: broker().dataset(), None, (), sizes.runs, "runs"),
    ]
    return Workload(cases, broker.close)
