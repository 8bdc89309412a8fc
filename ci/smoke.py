"""Check that an installed daskbroker works. ci/release.sh runs this away from the checkout.

    python -I ci/smoke.py

Writes a run with compressed frames, reads it as a table, a dataset and documents, also in a worker
process, and tests the command line and the entry points.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import warnings
from importlib.metadata import entry_points
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import xarray as xr
from distributed import Client, LocalCluster

import daskbroker
from daskbroker.testing import RunBuilder
from daskbroker.testing.files import AD_DATASET

COUNT, SIDE = 12, 32


def write(db: daskbroker.DataBroker, folder: Path) -> np.ndarray:
    """Insert a run with a frame in each event, and return the frames."""
    frames = np.random.default_rng(0).poisson(3.0, (COUNT, SIDE, SIDE)).astype("u2")
    with h5py.File(folder / "frames.h5", "w") as file:
        filters = {**hdf5plugin.Bitshuffle(cname="lz4")}
        file.create_dataset(AD_DATASET, data=frames, chunks=(1, SIDE, SIDE), **filters)
    run = RunBuilder(plan_name="scan", scan_id=7)
    image = {"source": "smoke", "dtype": "array", "shape": [1, SIDE, SIDE], "dtype_numpy": "<u2"}
    descriptor = run.descriptor({"img": {**image, "external": "FILESTORE:"}, "x": 0.5})
    resource = run.resource("AD_HDF5", root=str(folder), resource_path="frames.h5")
    for place in range(COUNT):
        datum = run.datum(resource, point_number=place)
        run.event(descriptor, {"img": datum, "x": place * 0.5}, filled={"img": False})
    for name, doc in run.stop():
        db.insert(name, doc)
    return frames


def read(db: daskbroker.DataBroker, frames: np.ndarray) -> None:
    """Read the three views, without and with a worker process."""
    header = db[-1]
    assert header.table(fields=["x"]).compute()["x"].tolist() == [n * 0.5 for n in range(COUNT)]
    assert sum(name == "event" for name, _ in header.documents()) == COUNT
    image = header.dataset()["img"][:, 0]
    np.testing.assert_array_equal(image.to_numpy(), frames)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster),
    ):
        np.testing.assert_allclose(header.dataset()["img"][:, 0].mean("time"), frames.mean(0))


def command(*arguments: str, of: str = "daskbroker") -> str:
    """Run a command line, and return what it prints."""
    script = Path(sysconfig.get_path("scripts")) / of
    return subprocess.run([script, *arguments], check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Check everything; raise if something is wrong."""
    assert Path(daskbroker.__file__).is_relative_to(sys.prefix), daskbroker.__file__
    assert Path(daskbroker.__file__).with_name("py.typed").exists()
    stores = {point.name for point in entry_points(group="daskbroker.stores")}
    assert stores == {"file", "mongodb", "mongodb+srv"}
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder) / "store")
        with daskbroker.connect(place) as db:
            read(db, write(db, Path(folder)))
        assert "ingest" in command("--help")
        assert "scan" in command("ls", "--db", place)
        command("check", place, "--files")
        assert "seal-rows: 16384" in command("config", "list", of="dask")
        assert "scan" in command("daskbroker", "ls", "--db", place, of="dask")
        with xr.open_dataset(place, engine="daskbroker") as dataset:
            assert dataset.sizes["time"] == COUNT


if __name__ == "__main__":
    warnings.simplefilter("error")
    main()
