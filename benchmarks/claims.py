"""Incomplete claims of old descriptors (no dtype, open lengths, other order) beside full claims."""

from __future__ import annotations

import shutil
import tracemalloc
import warnings
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np

import daskbroker
from benchmarks.checks import close_to, equals
from benchmarks.data import image_key, image_run, insert_all
from benchmarks.filling import count_of, opened
from benchmarks.harness import Against, Case, Sizes, Workload
from daskbroker.assets.filling.open_handlers import open_handlers
from daskbroker.core.errors import ClaimWarning
from daskbroker.testing.files import frames, write_hdf5
from daskbroker.testing.runs import Documents

__all__ = ["claimed_runs", "claims"]

FULL = "declared"
SIDE = 16
"""Number of pixels along a side of a frame, in the workload of many runs."""


def _claims(side: int) -> dict[str, dict[str, Any]]:
    """Return the claims of descriptors of different ages, the full claim first."""
    full = image_key(side)
    old = image_key(side, dtype=None)
    return {
        FULL: full,
        "no dtype": old,
        "nothing": {**old, "shape": []},
        "width, height, 0": {**old, "shape": [side, side, 0]},
        "None": {**full, "shape": [None, side, side]},
    }


# -- one run ---------------------------------------------------------------------------------


def claims(sizes: Sizes, folder: Path, names: Collection[str] = ()) -> Workload:
    """1,000 frames of 512 x 512 uint16 in one file, described by full and by incomplete claims.

    Parameters
    ----------
    names
        Names of the claims to measure beside the full one. All if empty.
    """
    side, count = sizes.frame_side, sizes.file_frames
    data = frames(count, (side, side))
    path = write_hdf5(folder / "frames.h5", data, chunks=(1, side, side))
    with daskbroker.connect(folder / "store") as writer:
        uids = {}
        for name, claim in _claims(side).items():
            if names and name not in (FULL, *names):
                continue
            run = image_run(claim, path, count)
            insert_all(writer, run.documents)
            uids[name] = run.uid
    # A reader does not store what it finds in the files, so each sample looks again.
    broker = daskbroker.connect(folder / "store", mode="r")

    def image(name: str) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ClaimWarning)  # some claims are wrong
            return broker[uids[name]].dataset()["img"][:, 0]

    for name in uids:  # the first read in a process takes several times as long as the others
        _values(partial(image, name))
    checks = {"values": equals(data), "mean": close_to(data.mean(0))}
    cases = []
    for name in uids:
        for what, work in _WAYS.items():
            beside = () if name == FULL else (Against(f"{what}, {FULL}", at_most=1.1),)
            unit = "B" if "memory" in what else "s"
            run = partial(work, partial(image, name))
            cases.append(Case(f"{what}, {name}", run, checks.get(what), beside, unit=unit))
    return Workload(cases, broker.close)


def _values(image: Callable[[], Any]) -> np.ndarray:
    return image().to_numpy()


def _mean(image: Callable[[], Any]) -> np.ndarray:
    with dask.config.set(scheduler="threads", num_workers=2):
        return image().mean("time").to_numpy()


def _memory(image: Callable[[], Any]) -> int:
    """Return the peak of allocated bytes while all values are read."""
    tracemalloc.start()
    try:
        image().to_numpy()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


_WAYS = {"values": _values, "mean": _mean, "memory of values": _memory}


# -- many runs -------------------------------------------------------------------------------


def claimed_runs(sizes: Sizes, folder: Path) -> Workload:
    """5,000 runs of three frames, one file per run: with full claims and without a dtype."""
    claims = _claims(SIDE)
    first = write_hdf5(folder / "0.h5", frames(3, (SIDE, SIDE)))
    documents: dict[str, list[Documents]] = {"declared": [], "no dtype": []}
    for number in range(sizes.runs):
        path = folder / f"{number}.h5"
        if number:
            shutil.copyfile(first, path)
        for name, some in documents.items():
            some.append(image_run(claims[name], path, 3).documents)
    brokers = {}
    for name, some in documents.items():
        with (
            dask.config.set({"daskbroker.peek-after-stop": False}),
            daskbroker.connect(folder / name) as writer,
        ):
            for docs in some:
                insert_all(writer, docs)
        brokers[name] = daskbroker.connect(folder / name, mode="r")
    cases = [
        Case(
            "open, declared", lambda: brokers["declared"]().dataset(), None, (), sizes.runs, "runs"
        ),
        Case(
            "open, no dtype",
            lambda: brokers["no dtype"]().dataset(),
            _has_dtype(np.uint16),
            (Against("open, declared"),),
            sizes.runs,
            "runs",
        ),
        Case(
            "files opened, no dtype",
            lambda: count_of(opened, lambda: brokers["no dtype"]().dataset()),
            None,
            (Against(at_most=20.0),),
            unit="",
            prepare=open_handlers().clear,
        ),
        *_insert_cases(documents["no dtype"][: sizes.image_runs], folder),
    ]

    def close() -> None:
        for broker in brokers.values():
            broker.close()

    return Workload(cases, close)


def _insert_cases(runs: list[Documents], folder: Path) -> list[Case]:
    """Return the cases of inserting runs, with and without a peek into their files afterwards."""

    def insert(after: bool) -> None:
        place = folder / "inserted"
        shutil.rmtree(place, ignore_errors=True)
        with (
            dask.config.set({"daskbroker.peek-after-stop": after}),
            daskbroker.connect(place) as broker,
        ):
            for docs in runs:
                insert_all(broker, docs)

    goal = (Against("insert, nothing in the background", at_most=1.1),)
    return [
        Case(
            "insert, nothing in the background", lambda: insert(False), None, (), len(runs), "runs"
        ),
        Case("insert", lambda: insert(True), None, goal, len(runs), "runs"),
    ]


def _has_dtype(dtype: Any) -> Callable[[Any], None]:
    def check(dataset: Any) -> None:
        if dataset["img"].dtype != dtype:
            raise AssertionError(f"the frames are {dataset['img'].dtype}, not {dtype}")

    return check
