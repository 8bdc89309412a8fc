"""Columns of tables: values decide, then the claim; the same dtype in each partition."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from daskbroker.core.codec import encode
from daskbroker.core.column_kinds import MISSING, ColumnKind
from daskbroker.core.fields import Field, select
from daskbroker.core.schema import (
    TIME_DTYPE,
    claimed_dtype,
    constant,
    datetime_to_posix,
    empty_frame,
    posix_to_datetime,
    stream_attrs,
    table_columns,
    to_pandas,
    unify,
    values_dtype,
)
from daskbroker.testing import RunBuilder
from daskbroker.views.table.from_documents import RunBuffer


def kind(name, nulls=False):
    return ColumnKind(name, nulls)


@pytest.mark.parametrize(
    ("kinds", "claim", "dtype"),
    [
        ([], "int64", "int64"),
        ([None], "int64", "Int64"),
        ([kind("null", True)], "bool", "boolean"),
        ([kind("null", True)], "float64", "float64"),
        ([kind("int")], "float64", "int64"),
        ([kind("int"), kind("long")], "object", "int64"),
        ([kind("int", True)], "int64", "Int64"),
        ([kind("int"), None], "int64", "Int64"),
        ([kind("int"), kind("null", True)], "int64", "Int64"),
        ([kind("uint")], "int64", "uint64"),
        ([kind("uint", True)], "int64", "UInt64"),
        ([kind("uint"), kind("int")], "int64", "object"),
        ([kind("float"), kind("int")], "int64", "float64"),
        ([kind("number", True)], "int64", "float64"),
        ([kind("long"), kind("float")], "float64", "object"),
        ([kind("bool")], "int64", "bool"),
        ([kind("bool"), None], "int64", "boolean"),
        ([kind("bool"), kind("int")], "int64", "object"),
        ([kind("str", True)], "float64", "str"),
        ([kind("str"), kind("float")], "float64", "object"),
        ([kind("array")], "object", "object"),
        ([kind("list"), kind("array")], "object", "object"),
        ([kind("json")], "int64", "object"),
    ],
    ids=repr,
)
def test_unify(kinds, claim, dtype):
    assert unify(kinds, claim) == dtype


@pytest.mark.parametrize(
    ("claims", "dtype"),
    [
        ([{"dtype": "number", "shape": []}], "float64"),
        ([{"dtype": "integer", "shape": []}], "int64"),
        ([{"dtype": "integer"}, {"dtype": "number"}], "float64"),
        ([{"dtype": "string", "shape": []}], "str"),
        ([{"dtype": "boolean"}], "bool"),
        ([{"dtype": "string"}, {"dtype": "number"}], "object"),
        ([{"dtype": "array", "shape": [4]}], "object"),
        ([{"dtype": "number", "shape": [4]}], "object"),
        ([{"dtype": "number", "external": "STREAM:"}], "object"),
        ([{"dtype": "strange"}], "object"),
        ([{}], "object"),
        ([], "object"),
    ],
    ids=repr,
)
def test_claims(claims, dtype):
    assert claimed_dtype(claims) == dtype


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2], "int64"),
        ([1, None], "Int64"),
        ([2**63], "object"),
        ([1, 1.5], "float64"),
        ([2**53 + 1, 1.5], "object"),
        ([True], "bool"),
        ([True, None], "boolean"),
        ([True, 1], "object"),
        (["a", None], "str"),
        ([None], "object"),
        ([[1]], "object"),
        ([], "object"),
    ],
    ids=repr,
)
def test_dtype_of_constants(values, dtype):
    assert values_dtype(values) == dtype


def column(values):
    encoded = encode(values)
    return pa.Table.from_arrays([encoded.array], schema=pa.schema([encoded.arrow_field("data:x")]))


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2], "int64"),
        ([1, 2], "float64"),
        ([1, None], "Int64"),
        ([2**64 - 1, None], "UInt64"),
        ([2**63, 5], "uint64"),
        ([0.5, None, float("nan")], "float64"),
        ([1, 0.5], "float64"),
        ([True, False], "bool"),
        ([True, None, MISSING], "boolean"),
        (["a", None, "größe"], "str"),
        ([None, None], "str"),
        ([MISSING, None], "Int64"),
        ([MISSING], "float64"),
        ([1, "a", None, {"b": [1]}], "object"),
        ([1, MISSING], "object"),
        (["a", "b"], "object"),
        ([[1, 2], [3, 4]], "object"),
        ([[[1.5], [2.5]], None], "object"),
        ([[1], [], [2, 3]], "object"),
        ([["a"], ["b", "c"]], "object"),
        ([[True], None], "object"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("take", [slice(None), slice(1, None)])
def test_cells_in_pandas(values, dtype, take):
    table = column(values)
    place = range(len(values))[take]
    found = pd.Series(to_pandas(table.slice(place.start), "data:x", dtype), dtype=dtype)
    assert found.dtype == pd.Series([], dtype=dtype).dtype
    shown = [c.tolist() if isinstance(c, np.ndarray) else None if _null(c) else c for c in found]
    wanted = [None if v is MISSING or _null(v) else v for v in values[take]]
    assert shown == wanted


def _null(value):
    return (
        not isinstance(value, (list, dict, np.ndarray)) and value is not MISSING and pd.isna(value)
    )


@pytest.mark.parametrize("dtype", ["float64", "Int64", "boolean", "str", "object", TIME_DTYPE])
def test_a_column_that_a_chunk_lacks_is_null(dtype):
    found = pd.Series(to_pandas(column([1, 2]), "data:absent", dtype), dtype=dtype)
    assert len(found) == 2
    assert found.isna().all()


def test_array_cells_are_arrays_of_their_own_dtype():
    found = to_pandas(column([[1, 2], [3, 4]]), "data:x", "object")
    assert found[1].dtype == np.int64
    assert found[1].tolist() == [3, 4]


def test_times_are_rounded_to_microseconds():
    found = posix_to_datetime(np.array([1.5e9 + 1e-7, float("nan"), -0.5, 1e300, 1.76e12]))
    assert found[0] == pd.Timestamp(1.5e9, unit="s", tz="UTC")
    assert found[1] is pd.NaT
    assert found[2] == pd.Timestamp("1969-12-31 23:59:59.5", tz="UTC")
    assert found[3] is found[4] is pd.NaT
    assert str(found.dtype) == TIME_DTYPE == "datetime64[us, UTC]"


@pytest.mark.parametrize("unit", ["us", "ns", "s", "m", "D", "25us"])
def test_times_become_the_nearest_floats(unit):
    times = np.array([1_764_115_269_123_450, -500_000, 0], "M8[us]").astype(f"M8[{unit}]")
    micro = times.astype("M8[us]").astype(np.int64)
    assert datetime_to_posix(times).tolist() == [int(value) / 1e6 for value in micro]
    assert np.isnan(datetime_to_posix(np.array(["NaT"], f"M8[{unit}]"))).all()


def test_a_time_of_whole_microseconds_comes_back_exactly():
    rng = np.random.default_rng(1)
    whole = rng.integers(-(2**51), 2**51, 1000) / 1e6
    times = posix_to_datetime(whole).tz_localize(None).to_numpy()
    # xarray reads times from files in nanoseconds.
    for found in (times, times.astype("M8[ns]"), times.astype("m8[us]").astype("m8[ns]")):
        assert datetime_to_posix(found).tolist() == whole.tolist()


def test_a_duration_of_nanoseconds_is_the_nearest_float():
    counts = np.random.default_rng(1).integers(-(2**53), 2**53, 1000)
    assert datetime_to_posix(counts.view("m8[ns]")).tolist() == (counts / 1e9).tolist()


@pytest.mark.parametrize(
    "dtype", ["int64", "uint64", "bool", "float64", "Int64", "str", "object", TIME_DTYPE]
)
def test_constants_have_the_dtype(dtype):
    for value, rows in (
        (None, 0),
        (None, 3) if dtype in ("str", "object", TIME_DTYPE) else (None, 0),
    ):
        found = pd.Series(constant(value, rows, dtype), dtype=dtype)
        assert len(found) == rows
        assert found.isna().all()


def test_a_constant_that_is_a_list_is_one_cell_a_row():
    assert list(constant([1, 2], 2, "object")) == [[1, 2], [1, 2]]


@pytest.fixture
def plan():
    """Two descriptors: x is an integer in one and a float in the other, y only in the second."""
    run = RunBuilder(sample="Ag")
    spec = {"source": "s", "dtype": "array", "shape": [2], "external": "FILESTORE:", "units": ""}
    first = run.descriptor({"x": 1, "img": spec})
    second = run.descriptor(
        {"x": 0.5, "y": {"source": "s", "dtype": "number", "shape": [], "units": "mm"}}
    )
    run.event(first, {"x": 1, "img": "reference"})
    run.event(second, {"x": 0.5, "y": 2.5})
    buffer = RunBuffer()
    for name, doc in run.documents:
        buffer(name, doc)
    return buffer.plan()


def test_columns_of_a_table(plan):
    runs = {plan.descriptors[0]["run_start"]: ({"sample": "Ag"}, None)}
    fields = [
        *select(None, plan.descriptors, timestamps=True),
        Field("start", "sample", "start:sample"),
    ]
    columns = {c.name: c for c in table_columns(plan, fields, runs)}
    assert {name: c.dtype for name, c in columns.items()} == {
        "time": TIME_DTYPE,
        "x": "float64",
        "img": "object",
        "y": "float64",
        "ts_x": "float64",
        "ts_img": "float64",
        "ts_y": "float64",
        "start:sample": "str",
    }
    assert columns["img"].external
    assert columns["x"].physical == "data:x"
    assert columns["start:sample"].physical == ""


def test_the_empty_table_has_all_columns_and_attrs(plan):
    columns = table_columns(plan, select(None, plan.descriptors), {})
    attrs = stream_attrs(plan.descriptors, "primary")
    frame = empty_frame(columns, attrs)
    assert frame.index.name == "seq_num"
    assert frame.index.dtype == np.int64
    assert frame.dtypes.astype(str).to_dict() == {c.name: c.dtype for c in columns}
    assert frame.attrs == {
        "stream": "primary",
        "runs": [plan.descriptors[0]["run_start"]],
        "descriptors": [d["uid"] for d in plan.descriptors],
        "units": {"y": "mm"},
    }
