"""What is computed is the caller's: it can be changed, and what is read later is as stored."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from daskbroker.testing.base import insert_all
from daskbroker.testing.runs import RunBuilder

CELLS = {
    "x": [0.5, 1.5, 2.5],
    "n": [1, 2, 3],
    "b": [True, False, True],
    "s": ["a", "b", "c"],
    "a": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
    "r": [[1.0], [2.0, 3.0], [4.0]],
}


@pytest.fixture(params=["sealed", "journal"])
def header(db, request):
    run = RunBuilder()
    declared = {"source": "x", "dtype": "array", "shape": [2]}
    examples = {key: cells[0] for key, cells in CELLS.items()}
    descriptor = run.descriptor({**examples, "a": declared, "r": {**declared, "shape": [None]}})
    rows = [dict(zip(CELLS, row)) for row in zip(*CELLS.values())]
    run.event_page(descriptor, rows)
    insert_all(db, run.stop())
    if request.param == "sealed":
        db.seal()
    return db[-1]


def test_frames(header):
    frame = header.table().compute()
    time = pd.Timestamp("2020-01-01", tz="UTC")
    for key, value in {"x": 7.5, "n": 7, "b": False, "s": "q", "time": time}.items():
        unchanged = frame[key].iloc[1]
        frame.loc[frame.index < 2, key] = value
        frame.iloc[2, frame.columns.get_loc(key)] = value
        assert frame[key].tolist() == [value, unchanged, value]
    for key in ("a", "r"):
        frame[key].iloc[0][:] = 7
        assert (frame[key].iloc[0] == 7).all()
    again = header.table().compute()
    for key, cells in CELLS.items():
        assert [np.asarray(cell).tolist() for cell in again[key]] == cells


@pytest.mark.parametrize("chunks", [{}, {"chunks": None}, {"chunks": 2}], ids=str)
def test_datasets(header, chunks):
    dataset = header.dataset(**chunks).load()
    for key, value in {"x": 7.5, "n": 7, "b": False, "s": "q", "a": 7.0}.items():
        dataset[key][0] = value
        assert np.all(dataset[key].values[0] == value)
    dataset["x"] += 1
    again = header.dataset(**chunks).load()
    for key, cells in CELLS.items():
        assert [np.asarray(cell).tolist() for cell in again[key].values] == cells


def test_structured_constants_are_shared_and_read_only(db):
    rows = np.array([(1, 2.5)], dtype=[("a", "i8"), ("b", "f8")])
    configuration = {"dev": {"data": {"st": rows}, "timestamps": {"st": 1.0}, "data_keys": {}}}
    run = RunBuilder()
    descriptor = run.descriptor({"x": 0.5}, configuration=configuration, object_keys={"dev": ["x"]})
    for _ in range(2):
        run.event(descriptor, {"x": 0.5})
    insert_all(db, run.stop())
    cell = db[-1].table(fields=["config:dev:st"]).compute()["config:dev:st"].iloc[0]
    with pytest.raises(ValueError, match="read-only"):
        cell["a"] = 99
