"""Datasets: dimensions, coordinates, attributes, laziness, what they carry."""

from __future__ import annotations

import json
import pickle

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from daskbroker import ALL, attrs
from daskbroker.core.errors import BadQuery, FieldNotFound, StreamNotFound
from daskbroker.stores.embedded.reader import EmbeddedReader
from daskbroker.testing import RunBuilder, make_run
from daskbroker.testing.base import insert_run
from daskbroker.testing.files import frames, write_hdf5
from daskbroker.views.dataset import writers
from daskbroker.views.dataset.dataset_rows import DatasetRows


@pytest.fixture
def header(db):
    run = RunBuilder(
        "run-abc",
        time=1e9,
        scan_id=7,
        plan_name="scan",
        hints={"dimensions": [[["motor"], "primary"]]},
    )
    motor = {"source": "PV:m", "dtype": "number", "shape": [], "units": "mm", "precision": 3}
    image = {"source": "PV:i", "dtype": "array", "shape": [2, 3], "dims": ["row", "column"]}
    descriptor = run.descriptor(
        {"motor": motor, "img": image, "v": [0.5, 0.5], "n": 1, "label": "a"}
    )
    dark = run.descriptor({"x": 0.5}, "dark")
    for number in range(5):
        img = (np.arange(6.0).reshape(2, 3) + 10 * number).tolist()
        data = {"motor": number / 2, "img": img, "v": [number * 1.0, -1.0], "n": number}
        run.event(descriptor, {**data, "label": f"l{number}"})
    run.event(dark, {"x": 9.5})
    return insert_run(db, run.stop())


@pytest.mark.parametrize("chunks", ["auto", None, {"time": 2}, {}])
def test_dimensions_coordinates_and_values(header, chunks):
    dataset = header.dataset(chunks=chunks)
    assert set(dataset.coords) == {"time", "seq_num", "motor"}
    assert {name: dataset[name].dims for name in dataset.variables} == {
        "time": ("time",),
        "seq_num": ("time",),
        "motor": ("time",),
        "img": ("time", "row", "column"),
        "v": ("time", "v_dim_0"),
        "n": ("time",),
        "label": ("time",),
    }
    assert dataset["img"].dtype == np.float64
    assert dataset["n"].dtype == np.int64
    assert dataset["img"][3].values.tolist() == [[30, 31, 32], [33, 34, 35]]
    assert dataset["img"][1:4, 1, ::2].values.tolist() == [[13, 15], [23, 25], [33, 35]]
    assert dataset["v"].isel(time=[4, 0, 4], v_dim_0=0).values.tolist() == [4, 0, 4]
    assert dataset["label"].values.tolist() == [f"l{n}" for n in range(5)]
    assert dataset["motor"].values.tolist() == [0, 0.5, 1, 1.5, 2]


def test_attributes(header):
    dataset = header.dataset()
    assert dataset["motor"].attrs == {
        "units": "mm", "source": "PV:m", "precision": 3, "object": "det",
    }  # fmt: skip
    assert dataset.attrs["run"] == "run-abc"
    assert dataset.attrs["scan_id"] == 7
    assert dataset.attrs["stream"] == "primary"
    assert dataset.attrs["descriptors"] == [header.descriptors["primary"][0]["uid"]]
    assert json.loads(dataset.attrs["start"]) == header.start
    assert dataset.attrs["exit_status"] == "success"
    assert dataset.attrs["time"] == "2001-09-09T01:46:40+00:00"
    told = attrs(dataset)
    assert (told["start"], told["stop"]) == (header.start, header.stop)
    assert attrs(dataset["n"].to_dataset().assign_attrs(dataset.attrs)) == told
    assert dataset.compute().attrs == dataset.attrs
    assert dataset[["n"]].attrs == dataset.attrs


def test_selection_by_time(header):
    dataset = header.dataset()
    first = dataset["time"].values[1]
    assert dataset.sel(time=slice(first, None))["n"].values.tolist() == [1, 2, 3, 4]


def test_fields_timestamps_and_projections(header):
    dataset = header.dataset(fields=["n", "start:plan_name", "uid"], timestamps=True)
    assert set(dataset.data_vars) == {"n", "start:plan_name", "uid", "ts_n"}
    assert dataset["start:plan_name"].values.tolist() == ["scan"] * 5
    assert dataset["ts_n"].dtype == np.float64
    with pytest.raises(FieldNotFound, match="the field 'absent' matches no data key"):
        header.dataset(fields=["absent"])
    with pytest.raises(StreamNotFound, match="has no stream 'absent'"):
        header.dataset("absent")


def test_gaps_and_what_has_no_shape(db):
    keys = {"n": [1, None, 3], "x": [0.5, None, 1.5], "on": [True, None, False]}
    keys |= {"ragged": [[1], [1, 2], []], "lie": [1, "a", None], "s": ["a", None, "b"]}
    dataset = insert_run(db, make_run(keys=keys)).dataset()
    assert dataset["n"].dtype == np.float64
    assert np.isnan(dataset["n"].values[1])
    assert np.isnan(dataset["x"].values[1])
    for name in ("on", "ragged", "lie", "s"):
        assert dataset[name].dtype == object
        assert dataset[name].dims == ("time",)
    assert [None if cell is None else cell for cell in dataset["lie"].values] == [1, "a", None]
    assert dataset["s"].values.tolist() == ["a", None, "b"]
    assert dataset["on"].values.tolist() == [True, None, False]


