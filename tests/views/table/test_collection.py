"""What a table's index of time is made of, and what happens where there is none."""

from __future__ import annotations

import pickle
import warnings

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

import daskbroker
from daskbroker.core.errors import BadQuery, FillError
from daskbroker.testing import RunBuilder, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.conformance.times import check_time_index, timed_run
from daskbroker.testing.detector_runs import datum_run
from daskbroker.views.table.nested import graphs_made_here


@pytest.fixture
def table(db):
    insert_all(db, make_run(50))
    return db[-1].table()


@pytest.fixture
def small_chunks(tmp_path):
    settings = {"daskbroker.seal-rows": 20, "daskbroker.partition-size": 1}
    with dask.config.set(settings), daskbroker.connect(tmp_path / "small") as db:
        yield db


@pytest.mark.parametrize("seed", range(3))
def test_random_stores(small_chunks, seed):
    """One run of many partitions, and many runs that overlap."""
    rng = np.random.default_rng(seed)
    begin = 1.76e9
    for number in range(3):
        insert_all(small_chunks, timed_run(rng, begin, int(rng.integers(30, 100)), number))
        begin += float(rng.uniform(-20, 200))
    assert small_chunks[-1].table().npartitions > 1
    check_time_index(small_chunks[-1].table(), rng)
    check_time_index(small_chunks().table("primary"), rng)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[["time", "n"]],
        lambda t: t[t["n"] > 20],
        lambda t: t.assign(m=t["n"] * 2).drop(columns="x"),
        lambda t: t.rename(columns={"x": "z"}).dropna().query("n > 3"),
        lambda t: t.reset_index(),
        lambda t: t.persist(),
        lambda t: t.merge(pd.DataFrame({"n": range(0, 150, 3), "v": 1}), on="n"),
        lambda t: t.map_partitions(lambda part: part.iloc[5:]),
        lambda t: t.ffill(),
        lambda t: t.eval("z = x + n"),
        lambda t: t.select_dtypes(exclude="object"),
        lambda t: t.get_partition(0),
        lambda t: t[t.index > 20],
        lambda t: t.iloc[:, [0, 3, 1]],
        lambda t: t.assign(z=2 ** t["n"] % 7),
    ],
)
def test_one_partition_of_what_is_made_of_a_table(table, change):
    changed = change(table)
    wanted = changed.compute().set_index("time").sort_index()
    indexed = changed.set_index("time")
    assert indexed.divisions == (wanted.index[0], wanted.index[-1])
    counted = indexed["n"].resample("1s").count().compute()
    pd.testing.assert_series_equal(counted, wanted["n"].resample("1s").count(), check_freq=False)


@pytest.mark.parametrize(
    "condition",
    [
        lambda t: t.index > 40,
        lambda t: ~(t.index != 7),
        lambda t: (t.index >= 20) & (t.index < 25) & (t["n"] > 60),
        lambda t: (t["n"] > 60) & (t.index <= 25),
        lambda t: t.index.isin([3, 60, 5]),
        lambda t: t.index % 2 == 0,
        lambda t: (2**t.index - t.index > 60) & ~t.index.isna(),
        lambda t: t.index.astype("float64") + t.index < 50.5,
        lambda t: np.sin(t.index) > 0,
    ],
)
def test_conditions_of_the_index_choose_rows(small_chunks, condition):
    """Of many runs, too, whose numbers begin again."""
    for number in range(2):
        insert_all(small_chunks, make_run(50, number=number))
    for table in (small_chunks[-1].table(), small_chunks().table()):
        whole = table.compute()
        chosen = table[condition(table)]
        pd.testing.assert_frame_equal(chosen.compute(), whole[condition(whole)])
        assert len(chosen["x"]) == int(condition(whole).sum())
    by_time, whole = table.set_index("time"), whole.set_index("time").sort_index()
    middle = whole.index[60]
    assert by_time[by_time.index > middle]["n"].sum().compute() == whole[61:]["n"].sum()
    mapped = table.index.map(lambda number: number > 40, meta=pd.Index([], dtype=bool))
    assert len(table[mapped]) == (table.compute().index > 40).sum()
    late = by_time[by_time.index.second > 30]
    assert len(late) == (whole.index.second > 30).sum()
    assert pickle.loads(pickle.dumps(table.index)).max().compute() == 50


