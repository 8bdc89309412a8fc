"""Azimuthal integration of powder rings: ten runs, two worker processes, derived runs, a map.

    pip install "daskbroker[plot]" pyFAI
    python azimuthal.py            # 300 frames of a million pixels, about a minute
    python azimuthal.py --short    # 40 small ones

The results stay in a folder, ``azimuthal-data``. A second call goes on from there.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  h5py then reads bitshuffle
import matplotlib.colors
import numpy as np
import xarray as xr
from distributed import Client, LocalCluster
from integrate import integrate, intensity
from simulate import DATASET, geometry, take

import daskbroker

RUNS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="few and small frames")
    parser.add_argument("--folder", type=Path, default=Path("azimuthal-data"))
    given = parser.parse_args()
    side, frames, points = (128, 4, 200) if given.short else (1024, 30, 1000)

    raw = daskbroker.connect(given.folder / "raw")
    derived = daskbroker.connect(given.folder / "derived")
    if not raw(plan_name="heating"):
        for name, doc in take(given.folder / "files", side, RUNS, frames):
            raw.insert(name, doc)
    runs = raw(plan_name="heating")
    asked = {"geometry": geometry(side), "points": points}

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.ERROR
        ) as cluster,
        Client(cluster) as client,
    ):
        client.run(warm_up, **asked, side=side)
        made = beside_a_loop(client, runs, sorted(given.folder.glob("files/*.h5")), asked)
        print(daskbroker.reprocess(runs, integrate, derived, dataset="primary", parameters=asked))

    results = derived(plan_name="heating").dataset().sortby("time")
    np.testing.assert_array_equal(results["intensity"], made["intensity"])
    origin = derived[-1].start["derived_from"]
    print("made by", origin["function"], "of run", raw[origin["runs"][0]].start["scan_id"])

    results.to_netcdf(given.folder / "waterfall.nc")
    derived().export(given.folder / "nexus", "nexus")
    plot(results, given.folder / "waterfall.png")
    print("in", given.folder, "are", *sorted(path.name for path in given.folder.iterdir()))


def warm_up(side: int, **asked: Any) -> None:
    """Import pyFAI and make its table of pixels and bins; the printed rates do not include that."""
    intensity(np.zeros((side, side), np.uint16), **asked)


def beside_a_loop(
    client: Client, runs: daskbroker.Results, files: list[Path], asked: dict[str, Any]
) -> xr.Dataset:
    """Return all curves, computed lazily from the runs and compared with a loop over the files."""
    dataset = runs.dataset("primary", chunks={"time": 15})
    warm_up(dataset.sizes["img_dim_0"], **asked)
    lazy = integrate(dataset, **asked)
    looped = timed(client, "a loop with h5py and pyFAI", lazy, loop, files, asked)
    blocks = len(lazy.chunks["time"])
    made = timed(client, f"daskbroker, {blocks} blocks on two workers", lazy, lazy.compute)
    np.testing.assert_allclose(made["intensity"] * made["i0"], looped, rtol=1e-6)
    return made


def loop(files: list[Path], asked: dict[str, Any]) -> np.ndarray:
    """Read the frames without daskbroker, for comparison; the files do not have the monitor."""
    curves = []
    for path in files:
        with h5py.File(path) as file:
            curves += [intensity(frame, **asked) for frame in file[DATASET]]
    return np.stack(curves)


def timed(client: Client, what: str, lazy: xr.Dataset, func: Callable[..., Any], *args: Any) -> Any:
    """Call a function, and print its rate and CPU time, including that of the workers."""
    began, before = time.perf_counter(), processors(client)
    result = func(*args)
    frames, took = lazy.sizes["time"], time.perf_counter() - began
    used = (processors(client) - before) / frames
    print(f"{what}: {frames / took:.0f} frames/s, {1000 * used:.1f} ms of a processor a frame")
    return result


def processors(client: Client) -> float:
    return time.process_time() + sum(client.run(time.process_time).values())


def plot(results: xr.Dataset, path: Path) -> None:
    """Plot all curves as a map, and one curve of each run."""
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 5), layout="constrained")
    over = results.swap_dims(time="temperature")["intensity"]
    over.plot(
        ax=left, norm=matplotlib.colors.LogNorm(), cmap="magma", cbar_kwargs={"label": "I / I0"}
    )
    left.set(
        xlabel="q (1/Å)", ylabel="temperature (K)", title=f"{over.sizes['temperature']} frames"
    )
    means = [run.mean("time") for _, run in results.groupby("run")]
    for place, run in enumerate(sorted(means, key=lambda run: float(run["temperature"]))):
        label = f"{float(run['temperature']):.0f} K"
        right.semilogy(run["q"], run["intensity"] * 3**place, lw=1, color=f"C{place}")
        right.text(
            7.6, float(run["intensity"].median()) * 3**place, label, color=f"C{place}", va="center"
        )
    right.set(xlabel="q (1/Å)", xlim=(1, 8.6), yticks=[], title="mean of each run")
    right.tick_params(which="minor", left=False)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