def test_a_tree_of_all_streams(header):
    tree = header.tree()
    assert list(tree.children) == ["primary", "dark"]
    assert tree["dark"]["x"].values.tolist() == [9.5]
    assert tree.attrs["run"] == "run-abc"
    assert "time" not in tree.dataset.variables


def test_opening_reads_time_and_seq_num_and_indexing_what_is_indexed(header, monkeypatch):
    made = []
    read = EmbeddedReader.read

    def noted(self, key, columns=None):
        made.append(columns)
        return read(self, key, columns)

    monkeypatch.setattr(EmbeddedReader, "read", noted)
    with dask.config.set({"daskbroker.loaded-size": 0}):
        dataset = header.dataset(fields="img")
    assert {column for columns in made for column in columns} <= {"time", "seq_num"}
    made.clear()
    assert dataset["img"].shape == (5, 2, 3)
    assert made == []
    assert dataset["img"][0, 0, 0].values == 0
    assert {tuple(columns) for columns in made} == {("data:img",)}


def test_a_small_stream_is_in_memory_read_in_one_pass(header, monkeypatch):
    made = []
    read = EmbeddedReader.read

    def noted(self, key, columns=None):
        made.append(columns)
        return read(self, key, columns)

    monkeypatch.setattr(EmbeddedReader, "read", noted)
    dataset = header.dataset()
    assert len(made) == 1
    assert dataset.chunks == {}
    assert dataset["label"].dtype == "<U2"
    assert dataset.compute().identical(dataset)
    assert len(made) == 1


def test_pickles_and_names(header):
    with dask.config.set({"daskbroker.loaded-size": 0}):
        _pickles_and_names(header)


def _pickles_and_names(header):
    dataset = header.dataset()
    again = pickle.loads(pickle.dumps(dataset))
    assert again.compute().identical(dataset.compute())
    assert header.dataset()["img"].data.name == dataset["img"].data.name
    assert header.dataset(duplicates="all")["img"].data.name != dataset["img"].data.name


def test_names_follow_events_and_stop(db):
    documents = make_run(3)
    names = set()
    for place, pair in enumerate(documents):
        db.insert(*pair)
        if place:
            with dask.config.set({"daskbroker.loaded-size": 0}):
                dataset = db[-1].dataset(fields=["x", "stop:exit_status"])
            names.add(dask.base.tokenize(dataset["stop:exit_status"].data))
    assert len(names) == len(documents) - 1
    assert dataset["stop:exit_status"].values.tolist() == ["success"] * 3


def test_a_motor_that_hints_name_twice_is_one_coordinate(db):
    dimensions = [[["x"], "primary"], [["x", "n"], "primary"]]
    run = RunBuilder(hints={"dimensions": dimensions}, motors=["x", "x"])
    descriptor = run.descriptor({"x": 0.5, "n": 1})
    for number in range(3):
        run.event(descriptor, {"x": number / 2, "n": number})
    header = insert_run(db, run.stop())
    for dataset in (header.dataset(), header.dataset(chunks=None), header.tree()["primary"]):
        assert set(dataset.coords) == {"time", "seq_num", "x", "n"}
        assert dataset["x"].values.tolist() == [0.0, 0.5, 1.0]


def test_a_dataset_is_of_one_stream(header, db):
    source = db.event_sources[0]
    for view in (
        header.table,
        header.dataset,
        lambda stream: header.table(stream, format="dataset"),
        lambda stream: source.table_given_header(header, stream),
        db().table,
        db().dataset,
        lambda stream: db().dataset(stream, combine="tree"),
    ):
        with pytest.raises(BadQuery, match=r"of one stream, not of ALL.*tree\(\).*documents\(\)"):
            view(ALL)


def test_a_slice_without_dask_makes_no_array_of_rows(header, monkeypatch):
    """That took as long as it took to read the column, for each column."""
    with dask.config.set({"daskbroker.loaded-size": 0}):
        dataset = header.dataset(chunks=None)
    assert dataset["n"][[3, 1]].values.tolist() == [3, 1]
    monkeypatch.setattr(DatasetRows, "locate", None)
    assert dataset["n"].values.tolist() == [0, 1, 2, 3, 4]
    assert dataset["n"][1:3].values.tolist() == [1, 2]
    assert dataset["label"][-2:].values.tolist() == dataset["label"].values.tolist()[3:]
    assert dataset["n"][3:1].values.tolist() == []


