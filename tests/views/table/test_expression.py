"""Lazy tables: what they compute, and above all what they read to do so."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask.dataframe.dask_expr import _expr as ex

from daskbroker.core.errors import StoreError
from daskbroker.views.table.collection import from_partitions
from daskbroker.views.table.expression import FromPartitions
from daskbroker.views.table.partitions import Partitions

ROWS = 10
START = pd.Timestamp("2026-01-01", tz="UTC")
COLUMNS = ["time", "a", "b", "text", "img"]


def make(first: int, rows: int) -> pd.DataFrame:
    """Rows `first` to `first + rows`: a counts up, b is noise with gaps, text and arrays."""
    n = np.arange(first, first + rows)
    img = np.empty(rows, dtype=object)
    img[:] = [np.full((2, 2), i) for i in n]
    times = pd.DatetimeIndex(START + pd.to_timedelta(n, unit="s")).as_unit("ns")
    noise = np.where(n % 7 == 3, np.nan, (n * 37) % 11)
    return pd.DataFrame(
        {
            "time": times,
            "a": n.astype("int64"),
            "b": noise.astype(float),
            "text": pd.Series([f"t{i}" for i in n], dtype=object).to_numpy(),
            "img": img,
        },
        index=pd.Index(n + 1, name="seq_num", dtype="int64"),
    ).astype({"text": object})


def read(payload: tuple[str, int, int, str], columns: tuple[str, ...]) -> pd.DataFrame:
    """Read a partition and write into the log, which any process can, that it did."""
    log, number, rows, fault = payload
    line = f"{number} {','.join(columns)}\n".encode()
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, line)
    os.close(handle)
    frame = make(number * ROWS, rows)[list(columns)]
    if number == 1 and fault:
        frame = FAULTS[fault](frame)
    return frame


FAULTS = {
    "dtype": lambda f: f.astype({"a": "float64"}),
    "missing": lambda f: f.drop(columns="b"),
    "order": lambda f: f[f.columns[::-1]],
    "index": lambda f: f.rename_axis("other"),
    "index dtype": lambda f: f.set_index(f.index.astype("float64")),
    "series": lambda f: f["a"],
}


class Recorded(Partitions):
    """Ten rows a partition; `reads` tells which partition was read, and what columns."""

    def __init__(
        self,
        log: Path,
        npartitions: int = 5,
        *,
        known: bool = True,
        bounds: bool = True,
        fault: str = "",
    ) -> None:
        self.log = str(log)
        self.n = npartitions
        self.known = known
        self.with_bounds = bounds
        self.fault = fault

    @property
    def token(self) -> str:
        return f"{self.log}:{self.n}:{self.known}:{self.with_bounds}:{self.fault}"

    @property
    def meta(self) -> pd.DataFrame:
        meta = make(0, 0)
        meta.attrs = {"run": "abc", "descriptors": ["d1"]}
        return meta

    @property
    def npartitions(self) -> int:
        return self.n

    @property
    def divisions(self) -> tuple[Any, ...]:
        if not self.known:
            return (None,) * (self.n + 1)
        return (*range(1, self.n * ROWS + 1, ROWS), self.n * ROWS)

    @property
    def lengths(self) -> tuple[int, ...] | None:
        return (ROWS,) * self.n if self.known else None

    def bounds(self, column: str) -> tuple[Any, Any] | None:
        first = np.arange(self.n) * ROWS
        if not self.with_bounds or column not in ("time", "a", "b", "seq_num"):
            return None
        if column == "a":
            return first, first + ROWS - 1
        if column == "seq_num":
            return first + 1, first + ROWS
        if column == "b":
            low = np.where(np.arange(self.n) == 2, np.nan, 0.0)
            return low, np.where(np.arange(self.n) == 2, np.nan, 10.0)
        zero = np.datetime64("2026-01-01", "ns")
        return (
            zero + first * np.timedelta64(1, "s"),
            zero + (first + ROWS - 1) * np.timedelta64(1, "s"),
        )

    def payload(self, i: int) -> Any:
        return self.log, i, ROWS, self.fault

    @property
    def reader(self) -> Any:
        return read

    @property
    def reads(self) -> list[tuple[int, tuple[str, ...]]]:
        """All reads since the last look."""
        log = Path(self.log)
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        pairs = [line.split(" ") for line in lines]
        return sorted((int(n), tuple(filter(None, c.split(",")))) for n, c in pairs)

    @property
    def numbers(self) -> list[int]:
        return [n for n, _ in self.reads]

    @property
    def columns_read(self) -> set[tuple[str, ...]]:
        return {c for _, c in self.reads}


class Unsized(Recorded):
    """Divisions known, lengths not."""

    @property
    def lengths(self) -> None:
        return None


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    with dask.config.set(scheduler="threads"):
        yield


@pytest.fixture
def parts(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path / "log")


@pytest.fixture
def df(parts: Recorded) -> dd.DataFrame:
    return from_partitions(parts)


@pytest.fixture
def whole() -> pd.DataFrame:
    return make(0, 5 * ROWS)


def same(found: Any, expected: Any) -> None:
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected)
    elif isinstance(expected, pd.Series):
        pd.testing.assert_series_equal(found, expected)
    else:
        assert found == expected


# --- what is read


def test_all_of_it_with_attrs(df, parts, whole):
    result = df.compute()
    same(result, whole)
    assert result.attrs == {"run": "abc", "descriptors": ["d1"]}
    assert parts.reads == [(i, tuple(COLUMNS)) for i in range(5)]


@pytest.mark.parametrize("scheduler", ["sync", "threads", "processes"])
def test_schedulers(scheduler, tmp_path, whole):
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    parts = Recorded(tmp_path / scheduler)
    result = from_partitions(parts)[["a", "img"]].compute(scheduler=scheduler, num_workers=2)
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    same(result, whole[["a", "img"]])
    assert parts.reads == [(i, ("a", "img")) for i in range(5)]


def test_building_and_showing_reads_nothing(df, parts):
    assert "npartitions=5" in repr(df)
    repr(df[df.a > 3].b)
    df._repr_html_()
    df.pprint()
    assert list(df.columns) == COLUMNS
    assert df.divisions == (1, 11, 21, 31, 41, 50)
    assert parts.reads == []


@pytest.mark.parametrize(
    ("select", "columns"),
    [
        (lambda d: d[["a"]], ("a",)),
        (lambda d: d["a"], ("a",)),
        (lambda d: d.b, ("b",)),
        (lambda d: d[["b", "a"]], ("a", "b")),
        (lambda d: d[["b", "b"]], ("b",)),
        (lambda d: d[["b", "a", "b"]], ("a", "b")),
        (lambda d: d[COLUMNS[::-1]], tuple(COLUMNS)),
        (lambda d: d[d.columns[1:3]], ("a", "b")),
        (lambda d: d.loc[:, ["text", "a"]], ("a", "text")),
        (lambda d: d.drop(columns=["img", "time"]), ("a", "b", "text")),
        (lambda d: d[["a", "b"]]["b"], ("b",)),
        (lambda d: d.assign(c=d.a + d.b)[["c"]], ("a", "b")),
        (lambda d: d.a + d.b, ("a", "b")),
        (lambda d: d.rename(columns={"a": "z"})["z"], ("a",)),
        (lambda d: d[[]], ()),
        (lambda d: d[["img"]], ("img",)),
        (lambda d: d["img"], ("img",)),
    ],
)
def test_only_the_selected_columns_are_read(df, parts, whole, select, columns):
    same(select(df).compute(), select(whole))
    assert parts.reads == [(i, columns) for i in range(5)]


def test_an_empty_projection_has_the_index(df, parts, whole):
    result = df[[]].compute()
    assert result.index.equals(whole.index)
    assert result.index.name == "seq_num"
    assert parts.columns_read == {()}


def test_index_reads_no_column(df, parts, whole):
    index = df.index.compute()
    pd.testing.assert_index_equal(index, whole.index)
    assert parts.columns_read == {()}


def test_index_and_column_together_are_read_once(df, parts, whole):
    index, total = dask.compute(df.index.max(), df.a.sum())
    assert (index, total) == (50, whole.a.sum())
    assert parts.reads == [(i, ("a",)) for i in range(5)]


LENGTHS = [
    (lambda d: len(d), 50),
    (lambda d: len(d.a), 50),
    (lambda d: len(d[["a", "b"]]), 50),
    (lambda d: len(d.index), 50),
    (lambda d: d.shape[0].compute(), 50),
    (lambda d: d.index.size.compute(), 50),
    (lambda d: d["a"].size.compute(), 50),
    (lambda d: d.size.compute(), 250),
    (lambda d: len(d.partitions[1:3]), 20),
    (lambda d: len(d.assign(z=d.a)), 50),
    (lambda d: len(dd.concat([d, d])), 100),
]


@pytest.mark.parametrize(("measure", "expected"), LENGTHS)
def test_known_lengths_need_no_read(df, parts, measure, expected):
    assert measure(df) == expected
    assert parts.reads == []


@pytest.mark.parametrize(("measure", "expected"), LENGTHS)
def test_unknown_lengths_read_only_the_index(tmp_path, measure, expected):
    parts = Recorded(tmp_path / "log", known=False)
    assert measure(from_partitions(parts)) == expected
    assert parts.columns_read == {()}


def test_length_and_column_together_do_not_read_other_columns(tmp_path, whole):
    parts = Recorded(tmp_path / "log", known=False)
    df = from_partitions(parts)
    rows, total = dask.compute(df.shape[0], df.a.sum())
    assert (rows, total) == (50, whole.a.sum())
    assert parts.columns_read <= {(), ("a",)}


def test_partition_lengths(df, parts):
    from dask.dataframe.dask_expr._collection import new_collection
    from dask.dataframe.dask_expr._expr import Lengths

    lengths = new_collection(Lengths(df.partitions[[0, 3]].expr))
    assert lengths.compute() == (10, 10)
    assert parts.reads == []


@pytest.mark.parametrize("which", [ex.Expr, ex.PartitionsFiltered])
def test_divisions_wait_for_no_other_table(df, which):
    """Before Python 3.12 a ``cached_property`` has one lock for all objects of all classes."""
    found: list[Any] = []
    part = df.expr.substitute_parameters({"_partitions": [1, 2]})
    look = threading.Thread(target=lambda: found.extend((df.expr.divisions, part.divisions)))
    with getattr(vars(which)["divisions"], "lock", nullcontext()):
        look.start()
        look.join(20)
    assert found == [(1, 11, 21, 31, 41, 50), (11, 21, 31)]


@pytest.mark.parametrize(
    ("select", "numbers", "expected"),
    [
        (lambda d: d.partitions[3], [3], slice(30, 40)),
        (lambda d: d.partitions[1:3], [1, 2], slice(10, 30)),
        (lambda d: d.partitions[1:4].partitions[1], [2], slice(20, 30)),
        (lambda d: d.get_partition(4), [4], slice(40, 50)),
        (lambda d: d.loc[12:15], [1], slice(11, 15)),
        (lambda d: d.loc[12:25], [1, 2], slice(11, 25)),
        (lambda d: d.loc[33], [3], slice(32, 33)),
        (lambda d: d.loc[45:], [4], slice(44, 50)),
        (lambda d: d.loc[[3, 44]], [0, 4], [2, 43]),
    ],
)
def test_selected_partitions_alone_are_read(df, parts, whole, select, numbers, expected):
    same(select(df)[["a", "text"]].compute(), whole[["a", "text"]].iloc[expected])
    assert parts.numbers == numbers


def test_head_and_tail_read_one_partition(df, parts, whole):
    same(df.head(3), whole.head(3))
    assert parts.numbers == [0]
    same(df[["b"]].tail(4), whole[["b"]].tail(4))
    assert parts.reads == [(4, ("b",))]
    same(df.head(25, npartitions=3), whole.head(25))
    assert parts.numbers == [0, 1, 2]


# --- pruning by filters

T = START + pd.Timedelta(seconds=23)
EARLY = START + pd.Timedelta(seconds=15)
FILTERS = [
    ("after", lambda d: d[d.time > T], [2, 3, 4]),
    ("window", lambda d: d[(d.time >= EARLY) & (d.time < T)], [1, 2]),
    ("edge excluded", lambda d: d[d.a > 29], [3, 4]),
    ("edge included", lambda d: d[d.a >= 29], [2, 3, 4]),
    ("upper edge", lambda d: d[d.a < 20], [0, 1]),
    ("upper edge included", lambda d: d[d.a <= 20], [0, 1, 2]),
    ("equal", lambda d: d[d.a == 34], [3]),
    ("index", lambda d: d[d.index.to_series() > 35], [3, 4]),
    ("index window", lambda d: (lambda i: d[(i > 5) & (i <= 10)])(d.index.to_series()), [0]),
    ("value first", lambda d: d[35 <= d.a], [3, 4]),  # noqa: SIM300
    ("method", lambda d: d[d.a.gt(35)], [3, 4]),
    ("float value", lambda d: d[d.a > 39.5], [4]),
    ("numpy value", lambda d: d[d.a > np.int64(40)], [4]),
    ("date text", lambda d: d[d.time > "2026-01-01 00:00:41"], [4]),
    ("numpy time", lambda d: d[d.time.dt.tz_localize(None) > T.tz_localize(None)], [0, 1, 2, 3, 4]),
    ("other predicate too", lambda d: d[(d.a > 35) & (d.text != "t40")], [3, 4]),
    ("chained", lambda d: (lambda e: e[e.a < 25])(d[d.a > 15]), [1, 2]),
    ("between", lambda d: d[d.a.between(12, 20)], [1, 2]),
    ("between, open", lambda d: d[d.a.between(9, 20, inclusive="neither")], [1]),
    ("between times", lambda d: d[d.time.between(EARLY, T)], [1, 2]),
    ("or", lambda d: d[(d.a < 5) | (d.a > 45)], [0, 4]),
    ("or of the unknown", lambda d: d[(d.a < 5) | (d.text == "t33")], [0, 1, 2, 3, 4]),
    ("not", lambda d: d[~(d.a > 10)], [0, 1, 2, 3, 4]),
    ("unequal", lambda d: d[d.a != 3], [0, 1, 2, 3, 4]),
    ("nothing known of one partition", lambda d: d[d.b > 99], [2]),
    ("no statistics", lambda d: d[d.text == "t33"], [0, 1, 2, 3, 4]),
    ("filled", lambda d: d[d.a.gt(35, fill_value=99)], [0, 1, 2, 3, 4]),
    ("column on both sides", lambda d: d[d.a > d.b * 4], [0, 1, 2, 3, 4]),
    ("reduction inside", lambda d: d[d.a > d.a.mean()], [0, 1, 2, 3, 4]),
    ("computed column", lambda d: d[d.a + 1 > 45], [0, 1, 2, 3, 4]),
    ("loc", lambda d: d.loc[d.a > 35], [3, 4]),
    ("loc and columns", lambda d: d.loc[d.time > T, ["b"]], [2, 3, 4]),
    ("columns before", lambda d: (lambda e: e[e.a > 35])(d[["b", "a"]]), [3, 4]),
    ("columns after", lambda d: d[d.a > 35][["b"]], [3, 4]),
    ("series by itself", lambda d: d.a[d.a > 35], [3, 4]),
    ("series by another", lambda d: d.b[d.time > T], [2, 3, 4]),
    ("series after", lambda d: d[d.time > T].text, [2, 3, 4]),
    ("assigned before", lambda d: d.assign(c=d.a * 2)[d.a > 35], [3, 4]),
    ("assigned after", lambda d: (lambda e: e.assign(c=e.a * 2))(d[d.a > 35]), [3, 4]),
    ("sum of columns", lambda d: (lambda f: f.a + f.b)(d[d.a > 35]), [3, 4]),
    ("index after", lambda d: d[d.a > 35].index.to_series(), [3, 4]),
]


def sorted_numbers(parts: Recorded) -> list[int]:
    numbers = parts.numbers
    assert len(numbers) == len(set(numbers)), "a partition was read twice"
    return numbers


@pytest.mark.parametrize(("use", "numbers"), [f[1:] for f in FILTERS], ids=[f[0] for f in FILTERS])
def test_filters_read_only_what_may_match(df, parts, whole, use, numbers):
    same(use(df).compute(), use(whole))
    assert sorted_numbers(parts) == numbers


@pytest.mark.parametrize(
    ("use", "columns"),
    [
        (lambda d: d[d.time > T][["b"]], ("time", "b")),
        (lambda d: d.b[d.time > T], ("time", "b")),
        (lambda d: d[d.index.to_series() > 30].a, ("a",)),
        (lambda d: d.loc[d.a > 30].b, ("a", "b")),
        (lambda d: d.loc[d.a > 30, ["b"]], ("a", "b")),
    ],
)
def test_filter_and_projection_together(df, parts, whole, use, columns):
    same(use(df).compute(), use(whole))
    assert parts.columns_read == {columns}


def test_pruned_partitions_have_no_task(df):
    graph = df[df.time > T].a.sum().optimize().dask
    names = {k for k in graph if isinstance(k, tuple)}
    assert 0 < len(names) <= 4
    nothing = df[df.a > 999]
    assert len(nothing.expr.finalize_compute().optimize().__dask_graph__()) <= 2


def test_a_filter_that_nothing_matches_reads_nothing(df, parts, whole):
    result = df[df.a > 999].compute()
    same(result, whole.iloc[:0])
    assert result.attrs["run"] == "abc"
    assert len(df[df.a > 999]) == 0
    assert df[df.a > 999].a.sum().compute() == 0
    assert parts.reads == []


def test_counting_and_reducing_a_filter(df, parts):
    assert len(df[df.a > 35]) == 14
    assert parts.reads == [(3, ("a",)), (4, ("a",))]
    assert df[df.a > 35].groupby("text").b.count().compute().sum() == 12
    assert parts.numbers == [3, 4]


def test_head_of_a_filter_finds_the_first_that_may_match(df, parts, whole):
    same(df[df.a >= 30].head(2), whole.iloc[30:32])
    assert parts.numbers == [3]
    same(df[df.a < 20].tail(2), whole.iloc[18:20])
    assert parts.numbers == [1]


def test_partition_numbers_stay_where_they_are_seen(df, parts, whole):
    late = df[df.a > 35]
    assert late.map_partitions(len, meta=(None, "int64")).compute().tolist() == [0, 0, 0, 4, 10]
    assert parts.numbers == [3, 4]
    same(late.partitions[3].compute(), whole.iloc[36:40])
    assert parts.numbers == [3]
    assert [len(p) for p in dask.compute(*late.to_delayed())] == [0, 0, 0, 4, 10]
    assert parts.numbers == [3, 4]
    kept = late.persist()
    assert kept.npartitions == 5
    assert parts.numbers == [3, 4]
    same(kept.compute(), whole.iloc[36:])
    assert late.a.to_dask_array(lengths=True).compute().tolist() == list(range(36, 50))


def test_partitions_of_two_tables_stay_aligned(df, parts, whole, tmp_path):
    other = Recorded(tmp_path / "other", bounds=False)
    right = from_partitions(other)
    result = df[df.a > 35].a + right[right.a > 20].b
    same(result.compute(), whole[whole.a > 35].a + whole[whole.a > 20].b)
    assert parts.numbers == [3, 4]


TWO = [
    ("summed", lambda a, b: (a.a + b.b)[a.a > 35]),
    ("condition of both", lambda a, b: a[a.a + b.a > 70]),
    ("compared", lambda a, b: a[a.a > b.b]),
    ("and", lambda a, b: a[(a.a > 15) & (b.a < 25)]),
    ("or", lambda a, b: a[(a.a > 35) | (b.a < 5)]),
    ("condition of the other", lambda a, b: a[b.a > 35]),
    ("series by the other", lambda a, b: a.b[b.time > T]),
    ("assigned", lambda a, b: a.assign(other=b.b)[a.a > 35]),
    ("filtered, then summed", lambda a, b: a[a.a > 35].a + b[b.a > 35].b),
    ("filtered differently", lambda a, b: a[a.a > 35].a + b[b.a > 25].b),
]


@pytest.mark.parametrize("use", [one[1] for one in TWO], ids=[one[0] for one in TWO])
def test_two_tables_below_one_filter(df, parts, whole, tmp_path, use):
    """What the filter says of one of them tells nothing of the other's partitions."""
    other = Recorded(tmp_path / "other")
    result, expected = use(df, from_partitions(other)), use(whole, whole)
    same(result.compute(), expected)
    for table in (parts, other):
        sorted_numbers(table)
    assert len(result) == len(expected)
    column = (lambda frame: frame.a) if result.ndim == 2 else lambda series: series
    assert column(result).add(1).sum().compute() == column(expected).add(1).sum()


