"""Tables of any index become runs, and the index comes back as columns of equal values."""

from __future__ import annotations

import datetime

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr

import daskbroker
from daskbroker import (
    MissingTimeWarning,
    dataset_to_stream,
    stream_to_table,
    table_to_stream,
)
from daskbroker.core.errors import BadDocument
from daskbroker.testing import RunBuilder, make_run, rewound_run
from daskbroker.testing.base import insert_all
from daskbroker.work.reprocess import _products

TIMES = pd.date_range("2026-03-01 12:00", periods=6, freq="250ms", tz="UTC", name="time")
FRAME = pd.DataFrame(
    {"time": TIMES, "x": [1.0, 1.0, 2.0, 2.0, 3.5, 3.5], "y": np.arange(6.0), "s": list("aabbcc")},
    index=pd.RangeIndex(1, 7, name="seq_num"),
)


@pytest.fixture(params=[False, True], ids=["events", "pages"])
def back(request):
    """A table that has been a run."""

    def back(frame, **options):
        pairs = list(table_to_stream(frame, pages=request.param, **options))
        (descriptor,) = (doc for name, doc in pairs if name == "descriptor")
        table = stream_to_table(pairs).compute()
        keys = [column.removeprefix("data:") for column in table.columns if column != "time"]
        assert list(descriptor["data_keys"]) == keys
        for name in keys:
            assert descriptor["data_keys"][name]["dtype"] in ("number", "integer", "string")
        return table

    return back


def parts(frame, count):
    return dd.from_pandas(frame, npartitions=count, sort=False)


