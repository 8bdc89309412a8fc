"""Conformance, arrays: leaves unify as scalars do, and rows of fields keep their dtype."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from ...core.errors import BadDocument, BadQuery, StoreError
from ...views.runs import table_to_stream
from ..base import Conformance, Put, check_run, insert_all, insert_run, inserted, table_of
from ..runs import RunBuilder

NAN = float("nan")
BIG = 2**60 + 1
FIELDS = [["x", "<f4"], ["i", "<i2"], ["n", "<U3"]]
ROWS = np.array([(0.5, 1, "a"), (1.5, -2, "ccc")], [(name, text) for name, text in FIELDS])
OTHERS = [["a", "<i2"], ["b", "<i8"]]
COLUMNS: list[tuple[list[Any], list[Any], str]] = [
    ([[1, 2.5], [3, 4.5]], [[1, 2.5], [3, 4.5]], "f8"),
    ([[1, 2], [3, 4], [0.5, 1.5]], [[1, 2], [3, 4], [0.5, 1.5]], "f8"),
    ([[0.5, 1.5], [3, 4]], [[0.5, 1.5], [3, 4]], "f8"),
    ([[1, 2], [3, 4]], [[1, 2], [3, 4]], "i8"),
    ([[BIG, 2], [0.5, 1.5]], [[BIG, 2], [0.5, 1.5]], "O"),
    ([[1, None], [3, 4]], [[1, NAN], [3, 4]], "f8"),
    ([[3, 4], [None, 0.5]], [[3, 4], [NAN, 0.5]], "f8"),
    ([[1, 2], None, [3, 4]], [[1, 2], [NAN, NAN], [3, 4]], "f8"),
    ([[BIG, 2], None], [[BIG, 2], [None, None]], "O"),
    ([[True, 2], [3, 4]], [[True, 2], [3, 4]], "O"),
    ([[True, False], [3, 4]], [[True, False], [3, 4]], "O"),
    ([[True, False], [False, False]], [[True, False], [False, False]], "?"),
    ([[True, False], None], [[True, False], [None, None]], "O"),
    ([["a", "bc"], ["d", ""]], [["a", "bc"], ["d", ""]], "U"),
    ([["a", None], None], [["a", None], [None, None]], "O"),
    ([["a", 1], ["b", 0.5]], [["a", 1], ["b", 0.5]], "O"),
    ([[[1, 2.5]], [[3, None]]], [[[1, 2.5]], [[3, NAN]]], "f8"),
    ([[[1, 2], [3, 4]], [[0.5, 2], [3, 4]]], [[[1, 2], [3, 4]], [[0.5, 2], [3, 4]]], "f8"),
    ([[None, None], [None, None]], [[NAN, NAN], [NAN, NAN]], "f8"),
]
"""Values of a column, expected values in a Dataset, and expected dtype; U stands for text."""


IDENTITIES = ("uid", "run_start", "descriptor")


def run_of(values: list[Any], **claim: Any) -> list[tuple[str, Any]]:
    """Return a run with one data key, ``x``, that has these values."""
    run = RunBuilder()
    spec = {"source": "s", "dtype": "array", "shape": list(np.shape(values[0])), **claim}
    descriptor = run.descriptor({"x": spec})
    for value in values:
        run.event(descriptor, {"x": value})
    return list(run.stop())


def fresh_run(documents: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return documents of a run as those of another run, whose uids are new."""
    uids: dict[str, str] = {}

    def renamed(value: Any) -> Any:
        return uids.setdefault(value, str(uuid.uuid4()))

    return [
        (name, {**doc, **{key: renamed(doc[key]) for key in IDENTITIES if key in doc}})
        for name, doc in documents
    ]