def read_negative(payload, columns):
    frame = read(payload, tuple({*columns, "a"}))
    return frame.assign(a=-frame["a"])[list(columns)]


class Negative(Recorded):
    """The same rows, with all of ``a`` below zero."""

    def bounds(self, column):
        found = super().bounds(column)
        return (-found[1], -found[0]) if column == "a" else found

    @property
    def reader(self):
        return read_negative


ONE_EACH = [
    ("by the other", lambda a, b: a[b.a < -5]),
    ("by the other, nothing", lambda a, b: a[b.a > 5]),
    ("summed", lambda a, b: (a.a + b.a)[a.a > 5]),
    ("summed, by the other", lambda a, b: (a.a + b.b)[b.a < -5]),
    ("and", lambda a, b: a[(a.a > 3) & (b.a < -5)]),
    ("or", lambda a, b: a[(a.a > 8) | (b.a > -2)]),
    ("filtered, then summed", lambda a, b: a[a.a > 5].a + b[b.a < -5].b),
    ("filtered by what others match", lambda a, b: a[a.a > 5].a + b[b.a > 5].b),
    ("filtered, and the other whole", lambda a, b: a[a.a > 99].a.add(b.a, fill_value=0)),
    ("assigned", lambda a, b: a.assign(c=b.a)[a.a > 5]),
]


