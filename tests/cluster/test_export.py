"""Runs whose frames worker processes read, as files of each format."""

from __future__ import annotations

import json

import dask
import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import xarray as xr

import daskbroker
from daskbroker.core.errors import BadQuery
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import SHAPE, datum_run


@pytest.fixture
def frames_run(db, tmp_path, client):
    documents, data = datum_run(tmp_path)
    insert_all(db, documents)
    return db[-1], data


@pytest.mark.parametrize("format", ["parquet", "netcdf", "zarr", "nexus"])
def test_frames_are_exported(frames_run, tmp_path, format):
    header, data = frames_run
    (path,) = header.export(tmp_path / "out", format, fill=True)
    if format == "parquet":
        found = np.array(pq.read_table(path)["img"].to_pylist())
    elif format == "nexus":
        with h5py.File(path) as file:
            found = file["entry/primary/img"][()]
    else:
        engine = "h5netcdf" if format == "netcdf" else "zarr"
        found = xr.load_datatree(path, engine=engine)["primary/img"].values
    assert (found.reshape(-1, *SHAPE) == data).all()


def test_references_made_and_read_by_workers(mongo_database, tmp_path, client):
    """Of a run that lies in MongoDB: in its journal, and sealed."""
    documents, data = datum_run(tmp_path)
    with daskbroker.connect(mongo_database) as db:
        insert_all(db, documents)
        header = db[-1]
        references = client.submit(lambda h: h.references("primary"), header).result()
        assert references == header.references("primary")
        db.seal()
        (path,) = header.export(tmp_path / "run.json", stream="primary")
    assert json.loads(path.read_text()) == references
    with xr.open_dataset(str(path), engine="kerchunk", chunks={}) as found:
        assert (found["img"].compute() == data[:, None]).all()


@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame")
def test_tables_with_arrays_are_written_by_workers(db, tmp_path, client):
    cells = {"v": [[1.0], [2.0, 3.0]], "x": [0.5, 1.5]}
    insert_all(db, make_run(keys=cells))
    table = db[-1].table()
    table.to_parquet(tmp_path / "out")
    assert pq.read_table(tmp_path / "out")["v"].to_pylist() == cells["v"]
    with pytest.raises(BadQuery, match="column 'v'"):
        table.to_csv(tmp_path / "a.csv", single_file=True)
    table.to_csv(tmp_path / "b.csv", single_file=True, arrays="drop")
    assert pd.read_csv(tmp_path / "b.csv")["x"].tolist() == cells["x"]


def locked(dask_scheduler):
    """Return the names of all locks that the scheduler has seen."""
    return set(dask_scheduler.extensions["semaphores"].max_leases)


def test_one_process_writes_a_netcdf_file(frames_run, tmp_path, client):
    """Workers that wrote in turns would need a lock of the scheduler's, which expires."""
    header, data = frames_run
    before = client.run_on_scheduler(locked)
    with dask.config.set({"daskbroker.loaded-size": 0}):
        (tree,) = header.export(tmp_path / "tree.nc", fill=True)
        (alone,) = header.export(tmp_path / "alone.nc", fill=True, stream="primary")
    assert client.run_on_scheduler(locked) == before
    for path, group in ((tree, "primary"), (alone, None)):
        with xr.open_dataset(path, engine="h5netcdf", group=group) as found:
            np.testing.assert_array_equal(found["img"].values[:, 0], data)
