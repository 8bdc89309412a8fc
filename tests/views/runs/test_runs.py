"""New runs made of tables, Datasets and documents; stored, they read as what they were made of."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from daskbroker import dataset_to_stream, table_to_stream
from daskbroker.core.errors import BadDocument
from daskbroker.testing import (
    RunBuilder,
    assert_references_first,
    external_run,
    make_run,
    stream_datum_run,
)
from daskbroker.testing.base import insert_all
from daskbroker.views.runs import documents_to_run


@pytest.fixture
def header(db):
    run = RunBuilder(sample={"name": "Ag"})
    spec = {"source": "PV:x", "dtype": "number", "shape": [], "units": "mm", "precision": 3}
    descriptor = run.descriptor({"x": spec, "v": [1.0, 2.0, 3.0], "label": "a"})
    for number in range(6):
        row = {"x": number / 2, "v": [float(number), 0.5, -1.0], "label": f"l{number}"}
        run.event(descriptor, row)
    insert_all(db, run.stop())
    return db[-1]


def stored(db, documents):
    """Insert a new run; its header."""
    pairs = list(documents)
    insert_all(db, pairs)
    return db[pairs[0][1]["uid"]]


@pytest.mark.parametrize("pages", [False, True])
def test_a_table_comes_back(db, header, pages):
    table = header.table().assign(double=header.table()["x"] * 2)
    new = stored(db, table_to_stream(table, header, pages=pages))
    expected, found = table.compute(), new.table().compute()
    assert found.columns.tolist() == expected.columns.tolist()
    assert found[["time", "x", "label", "double"]].equals(
        expected[["time", "x", "label", "double"]]
    )
    assert [list(cell) for cell in found["v"]] == [list(cell) for cell in expected["v"]]
    assert new.start["derived_from"]["runs"] == [header.uid]
    assert new.start["sample"] == {"name": "Ag"}
    assert new.descriptors["primary"][0]["data_keys"]["x"]["units"] == "mm"
    assert new.stop["num_events"] == {"primary": 6}


@pytest.mark.parametrize("pages", [False, True])
def test_missing_cells_stay_missing(db, pages):
    frame = pd.DataFrame(
        {
            "n": pd.array([1, None, 3], dtype="Int64"),
            "text": ["a", None, "c"],
            "flag": pd.array([True, False, None], dtype="boolean"),
        }
    )
    pairs = list(table_to_stream(frame, pages=pages))
    events = [doc["data"] for name, doc in pairs if name == "event"]
    assert events == [
        {"n": 1, "text": "a", "flag": True},
        {"flag": False},
        {"n": 3, "text": "c"},
    ]
    assert stored(db, pairs).table().compute()["n"].isna().tolist() == [False, True, False]


def test_pages_are_used_where_nothing_is_missing():
    frame = pd.DataFrame({"n": [1, 2], "cells": [np.ones(3), np.zeros(3)], "s": ["a", "b"]})
    names = [name for name, _ in table_to_stream(frame, pages=True)]
    assert names == ["start", "descriptor", "event_page", "stop"]


def test_the_same_content_makes_the_same_documents(header):
    options = {"uid": "derived-run", "time": 5.0, "provenance": {"why": "test"}}
    first, second = (list(table_to_stream(header.table(), header, **options)) for _ in range(2))
    assert first == second
    assert first[0][1]["uid"] == "derived-run"
    assert first[0][1]["time"] == 5.0
    assert first[0][1]["derived_from"]["why"] == "test"
    uids = [doc["uid"] for name, doc in first if name == "event"]
    assert len(set(uids)) == 6
    other = list(table_to_stream(header.table(), header, uid="another"))
    assert not {doc["uid"] for _, doc in first} & {doc["uid"] for _, doc in other}
    cube = [list(dataset_to_stream(header.dataset(), header, **options)) for _ in range(2)]
    assert cube[0] == cube[1]


def test_a_table_of_many_runs_is_numbered_anew(db):
    for _ in range(2):
        insert_all(db, make_run(3))
    new = stored(db, table_to_stream(db().table()))
    assert new.table().compute().index.tolist() == [1, 2, 3, 4, 5, 6]
    assert len(new.start["derived_from"]["runs"]) == 2


@pytest.mark.parametrize("chunks", ["auto", None, {"time": 2}], ids=repr)
def test_a_dataset_comes_back(db, header, chunks):
    dataset = header.dataset(chunks=chunks)
    dataset["norm"] = (dataset["v"] ** 2).sum("v_dim_0")
    new = stored(db, dataset_to_stream(dataset, header))
    found = new.dataset().compute()
    for name in ("x", "v", "label", "norm", "seq_num"):
        assert found[name].values.tolist() == dataset[name].values.tolist()
        assert found[name].dims == dataset[name].dims
    assert (found["time"].values == dataset["time"].values).all()
    assert found["x"].attrs["units"] == "mm"
    assert new.start["derived_from"]["runs"] == [header.uid]


def test_cubes_keep_shape_dtype_and_dims(db):
    values = np.arange(4 * 3 * 5, dtype=np.uint16).reshape(4, 3, 5)
    dataset = xr.Dataset(
        {"img": (("time", "y", "x"), values), "dark": (("y", "x"), values[0])},
        coords={"time": pd.date_range("2026-01-01", periods=4), "x": np.linspace(0, 1, 5)},
    )
    new = stored(db, dataset_to_stream(dataset.chunk({"time": 3, "x": 2})))
    found = new.dataset().compute()
    assert found["img"].dims == ("time", "y", "x")
    assert found["img"].dtype == np.uint16
    assert (found["img"].values == values).all()
    assert (found["time"].values == dataset["time"].values).all()
    device = new.config_data("dataset")["primary"][0]
    assert device["dark"] == values[0].tolist()
    assert device["x"] == np.linspace(0, 1, 5).tolist()


def test_time_need_not_come_first_nor_be_there(db):
    turned = xr.Dataset({"v": (("c", "time"), np.arange(6.0).reshape(2, 3))})
    found = stored(db, dataset_to_stream(turned))
    assert found.dataset()["v"].values.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    cells = [cell.tolist() for cell in found.table().compute()["v"]]
    assert cells == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    single = xr.Dataset({"mean": 1.5, "profile": ("y", [1.0, 2.0])})
    new = stored(db, dataset_to_stream(single)).dataset()
    assert new["mean"].values.tolist() == [1.5]
    assert new["profile"].values.tolist() == [[1.0, 2.0]]


def test_no_steps(db, header):
    new = stored(db, dataset_to_stream(header.dataset().isel(time=slice(0, 0)), header))
    assert new.dataset().sizes["time"] == 0
    assert new.stop["num_events"] == {"primary": 0}


def test_what_has_no_form_is_refused():
    with pytest.raises(BadDocument, match="variable z"):
        list(dataset_to_stream(xr.Dataset({"z": ("time", [1 + 2j])})))
    with pytest.raises(BadDocument, match="z"):
        list(table_to_stream(pd.DataFrame({"z": [{1, 2}]})))


@pytest.mark.parametrize("make", [external_run, stream_datum_run, lambda: make_run(4)])
def test_documents_of_a_run_make_a_new_one(db, make):
    insert_all(db, make())
    header = db[-1]
    original = list(header.documents(fill=False))
    pairs = list(documents_to_run(original, header, uid="new-run"))
    assert [name for name, _ in pairs] == [name for name, _ in original]
    assert_references_first(pairs)
    uids = [{d["uid"] for _, d in some if "uid" in d} for some in (original, pairs)]
    assert not uids[0] & uids[1]
    new = stored(db, pairs)
    assert new.uid == "new-run"
    assert len(new.table(fill=False)) == len(header.table(fill=False))
    assert new.start["derived_from"]["runs"] == [header.uid]
    assert pairs == list(
        documents_to_run(original, header, uid="new-run", time=pairs[0][1]["time"])
    )


def test_documents_without_a_stop_get_one():
    pairs = list(documents_to_run(make_run(2, stop=False)))
    assert pairs[-1][0] == "stop"


def test_documents_that_make_no_run_are_refused():
    run = make_run(2)
    with pytest.raises(BadDocument, match="begin with a start"):
        list(documents_to_run(run[1:]))
    with pytest.raises(BadDocument, match="descriptor"):
        list(documents_to_run([run[0], *run[2:]]))


def test_all_runs_of_a_table_are_named_beside_a_header(db):
    """The header gives the start document; the others are origins as well."""
    for _ in range(3):
        insert_all(db, make_run(2, sample="Ag"))
    uids = [header.uid for header in reversed(db())]
    frame = db().table().compute()
    for pairs in (table_to_stream(frame, db[-1]), dataset_to_stream(db().dataset(), db[-1])):
        _, start = next(pairs)
        assert start["sample"] == "Ag"
        assert start["derived_from"]["runs"] == uids
        assert len(start["derived_from"]["descriptors"]) == 3
    _, start = next(table_to_stream(db[uids[0]].table().compute(), db[-1]))
    assert start["derived_from"]["runs"] == [db[-1].uid]
    for wrong in (uids[0], db(), [db[-1]], {"sample": "Ag"}):
        with pytest.raises(BadDocument, match="neither a Header nor a start document"):
            next(table_to_stream(frame, wrong))