@pytest.mark.parametrize("use", [one[1] for one in ONE_EACH], ids=[one[0] for one in ONE_EACH])
def test_two_tables_of_one_partition_below_one_filter(tmp_path, use):
    """Dask puts these together without aligning them."""
    first, second = Recorded(tmp_path / "first", 1), Negative(tmp_path / "second", 1)
    result = use(from_partitions(first), from_partitions(second))
    rows = make(0, ROWS)
    expected = use(rows, rows.assign(a=-rows.a))
    same(result.compute(), expected)
    assert len(result) == len(expected)


AFTER = [
    ("columns summed", lambda d: (lambda f: (f.a + f.b) * 2 - f.a)(d[d.a > 35]), [3, 4]),
    ("chain", lambda d: d[d.a > 35].a.add(1).mul(2).sub(3).clip(upper=95), [3, 4]),
    ("sum of a chain", lambda d: d[d.a > 35].a.add(1).mul(2).abs().sum(), [3, 4]),
    ("mean of a chain", lambda d: (lambda f: (f.a + f.b).fillna(0).mean())(d[d.a > 35]), [3, 4]),
    ("filtered thrice", lambda d: (lambda e: e[e.a < 39])((lambda e: e[e.b < 9])(d[d.a > 15])),
     [1, 2, 3]),
    ("assigned twice", lambda d: d[d.a > 35].assign(c=1).assign(c=lambda f: f.c + f.a).c, [3, 4]),
    ("renamed and chosen", lambda d: d[d.a > 35].rename(columns={"a": "z"})[["z", "b"]], [3, 4]),
    ("filter of what is computed", lambda d: (lambda f: f[f.a + f.b > 45])(d[d.a > 35]), [3, 4]),
    ("index of a chain", lambda d: d[d.a > 35].a.add(1).to_frame().index.to_series(), [3, 4]),
    ("cumulated after a chain", lambda d: d[d.a > 35].a.add(1).cumsum().mul(2), [3, 4]),
    ("grouped after a chain", lambda d: (lambda f: f.assign(k=f.a % 3).groupby("k").b.sum())(
        d[d.a > 35]), [3, 4]),
    ("used twice", lambda d: (lambda f: f.a.sum() + f.a.add(1).max())(d[d.a > 35]), [3, 4]),
    ("reduced and taken away", lambda d: (lambda f: (f.a - f.a.mean()).abs())(d[d.a > 35]),
     [3, 4]),
]  # fmt: skip


