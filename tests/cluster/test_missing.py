"""Missing cells where workers are processes of their own: they look which frames there are."""

from __future__ import annotations

import os

import dask
import numpy as np
import pytest

from daskbroker.core.errors import FrameMissing
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import stacked
from daskbroker.testing.files import frames
from daskbroker.testing.runs_with_gaps import rewound_frames, short_run

BLOCK = {"daskbroker.partition-size": 200}  # bytes: two frames


@pytest.mark.parametrize("kind", ["AD_HDF5", "stream", "AD_TIFF"])
def test_lost_frames(db, client, tmp_path, kind):
    docs, data = short_run(tmp_path, kind)
    insert_all(db, docs)
    header = db[-1]
    with dask.config.set(BLOCK):
        dropped, table = header.dataset(missing="drop"), header.table(missing="drop")
        shown = header.dataset(missing="nan")["img"]
        filled = header.table(fill_value=3)
        default = header.table()
    np.testing.assert_array_equal(dropped["img"].values, data)
    assert dropped["img"].dtype == np.uint16
    assert len(table) == 4
    np.testing.assert_array_equal(stacked(table["img"].compute()), data)
    assert shown.dtype == np.float32
    assert np.isnan(shown.values[4:]).all()
    assert (stacked(filled["img"].compute())[4:] == 3).all()
    np.testing.assert_array_equal(stacked(default.loc[1:4].compute()["img"]), data)
    np.testing.assert_array_equal(stacked(default.head(2, npartitions=2)["img"]), data[:2])
    with pytest.raises(FrameMissing, match="missing='drop'"):
        default.compute()
    events = [doc for name, doc in header.documents(missing="drop") if name == "event"]
    np.testing.assert_array_equal(stacked(event["data"]["img"] for event in events), data)


def test_documents_until_the_first_that_cannot_be_filled(db, client, tmp_path):
    docs, data = short_run(tmp_path, "AD_HDF5")
    insert_all(db, docs)
    given = []

    def take_all():
        for name, doc in db[-1].documents():
            given.extend([doc["data"]["img"]] if name == "event" else [])

    with pytest.raises(FrameMissing, match="missing='drop'"):
        take_all()
    np.testing.assert_array_equal(stacked(given), data)


def test_frames_that_this_process_does_not_see(db, client, tmp_path):
    """Which rows are left, workers say, that see the files."""
    docs, data = short_run(tmp_path, "AD_HDF5")
    insert_all(db, docs)
    here = os.getpid()

    class Elsewhere:
        def __init__(self, path):
            self.hidden = os.getpid() == here

        def __call__(self, point_number):
            if self.hidden or point_number >= 4:
                raise FileNotFoundError(point_number)
            return frames(4)[point_number][None]

    dataset = db[-1].dataset(missing="drop", handler_overrides={"img": Elsewhere})
    assert len(dataset["time"]) == 4
    np.testing.assert_array_equal(dataset["img"].values, data)


def test_frames_that_claim_the_same_numbers(db, client, tmp_path):
    docs, first, second = rewound_frames(tmp_path, 2, True)
    insert_all(db, docs)
    every = np.stack([first[0], first[1], second[0], first[2], second[1], *second[2:]])
    with dask.config.set(BLOCK):
        table = db[-1].table(duplicates="all")
        image = db[-1].dataset(duplicates="all")["img"]
    np.testing.assert_array_equal(stacked(table["img"].compute()), every)
    np.testing.assert_array_equal(image.values, every)
    events = [doc for name, doc in db[-1].documents() if name == "event"]
    cells = stacked(event["data"]["img"] for event in events)
    np.testing.assert_array_equal(cells, np.concatenate([first, second]))
