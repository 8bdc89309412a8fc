"""Datasets of many columns and of many runs beside their tables; legacy claims beside full ones."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np

import daskbroker
from benchmarks.checks import close_to
from benchmarks.data import Run, image_key, image_run, insert_all, wide_columns
from benchmarks.harness import Against, Case, Sizes, Workload
from daskbroker.testing import baseline_run
from daskbroker.testing.files import frames, write_hdf5

__all__ = ["columns", "legacy", "tree"]


def columns(sizes: Sizes, folder: Path) -> Workload:
    """A baseline of 2,000 keys; 300 columns x 200,000 events; 1M events x 23 columns."""
    baseline = daskbroker.connect(folder / "baseline")
    insert_all(baseline, baseline_run(sizes.baseline_keys))
    many = Run(wide_columns(sizes.column_events, sizes.columns))
    wide = Run(wide_columns(sizes.wide_events))
    broker = daskbroker.connect(folder / "store")
    many.insert(broker, max(1, sizes.column_events // 40))
    wide.insert(broker, max(1, sizes.wide_events // 20))

    name = list(many.columns)[3]
    mean = close_to(many.columns[name].mean())

    def pickled() -> float:
        return len(pickle.dumps(broker[wide.uid].dataset())) / 2**20

    cases = [
        Case("baseline, table", lambda: baseline[-1].table("baseline").compute()),
        Case(
            "baseline, dataset",
            lambda: baseline[-1].dataset("baseline").compute(),
            None,
            (Against("baseline, table", at_most=2.0),),
        ),
        Case("300 columns, table", lambda: broker[many.uid].table().compute()),
        Case(
            "300 columns, mean of dataset",
            lambda: broker[many.uid].dataset().mean().compute(),
            lambda found: mean(found[name]),
            (Against("300 columns, table", at_most=2.0),),
        ),
        Case(
            "300 columns, mean of one",
            lambda: broker[many.uid].dataset()[name].mean().compute(),
            None,
            (Against("300 columns, mean of dataset"),),
        ),
        Case("1M events, table", lambda: broker[wide.uid].table().compute()),
        Case(
            "1M events, dataset",
            lambda: broker[wide.uid].dataset().compute(),
            None,
            (Against("1M events, table", at_most=1.5),),
        ),
        Case("1M events, dataset opened", lambda: broker[wide.uid].dataset()),
        Case("1M events, dataset pickled", pickled, unit="MiB"),
    ]

    def close() -> None:
        baseline.close()
        broker.close()

    return Workload(cases, close)


def tree(sizes: Sizes, folder: Path) -> Workload:
    """200 short runs with frames: a Dataset each, one Dataset of all, one table of all."""
    broker = daskbroker.connect(folder / "store")
    path = write_hdf5(folder / "frames.h5", frames(5, (8, 8)))
    for number in range(sizes.runs_in_table):
        run = image_run(image_key(8, dtype=None), path, 5, number)
        insert_all(broker, run.documents)
    cases = [
        Case("table", lambda: broker().table()),
        Case("dataset", lambda: broker().dataset(), None, (Against("table", at_most=2.0),)),
        Case("tree", lambda: broker().dataset(combine="tree"), None, (Against("dataset"),)),
    ]
    return Workload(cases, broker.close)


def legacy(sizes: Sizes, folder: Path) -> Workload:
    """1,000 frames of uint16, described without a dtype and with a full claim."""
    side, count = sizes.frame_side, sizes.file_frames
    data = frames(count, (side, side))
    path = write_hdf5(folder / "frames.h5", data, chunks=(1, side, side))
    broker = daskbroker.connect(folder / "store")
    uids = {}
    for name, dtype in (("declared", "<u2"), ("legacy", None)):
        run = image_run(image_key(side, dtype), path, count)
        insert_all(broker, run.documents)
        uids[name] = run.uid

    def image(name: str) -> Callable[[], np.ndarray]:
        return lambda: broker[uids[name]].dataset()["img"].to_numpy()

    def size(name: str) -> Callable[[], float]:
        return lambda: broker[uids[name]].dataset()["img"].nbytes / 2**20

    cases = [
        Case("declared", image("declared")),
        Case("legacy", image("legacy"), None, (Against("declared", at_most=1.1),)),
        Case("declared, size", size("declared"), unit="MiB"),
        Case(
            "legacy, size",
            size("legacy"),
            None,
            (Against("declared, size", at_most=1.1),),
            unit="MiB",
        ),
    ]
    return Workload(cases, broker.close)
