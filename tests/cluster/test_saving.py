"""Grids, files of Datasets, and Datasets that are written back, by worker processes."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr

import daskbroker
from daskbroker.testing.base import insert_all
from daskbroker.testing.conformance.datasets import assert_comes_back, grid_place
from daskbroker.testing.detector_runs import SHAPE, image_claim
from daskbroker.testing.files import frames, write_hdf5
from daskbroker.testing.runs import RunBuilder
from daskbroker.work.ingest import ingest

pytestmark = [
    pytest.mark.filterwarnings("ignore:Consolidated metadata is currently"),
    pytest.mark.filterwarnings("ignore:The data type .* does not have a Zarr V3 specification"),
    pytest.mark.filterwarnings("ignore:variable .* has data in the form of a dask array"),
]


@pytest.fixture
def scanned(db, tmp_path, client):
    """A grid scan with frames that was not finished, and its frames."""
    data = frames(10, SHAPE)
    write_hdf5(tmp_path / "a.h5", data)
    run = RunBuilder(
        shape=[3, 4], snaking=[False, True], extents=[[0, 2], [0, 3]],
        hints={"gridding": "rectilinear", "dimensions": [[["m0"], "primary"], [["m1"], "primary"]]},
    )  # fmt: skip
    example = {"m0": 0.5, "m1": 0.5, "label": "a", "v": [0.5, 0.5]}
    descriptor = run.descriptor({"img": image_claim((1, *SHAPE)), **example})
    resource = run.resource("AD_HDF5", root=str(tmp_path), resource_path="a.h5")
    for number in range(len(data)):
        at = grid_place(number, (3, 4), snaking=True)
        row = {
            "m0": float(at[0]),
            "m1": float(at[1]),
            "label": f"l{number}",
            "v": [float(number), 1.0],
        }
        row["img"] = run.datum(resource, point_number=number)
        run.event(descriptor, row, filled={"img": False})
    insert_all(db, run.stop())
    with dask.config.set({"daskbroker.loaded-size": 0}):
        yield db[-1], data


def test_a_grid_is_read_by_workers(scanned):
    header, data = scanned
    grid = header.dataset(grid=True, chunks={"m0": 1})
    means = grid["img"].mean(("img_dim_0", "img_dim_1", "img_dim_2")).compute()
    for number, frame in enumerate(data):
        at = dict(zip(("m0", "m1"), grid_place(number, (3, 4), snaking=True)))
        np.testing.assert_allclose(means.isel(at), frame.mean(dtype="f8"), rtol=1e-6)
    assert np.isnan(means.values).sum() == 2


@pytest.mark.parametrize("format", ["nc", "zarr"])
def test_what_workers_compute_comes_back_from_files(db, scanned, tmp_path, format):
    header, data = scanned
    dataset = header.dataset(chunks={"time": 4})
    path = tmp_path / f"file.{format}"
    if format == "zarr":
        dataset.to_zarr(path)
    else:  # by one process: workers that wrote it in turns would have to share a lock
        list(header.export(path, fill=True, stream="primary"))
    with xr.open_dataset(path, engine="zarr" if format == "zarr" else None) as found:
        assert (found["img"].values[:, 0] == data).all()
    (uid,) = ingest(db, [path]).runs
    assert_comes_back(db[uid].dataset(chunks={"time": 3}), dataset, dtypes=False)


def test_what_is_written_back_is_read_by_workers(db, scanned):
    header, _ = scanned
    written = header.dataset(chunks={"time": 4}).assign_coords(
        energy=("img_dim_2", np.arange(SHAPE[1], dtype="f4")), dark=("img_dim_1", list("abcdef"))
    )
    pairs = list(daskbroker.dataset_to_stream(written, header))
    insert_all(db, pairs)
    assert_comes_back(db[pairs[0][1]["uid"]].dataset(chunks={"time": 3}), written)
