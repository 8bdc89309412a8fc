"""Rows of a table of many runs by labels of its index, and the order of these rows."""

from __future__ import annotations

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

import daskbroker
from daskbroker.core.errors import BadQuery
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all


@pytest.fixture(scope="module", params=["shared", "apart"])
def three_runs(request, tmp_path_factory):
    """Three runs of ten events, in one partition or each in several."""
    size = 1 if request.param == "apart" else 2**20
    settings = {"daskbroker.seal-rows": 4, "daskbroker.partition-size": size}
    folder = tmp_path_factory.mktemp("loc")
    with dask.config.set(settings), daskbroker.connect(folder / "store") as db:
        for number in (2, 1, 3):
            insert_all(db, make_run(10, scan_id=number, uid=f"run-{number}", time=1e9 + number))
        yield db().table()


def rows(frame):
    """``[(run, [seq_num, ...]), ...]`` in the order of the rows."""
    found = {}
    for run, seq_num in zip(frame["run"], frame.index, strict=True):
        found.setdefault(run, []).append(seq_num)
    return list(found.items())


def of_each(*seq_nums):
    return [(f"run-{number}", list(seq_nums)) for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (slice(5, 7), (5, 6, 7)),
        (slice(9, None), (9, 10)),
        (slice(None, 2), (1, 2)),
        (slice(np.int64(4), 4), (4,)),
        (slice(20, 30), None),
        (5, (5,)),
        ([7, 5], (5, 7)),
        (np.array([3]), (3,)),
        ([], None),
        (slice(None), tuple(range(1, 11))),
    ],
)
def test_labels_mean_the_events_of_each_run(three_runs, labels, expected):
    found = three_runs.loc[labels]
    frame = found.compute()
    assert rows(frame) == ([] if expected is None else of_each(*expected))
    assert len(found) == len(frame)
    assert list(frame.columns) == list(three_runs.columns)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[t["run"] != ""],
        lambda t: t.query("x > -1"),
        lambda t: t.assign(z=t["x"] * 2),
        lambda t: t.dropna(),
        lambda t: t.map_partitions(lambda part: part),
        lambda t: t.loc[2:],
        lambda t: t.loc[t["x"] > -1],
        lambda t: t[["run"]],
        lambda t: t.persist(),
        lambda t: t.repartition(npartitions=1),
    ],
)
def test_after_another_step(three_runs, change):
    assert rows(change(three_runs).loc[5:7].compute()) == of_each(5, 6, 7)


def test_columns_and_series(three_runs):
    whole = three_runs.loc[5:7].compute()
    assert three_runs.loc[5:7, ["run", "x"]].compute().equals(whole[["run", "x"]])
    assert three_runs.loc[5:7, "x"].compute().equals(whole["x"])
    assert three_runs["x"].loc[5:7].compute().equals(whole["x"])
    assert (three_runs["x"] * 2).loc[5:7].compute().equals(whole["x"] * 2)


def test_only_partitions_that_may_hold_them_are_read(three_runs):
    if three_runs.npartitions > 1:
        some, every = (
            len(t["x"].count().optimize().dask) for t in (three_runs.loc[5:7], three_runs)
        )
        assert some < every


def test_labels_that_are_not_there(three_runs):
    table = three_runs[three_runs["run"] == "run-1"]
    assert table.loc[50].compute().empty


@pytest.mark.parametrize("labels", [slice(5, 7), 5])
def test_where_it_is_lost_the_error_says_what_to_write(three_runs, labels):
    twice = dd.concat([three_runs, three_runs])
    with pytest.raises(BadQuery, match=r"write table\[table.index.to_series\(\).between\(5, 7\)\]"):
        twice.loc[labels].compute()
    found = twice[twice.index.to_series().between(5, 7)].compute()
    assert found.index.tolist() == [5, 6, 7] * 6


def test_steps_are_refused(three_runs):
    with pytest.raises(BadQuery, match="without a step"):
        three_runs.loc[1:9:2]


def test_a_new_index_is_dasks(three_runs):
    numbers = three_runs.repartition(npartitions=1).reset_index()
    assert numbers.loc[0:1].compute().index.tolist() == [0, 1]


@pytest.mark.parametrize("labels", [slice(3, 20), [4, 17], 9, lambda t: t["n"].astype(bool)])
def test_columns_of_labels(tmp_path, labels):
    """Of which one can be selected."""
    settings = {"daskbroker.seal-rows": 10, "daskbroker.partition-size": 1}
    with dask.config.set(settings), daskbroker.connect(tmp_path / "store") as db:
        insert_all(db, make_run(30))
        table = db[-1].table()
        whole = table.compute()
        found = table.loc[labels, ["x", "n"]]
        rows = [labels] if isinstance(labels, int) else labels
        pd.testing.assert_frame_equal(found.compute(), whole.loc[rows, ["x", "n"]])
        assert found["n"].sum().compute() == whole.loc[rows, "n"].sum()
        assert table.loc[labels, "n":].compute().columns.tolist() == ["n"]