@pytest.mark.parametrize(("use", "numbers"), [f[1:] for f in AFTER], ids=[f[0] for f in AFTER])
def test_several_operations_after_a_filter(df, parts, whole, use, numbers):
    found, expected = use(df).compute(), use(whole)
    if isinstance(expected, (pd.Series, pd.DataFrame)):
        same(found.sort_index(), expected.sort_index())
    else:
        assert found == pytest.approx(expected)
    assert sorted(set(parts.numbers)) == numbers


@pytest.mark.parametrize(
    "after",
    [
        lambda f: f.a.add(1),
        lambda f: f.a.add(1).mul(2).abs(),
        lambda f: f.assign(c=f.a + 1)[["c"]].rename(columns={"c": "d"}),
        lambda f: f[f.b < 99].assign(c=1).a.sub(1),
    ],
)
def test_partition_numbers_are_seen_through_several_operations(df, parts, whole, after):
    late, expected = after(df[df.a > 35]), after(whole[whole.a > 35])
    counts = late.map_partitions(len, meta=(None, "int64"))
    assert counts.compute().sum() == counts.sum().compute() == len(expected)
    assert counts.compute().tolist()[:3] == [0, 0, 0]
    assert len(counts.compute()) == 5
    same(late.partitions[3].compute(), expected.loc[:40])
    assert [len(part) for part in dask.compute(*late.to_delayed())][:3] == [0, 0, 0]
    assert sorted(set(parts.numbers)) == [3, 4]


