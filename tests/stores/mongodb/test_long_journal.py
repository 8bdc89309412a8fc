"""A journal that is too long to travel with its plan: cut by the server into ranges."""

from __future__ import annotations

import numpy as np
import pytest

from daskbroker.stores.mongodb import journal_ranges, planning
from daskbroker.testing import RunBuilder, assert_documents_equal
from daskbroker.testing.base import insert_all
from daskbroker.testing.conformance.arrays import fresh_run

ROWS = 60


@pytest.fixture(autouse=True)
def _ranges_of_ten_rows(monkeypatch):
    monkeypatch.setattr(planning, "RANGE_ROWS", 10)
    monkeypatch.setattr(journal_ranges, "RANGE_ROWS", 10)


def values(row):
    """What BSON can hold, but in the second, third, fourth and last of six ranges."""
    return {
        "large": 2**70 + row if row in (15, 16) else row,
        "negative": -(2**65) if row == 59 else row,
        "unsigned": 2**63 + row if 30 <= row < 40 else row,
        "text": "\ud800" if row == 25 else f"t{row}",
        "object": {"$set": row, "a\0b": 1} if row == 33 else {"n": row},
        "array": [2**64, row] if row == 38 else [1, row],
        "number": 2**66 if row == 12 else row / 2,
        "always": 2**64 + row,
        "plain": row / 3,
    }


@pytest.fixture
def documents():
    run = RunBuilder()
    descriptor = run.descriptor(values(0))
    for row in range(ROWS):
        run.event(descriptor, values(row))
    return run.documents


def same(cell, value):
    if isinstance(cell, np.ndarray):
        cell = cell.tolist()
    return cell == value


@pytest.mark.parametrize("sealed", [0, 25, ROWS], ids=["journal", "both", "sealed"])
def test_values_that_bson_cannot_hold(mongo, documents, sealed):
    insert_all(mongo, documents[: 2 + sealed])
    if sealed:
        mongo.seal()
    insert_all(mongo, documents[2 + sealed :])
    header = mongo[-1]
    if sealed < ROWS:
        plan = header.es_given_stream("primary").store.plan_runs([header.uid]).events
        assert len(plan) == (ROWS - sealed + 9) // 10 + bool(sealed)
    assert_documents_equal(documents, header.documents())
    table = header.table()
    for number in range(table.npartitions):
        partition = table.partitions[number].compute()
        assert partition.dtypes.to_dict() == table.dtypes.to_dict()
    whole, dataset = table.compute(), header.dataset()
    for key in values(0):
        expected = [values(row)[key] for row in range(ROWS)]
        for frame in (whole, table[[key]].compute()):
            assert frame.index.tolist() == list(range(1, ROWS + 1))
            wrong = [n for n in range(ROWS) if not same(frame[key].iloc[n], expected[n])]
            assert wrong == [], key
        cells = dataset[key].values
        assert all(map(same, cells, expected)), key


def test_a_run_of_none_but_such_values(mongo):
    """The plain form of its events lacks the column in every row."""
    run = RunBuilder()
    descriptor = run.descriptor({"x": 1})
    for row in range(25):
        run.event(descriptor, {"x": 2**80 + row})
    insert_all(mongo, run.documents)
    assert mongo[-1].table().compute()["x"].tolist() == [2**80 + row for row in range(25)]
    assert mongo[-1].dataset()["x"].values.tolist() == [2**80 + row for row in range(25)]


@pytest.mark.parametrize("last", [(14, 14), (15, 15), (10, 12)], ids=str)
def test_a_rewound_run(mongo, last):
    """As many numbers as the range from first to last has, and some of them are the same."""
    numbers = [*range(1, 13), *last]
    run = RunBuilder()
    descriptor = run.descriptor({"x": 0})
    for place, number in enumerate(numbers):
        run.event(descriptor, {"x": place}, number)
    insert_all(mongo, run.documents)
    latest = dict(sorted({number: x for x, number in enumerate(numbers)}.items()))
    for table in (mongo[-1].table(), mongo[-1].table()[["time"]]):
        assert len(table) == len(latest)
        assert table.compute().index.tolist() == list(latest)
    assert mongo[-1].table().compute()["x"].tolist() == list(latest.values())
    assert mongo[-1].dataset()["x"].values.tolist() == list(latest.values())


def array_values(row):
    """Arrays of which each range alone would be of another type than all together."""
    first = row < 20
    return {
        "whole": [row, 1],
        "mixed": [row, 1] if first else [row + 0.5, 1],
        "large": [2**60 + row, 1] if first else [0.5, 1.0],
        "floats": [0.5, 2**40 + row] if first else [2**40, 1],
        "gaps": None if row == 45 else [row, 1],
        "nones": [row, None] if row == 45 else [row, 1],
        "square": [[row, 1.0], [2, 3]] if first else [[row, 1], [2, 3]],
        "texts": ["a", f"t{row}"],
        "flags": [True, row] if first else [True, False],
        "ragged": [row + 0.5] if first else [row, 1],
        "empty": [] if first else [row],
        "rows": [[row, "a"], [0.5, "b"]],
        "odd": [{"a": row}, 1],
        "deep": [[[[[row]]]]],
        "number": 2**40 + row if first else row + 0.5,
        "u2": np.array([row, 1], "u2"),
        "u2 gap": None if row == 45 else np.array([row, 1], "u2"),
        "u1 u2": np.array([row, 1], "u1" if first else "u2"),
        "f4": np.array([[row, np.nan]], "f4"),
        "f4 list": np.array([row, 1], "f4") if first else [0.5, 1.0],
        "u8": np.array([2**60, row], "u8"),
        "i2 ragged": np.zeros(row % 3, "i2"),
        "u2.x": np.array([row, 1], "u2"),
    }


