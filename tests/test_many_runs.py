"""One Dataset, or a tree of them, over many runs."""

from __future__ import annotations

import pickle

import dask
import numpy as np
import pytest
import xarray as xr

from daskbroker.core.chunks import ChunkReader
from daskbroker.testing import RunBuilder, make_run, rewound_run
from daskbroker.testing.base import insert_all
from daskbroker.views.dataset import loading


@pytest.fixture
def three(db):
    """Three runs of 3, 4 and 5 events with a spectrum; the second has a key of its own."""
    for number in range(3):
        run = RunBuilder(number=number, sample={"name": f"s{number}"})
        example = {"x": 0.5, "v": [1.0, 2.0]} | ({"extra": 1.5} if number == 1 else {})
        descriptor = run.descriptor(example)
        for place in range(3 + number):
            row = {"x": 10.0 * number + place, "v": [float(number), float(place)]}
            run.event(descriptor, row | ({"extra": 2.5} if number == 1 else {}))
        insert_all(db, run.stop())
    return db()


def test_one_dataset_along_time(three):
    whole = three.dataset()
    parts = [header.dataset().compute() for header in reversed(list(three))]
    assert whole.sizes["time"] == 12
    assert whole["x"].values.tolist() == [v for part in parts for v in part["x"].values]
    assert whole["v"].dtype == np.float64
    assert whole["v"].values.tolist() == np.concatenate([p["v"].values for p in parts]).tolist()
    assert whole["time"].to_index().is_monotonic_increasing
    uids = [header.uid for header in reversed(list(three))]
    assert whole["run"].values.tolist() == [u for u, n in zip(uids, (3, 4, 5)) for _ in range(n)]
    assert whole.attrs["runs"] == uids
    assert np.isnan(whole["extra"].values).tolist() == [True] * 3 + [False] * 4 + [True] * 5


def test_it_is_lazy_and_groups_by_run(three):
    with dask.config.set({"daskbroker.loaded-size": 0}):
        whole = three.dataset()
    assert whole["x"].chunks is not None
    means = whole["x"].groupby("run").mean().compute()
    table = three.table(fields="x").compute().groupby("run")["x"].mean()
    assert means.to_series().sort_index().tolist() == table.sort_index().tolist()


def test_without_dask_and_projected(three):
    whole = three.dataset(fields=["x", "start:sample.name"], chunks=None)
    assert whole["x"].chunks is None
    assert whole["start:sample.name"].values[[0, 3, 11]].tolist() == ["s0", "s1", "s2"]
    assert whole["x"][[11, 0, 5, 5]].values.tolist() == [24.0, 0.0, 12.0, 12.0]
    assert whole["x"][-1].item() == 24.0


def test_tree_of_runs(three):
    tree = three.dataset(combine="tree")
    assert isinstance(tree, xr.DataTree)
    assert list(tree.children) == [header.uid for header in reversed(three)]
    assert "time" not in tree.to_dataset().coords
    for header in three:
        assert tree[header.uid].to_dataset().identical(header.dataset())


def test_runs_without_the_stream_are_left_out(three, db):
    insert_all(db, make_run(2, streams=("dark",), uid="only/dark"))
    assert three.dataset().sizes["time"] == 12
    assert len(three.dataset(combine="tree").children) == 3
    assert list(three.dataset("dark", combine="tree").children) == ["only%2Fdark"]
    for combine in ("time", "tree"):
        with pytest.raises(KeyError, match="nothing"):
            three.dataset("nothing", combine=combine)


def test_rewound_runs_show_their_latest(db):
    for _ in range(2):
        insert_all(db, rewound_run())
    assert db().dataset()["x"].values.tolist() == [1, 20, 3] * 2
    assert db().dataset(duplicates="all")["x"].values.tolist() == [1, 2, 20, 3] * 2


def test_shapes_that_differ_make_objects(db):
    for length in (2, 3):
        insert_all(db, make_run(keys={"v": [[1.0] * length] * 2}))
    cells = db().dataset()["v"].values
    assert [len(cell) for cell in cells] == [2, 2, 3, 3]


def test_names_are_deterministic_and_pickles_work(three):
    with dask.config.set({"daskbroker.loaded-size": 0}):
        first, again = three.dataset(), three.dataset()
    assert dask.base.tokenize(first["x"].data) == dask.base.tokenize(again["x"].data)
    assert dict(first["x"].data.dask).keys() == dict(again["x"].data.dask).keys()
    assert pickle.loads(pickle.dumps(first)).compute().identical(again.compute())


@pytest.mark.parametrize("many", [False, True], ids=["one run", "many runs"])
@pytest.mark.parametrize("chunks", ["auto", None, {"time": 4}], ids=repr)
def test_beyond_so_many_chunks_nothing_is_read_to_open(three, monkeypatch, many, chunks):
    monkeypatch.setattr(loading, "MOST_CHUNKS", 0)
    reads = []
    read = ChunkReader.read
    monkeypatch.setattr(
        ChunkReader, "read", lambda reader, *args: reads.append(args) or read(reader, *args)
    )
    opened = three.dataset(chunks=chunks) if many else three[0].dataset(chunks=chunks)
    assert reads == []
    assert {"time", "seq_num"} <= set(opened.coords)
    assert "time" not in opened.xindexes
    whole = three.table().compute().sort_values("time")
    expected = whole["x"].tolist()[0 if many else -opened.sizes["time"] :]
    assert opened["x"].values.tolist() == expected
    assert (np.diff(opened["time"].values) > np.timedelta64(0, "us")).all()


def test_other_ways_to_combine_are_refused(three):
    with pytest.raises(ValueError, match="combine"):
        three.dataset(combine="run")


def test_a_list_of_uids_costs_no_query_for_each(db, monkeypatch):
    for _ in range(10):
        insert_all(db, make_run(1))
    store, asked = db.header_source.store, []
    for name in ("find_uid", "find_prefix", "find"):
        method = getattr(store, name)
        monkeypatch.setattr(
            store,
            name,
            lambda *args, m=method, **options: asked.append(args) or m(*args, **options),
        )
    uids = [header.uid for header in db()]
    asked.clear()
    assert [header.uid for header in db[uids[::-1]]] == uids[::-1]
    assert len(asked) == 1