class ArrayConformance(Conformance):
    """Arrays keep their dimensions whatever their leaves are; documents are as they went in."""

    @pytest.mark.parametrize(("values", "expected", "dtype"), COLUMNS, ids=repr)
    def test_leaves_unify(
        self, put_checked: Put, values: list[Any], expected: list[Any], dtype: str
    ) -> None:
        documents = run_of(values)
        header = put_checked(documents)
        for options in ({}, {"chunks": {"time": 1}}, {"chunks": None}):
            found = header.dataset(**options)["x"]
            assert found.shape == np.shape(expected)
            assert found.values.tolist() == expected or _same(found.values, expected)
            assert found.dtype == dtype or (dtype == "U" and found.dtype.kind in "OU")
        if dtype == "f8":
            mean = header.dataset()["x"].mean().item()
            np.testing.assert_equal(mean, np.nanmean(expected) if np.isfinite(mean) else NAN)

    @pytest.mark.parametrize(("values", "expected", "dtype"), COLUMNS, ids=repr)
    def test_cells_of_tables_have_one_dtype(
        self, put: Put, values: list[Any], expected: list[Any], dtype: str
    ) -> None:
        cells = [cell for cell in table_of(put(run_of(values)))["x"] if cell is not None]
        dtypes = {cell.dtype for cell in cells if isinstance(cell, np.ndarray)}
        assert dtypes <= {np.dtype(dtype if dtype in ("f8", "i8", "?") else "O")} | (
            {np.dtype("i8"), np.dtype("?")} if None in values else set()
        )
        there = [cell for value, cell in zip(values, expected, strict=True) if value is not None]
        assert [_plain(cell) for cell in cells] == there or _same(list(map(_plain, cells)), there)

    @pytest.mark.parametrize("dtype", ["u1", "i2", ">u4", "i8", "u8", "f4", "f8", "?"])
    def test_arrays_of_numpy_keep_their_dtype(self, put_checked: Put, dtype: str) -> None:
        """Documents have lists in place of arrays; tables have the dtype."""
        values = [np.ones((2, 3), dtype), np.zeros((2, 3), dtype)]
        documents = run_of(values)
        header = put_checked(documents)
        events = [doc["data"]["x"] for name, doc in header.documents() if name == "event"]
        assert all(isinstance(cell, list) for cell in events)
        native = np.dtype(dtype).newbyteorder("=")
        assert {cell.dtype for cell in table_of(header)["x"]} == {native}
        np.testing.assert_array_equal(
            header.dataset()["x"].values, np.stack(values).astype(native), strict=True
        )

    def test_ragged_cells_have_one_dtype(self, put_checked: Put) -> None:
        documents = run_of([[1, 2], [3], [0.5, 1, 2], [None, 1]])
        header = put_checked(documents)
        for cells in (table_of(header)["x"].to_numpy(), header.dataset()["x"].values):
            assert cells.tolist()[3] == [None, 1]
            assert [(c.dtype.name, c.tolist()) for c in cells[:3]] == [
                ("float64", [1, 2]), ("float64", [3]), ("float64", [0.5, 1, 2]),
            ]  # fmt: skip

    def test_dtypes_of_stored_variables_can_be_chosen(self, put: Put) -> None:
        run = RunBuilder()
        descriptor = run.descriptor({"w": [1, 2], "x": 0.5, "n": 1, "s": ["a"]})
        for row in ({"w": [1, 2.5]}, {"w": None}, {"w": [3, 4]}):
            run.event(descriptor, {**row, "x": 2.0, "n": 7, "s": ["1"]})
        header = put(run.stop())
        chosen = {"w": "f4", "x": "i2", "n": "u1", "s": "f8"}
        for options in ({}, {"chunks": {"time": 2}}):
            found = header.dataset(dtypes=chosen, **options)
            assert {name: found[name].dtype for name in chosen} == chosen
            assert found["n"].values.tolist() == [7, 7, 7]
            text = header.dataset(dtypes={"n": "U1", "x": str}, **options)
            assert text["n"].values.tolist() == ["7", "7", "7"]
            assert text["x"].values.tolist() == ["2.0", "2.0", "2.0"]
            np.testing.assert_array_equal(found["w"], [[1, 2.5], [NAN, NAN], [3, 4]])
        exact = header.dataset(dtypes={"w": object})["w"].values.tolist()
        assert exact == [[1, 2.5], [None, None], [3, 4]]
        assert type(exact[2][0]) is int

    @pytest.mark.parametrize(
        ("name", "dtype"), [("w", "i8"), ("x", "i2"), ("n", "u1"), ("n", "U2"), ("x", "M8[s]")]
    )
    def test_a_chosen_dtype_that_does_not_hold_the_values(
        self, put: Put, name: str, dtype: str
    ) -> None:
        run = RunBuilder()
        descriptor = run.descriptor({"w": [1, 2], "x": 0.5, "n": 1})
        run.event(descriptor, {"w": None, "x": 0.5, "n": 300})
        run.event(descriptor, {"w": [1, 2], "x": 1.0, "n": 1})
        header = put(run.stop())
        with pytest.raises(BadQuery, match=f"{name!r}: .* does not hold all values of {name!r}"):
            header.dataset(dtypes={name: dtype}).compute()

    # -- rows of fields ----------------------------------------------------------------------

    def test_structured_arrays(self, put_checked: Put) -> None:
        documents = run_of([ROWS, ROWS[::-1]], dtype_numpy=FIELDS)
        header = put_checked(documents)
        first = next(doc for name, doc in header.documents() if name == "event")
        assert first["data"]["x"] == [[0.5, 1, "a"], [1.5, -2, "ccc"]]
        cells = table_of(header)["x"].tolist()
        assert {cell.dtype for cell in cells} == {ROWS.dtype}
        np.testing.assert_array_equal(np.stack(cells), np.stack([ROWS, ROWS[::-1]]))
        for options in ({}, {"chunks": {"time": 1}}, {"chunks": None}):
            dataset = header.dataset(**options)
            assert list(dataset.data_vars) == ["x.x", "x.i", "x.n"]
            assert {v.dims for v in dataset.data_vars.values()} == {("time", "x_dim_0")}
            assert dataset["x.x"].dtype == np.float32
            assert dataset["x.i"].dtype == np.int16
            assert dataset["x.i"].values.tolist() == [[1, -2], [-2, 1]]
            assert dataset["x.n"].values.tolist() == [["a", "ccc"], ["ccc", "a"]]

    def test_sanitized_rows_and_gaps(self, put: Put) -> None:
        """Rows come as event-model's own sanitizing has made them; one event lacks the key."""
        rows = [list(row) for row in ROWS.tolist()]
        header = put(run_of([rows, None], dtype_numpy=FIELDS))
        cells = table_of(header)["x"].tolist()
        assert cells[0].dtype == ROWS.dtype
        assert cells[1] is None
        dataset = header.dataset()
        assert dataset["x.i"].dtype == np.float32
        np.testing.assert_array_equal(dataset["x.i"], [[1, -2], [NAN, NAN]])
        assert dataset["x.n"].values.tolist() == [["a", "ccc"], [None, None]]

    def test_rows_in_differing_numbers_and_single_ones(self, put: Put) -> None:
        header = put(run_of([ROWS, ROWS[:1], ROWS[:0]], dtype_numpy=FIELDS))
        assert [cell.tolist() for cell in table_of(header)["x"]] == [
            ROWS.tolist(), ROWS[:1].tolist(), [],
        ]  # fmt: skip
        found = header.dataset()["x.x"].values
        assert [cell.tolist() for cell in found] == [[0.5, 1.5], [0.5], []]

    def test_one_row_an_event(self, put_checked: Put) -> None:
        documents = run_of([ROWS[0], ROWS[1]], dtype_numpy=FIELDS, shape=[])
        header = put_checked(documents)
        assert [cell.item() for cell in table_of(header)["x"]] == ROWS.tolist()
        assert header.dataset()["x.x"].values.tolist() == [0.5, 1.5]

    def test_rows_that_are_not_of_the_declared_fields(self, put_checked: Put) -> None:
        """No value is rounded or cut off."""
        rows = [[[0.1, 1, "a"]], [[0.5, 70000, "longer"]]]
        documents = run_of(rows, dtype_numpy=FIELDS)
        header = put_checked(documents)
        assert [_plain(cell) for cell in table_of(header)["x"]] == rows
        with pytest.raises(StoreError, match=r"run '.*', stream 'primary': rows of 'x'.*<f4"):
            header.dataset()["x.x"].load()
        chosen = header.dataset(dtypes={"x.x": "f8", "x.i": "i4"})
        assert chosen["x.i"].values.tolist() == [[1], [70000]]
        assert chosen["x.n"].values.tolist() == [["a"], ["longer"]]

    def test_a_field_named_as_another_key(self, put: Put) -> None:
        run = RunBuilder()
        spec = {"source": "s", "dtype": "array", "shape": [2], "dtype_numpy": FIELDS}
        descriptor = run.descriptor({"s": spec, "s.x": 0.5})
        run.event(descriptor, {"s": ROWS, "s.x": 7.0})
        dataset = put(run.stop()).dataset()
        assert dataset["s.x"].values.tolist() == [7.0]
        assert dataset["s.x_"].values.tolist() == [[0.5, 1.5]]

    def test_rows_as_configuration(self, put_checked: Put) -> None:
        run = RunBuilder()
        key = {"source": "s", "dtype": "array", "shape": [2], "dtype_numpy": FIELDS}
        device = {"data": {"rows": ROWS}, "timestamps": {"rows": 1.0}, "data_keys": {"rows": key}}
        descriptor = run.descriptor({"x": 0.5}, configuration={"det": device})
        run.event(descriptor, {"x": 1.0})
        documents = run.stop()
        header = put_checked(documents)
        found = header.descriptors["primary"][0]["configuration"]["det"]["data"]["rows"]
        assert found == [[0.5, 1, "a"], [1.5, -2, "ccc"]]

    @pytest.mark.parametrize(
        "claim", [{}, {"dtype_numpy": "<f8"}, {"dtype_numpy": OTHERS}], ids=repr
    )
    def test_structured_arrays_keep_their_fields_whatever_is_declared(
        self, put: Put, broker: Any, claim: dict[str, Any]
    ) -> None:
        """As events, in pages of events, as configuration; copies of the documents have them."""
        longer = np.array([(2.5, 7, "longer"), (0.1, 0, "")], "f8,i2,U6")
        longer.dtype.names = ROWS.dtype.names or ()
        values = [ROWS, longer, ROWS[::-1]]
        wide = longer.dtype
        for paged in (False, True):
            run = RunBuilder()
            key = {"source": "s", "dtype": "array", "shape": [2], **claim}
            device = {"data": {"r": ROWS}, "timestamps": {"r": 1.0}, "data_keys": {"r": key}}
            descriptor = run.descriptor({"x": key, "n": 1}, configuration={"det": device})
            rows = [{"x": v, "n": n if n < 2 else 0.5} for n, v in enumerate(values)]
            if paged:
                run.event_page(descriptor, rows)
            else:
                for row in rows:
                    run.event(descriptor, row)
            first = put(run.stop())
            check_run(first, inserted(first, run.documents))
            pairs = [(name, doc) for name, doc in first.documents() if name != "stop"]
            events = [doc["data"]["x"] for name, doc in pairs if name == "event"]
            assert events[0] == [[0.5, 1, "a"], [1.5, -2, "ccc"]]
            assert all(type(row) is not tuple for row in events[0])
            again = fresh_run(first.documents())
            insert_all(broker, again)
            for header in (first, broker[again[0][1]["uid"]]):
                cells = table_of(header)["x"].tolist()
                assert {cell.dtype for cell in cells} == {wide}
                for cell, value in zip(cells, values, strict=True):
                    np.testing.assert_array_equal(cell, value.astype(wide))
                for options in ({}, {"chunks": {"time": 1}}, {"chunks": None}):
                    dataset = header.dataset(**options)
                    assert {"x.x", "x.i", "x.n"} <= set(dataset.data_vars)
                    assert dataset["x.x"].dims == ("time", "x_dim_0")
                    assert (dataset["x.x"].dtype, dataset["x.i"].dtype) == (np.float64, np.int16)
                    assert dataset["x.n"].values.tolist()[1] == ["longer", ""]
                table = header.table(fields=["n", "config:det:r"]).compute()
                assert {cell.dtype for cell in table["config:det:r"]} == {ROWS.dtype}
                found = header.descriptors["primary"][0]["configuration"]["det"]["data"]["r"]
                assert found == [[0.5, 1, "a"], [1.5, -2, "ccc"]]

    def test_structured_values_of_all_forms(self, put: Put, broker: Any) -> None:
        """Scalars, more dimensions, nested fields, masks, bytes, none at all, differing fields."""
        nested = np.dtype([("p", [("q", "<i2"), ("r", "S2")]), ("w", "<f4", (2, 3)), ("b", "?")])
        deep = np.zeros((2, 2), nested)
        deep["p"]["q"] = [[1, 2], [3, 4]]
        deep["p"]["r"], deep["w"][1, 1] = b"\0x", 0.5
        masked = np.ma.array(ROWS)
        masked["i"][0] = np.ma.masked
        other = np.array([(1, 2)], [("k", ">u2"), ("l", "<i8")])
        columns = {
            "one": [ROWS[0], ROWS[1]], "deep.er": [deep, deep[::-1]], "masked": [masked, masked],
            "differing": [ROWS, other], "gap": [None, ROWS], "some": [[1.5, 2], ROWS],
            "empty": [ROWS[:0], ROWS[:0]],
        }  # fmt: skip
        run = RunBuilder()
        key = {"source": "s", "dtype": "array", "shape": [2], "dtype_numpy": "<f8"}
        descriptor = run.descriptor(
            dict.fromkeys(columns, key) | {"one": {"source": "s", "dtype": "number", "shape": []}}
        )
        for number in (0, 1):
            run.event(descriptor, {name: values[number] for name, values in columns.items()})
        first = put(run.stop())
        check_run(first, inserted(first, run.documents))
        again = fresh_run(first.documents())
        insert_all(broker, again)
        for header in (first, broker[again[0][1]["uid"]]):
            table = table_of(header)
            assert [cell.item() for cell in table["one"]] == ROWS.tolist()
            assert [cell.dtype for cell in table["differing"]] == [
                ROWS.dtype, np.dtype([("k", "<u2"), ("l", "<i8")]),
            ]  # fmt: skip
            assert table["gap"].tolist()[0] is None
            assert table["gap"].tolist()[1].dtype == ROWS.dtype
            assert list(table["some"].tolist()[0]) == [1.5, 2]
            assert table["some"].tolist()[1].dtype == ROWS.dtype
            assert [cell.dtype for cell in table["empty"]] == [ROWS.dtype] * 2
            assert table["masked"].tolist()[0].tolist() == [(0.5, None, "a"), (1.5, -2, "ccc")]
            cell = table["deep.er"].tolist()[0]
            assert (cell.dtype, cell.shape) == (nested, (2, 2))
            assert cell.tobytes() == deep.tobytes()
            dataset = header.dataset()
            assert dataset["one.x"].values.tolist() == [0.5, 1.5]
            assert dataset["gap.i"].dtype == np.float32
            assert dataset["deep.er.p.q"].values.tolist() == [[[1, 2], [3, 4]], [[3, 4], [1, 2]]]
            assert dataset["deep.er.p.q"].dtype == np.int16
            assert dataset["deep.er.w"].shape == (2, 2, 2, 2, 3)
            assert dataset["deep.er.w"].values[0].tolist() == deep["w"].tolist()
            assert dataset["masked.i"].values.tolist() == [[None, -2], [None, -2]]
            assert dataset["differing"].values[1].dtype.names == ("k", "l")

    def test_lists_of_arrays(self, put: Put) -> None:
        """Lists of arrays are stored as lists of lists are, in every store."""
        run = RunBuilder()
        columns: dict[str, tuple[Any, str, tuple[int, ...]]] = {
            "arrays": ([np.array([1, 2], "u1"), np.array([3, 4], "u1")], "int64", (2, 2, 2)),
            "mixed": ([np.array([1, 2]), [0.5, 1]], "float64", (2, 2, 2)),
            "deep": ([[np.ones(2)], [np.ones(2)]], "float64", (2, 2, 1, 2)),
            "scalars": ([np.float32(1), np.int8(2)], "float64", (2, 2)),
            "rows": ([np.array([(1, 2)], "i2,i4")], "int64", (2, 1, 1, 2)),
            "ragged": ([np.array([1]), np.array([1, 2])], "object", (2,)),
        }
        descriptor = run.descriptor(
            {
                n: {"source": "s", "dtype": "array", "shape": list(c[2][1:])}
                for n, c in columns.items()
            }
        )
        for _ in range(2):
            run.event(descriptor, {name: value for name, (value, _, _) in columns.items()})
        header = put(run.stop())
        check_run(header, inserted(header, run.documents))
        dataset = header.dataset()
        for name, (_, dtype, shape) in columns.items():
            assert (dataset[name].dtype, dataset[name].shape) == (dtype, shape)

    def test_tables_that_are_written_back_keep_the_dtype_of_arrays(
        self, put: Put, broker: Any
    ) -> None:
        """Structured arrays keep their fields, in whole pages and in single events."""
        run = RunBuilder()
        key = {"source": "s", "dtype": "array", "shape": [2]}
        descriptor = run.descriptor({"s": key, "u": key, "n": 1.0})
        for number in range(2):
            run.event(descriptor, {"s": ROWS, "u": np.array([1, 2], "u1"), "n": float(number)})
        table = put(run.stop()).table(fill=False).compute()
        with_gap = table.assign(n=[1.0, None])
        for written in (table, with_gap):
            pairs = list(table_to_stream(written))
            insert_all(broker, pairs)
            found = table_of(broker[pairs[0][1]["uid"]])
            assert [cell.dtype for cell in found["s"]] == [ROWS.dtype] * 2
            assert [cell.dtype for cell in found["u"]] == [np.dtype("u1")] * 2

    def test_documents_that_are_inserted_again_keep_the_dtype_of_arrays(
        self, put: Put, broker: Any
    ) -> None:
        """A list of a document is known to have been an array until somebody changes it."""
        values = [np.ones((2, 3), "u1"), np.zeros((2, 3), "u1")]
        again = fresh_run(put(run_of(values)).documents())
        header = insert_run(broker, again)
        assert header.dataset()["x"].dtype == np.uint8
        assert {cell.dtype for cell in table_of(header)["x"]} == {np.dtype("u1")}
        changed = [
            (name, {**doc, "data": {"x": [[0.5] * 3] * 2}} if name == "event" else doc)
            for name, doc in again
        ]
        insert_all(broker, (changed := fresh_run(changed)))
        assert broker[changed[0][1]["uid"]].dataset()["x"].values.tolist()[0][0] == [0.5] * 3

    @pytest.mark.parametrize(
        ("value", "dtype"),
        [
            (np.zeros(2, complex), "complex128"),
            (np.zeros(2, "M8[us]"), "datetime64"),
            (np.zeros(2, [("x", "f4"), ("z", "c8")]), r"\('z', '<c8'\)"),
        ],
        ids=["complex", "datetime", "field"],
    )
    def test_what_has_no_form_is_refused_by_name(
        self, broker: Any, value: np.ndarray, dtype: str
    ) -> None:
        documents = run_of([[1.0, 2.0], value])
        with pytest.raises(BadDocument, match=rf"event '.*'\.data\.x: an array of dtype .*{dtype}"):
            insert_all(broker, documents)
        assert len(broker[-1].table()) == 1


def _plain(cell: Any) -> Any:
    return cell.tolist() if isinstance(cell, np.ndarray) else cell


def _same(found: Any, expected: Any) -> bool:
    """Whether numbers are equal, with NaN equal to NaN."""
    return bool(np.array_equal(np.asarray(found, float), np.asarray(expected), equal_nan=True))