def test_an_index_reads_only_what_may_match(small_chunks):
    insert_all(small_chunks, make_run(60))
    table = small_chunks[-1].table()
    some, every = (len(t["x"].count().optimize().dask) for t in (table[table.index > 50], table))
    assert some < every


def test_statistics_of_integers_with_gaps(db):
    """Dask cannot convert their dtype."""
    run = RunBuilder()
    descriptor = run.descriptor({"n": 1, "x": 0.5})
    for number in range(20):
        run.event(descriptor, {"x": number * 0.5} | ({"n": number**2} if number % 5 else {}))
    insert_all(db, run.stop())
    table = db[-1].table()
    whole = table.compute().astype({"n": "float64"})
    assert table["n"].dtype == "Int64"
    numbers = table[["n", "x"]]
    for name in ("std", "var"):
        expected = getattr(whole[["n", "x"]], name)()
        pd.testing.assert_series_equal(getattr(numbers, name)().compute(), expected)
        assert getattr(table["n"], name)().compute() == pytest.approx(expected["n"])
    assert numbers.quantile(0.5).compute()["n"] == pytest.approx(whole["n"].median(), rel=0.2)
    assert table["n"].quantile(0.5).compute() == pytest.approx(whole["n"].median(), rel=0.2)
    described = table.describe().compute()
    assert described["n"].loc[["count", "min", "max"]].tolist() == [16, 1, 361]
    assert table["n"].describe().compute()["mean"] == pytest.approx(whole["n"].mean())


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Tokyo"])
@pytest.mark.parametrize("unit", ["us", "ns"])
def test_a_zone_that_somebody_made(small_chunks, zone, unit):
    """Dask's own divisions of such times are wrong, and lose rows."""
    db = small_chunks
    rng = np.random.default_rng(3)
    for number in range(3):
        insert_all(db, timed_run(rng, 1.76e9 + 5.0 * number, 60, number))
    table = db().table("primary")
    made = table.assign(time=table["time"].astype(f"datetime64[{unit}, UTC]").dt.tz_convert(zone))
    expected = made.compute().set_index("time").sort_index()
    indexed = made.set_index("time")
    first, last = expected.index[[40, 120]]
    assert indexed.index.compute().equals(expected.index)
    assert len(indexed.loc[first:last]) == len(expected.loc[first:last])


def test_an_index_of_a_motor_finds_its_matches(table):
    """Without divisions dask takes one partition for an empty one, and says nothing."""
    other = pd.DataFrame({"v": [1, 2, 3]}, index=pd.Index([0, 50, 100], name="n"))
    indexed = table.set_index("n")
    assert indexed.divisions == (0, 147)
    right = dd.from_pandas(other, npartitions=2)
    found = dd.merge_asof(indexed, right, left_index=True, right_index=True).compute()
    assert found["v"].value_counts().to_dict() == {1: 17, 2: 17, 3: 16}


@pytest.mark.parametrize("events", [0, 1, 2])
def test_few_events(db, events):
    insert_all(db, make_run(events))
    table = db[-1].table()
    indexed, expected = table.set_index("time"), table.compute().set_index("time")
    assert indexed.compute().equals(expected)
    if events:
        assert len(indexed.loc[expected.index[0] :].compute()) == events
        counted = indexed["n"].resample("1s").count().compute()
        assert counted.tolist() == expected["n"].resample("1s").count().tolist()


def test_times_that_are_missing_come_last(small_chunks):
    db = small_chunks
    builder = RunBuilder(time=1.76e9)
    descriptor = builder.descriptor({"n": 1})
    for number in range(70):
        time = {"time": 1e300} if number == 7 else {}
        builder.event(descriptor, {"n": number}, **time)
    insert_all(db, builder.stop())
    table = db[-1].table()
    assert table.npartitions > 1
    numbers = table.set_index("time")["n"].compute().tolist()
    assert numbers == [*range(7), *range(8, 70), 7]


def test_an_unknown_index_says_what_to_do(table):
    with pytest.raises(BadQuery, match=r"set_index\('time', sorted=True\)"):
        table.set_index("time", sort=False).resample("1s")
    known = table.set_index("time", sorted=True)
    assert int(known["n"].resample("1s").count().compute().sum()) == 50