def test_a_table_also_used_unfiltered_is_read_whole_and_once(df, parts, whole):
    result = df[df.a > 35].a.add(df.b, fill_value=0)
    same(result.compute().sort_index(), whole[whole.a > 35].a.add(whole.b, fill_value=0))
    parts.reads  # noqa: B018
    late, total = dask.compute(df[df.a > 35].a.max(), df.a.sum())
    assert (late, total) == (49, 1225)
    assert sorted_numbers(parts) == [0, 1, 2, 3, 4]


def test_two_filters_share_what_they_read(df, parts, whole):
    both = dask.compute(df[df.a < 15].b.sum(), df[df.a > 38].b.sum())
    assert both == (whole[whole.a < 15].b.sum(), whole[whole.a > 38].b.sum())
    assert sorted_numbers(parts) == [0, 1, 3, 4]
    stacked = dd.concat([df[df.a < 15], df[df.a > 38]])
    same(stacked.compute(), pd.concat([whole[whole.a < 15], whole[whole.a > 38]]))
    assert sorted_numbers(parts) == [0, 1, 3, 4]


def test_repartition_by_divisions_of_a_filter(df, parts, whole):
    late = df[df.a > 35].repartition(divisions=[1, 25, 50])
    assert late.npartitions == 2
    same(late.compute(), whole[whole.a > 35])
    assert parts.numbers == [3, 4]