def test_one_frame_of_frames_that_differ_in_shape(db, tmp_path):
    """Dask makes of one object, which is an array itself, an array with its dimensions."""
    shapes = [(3, 4), (3, 4), (5, 6)]
    run = RunBuilder()
    image = {"source": "x", "dtype": "array", "shape": [], "external": "FILESTORE:"}
    descriptor = run.descriptor({"img": image})
    for number, shape in enumerate(shapes):
        write_hdf5(tmp_path / f"{number}.h5", frames(1, shape))
        resource = run.resource("AD_HDF5", root=str(tmp_path), resource_path=f"{number}.h5")
        datum = run.datum(resource, point_number=0)
        run.event(descriptor, {"img": datum}, filled={"img": False})
    header = insert_run(db, run.stop())
    for chunks in ({"time": 2}, None):
        dataset = header.dataset(chunks=chunks)
        assert dataset["img"].dtype == object
        event = dataset.isel(time=2).compute()
        assert event["img"].ndim == 0
        assert event["img"].item().shape[-2:] == (5, 6)
        assert [cell.values.item().shape[-2:] for cell in dataset["img"]] == shapes


@pytest.mark.parametrize("chunks", ["auto", 2, {"odd": 2}, {"time": 2, "v_dim_0": 1}], ids=repr)
def test_text_with_gaps_counts_as_in_memory_however_it_is_cut(db, chunks):
    keys = {"note": ["a", None, "b"], "odd": [[1.0], [], [2.0, 3.0]], "v": [[1.0, 2.0]] * 3}
    header = insert_run(db, make_run(keys=keys))
    with dask.config.set({"daskbroker.loaded-size": 0}):
        dataset = header.dataset(chunks=chunks)
    assert dataset["v"].chunks is not None
    assert list(dataset.data_vars) == list(header.dataset().data_vars)
    assert int(dataset["note"].count()) == 2
    assert dataset["note"].isnull().values.tolist() == [False, True, False]
    if chunks != {"odd": 2}:
        assert dataset.isel(time=2).compute()["odd"].item().tolist() == [2.0, 3.0]


def test_cells_of_arrays_are_compared(db):
    """NumPy has no single answer of two arrays, and xarray fails."""
    odd = [[1.0, np.nan], [], [2.0, 3.0]]
    one = insert_run(db, make_run(keys={"odd": odd, "note": ["a", None, "b"]}, time=1e9))
    for loaded in (0, "8 MiB"):
        with dask.config.set({"daskbroker.loaded-size": loaded}):
            dataset = one.dataset()
        assert dataset.equals(one.dataset())
        assert dataset.identical(one.dataset().compute())
        assert dataset.broadcast_equals(one.dataset(chunks=None))
        xr.testing.assert_identical(dataset, one.dataset())
        assert not dataset.equals(one.dataset().isel(time=[0, 1, 1]))
        assert not dataset.equals(one.dataset().drop_vars("odd"))
        assert not dataset.identical(one.dataset().assign_attrs(mine=1))
        shorter = one.dataset()
        shorter["odd"] = shorter["odd"].copy(data=shorter["odd"].values[[0, 1, 1]])
        assert not dataset.equals(shorter)
        assert not dataset.equals(5)


def test_cells_that_hold_arrays_are_compared():
    def made(*cells):
        values = np.empty(len(cells), object)
        values[:] = cells
        return writers.Dataset({"odd": ("time", values)})

    def cells(last=2.0):
        return {"a": np.array([1.0, np.nan])}, [np.float32("nan"), np.array([last])]

    assert made(*cells()).identical(made(*cells()))
    assert not made(*cells()).equals(made(*cells(3.0)))
    one, other = (np.zeros(2, [(name, "f8")]) for name in "xy")
    assert made(one, one).equals(made(one, one))
    assert not made(one, one).equals(made(one, other))


def test_what_differs_in_form_is_not_computed_to_compare():
    def failed(block):
        raise AssertionError

    lazy = da.zeros(3, dtype=object, chunks=3).map_blocks(failed, meta=np.empty(0, object))
    dataset = writers.Dataset({"odd": ("time", lazy)})
    for other in (dataset.rename(odd="even"), dataset.isel(time=[0, 1]), dataset.set_coords("odd")):
        assert not dataset.equals(other)
        assert not dataset.identical(other)


def test_names_of_tasks_tell_what_is_read(db):
    """A variable may have the name of a task, or, with other fields, that of another variable."""
    run = RunBuilder()
    rows = np.array([(1.0,), (3.0,)], dtype=[("x", "f8")])
    claim = {"source": "s", "dtype": "array", "shape": [2], "dtype_numpy": [["x", "<f8"]]}
    descriptor = run.descriptor({"peaks": claim, "peaks.x": [0.5, 0.5], "read": 0.5})
    for number in range(3):
        run.event(descriptor, {"peaks": rows, "peaks.x": [100.0, 200.0], "read": number * 0.5})
    header = insert_run(db, run.stop())
    with dask.config.set({"daskbroker.loaded-size": 0}):
        field, key, read = (header.dataset(fields=[n]) for n in ("peaks", "peaks.x", "read"))
    assert field["peaks.x"].chunks is not None
    field, key = dask.compute(field["peaks.x"], key["peaks.x"])
    assert field.values.tolist() == [[1.0, 3.0]] * 3
    assert key.values.tolist() == [[100.0, 200.0]] * 3
    assert read["read"].values.tolist() == [0.0, 0.5, 1.0]