def forms(header):
    dataset = header.dataset(chunks={"time": 7})
    return {name: (v.dims, v.shape, v.dtype, v.values.tolist()) for name, v in dataset.items()}


def test_arrays_have_one_form_wherever_they_are(mongo):
    run = RunBuilder()
    rows = {"rows": {"source": "s", "dtype": "array", "shape": [2]}}
    rows["rows"]["dtype_numpy"] = [["x", "<f8"], ["n", "<U1"]]
    descriptor = run.descriptor(array_values(0) | rows)
    for row in range(ROWS):
        run.event(descriptor, array_values(row))
    insert_all(mongo, run.documents)
    plan = mongo[-1].es_given_stream("primary").store.plan_runs([mongo[-1].uid]).events
    assert len(plan) == ROWS // 10
    journal, table = forms(mongo[-1]), mongo[-1].table().compute()
    mongo.seal()
    sealed, sealed_table = forms(mongo[-1]), mongo[-1].table().compute()
    assert len(mongo[-1].es_given_stream("primary").store.plan_runs([mongo[-1].uid]).events) == 1
    assert {k: repr(v) for k, v in journal.items()} == {k: repr(v) for k, v in sealed.items()}
    for key in table:
        assert list(map(repr, table[key])) == list(map(repr, sealed_table[key])), key
    found = {name: (form[1][1:], form[2].name) for name, form in sealed.items()}
    assert found == {
        "whole": ((2,), "int64"),
        "mixed": ((2,), "float64"),
        "large": ((2,), "object"),
        "floats": ((2,), "float64"),
        "gaps": ((2,), "float64"),
        "nones": ((2,), "float64"),
        "square": ((2, 2), "float64"),
        "texts": ((2,), found["texts"][1]),
        "flags": ((2,), "object"),
        "ragged": ((), "object"),
        "empty": ((), "object"),
        "rows.x": ((2,), "float64"),
        "rows.n": ((2,), found["rows.n"][1]),
        "odd": ((), "object"),
        "deep": ((1, 1, 1, 1, 1), "int64"),
        "number": ((), "float64"),
        "u2": ((2,), "uint16"),
        "u2 gap": ((2,), "float32"),
        "u1 u2": ((2,), "int64"),
        "f4": ((1, 2), "float32"),
        "f4 list": ((2,), "float64"),
        "u8": ((2,), "uint64"),
        "i2 ragged": ((), "object"),
        "u2.x": ((2,), "uint16"),
    }


def test_the_dtype_of_arrays_under_keys_of_any_name(mongo):
    """Dots and dollars mean something in a path of MongoDB, which has no type for fields."""
    names = ("plain", "a.b", "$c", "", "x.$y.0")
    image = np.arange(4, dtype="u1").reshape(2, 2)
    table = np.array([(1, 0.5), (2, 1.5)], [("n", "<i2"), ("x", "<f4")])
    wider = np.array([(1, 0.5), (2, 1.5)], [("n", "<i4"), ("x", "<f4")])
    key = {"source": "s", "dtype": "array", "shape": [2, 2]}
    for some in (("plain", "a.b", "x.$y.0"), names):  # with "$c" every event is packed
        run = RunBuilder()
        keys = {**dict.fromkeys(some, key), "s": key, "gaps": key, "scalar": 1, "w.w": key}
        descriptor = run.descriptor(keys)
        for row in range(30):
            data = dict.fromkeys(some, image) | {"s": table, "scalar": table[0]}
            if 5 < row < 25:
                data = dict.fromkeys(some, image) | {"scalar": table[1], "s": table}
            gap = table if row % 3 else None
            run.event(descriptor, {**data, "gaps": gap, "w.w": wider if row == 12 else table})
        run.stop()
        found = []
        for sealed in (0, 15, 30):
            renamed = fresh_run(run.documents)
            insert_all(mongo, renamed[: 2 + sealed])
            if sealed:
                mongo.seal()
            insert_all(mongo, renamed[2 + sealed : -1])
            header = mongo[renamed[0][1]["uid"]]
            assert_documents_equal(renamed[:-1], header.documents())
            frame, dataset = header.table().compute(), header.dataset()
            for name in some:
                assert {cell.dtype for cell in frame[name]} == {np.dtype("u1")}
                assert dataset[name].dtype == np.uint8
            assert {cell.dtype for cell in frame["s"]} == {table.dtype}
            assert {cell.dtype for cell in frame["gaps"] if cell is not None} == {table.dtype}
            assert {cell.dtype for cell in frame["w.w"]} == {wider.dtype}
            assert {cell.dtype for cell in frame["scalar"]} == {table.dtype}
            assert dataset["gaps.n"].dtype == np.float32
            found.append({n: (v.dims, v.dtype, v.values.tolist()) for n, v in dataset.items()})
        np.testing.assert_equal(found[1], found[0])
        np.testing.assert_equal(found[2], found[0])
