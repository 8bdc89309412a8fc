"""Workers decode with as many threads as they have."""

from __future__ import annotations

import numpy as np
import pytest
from distributed import Client

import daskbroker
from daskbroker.assets.handlers.cores import most_threads
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import image_claim
from daskbroker.testing.files import frames, write_hdf5
from daskbroker.testing.runs import RunBuilder


def test_threads_of_a_worker(cluster):
    with Client(cluster, set_as_default=False) as client:
        assert client.submit(most_threads, pure=False).result() == 2


@pytest.mark.parametrize("compression", ["bitshuffle", "zstd"])
def test_compressed_frames_on_workers(cluster, tmp_path, compression):
    data = frames(40, (128, 256))
    path = write_hdf5(tmp_path / "f.h5", data, compression=compression)
    run = RunBuilder()
    descriptor = run.descriptor({"img": image_claim((1, 128, 256))})
    resource = run.resource("AD_HDF5", root=str(tmp_path), resource_path=path.name)
    for number in range(len(data)):
        run.event(descriptor, {"img": run.datum(resource, point_number=number)})
    with daskbroker.connect(tmp_path / "store") as db, Client(cluster):
        insert_all(db, run.stop())
        image = db[-1].dataset(chunks={"time": 7})["img"][:, 0]
        np.testing.assert_array_equal(image.values, data)
        np.testing.assert_allclose(image.mean("time").values, data.mean(0))