def test_naive_time_against_utc_is_pandas_error(df, parts):
    with pytest.raises(TypeError, match="Invalid comparison between dtype"):
        df[df.time > pd.Timestamp("2026-01-01")].compute()


def test_optimizing_twice_changes_nothing(df, parts, whole):
    once = df[df.a > 35][["b"]].optimize()
    assert once.optimize()._name == once._name
    same(once.compute(), whole[whole.a > 35][["b"]])
    assert parts.numbers == [3, 4]


# --- other operations on top


def test_merge_by_index_with_known_divisions(df, whole):
    left, right = df[["a"]], df[["b"]].partitions[1:3]
    merged = left.merge(right, left_index=True, right_index=True)
    assert merged.known_divisions
    same(
        merged.compute(),
        whole[["a"]].merge(whole[["b"]].iloc[10:30], left_index=True, right_index=True),
    )


def test_groupby_and_set_index(df, whole):
    keyed = lambda d: d.assign(k=d.a % 3).groupby("k").b.mean()  # noqa: E731
    same(keyed(df).compute(), keyed(whole))
    ordered = df[["a", "b"]].assign(c=-df.a).set_index("c").compute()
    same(ordered, whole[["a", "b"]].assign(c=-whole.a).set_index("c").sort_index())
    again = df[df.a > 25].set_index("a")[["b"]].compute()
    same(again, whole[whole.a > 25].set_index("a")[["b"]])


