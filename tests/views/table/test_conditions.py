"""Conditions that end with what Dask's optimizer moves filters through."""

from __future__ import annotations

import dask
import numpy as np
import pandas as pd
import pytest

import daskbroker
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A lazy table of several partitions, and the same computed."""
    keys = {"n": [number % 4 for number in range(50)], "b": [True, None, False, True, True] * 10}
    settings = {"daskbroker.seal-rows": 20, "daskbroker.partition-size": 1}
    place = tmp_path_factory.mktemp("conditions")
    with dask.config.set(settings), daskbroker.connect(place) as db:
        insert_all(db, make_run(keys=keys))
        table = db[-1].table()
        assert table.npartitions > 1
        yield table, table.compute()


@pytest.mark.parametrize(
    "condition",
    [
        lambda t: t["b"].fillna(False).astype(bool),
        lambda t: t["n"].astype(bool),
        lambda t: (t["n"] > 1).rename("many"),
        lambda t: (t["n"] > 1).copy(),
        lambda t: t[["n"]].astype(bool)["n"],
        lambda t: t.assign(c=t["n"].astype(bool))["c"],
    ],
)
@pytest.mark.parametrize(
    "choose",
    [
        lambda t, c: t[c],
        lambda t, c: t.loc[c],
        lambda t, c: t.loc[c, ["n"]],
        lambda t, c: t.loc[lambda _: c],
        lambda t, c: t["n"][c],
        lambda t, c: t["n"].loc[c],
        lambda t, c: t[t["n"] < 3][c[t["n"] < 3]],
    ],
)
def test_rows_are_chosen(tables, condition, choose):
    table, whole = tables
    wanted, found = choose(whole, condition(whole)), choose(table, condition(table)).compute()
    same = pd.testing.assert_frame_equal if wanted.ndim == 2 else pd.testing.assert_series_equal
    same(found, wanted)
    assert choose(table, condition(table)).isna().sum().compute().sum() == np.sum(
        wanted.isna().sum()
    )


def test_a_function_chooses_rows(tables):
    table, whole = tables
    pd.testing.assert_frame_equal(
        table[lambda rows: rows["n"] > 1].compute(), whole[whole["n"] > 1]
    )
