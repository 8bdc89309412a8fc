"""Make the pictures of docs/notebooks.md: runs as a browser shows them, and plots.

    python ci/screenshots.py

Look at each before you commit it; tests/display/test_browser.py compares only the text.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import matplotlib
import numpy as np
from bluesky import RunEngine
from bluesky.plans import count, grid_scan, scan
from ophyd.sim import det, det4, motor, motor1, motor2
from PIL import Image

import daskbroker
from daskbroker.testing import RunBuilder
from daskbroker.testing.files import write_hdf5

sys.path.append(str(Path(__file__).resolve().parents[1]))

from ci.browser import picture

IMAGES = Path(__file__).parents[1] / "docs/images"
SIDE = 256


def rings(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return a run with a detector whose frames have rings on a background."""
    up, across = np.mgrid[:SIDE, :SIDE]
    radius = np.hypot(up - 120, across - 140)
    noise = np.random.default_rng(1)
    frames = [
        noise.poisson(20 + 400 * np.exp(-(((radius - 30 - 8 * n) / 3) ** 2)) + 2e4 / (radius + 9))
        for n in range(5)
    ]
    path = write_hdf5(folder / "rings.h5", np.stack(frames).astype("u2"))
    run = RunBuilder(
        plan_name="count", scan_id=5, sample={"name": "LaB6", "holder": 3}, detectors=["eiger"],
        num_points=5, time=1_795_600_000.0, beamline="sim",
    )  # fmt: skip
    image = {
        "source": "SIM:eiger", "dtype": "array", "shape": [1, SIDE, SIDE], "dtype_numpy": "<u2",
        "external": "FILESTORE:",
    }  # fmt: skip
    total = {"source": "SIM:total", "dtype": "number", "shape": [], "units": "counts"}
    settings = {"exposure_time": 0.1, "threshold": 6.2}
    descriptor = run.descriptor(
        {"eiger_image": image, "eiger_total": total},
        object_keys={"eiger": ["eiger_image", "eiger_total"]},
        hints={"eiger": {"fields": ["eiger_total"]}},
        configuration={"eiger": {"data": settings, "timestamps": {}, "data_keys": {}}},
    )
    resource = run.resource("AD_HDF5", root=str(folder), resource_path=path.name)
    for number, frame in enumerate(frames):
        datum = run.datum(resource, point_number=number)
        data = {"eiger_image": datum, "eiger_total": float(frame.sum())}
        run.event(descriptor, data, filled={"eiger_image": False})
    yield from run.stop()


def make_runs(db: daskbroker.DataBroker, folder: Path) -> None:
    """Insert some runs of a RunEngine, one with frames, a derived one, and one that is open."""
    engine = RunEngine({})
    engine.subscribe(db.insert)
    engine(count([det], num=5), sample="empty")
    engine(grid_scan([det4], motor1, -2, 2, 21, motor2, -2, 2, 21), sample="Ag-3")
    for sample, center in (("Ag-3", -0.8), ("Au-1", 0.0)):
        det.center.set(center)
        engine(scan([det], motor, -5 + len(db) % 2, 5, 51), sample=sample, purpose="find the peak")
    for name, doc in rings(folder):
        db.insert(name, doc)
    scanned = db(plan_name="scan")[0]
    frame = scanned.table().compute()
    frame["normalized"] = frame["det"] / frame["det"].max()
    for name, doc in daskbroker.table_to_stream(frame, scanned):
        db.insert(name, doc)
    for name, doc in RunBuilder(plan_name="count", scan_id=6, time=1.7956e9 + 9e3).documents:
        db.insert(name, doc)


def smaller(file: Path) -> None:
    """Save a picture with a palette, which is enough for the colours of pages and plots."""
    with Image.open(file) as shown:
        shown.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file.name}: {file.stat().st_size // 1024} KiB")


def main() -> None:
    """Make the pictures of this script; examples make the others in the same folder."""
    matplotlib.use("agg")
    IMAGES.mkdir(parents=True, exist_ok=True)
    settings = {"daskbroker.picture-seconds": 60, "daskbroker.peek-after-stop": False}
    with (
        tempfile.TemporaryDirectory() as folder,
        dask.config.set(settings),
        daskbroker.connect(Path(folder) / "store", timezone="Europe/Berlin") as db,
    ):
        make_runs(db, Path(folder))
        peak, grid, image = db(plan_name="scan"), db(plan_name="grid_scan")[0], db[5]
        for name, shown, size in (
            ("results", db(), (900, 240)),
            ("header", peak[1], (620, 520)),
            ("header-detector", image, (620, 520)),
            ("document", peak[1].start, (620, 400)),
            ("dataset", image.dataset(), (900, 330)),
        ):
            smaller(picture(shown._repr_html_(), IMAGES / f"{name}.png", size))
        for name, axes in (
            ("plot-line", peak[1].plot()),
            ("plot-map", grid.plot()),
            ("plot-frame", image.plot(frame=2)),
            ("plot-runs", db(plan_name="scan", sample={"$exists": True})[1:].plot()),
        ):
            axes.figure.set_size_inches(5, 3.6)
            axes.figure.savefig(IMAGES / f"{name}.png", dpi=100)
            smaller(IMAGES / f"{name}.png")


if __name__ == "__main__":
    main()
