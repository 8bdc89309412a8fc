"""Compressed frames, decoded by HDF5 under its lock and by daskbroker outside of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dask
import h5py
import hdf5plugin
import numpy as np

import daskbroker
from benchmarks.data import image_key, image_run, insert_all
from benchmarks.harness import Against, Case, Sizes, Workload
from daskbroker.assets.handlers.hdf5 import chunk_filters
from daskbroker.testing.files import AD_DATASET

__all__ = ["FILTERS", "compressed", "dark_frames", "write_run"]

FILTERS: dict[str, dict[str, Any]] = {
    "bitshuffle-LZ4": {**hdf5plugin.Bitshuffle()},
    "bitshuffle-Zstd": {**hdf5plugin.Bitshuffle(cname="zstd")},
    "LZ4": {**hdf5plugin.LZ4()},
    "Zstd": {**hdf5plugin.Zstd(clevel=1)},
    "Blosc-LZ4": {**hdf5plugin.Blosc(cname="lz4", shuffle=2)},
    "gzip": {"compression": "gzip", "compression_opts": 1, "shuffle": True},
}

EIGER = "bitshuffle-LZ4"
"""The filter that the extra ``eiger`` is for."""


def compressed(sizes: Sizes, folder: Path) -> Workload:
    """64 frames of 1,024 x 1,024 uint32, mostly dark, in one file for each filter.

    If dectris-compression is installed, bitshuffle-LZ4 is decoded with it and without it.
    """
    broker = daskbroker.connect(folder / "store")
    cases: list[Case] = []
    for name, options in FILTERS.items():
        views = _Views(broker, folder, name, options, sizes)
        if name == EIGER and find_spec("dectris"):
            cases += _cases(views, f"{name} with [eiger]")
            cases += [_without_dectris(case) for case in _cases(views, name)]
        else:
            cases += _cases(views, name)
    return Workload(cases, broker.close)


def _without_dectris(case: Case) -> Case:
    """Return a case that decodes bitshuffle as if dectris-compression was not installed."""

    def run() -> Any:
        with patch.object(chunk_filters, "_dectris", lambda: None):
            return case.run()

    return replace(case, run=run)


def write_run(
    broker: Any, path: Path, data: np.ndarray, options: dict[str, Any], count: int
) -> str:
    """Write a run whose frames repeat ``data``, one HDF5 chunk per frame, and return its uid."""
    with h5py.File(path, "w") as file:
        shape = (count, *data.shape[1:])
        dataset = file.create_dataset(
            AD_DATASET, shape, data.dtype, chunks=(1, *shape[1:]), **options
        )
        for number in range(count):
            dataset[number] = data[number % len(data)]
    run = image_run(image_key(data.shape[1], data.dtype.str), path, count)
    insert_all(broker, run.documents)
    return run.uid


def dark_frames(count: int, side: int, dtype: str) -> np.ndarray:
    """Return frames with few counts, as photon-counting detectors produce them."""
    return np.random.default_rng(0).poisson(0.3, (count, side, side)).astype(dtype)


class _Views:
    def __init__(
        self, broker: Any, folder: Path, name: str, options: dict[str, Any], sizes: Sizes
    ) -> None:
        self._broker, self._path = broker, folder / f"{name}.h5"
        data = dark_frames(4, sizes.compressed_side, "<u4")
        self.count = sizes.compressed_frames
        self._uid = write_run(broker, self._path, data, options, self.count)
        self._data = data

    def plain(self) -> np.ndarray:
        with h5py.File(self._path) as file:
            return file[AD_DATASET][...]

    def image(self, chunks: Any) -> Any:
        return self._broker[self._uid].dataset(chunks=chunks)["img"][:, 0]

    def by_threads(self, count: int, get: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with dask.config.set(scheduler="threads", num_workers=count):
                return get()

        return run

    def check(self, found: np.ndarray) -> None:
        for number in range(self.count):
            if not np.array_equal(found[number], self._data[number % len(self._data)]):
                raise AssertionError("other frames than were written")

    def check_mean(self, found: np.ndarray) -> None:
        np.testing.assert_allclose(found, self._data.mean(0))


def _cases(views: _Views, name: str) -> list[Case]:
    fast = name.startswith(EIGER)
    plain, plain_mean = f"{name}: h5py", f"{name}: mean by h5py and numpy"
    lazy, blocks = lambda: views.image(None).to_numpy(), lambda: views.image("auto").to_numpy()
    values = Against(plain, times_faster=2.5 if fast else 1.7)
    return [
        Case(plain, views.plain, views.check, (), views.count, "frames"),
        Case(
            f"{name}: dataset without dask, one thread",
            views.by_threads(1, lazy),
            views.check,
            (Against(plain, at_most=1 / 1.4 if fast else 1.05),),
        ),
        Case(
            f"{name}: dataset without dask, two threads",
            views.by_threads(2, lazy),
            views.check,
            (values,),
        ),
        Case(f"{name}: dataset, two threads", views.by_threads(2, blocks), views.check, (values,)),
        Case(plain_mean, lambda: views.plain().mean(0), views.check_mean),
        Case(
            f"{name}: mean, two threads",
            views.by_threads(2, lambda: views.image("auto").mean("time").to_numpy()),
            views.check_mean,
            (Against(plain_mean, times_faster=1.5),),
        ),
    ]