def test_concat_of_two_tables(df, whole, tmp_path):
    second = from_partitions(Recorded(tmp_path / "second", 2))
    same(dd.concat([df, second]).compute(), pd.concat([whole, make(0, 20)]))


def test_rolling_and_cumulative(df, whole):
    same(df.a.rolling(3).sum().compute(), whole.a.rolling(3).sum())
    same(df[df.a > 25].b.cumsum().compute(), whole[whole.a > 25].b.cumsum())


def test_persist_and_delayed(df, parts, whole):
    kept = df[["a"]].persist()
    parts.reads  # noqa: B018
    same(kept.compute(), whole[["a"]])
    assert parts.reads == []
    (kept2,) = dask.persist(df[df.a > 35])
    same(kept2.compute(), whole[whole.a > 35])
    delayed = df.to_delayed()
    assert len(delayed) == 5
    same(delayed[2].compute(), whole.iloc[20:30])


def test_operations_are_fused_into_the_read(df):
    graph = ((df.a + 1) * 2).optimize().dask
    assert len(graph) == 5


def test_no_conversion_of_strings(parts, whole):
    for setting in (True, False, None):
        with dask.config.set({"dataframe.convert-string": setting}):
            df = from_partitions(parts)
            assert df.dtypes["text"] == df.dtypes["img"] == np.dtype(object)
            result = df.compute()
            assert isinstance(result.img.iloc[0], np.ndarray)
            same(result, whole)


