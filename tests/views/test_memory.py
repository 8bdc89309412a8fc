"""Memory while many frames are reduced: a few blocks, never the run."""

from __future__ import annotations

import tracemalloc

import dask
import numpy as np

from daskbroker.testing.base import insert_all
from daskbroker.testing.files import frames, write_hdf5
from daskbroker.testing.runs import RunBuilder

SIDE, COUNT = 256, 400
FRAME = SIDE * SIDE * 2


def camera_run(folder):
    write_hdf5(folder / "a.h5", frames(COUNT, (SIDE, SIDE)), chunks=(1, SIDE, SIDE))
    run = RunBuilder()
    spec = {"source": "x", "dtype": "array", "shape": [SIDE, SIDE], "dtype_numpy": "<u2"}
    descriptor = run.descriptor({"img": {**spec, "external": "FILESTORE:"}})
    resource = run.resource("AD_HDF5", root=str(folder), resource_path="a.h5")
    for place in range(COUNT):
        run.event(descriptor, {"img": run.datum(resource, point_number=place)})
    return run.stop()


def peak(work):
    work()  # imports and caches
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_mean_over_frames_holds_few_blocks(db, tmp_path):
    insert_all(db, camera_run(tmp_path))
    header = db[-1]
    with dask.config.set({"daskbroker.partition-size": 20 * FRAME}):
        image = header.dataset()["img"]
    assert len(image.chunks[0]) == 20
    # A block of integers and its sums in floats; 20 blocks would be 52 MB.
    assert peak(lambda: image.mean("time").values) < 4 * 20 * FRAME


def test_documents_hold_few_blocks(db, tmp_path, monkeypatch):
    from daskbroker.assets.filling import event_filling

    insert_all(db, camera_run(tmp_path))
    monkeypatch.setattr(event_filling, "BLOCK_BYTES", 20 * FRAME)

    def go_through():
        total = 0
        for name, doc in db[-1].documents():
            if name == "event":
                total += int(doc["data"]["img"][0, 0])
        return total

    assert peak(go_through) < 4 * 20 * FRAME


def test_one_row_of_pixels_reads_no_more(db, tmp_path):
    insert_all(db, camera_run(tmp_path))
    image = db[-1].dataset(chunks=None)["img"]
    expected = frames(COUNT, (SIDE, SIDE))[:, 7]
    np.testing.assert_array_equal(image[:, 7].values, expected)
    assert peak(lambda: image[:, 7].values) < 3 * COUNT * SIDE * 2 + 2_000_000