def test_divisions_of_sorted_rows_need_no_other_column(small_chunks, tmp_path):
    """By the chunks of a table, or by one column of what is made of it; never by frames."""
    for _ in range(2):
        insert_all(small_chunks, datum_run(tmp_path, 30)[0])
    one, many = small_chunks[-1].table(), small_chunks().table("primary")
    assert one.npartitions > 1
    for file in tmp_path.glob("*.h5"):
        file.unlink()
    assert one.set_index("time", sorted=True).divisions == one.set_index("time").divisions
    numbers = one[["time", "x"]].compute()
    made = {
        "a column": lambda t: t.set_index("x", sorted=True),
        "a list, by place": lambda t: t.set_index(["x"], True, True),
        "a series": lambda t: t.set_index(t["x"], sorted=True),
        "after steps": lambda t: t[t["x"] >= 0].assign(y=1).set_index("x", sorted=True),
    }
    for what, index in made.items():
        indexed = index(one)
        divisions = indexed.divisions
        assert (divisions[0], divisions[-1]) == (numbers["x"].min(), numbers["x"].max()), what
        assert indexed.npartitions == one.npartitions, what
        assert indexed["time"].compute().tolist() == numbers["time"].tolist(), what
        assert indexed.index.compute().tolist() == numbers["x"].tolist(), what
    assert many.set_index("time", sorted=True).known_divisions
    counted = one.set_index("time", sorted=True)["x"].resample("1s").count().compute()
    assert counted.sum() == 30
    with pytest.raises(FillError, match="no such file"):
        one.set_index("x", sorted=True).compute()
    with pytest.raises(ValueError, match="npartitions"):
        one.set_index("x", sorted=True, npartitions=2)


def test_sorted_rows_that_are_equal_or_in_no_order(small_chunks):
    insert_all(small_chunks, make_run(0))
    assert small_chunks[-1].table().set_index("n", sorted=True).compute().empty
    builder = RunBuilder()
    descriptor = builder.descriptor({"v": 1, "w": 1})
    for number in range(70):
        builder.event(descriptor, {"v": number // 3, "w": number + 5 * (number % 20 > 17)})
    insert_all(small_chunks, builder.stop())
    table = small_chunks[-1].table()
    assert table.npartitions > 1
    equal = table.set_index("v", sorted=True)
    assert equal.known_divisions
    assert equal["w"].compute().tolist() == table["w"].compute().tolist()
    assert len(equal.loc[6:6].compute()) == 3  # of which one was in another partition
    with pytest.raises(BadQuery, match=r"not in the order of 'w'.*set_index\('w'\) alone sorts"):
        table.set_index("w", sorted=True)


def test_a_parquet_file_has_the_times(table, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dask's, of `inplace`
        table.to_parquet(tmp_path / "table")
        again = dd.read_parquet(tmp_path / "table").compute()
    assert again["time"].equals(table.compute()["time"])


@pytest.mark.parametrize("column", [lambda t: t["n"], lambda t: t.n, lambda t: t[["n", "x"]]])
def test_bins_that_are_wider_than_partitions(small_chunks, column):
    insert_all(small_chunks, make_run(100))
    indexed = small_chunks[-1].table().set_index("time")
    assert indexed.npartitions > 2
    expected = column(indexed.compute()).resample("1D").mean()
    resampled = column(indexed).resample("1D").mean()
    for given in (resampled, pickle.loads(pickle.dumps(resampled))):
        found = given.compute()
        found.attrs = {}
        assert found.to_numpy().tolist() == expected.to_numpy().tolist()
        assert found.index.tolist() == expected.index.tolist()


@pytest.mark.parametrize("sort", [True, False])
@pytest.mark.parametrize("name", ["time", "n"])
def test_columns_of_a_table_indexed_by_a_series(table, name, sort):
    """Dask compares the series with names of columns, and fails with an unclear error."""
    for series in (table[name], table[table.columns[0]] if name == "time" else table[name] + 1):
        expected = table.compute().set_index(series.compute())
        indexed = table.set_index(series, sort=sort)
        for columns in ("n", ["n", "time"]):
            found, wanted = indexed[columns].compute(), expected[columns]
            assert found.sort_index(kind="stable").equals(wanted.sort_index(kind="stable"))
        assert indexed["n"].sum().compute() == expected["n"].sum()


def test_contexts_that_overlap_leave_the_scheduler_as_it_was():
    with dask.config.set(scheduler="synchronous"):
        first, second = graphs_made_here(), graphs_made_here()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert dd.from_pandas(pd.DataFrame({"a": [1, 2]}), 1)["a"].sum().compute() == 3
        second.__exit__(None, None, None)
        assert dask.config.get("scheduler") == "synchronous"