@pytest.mark.parametrize("npartitions", [0, 1, 3])
@pytest.mark.parametrize(
    ("frame", "index"),
    [
        (FRAME.groupby("x")[["y"]].mean(), {"x": [1.0, 2.0, 3.5]}),
        (FRAME.set_index("x")[["y"]], {"x": FRAME["x"].tolist()}),
        (FRAME.set_index("s")[["y"]], {"s": FRAME["s"].tolist()}),
        (FRAME[["y"]].set_index(pd.Index([5, 3, 9, 1, 7, 2])), {"index": [5, 3, 9, 1, 7, 2]}),
        (FRAME[["y"]].set_index(pd.Index([0, 2, 4, 6, 8, 10])), {"index": [0, 2, 4, 6, 8, 10]}),
        (FRAME[["y"]].set_index(pd.Index(FRAME["x"], name=7)), {"7": FRAME["x"].tolist()}),
        (FRAME[["y"]].set_index(pd.Index(FRAME["s"], name="run")), {"data:run": list("aabbcc")}),
        (FRAME[["y"]].set_index(FRAME["x"].rename("seq_num")), {"data:seq_num": list(FRAME["x"])}),
        (FRAME[["x", "y"]].set_index("x", drop=False), {"x": FRAME["x"].tolist()}),
        (FRAME[["x", "y"]].set_index(FRAME["y"].rename("x")), {"x_index": FRAME["y"].tolist()}),
        (FRAME[["y"]].set_index(pd.CategoricalIndex(FRAME["s"])), {"s": list("aabbcc")}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_an_index_becomes_a_column(back, frame, index, npartitions):
    found = back(parts(frame, npartitions) if npartitions else frame)
    for name, values in index.items():
        assert found[name].tolist() == values
    assert set(found.columns) == {"time", *index, *map(str, frame.columns)}
    for name in frame.columns:
        assert found[name].tolist() == frame[name].tolist()


@pytest.mark.parametrize(
    "frame",
    [
        FRAME[["y"]],
        FRAME[["y"]].reset_index(drop=True),
        FRAME[["y"]].set_index(pd.Index(range(6))),
        parts(FRAME[["y"]].reset_index(drop=True), 3),
        parts(FRAME[["y"]], 2),
    ],
)
def test_what_only_counts_rows_is_no_column(back, frame):
    found = back(frame)
    assert found.columns.tolist() == ["time", "y"]
    assert found.index.tolist() == [1, 2, 3, 4, 5, 6]


def test_levels_become_columns(back):
    found = back(FRAME.groupby(["s", "x"])[["y"]].mean())
    assert found[["s", "x", "y"]].to_numpy().tolist() == [
        ["a", 1.0, 0.5],
        ["b", 2.0, 2.5],
        ["c", 3.5, 4.5],
    ]
    unnamed = FRAME[["y"]].set_index(pd.MultiIndex.from_product([["p", "q"], [1, 2, 3]]))
    found = back(unnamed)
    assert found["level_0"].tolist() == ["p"] * 3 + ["q"] * 3
    assert found["level_1"].tolist() == [1, 2, 3] * 2
    numbered = FRAME[["y"]].set_index(
        pd.MultiIndex.from_product([["p", "q"], [1, 2, 3]], names=["run", "seq_num"])
    )
    found = back(numbered)
    assert found["data:run"].tolist() == ["p"] * 3 + ["q"] * 3
    assert found["data:seq_num"].tolist() == [1, 2, 3] * 2
    assert found.index.tolist() == [1, 2, 3, 4, 5, 6]


def test_statistics_keep_their_names(back):
    found = back(FRAME[["x", "y"]].describe())
    assert found["index"].tolist() == ["count", "mean", "std", "min", "25%", "50%", "75%", "max"]
    assert found["y"].tolist() == FRAME["y"].describe().tolist()
    with pytest.warns(MissingTimeWarning, match="dtype object"):
        with_time = back(FRAME[["time", "y"]].describe(include="all")).set_index("index")
    assert with_time.loc["min", "data:time"] == FRAME["time"].min().timestamp()


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", None])
@pytest.mark.parametrize("name", ["time", None])
def test_a_time_index_is_the_time(back, unit, zone, name):
    whole = FRAME.set_index("time")[["y"]].resample("500ms").mean()
    times = whole.index.tz_convert(zone) if zone else whole.index.tz_localize(None)
    whole.index = times.rename(name).as_unit("ms" if unit == "s" else unit)
    found = back(whole)
    assert found.columns.tolist() == ["time", "y"]
    assert found["time"].tolist() == [TIMES[0], TIMES[2], TIMES[4]]
    assert found["y"].tolist() == [0.5, 2.5, 4.5]


def test_other_instants_durations_and_periods_have_plain_values(back):
    frame = FRAME[["y"]].copy()
    frame["when"] = TIMES.tz_localize(None)
    frame["lasted"] = pd.to_timedelta([0.25, 1.5, None, 3, 4, 5], unit="s")
    frame["month"] = TIMES.tz_localize(None).to_period("M")
    seconds = [stamp.timestamp() for stamp in TIMES]
    for table in (frame.set_index("when"), frame.set_index("lasted"), frame.set_index("month")):
        found = back(table)
        assert found["when"].tolist() == seconds
        assert found["lasted"].fillna(-1).tolist() == [0.25, 1.5, -1, 3, 4, 5]
        assert set(found["month"]) == {"2026-03"}
    spec = list(table_to_stream(frame))[1][1]["data_keys"]
    assert spec["when"]["units"] == "seconds since 1970-01-01T00:00:00Z"
    assert spec["lasted"]["units"] == "s"


def test_arrow_dtypes_are_as_pandas_own(back):
    frame = FRAME.assign(
        when=TIMES.tz_localize(None), lasted=pd.to_timedelta([0.25, 1.5, None, 3, 4, 5], unit="s")
    )
    arrow = frame.convert_dtypes(dtype_backend="pyarrow")
    days = [datetime.date(2026, 3, 1)] * 6
    arrow["day"] = pd.Series(days, arrow.index, pd.ArrowDtype(pa.date32()))
    frame["day"] = pd.Timestamp("2026-03-01")
    for shape in (
        lambda table: table,
        lambda table: table.set_index("time"),
        lambda table: table.set_index("lasted"),
        lambda table: table.set_index(["time", "x"]),
    ):
        found, expected = back(shape(arrow)), back(shape(frame))
        assert list(found.columns) == list(expected.columns)
        for name in expected.columns:
            assert found[name].fillna(-1).tolist() == expected[name].fillna(-1).tolist()


def test_labels_are_not_taken_for_attributes():
    """Those of a Series or a table are attributes of it, too."""
    documents = list(table_to_stream(pd.Series([1.0, 2.0], ["dims", "b"]), time=7.0))
    assert [doc["data"]["value"] for name, doc in documents if name == "event"] == [1.0, 2.0]
    frame = pd.DataFrame({"dims": [1.0], "dask": [2.0]})
    (product,) = _products(frame)
    assert product is frame
    documents = list(table_to_stream(frame, time=7.0))
    assert [doc["data"] for name, doc in documents if name == "event"] == [{"dims": 1, "dask": 2}]


@pytest.mark.parametrize("pages", [False, True])
def test_rows_without_a_time_are_told_once(pages):
    frame = FRAME.copy()
    frame.loc[[3, 5], "time"] = pd.NaT
    dataset = xr.Dataset({"y": ("time", frame["y"])}, {"time": frame["time"].to_numpy("M8[ns]")})
    for documents in (
        table_to_stream(frame, time=7.0, pages=pages),
        table_to_stream(dd.from_pandas(frame, npartitions=2), time=7.0, pages=pages),
        dataset_to_stream(dataset, time=7.0),
    ):
        with pytest.warns(
            MissingTimeWarning, match="'primary': event 3 .*time of the start"
        ) as told:
            times = stream_to_table(documents)["time"].compute()
        assert len(told) == 1
        assert told[0].filename == __file__
        start = pd.Timestamp(7, unit="s", tz="UTC")
        assert times.tolist() == frame["time"].fillna(start).tolist()


@pytest.mark.parametrize("pages", [False, True])
@pytest.mark.parametrize("values", [FRAME["y"].tolist(), [*TIMES[:5], "never"]])
def test_a_time_of_another_kind_is_told_once(pages, values):
    """It is a data key like any other, and the events need times, too."""
    frame = FRAME[["x"]].assign(time=pd.Series(values, FRAME.index))
    for table in (frame, dd.from_pandas(frame, npartitions=2), frame.set_index("time")):
        with pytest.warns(MissingTimeWarning, match="'primary': .*'time'.* dtype") as told:
            pairs = list(table_to_stream(table, time=7.0, pages=pages))
        assert len(told) == 1
        assert told[0].filename == __file__
        found = stream_to_table(pairs).compute()
        assert set(found["time"]) == {pd.Timestamp(7, unit="s", tz="UTC")}
        assert len(found["data:time"].dropna()) == 6


def test_no_row_hides_another(db):
    """Tables show one event of a number: rows that repeat numbers are counted."""
    for number in range(2):
        insert_all(
            db, make_run(4, keys={"x": [1.0, 2.0, 3.0], "v": [[1, 2], [3], [4, 5]]}, number=number)
        )

    def stored(table, **options):
        pairs = list(table_to_stream(table, **options))
        insert_all(db, pairs)
        return db[pairs[0][1]["uid"]]

    new, old = (header.table() for header in db[-2:])
    first, second = old.compute(), new.compute()
    for table in (pd.concat([first, second]), dd.concat([old, new]), pd.concat([first, first])):
        for pages in (False, True):
            found = stored(table, pages=pages).table().compute()
            assert found["x"].tolist() == [1.0, 2.0, 3.0] * 2
            assert found.index.tolist() == [1, 2, 3, 4, 5, 6]
    for table in (first.explode("v"), old.explode("v")):
        assert stored(table).table().compute()["v"].tolist() == [1, 2, 3, 4, 5]
    # Rows in any order, and some of them only, keep their numbers.
    assert stored(first.iloc[[2, 0]]).table().compute()["x"].to_dict() == {1: 1.0, 3: 3.0}
    later = dd.concat([old.loc[3:], new.loc[:1], new.loc[3:]])
    assert stored(later).table().compute()["x"].to_dict() == {3: 3.0, 1: 1.0, 4: 3.0}


def test_events_taken_again_stay_such(db):
    insert_all(db, rewound_run())
    every = db[-1].table(duplicates="all").compute()
    for table in (every, db[-1].table(duplicates="all")):
        pairs = list(table_to_stream(table))
        insert_all(db, pairs)
        again = db[pairs[0][1]["uid"]]
        pd.testing.assert_frame_equal(again.table(duplicates="all").compute(), every)
        assert len(again.table()) < len(every)


def test_periods_of_time_are_times(back):
    frame = FRAME.set_index(FRAME["time"].dt.tz_localize(None).dt.to_period("s"))[["y"]]
    assert back(frame)["time"].tolist() == TIMES.floor("s").tolist()


@pytest.mark.parametrize("npartitions", [0, 1])
def test_bins_are_text_and_their_edges_numbers(back, npartitions):
    binned = FRAME.groupby(pd.cut(FRAME["x"], [0, 1.5, 3, 4]), observed=True)[["y"]].mean()
    found = back(parts(binned, npartitions) if npartitions else binned)
    assert found["x"].tolist() == ["(0.0, 1.5]", "(1.5, 3.0]", "(3.0, 4.0]"]
    assert found["x_left"].tolist() == [0.0, 1.5, 3.0]
    assert found["x_right"].tolist() == [1.5, 3.0, 4.0]
    assert found["y"].tolist() == [0.5, 2.5, 4.5]


def test_missing_values_of_an_index_stay_missing(back):
    frame = FRAME[["y"]].iloc[:3].set_index(pd.Index([1.5, None, 2.5], name="x"))
    assert back(frame)["x"].isna().tolist() == [False, True, False]


def test_columns_of_columns_have_joined_names(back):
    found = back(FRAME.groupby("x").agg({"y": ["mean", "max"], "s": ["first"]}))
    assert found.columns.tolist() == ["time", "x", "y_mean", "y_max", "s_first"]
    counted = back(pd.DataFrame({0: [1.0], 1: [2.0]}, index=pd.Index([5], name="k")))
    assert counted.columns.tolist() == ["time", "k", "0", "1"]


def test_columns_of_one_name_are_refused():
    with pytest.raises(BadDocument, match="several columns y; rename"):
        list(table_to_stream(FRAME[["y", "y"]]))
    with pytest.raises(BadDocument, match="several columns 1; rename"):
        list(table_to_stream(pd.DataFrame([[1, 2]], columns=[1, "1"])))
    bins = pd.cut(FRAME["x"], [0, 4])
    with pytest.raises(BadDocument, match="two columns for 'x_left'"):
        list(table_to_stream(FRAME[["y"]].assign(x_left=1.0).set_index(bins)))
    same = pd.DataFrame({"x": [1.0, 2.0], "y": 0.0}, index=pd.Index([1.0, 9.0], name="x"))
    with pytest.raises(BadDocument, match="index 'x' and a column 'x', which differ in some"):
        list(table_to_stream(parts(same, 2)))


def test_series_become_tables(back):
    found = back(FRAME.groupby("x")["y"].mean())
    assert found[["x", "y"]].to_numpy().tolist() == [[1.0, 0.5], [2.0, 2.5], [3.5, 4.5]]
    sizes = back(FRAME.groupby("x").size())
    assert sizes["value"].tolist() == [2, 2, 2]
    means = back(FRAME[["x", "y"]].mean())
    assert means[["index", "value"]].to_numpy().tolist() == [["x", 13 / 6], ["y", 2.5]]
    lazy = back(parts(FRAME, 2)["y"])
    assert lazy["y"].tolist() == FRAME["y"].tolist()


def test_an_empty_table_keeps_its_columns(back):
    for frame in (FRAME.set_index("x")[["y"]].iloc[:0], parts(FRAME, 1).set_index("x")[["y"]]):
        empty = frame[frame["y"] < 0]
        pairs = list(table_to_stream(empty))
        assert list(pairs[1][1]["data_keys"]) == ["x", "y"]
        assert [name for name, _ in pairs] == ["start", "descriptor", "stop"]


def test_an_index_that_the_origin_declares_keeps_its_units(db):
    run = RunBuilder()
    spec = {"source": "PV:x", "dtype": "number", "shape": [], "units": "mm"}
    descriptor = run.descriptor({"x": spec, "y": 0.5})
    for number in range(4):
        run.event(descriptor, {"x": number / 2, "y": 0.5})
    insert_all(db, run.stop())
    header = db[-1]
    curve = header.table().compute().groupby("x")[["y"]].mean()
    descriptor = list(table_to_stream(curve, header))[1][1]
    assert descriptor["data_keys"]["x"]["units"] == "mm"
    binned = curve.set_index(pd.Index(pd.cut(curve.index, 2), name="x"))
    descriptor = list(table_to_stream(binned, header))[1][1]
    assert descriptor["data_keys"]["x"] == {"source": "derived", "dtype": "string", "shape": []}


def test_the_table_stays_the_callers(back):
    frame = FRAME[["y", "s"]].copy()
    pages = [doc for name, doc in table_to_stream(frame, pages=True) if name == "event_page"]
    frame.loc[:, "y"] = 9.0
    assert pages[0]["data"]["y"].tolist() == FRAME["y"].tolist()
    before = FRAME.copy()
    back(FRAME.set_index("x"))
    pd.testing.assert_frame_equal(before, FRAME)


def curve(header):
    table = header.table().compute()
    yield table.groupby("x")[["y"]].mean()
    yield table.groupby("x")["y"].sum()
    yield header.table().groupby("x")[["y"]].mean()
    yield table[["y"]].describe()
    yield table.set_index("time")[["y"]].resample("500ms").mean()
    yield table.groupby(pd.cut(table["x"], 2), observed=True).agg({"y": ["mean"]})


def test_reprocessing_keeps_axes(db):
    documents = make_run(6)
    insert_all(db, documents)
    table = db[-1].table().compute()
    with daskbroker.temp() as out:
        report = daskbroker.reprocess(db(), curve, into=out, name="curve")
        assert not report.failed
        mean, total, lazy, statistics, binned, bins = (
            out[uid].table().compute() for uid in report.done[db[-1].uid]
        )
    for found in (mean, total, lazy):
        assert sorted(found["x"]) == sorted(set(table["x"]))
        assert found["y"].sum() == table["y"].sum()
    assert statistics["index"].iloc[0] == "count"
    expected = table.set_index("time")[["y"]].resample("500ms").mean()
    assert binned["time"].tolist() == expected.index.tolist()
    assert bins["x_left"].iloc[1] == bins["x_right"].iloc[0]
    assert bins["y_mean"].tolist() == table.groupby(pd.cut(table["x"], 2))["y"].mean().tolist()
