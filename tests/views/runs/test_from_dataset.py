"""Datasets that are written back as runs come back as they were."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings

import daskbroker
from daskbroker import dataset_to_stream
from daskbroker.core.errors import BadDocument
from daskbroker.testing import RunBuilder, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.conformance.datasets import assert_comes_back, datasets, written_datasets


def stored(db, documents):
    """Insert a new run; its header."""
    pairs = list(documents)
    insert_all(db, pairs)
    return db[pairs[0][1]["uid"]]


@pytest.mark.parametrize("what", written_datasets())
def test_a_dataset_comes_back(db, what):
    written = written_datasets()[what]
    header = stored(db, dataset_to_stream(written))
    for chunks in ("auto", None, {"time": 2}):
        assert_comes_back(header.dataset(chunks=chunks), written)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with daskbroker.connect(tmp_path_factory.mktemp("store")) as broker:
        yield broker


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(datasets())
def test_any_dataset_of_the_class_comes_back(place, written):
    assert_comes_back(stored(place, dataset_to_stream(written)).dataset(), written)


@pytest.mark.parametrize("chunks", [{"det": 2, "img": 4}, {"det": 2, "img": 1}])
def test_variables_may_be_cut_differently(db, chunks):
    """As ``chunks={name: n}``, ``chunk({})`` and ``xr.open_zarr`` cut them."""
    written = written_datasets()["as it is"]
    cut = {name: written[name].chunk({"time": length}) for name, length in chunks.items()}
    header = stored(db, dataset_to_stream(written.assign(cut)))
    assert_comes_back(header.dataset(), written)
    pages = [doc for name, doc in dataset_to_stream(written.assign(cut)) if name == "event_page"]
    assert len(pages) == -(-6 // chunks["img"])


def test_a_descriptor_that_tells_no_form_is_like_any_other(db):
    partial = {"version": 1, "dim": None, "variables": [{"name": 1}], "indexes": [], "attrs": "{}"}
    long = {"name": "x", "place": "event", "key": "x", "dims": ["time"], "shape": [], "attrs": "{}"}
    long |= {"dtype": "<U999999999", "coordinate": False}
    huge = {**partial, "variables": [long]}
    odd = [huge, 7, "x", [], {}, {"version": 2}, {"version": 1, "dim": "time"}, partial]
    for form in odd:
        pairs = make_run(3)
        next(doc for name, doc in pairs if name == "descriptor")["xarray"] = form
        assert stored(db, pairs).dataset()["x"].values.tolist() == [1.0, 1.5, 2.0]


def test_a_stream_without_data_keys_comes_back(db):
    run = RunBuilder()
    descriptor = run.descriptor({})
    for _ in range(3):
        run.event(descriptor, {})
    written = stored(db, run.stop()).dataset()
    header = stored(db, dataset_to_stream(written))
    assert header.dataset().sizes == {"time": 3}
    assert header.dataset()["seq_num"].values.tolist() == [1, 2, 3]


def test_values_of_another_form_than_the_descriptor_tells_are_an_error(db):
    written = xr.Dataset({"v": (("time", "x"), np.zeros((2, 3))), "dark": ("x", [1.0, 2.0, 3.0])})
    for spoil in ("shape", "configuration"):
        pairs = list(dataset_to_stream(written))
        descriptor = pairs[1][1].to_dict()
        if spoil == "shape":
            descriptor["xarray"]["variables"][0]["shape"] = [4]
        else:
            descriptor["configuration"]["dataset"]["data"]["dark"] = [1.0]
        pairs[1] = ("descriptor", descriptor)
        with pytest.raises(daskbroker.core.errors.StoreDamaged, match="shape"):
            stored(db, pairs).dataset().load()


def test_some_variables_bring_their_coordinates(db):
    header = stored(db, dataset_to_stream(written_datasets()["as it is"]))
    found = header.dataset(fields=["spectrum"])
    assert set(found.variables) == {"time", "seq_num", "energy", "sample", "spectrum"}
    found = header.dataset(fields=["det", "config:dataset:sample", "start:uid"])
    assert "energy" not in found.variables
    assert found["det"].dims == ("time",)


def test_runs_of_one_form_are_one_dataset(db):
    one = written_datasets()["as it is"]
    for number in range(2):
        stored(db, dataset_to_stream(one.assign(det=one["det"] + number)))
    both = db().dataset()
    assert both.sizes["time"] == 12
    assert both["energy"].values.tolist() == one["energy"].values.tolist()
    assert both["run"].dims == ("time",)
    stored(db, dataset_to_stream(one.assign_coords(energy=one["energy"] + 1)))
    assert "energy" not in db().dataset().coords


def test_the_origin_is_the_run_that_the_attributes_tell(db):
    header = stored(db, make_run(3, sample={"name": "Ag"}))
    new = stored(db, dataset_to_stream(header.dataset().mean("time", keep_attrs=True)))
    assert new.start["derived_from"]["runs"] == [header.uid]
    assert new.start["sample"] == {"name": "Ag"}


def test_units_that_xarray_would_decode_have_another_name(db, tmp_path):
    units = {"units": "days since 2000-01-01"}
    written = xr.Dataset({"age": ("x", [1.5, 2.5], units)}, {"x": ("x", [1.0, 2.0], units)})
    header = stored(db, dataset_to_stream(written.swap_dims(x="step").assign_coords(k=0.5)))
    header.export(tmp_path / "age.nc")  # which compares what is read back
    assert header.dataset()["age"].attrs["unit"] == "days since 2000-01-01"
    assert header.dataset()["x"].attrs == {"unit": "days since 2000-01-01"}


def test_nothing_of_a_tree_is_dropped(db):
    """A run has one level of streams: what has no place in it is named."""
    step = xr.Dataset({"x": ("time", [1.0, 2.0])})
    tree = xr.DataTree.from_dict({"/a": step, "/b": step * 2, "/empty": None, "/empty/below": None})
    tree.attrs.update(note="mine", stream="not mine")
    insert_all(db, dataset_to_stream(tree))
    assert db[-1].start["derived_from"]["attrs"] == {"note": "mine"}
    assert db[-1].tree()["b"]["x"].values.tolist() == [2.0, 4.0]
    deep = xr.DataTree.from_dict({"/a": step, "/a/fits": step, "/a/b/c": step, "/d": None})
    with pytest.raises(BadDocument, match=r"groups below its streams \(/a/fits, /a/b/c\)"):
        list(dataset_to_stream(deep))
    rooted = xr.DataTree.from_dict({"/": xr.Dataset({"total": 3.0}), "/a": step})
    with pytest.raises(BadDocument, match=r"root of the tree has variables \(total\)"):
        list(dataset_to_stream(rooted))
    shared = xr.DataTree.from_dict({"/": xr.Dataset(coords={"e": [1.0]}), "/a": step})
    insert_all(db, dataset_to_stream(shared))
    assert db[-1].dataset("a")["e"].values.tolist() == [1.0]
