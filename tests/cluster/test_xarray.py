"""What xarray does with Datasets as they come: on threads and processes, of one run and of many."""

from __future__ import annotations

import warnings

import dask
import numpy as np
import pytest
import xarray as xr
import zarr  # noqa: F401  (what to_zarr needs)

from daskbroker.testing import RunBuilder
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import SHAPE, image_claim
from daskbroker.testing.files import frames, write_hdf5
from daskbroker.views.dataset import assembly

EVENTS = (15, 14, 9)
FRAME = 2 * SHAPE[0] * SHAPE[1]
"""Bytes."""


def scan(folder, number):
    """A scan of a motor that takes each place twice, with frames in one file, and a dark frame."""
    events = EVENTS[number]
    data = frames(events + 1, SHAPE) + 1000 * number
    write_hdf5(folder / f"{number}.h5", data)
    run = RunBuilder(number=number, hints={"dimensions": [[["motor"], "primary"]]})
    example = {
        "motor": 0.5,
        "x": 0.5,
        "n": 1,
        "v": [0.5, 0.5],
        "label": "a",
        "note": "a",
        "odd": [],
    }
    descriptor = run.descriptor({"img": image_claim((1, *SHAPE)), **example})
    dark = run.descriptor({"img": image_claim((1, *SHAPE)), "y": 0.5}, "dark")
    resource = run.resource("AD_HDF5", root=str(folder), resource_path=f"{number}.h5")
    first = run.datum(resource, point_number=events)
    run.event(dark, {"img": first, "y": 2.5}, filled={"img": False})
    for place in range(events):
        row = {"motor": float(place // 2), "x": place * 0.5, "n": place, "label": f"l{place}"}
        datum = run.datum(resource, point_number=place)
        row |= {"img": datum, "v": [float(place), 1.0], "note": "abc"[place % 3]}
        row |= {"note": None} if place % 4 == 3 else {"odd": [0.5] * (place % 3)}
        run.event(descriptor, row, filled={"img": False})
    return run.stop(), data[:events, None]


@pytest.fixture(params=["in memory", "lazy", "cut"])
def stored(request):
    """How stored variables are held: xarray's way, on threads, or Dask's, on worker processes."""
    return request.param


@pytest.fixture
def scheduler(request, stored):
    """Where tasks run."""
    if stored == "cut":
        request.getfixturevalue("client")
        yield
    else:
        with dask.config.set(scheduler="threads"):
            yield


@pytest.fixture
def loaded(stored, monkeypatch):
    """Whether what is stored is in memory."""
    if stored == "lazy":  # as where it would be too many tasks
        monkeypatch.setattr(assembly, "MOST_TASKS", 0)
    with dask.config.set({"daskbroker.loaded-size": "8 MiB" if stored == "in memory" else 0}):
        yield stored == "in memory"


@pytest.fixture(params=[1, 3], ids=["one run", "many runs"])
def opened(request, db, tmp_path, scheduler, loaded):
    """A Dataset in blocks of four frames, a function that opens streams, and all frames."""
    data = []
    for number in range(request.param):
        docs, images = scan(tmp_path, number)
        insert_all(db, docs)
        data.append(images)
    source = db() if request.param > 1 else db[-1]

    def open_stream(*args, **kwargs):
        with dask.config.set({"daskbroker.partition-size": 4 * FRAME}):
            return source.dataset(*args, **kwargs)

    return open_stream(), open_stream, np.concatenate(data)


def test_one_cut_for_all(opened, stored):
    dataset, _, data = opened
    lengths = dataset.chunks["time"]
    assert sum(lengths) == len(data)
    assert len(set(lengths[:-1])) == 1
    assert lengths[-1] <= lengths[0] <= 4
    assert (dataset["x"].chunks is None) == (stored != "cut")
    assert dataset["motor"].chunks is None
    np.testing.assert_array_equal(dataset["img"].values, data)


def test_map_blocks_of_a_variable(opened):
    dataset, _, data = opened
    doubled = dataset["img"].data.map_blocks(lambda block: block * 2, dtype="u2")
    np.testing.assert_array_equal(doubled.compute(), data * 2)
    shown = dataset["img"].map_blocks(lambda block: block + 1, template=dataset["img"])
    np.testing.assert_array_equal(shown.values, data + 1)


def test_map_blocks_of_a_dataset(opened):
    dataset, _, data = opened

    def weighted(block):
        assert block.sizes["time"] <= 4
        assert [len(cell) for cell in block["label"].values.tolist()]
        return (block["img"].sum(("img_dim_0", "img_dim_1", "img_dim_2")) * block["x"]).rename("w")

    template = (dataset["img"][:, 0, 0, 0] * dataset["x"]).rename("w")
    found = dataset.map_blocks(weighted, template=template.chunk({"time": dataset.chunks["time"]}))
    expected = data.sum((1, 2, 3)) * dataset["x"].values
    np.testing.assert_allclose(found.values, expected)


def test_groups_of_a_motor(opened):
    dataset, _, data = opened
    grouped = dataset[["img", "x"]].groupby("motor").mean()
    motor = dataset["motor"].values
    for place, value in enumerate(grouped["motor"].values):
        np.testing.assert_allclose(grouped["img"].values[place], data[motor == value].mean(0))
        assert grouped["x"].values[place] == dataset["x"].values[motor == value].mean()


def test_text_and_ragged_cells_are_as_in_memory(opened):
    """In Dask arrays xarray would take None for text, and could not take one cell."""
    dataset, _, data = opened
    dataset = dataset[["label", "note", "odd", "img"]]
    there = np.array([text is not None for text in dataset["note"].values.tolist()])
    assert dataset.notnull()["note"].values.tolist() == there.tolist()
    assert int(dataset.count()["note"]) == there.sum() < len(there)
    assert dataset["note"].fillna("z").values.tolist().count("z") == (~there).sum()
    assert dataset.dropna("time", subset=["note"]).sizes["time"] == there.sum()
    event = dataset.isel(time=2).compute()
    assert event["odd"].item().tolist() == [0.5] * 2
    assert dataset["odd"][1].values.item().tolist() == [0.5]
    np.testing.assert_array_equal(event["img"].values, data[2])
    groups = dataset[["img", "label"]].groupby("label").mean()
    assert groups["label"].values.tolist() == sorted(set(dataset["label"].values.tolist()))
    assert dataset[["label"]].resample(time="1s").first()["label"].values[0] == "l0"


def test_where_drops(opened):
    dataset, _, data = opened
    kept = dataset[["img", "x"]].where(dataset["motor"] > 2, drop=True)
    chosen = dataset["motor"].values > 2
    np.testing.assert_array_equal(kept["img"].values, data[chosen])
    assert kept["x"].values.tolist() == dataset["x"].values[chosen].tolist()
    # A condition that is Dask's is computed first: pandas warns of what xarray indexes with else.
    by_x = dataset[["img"]].where((dataset["x"] < 1.2).compute(), drop=True)
    np.testing.assert_array_equal(by_x["img"].values, data[dataset["x"].values < 1.2])


def test_streams_are_merged(opened):
    dataset, open_stream, data = opened
    dark = open_stream("dark").rename(img="dark")
    both = xr.merge([dataset, dark], join="outer", compat="no_conflicts", combine_attrs="override")
    there = both["time"].isin(dataset["time"])
    np.testing.assert_array_equal(both["img"].values[there.values], data)
    assert np.isnan(both["img"].values[~there.values]).all()
    assert both["y"].values[~there.values].tolist() == dark["y"].values.tolist()


def test_chunks_are_chosen_by_dask(opened, loaded):
    dataset, _, data = opened
    # Dask does not cut objects by size, and large text is that.
    dataset = dataset.drop_vars(["note", "odd"] if loaded else ["note", "odd", "label"])
    again = dataset.chunk("auto")
    assert len(again.chunks["time"]) == 1
    np.testing.assert_array_equal(again["img"].values, data)
    assert again["x"].values.tolist() == dataset["x"].values.tolist()


def test_resampling_and_rolling(opened):
    dataset, _, data = opened
    np.testing.assert_allclose(
        dataset["img"].rolling(time=3).mean().values[2:],
        [data[place : place + 3].mean(0) for place in range(len(data) - 2)],
    )
    assert dataset["img"].resample(time="1h").mean().compute().sizes["time"] >= 1


def test_to_zarr_and_back(opened, tmp_path):
    dataset, _, data = opened
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Zarr about text, of xarray about objects
        dataset.to_zarr(tmp_path / "out.zarr")
        saved = xr.open_zarr(tmp_path / "out.zarr")
    np.testing.assert_array_equal(saved["img"].values, data)
    for name in ("x", "n", "motor", "seq_num", "label", "v"):
        assert saved[name].values.tolist() == dataset[name].values.tolist(), name
    np.testing.assert_array_equal(saved["time"].values, dataset["time"].values)


def test_a_variable_has_a_cut_of_its_own(opened):
    _, open_stream, data = opened
    dataset = open_stream(chunks={"img": 2, "x": 5})
    assert set(dataset["img"].chunks[0]) <= {1, 2}
    assert dataset["x"].chunks[0][0] == 5
    np.testing.assert_array_equal(dataset["img"].values, data)
    whole = open_stream(chunks={"time": -1})
    assert whole.chunks["time"] == (len(data),)
    inner = open_stream(chunks={"img_dim_1": 3})
    assert inner["img"].chunks[2] == (3, 3)
    np.testing.assert_array_equal(inner["img"].values, data)