# --- identity and size


def test_same_table_same_name(tmp_path):
    first, second = Recorded(tmp_path / "log"), Recorded(tmp_path / "log")
    a, b = from_partitions(first), from_partitions(second)
    assert a._name == b._name
    assert a[a.a > 3]._name == b[b.a > 3]._name
    assert from_partitions(Recorded(tmp_path / "log", 6))._name != a._name
    assert a[["a"]].optimize()._name != a[["b"]].optimize()._name


def test_pickling_keeps_the_name(df, whole):
    pruned = df[df.a > 35].optimize()
    again = pickle.loads(cloudpickle.dumps(pruned))
    assert again._name == pruned._name
    same(again.compute(), whole[whole.a > 35])


def test_a_hundred_thousand_partitions_build_at_once(tmp_path):
    parts = Recorded(tmp_path / "log", 100_000)
    begin = time.perf_counter()
    df = from_partitions(parts)
    df[["a"]]
    assert time.perf_counter() - begin < 0.1
    assert len(pickle.dumps(df.expr)) < 2000
    late = df[df.a > 999_000].b.sum()
    optimized = late.optimize(fuse=False).expr
    assert [x.npartitions for x in optimized.find_operations(FromPartitions)] == [100]
    assert len(pickle.dumps(optimized)) < 5000
    assert late.compute() == make(999_001, 999)["b"].sum()


def test_a_task_is_small(df):
    tasks = list(df.optimize().dask.values())
    assert max(len(cloudpickle.dumps(t)) for t in tasks) < 1200


# --- partitions that are not what they should be


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("dtype", "partition 1 .*'a' has dtype float64, not int64"),
        ("missing", r"partition 1 .*missing \['b'\]"),
        ("order", "partition 1 .*order"),
        ("index", "partition 1 .*index is named 'other', not 'seq_num'"),
        ("index dtype", "partition 1 .*'seq_num' has dtype float64, not int64"),
        ("series", "partition 1 .*Series"),
    ],
)
def test_a_partition_unlike_meta_is_an_error(tmp_path, fault, message):
    df = from_partitions(Recorded(tmp_path / "log", fault=fault))
    with pytest.raises(StoreError, match=message):
        df.compute()


def test_no_partitions_is_an_empty_table(tmp_path, whole):
    parts = Recorded(tmp_path / "log", 0)
    df = from_partitions(parts)
    same(df.compute(), whole.iloc[:0])
    assert len(df) == 0
    same(df[df.a > 3][["b"]].compute(), whole[["b"]].iloc[:0])
    same(df[[]].compute(), whole[[]].iloc[:0])
    assert parts.reads == []


def test_wrong_statistics_are_an_error(tmp_path):
    class Bad(Recorded):
        def bounds(self, column: str) -> Any:
            return np.arange(3), np.arange(3)

    df = from_partitions(Bad(tmp_path / "log"))
    with pytest.raises(StoreError, match="3 and 3 bounds of column 'a' for 5 partitions"):
        df[df.a > 3].compute()


def test_unknown_lengths_with_known_divisions(tmp_path):
    parts = Unsized(tmp_path / "log")
    df = from_partitions(parts)
    assert len(df.loc[11:20]) == 10
    assert parts.reads == [(1, ())]
    assert len(df.loc[[3, 33]]) == 2
    assert parts.reads == [(0, ()), (3, ())]
    assert len(df.loc[df.a > 35]) == 14
    assert parts.reads == [(3, ("a",)), (4, ("a",))]


# --- on a cluster


@pytest.fixture
def client(cluster: Any) -> Iterator[Any]:
    from distributed import Client

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with Client(cluster) as client:
        yield client
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_on_a_cluster(client, tmp_path, whole):
    parts = Recorded(tmp_path / "cluster")
    df = from_partitions(parts)
    with dask.config.set(scheduler=client):
        result = df[df.time > T][["b", "img"]].compute()
        same(result, whole[whole.time > T][["b", "img"]])
        assert result.attrs["run"] == df.attrs["run"] == "abc"
        assert parts.reads == [(i, ("time", "b", "img")) for i in (2, 3, 4)]
        assert len(df) == 50
        assert parts.reads == []
        kept = df[df.a > 35].persist()
        same(kept.compute(), whole[whole.a > 35])
        assert parts.numbers == [3, 4]
