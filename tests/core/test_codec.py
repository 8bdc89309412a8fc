"""The codec: every column comes back exactly, and lies in the plainest Arrow type."""

from __future__ import annotations

import io
import pickle
import tracemalloc
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from daskbroker.core.codec import block, decode, encode, iter_decoded
from daskbroker.core.column_kinds import MISSING, Column, ColumnKind, field_kind
from daskbroker.core.documents import plain
from daskbroker.core.errors import StoreDamaged, StoreVersion
from daskbroker.testing import difference

NAN = float("nan")


def table_of(column: Column) -> pa.Table:
    """The column as a chunk of one column."""
    return pa.Table.from_arrays([column.array], schema=pa.schema([column.arrow_field("x")]))


def through_ipc(table: pa.Table) -> pa.Table:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return pa.ipc.open_file(sink.getvalue()).read_all()


def through_parquet(table: pa.Table) -> pa.Table:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return pq.read_table(io.BytesIO(sink.getvalue()))


def through_memory(table: pa.Table) -> pa.Table:
    return table


ROUTES = [through_memory, through_ipc, through_parquet]
routes = pytest.mark.parametrize("route", ROUTES)


def cells_of(table: pa.Table) -> list[Any]:
    return decode(table.column("x").combine_chunks(), table.schema.field("x"))


def assert_same(expected: Any, received: list[Any]) -> None:
    """Compare cells: types, integers and floats apart, and missing ones by identity."""
    assert len(received) == len(expected)
    for want, have in zip(expected, received, strict=True):
        assert (want is MISSING) is (have is MISSING), (want, have)
        if want is not MISSING:
            assert difference(plain(want), have) is None


# -- any values ------------------------------------------------------------------------------

numbers = st.integers() | st.floats()
scalars = st.none() | st.booleans() | numbers | st.text(max_size=5)
json_like = st.recursive(
    scalars,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3),
    max_leaves=6,
)
dtypes = st.sampled_from(["bool", "int8", "uint16", "int64", "uint64", "float32", "float64"])
arrays = hnp.arrays(dtypes, hnp.array_shapes(max_dims=3, max_side=3))


def gaps(cells: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Lists of such cells, some of them None or missing."""
    return st.lists(cells | st.none() | st.just(MISSING), max_size=8)


def alike(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Cells of one scalar type: alone, in flat lists, or in nested lists of one shape."""
    square = st.lists(st.lists(leaf, min_size=2, max_size=2), min_size=2, max_size=2)
    return gaps(leaf) | gaps(st.lists(leaf, max_size=3)) | gaps(square)


def one_form(dtype: str, shape: tuple[int, ...]) -> st.SearchStrategy[list[Any]]:
    return gaps(hnp.arrays(dtype, shape))


columns = st.one_of(
    gaps(json_like),
    gaps(arrays | json_like),
    gaps(numbers),
    *map(alike, (st.booleans(), st.integers(), st.floats(), st.text(max_size=5))),
    st.builds(one_form, dtypes, hnp.array_shapes(max_dims=3, max_side=3)).flatmap(lambda s: s),
)


@routes
@settings(max_examples=150, deadline=None)
@example([1, 1.0, 2**53, -(2**53)])
@example([1, 2**53 + 1, 0.5])
@example([None, MISSING, 1, 2.5, True])
@example([[], [1], [1, 2]])
@example([[[]], [[]]])
@example([["a", None]])
@example([[1, 2.0]])
@example([[1, None], MISSING, None, [2.5, -0.0]])
@example([np.uint64([2**60]), [1], None])
@example([[0.5], 1, np.array([1, 2])])
@example([{"a": NAN}, None, MISSING])
@example(["\ud800", "a"])
@example([-0.0, NAN, float("inf")])
@example([MISSING, MISSING])
@example([np.zeros((2, 0)), np.zeros((2, 0))])
@example([np.array([1, 2]), MISSING, None, np.array([3])])
@given(columns)
def test_cells_come_back_exactly(route: Any, values: list[Any]) -> None:
    assert_same(values, cells_of(route(table_of(encode(values)))))


@routes
@settings(max_examples=60, deadline=None)
@given(hnp.arrays(dtypes, hnp.array_shapes(max_dims=3, max_side=4, min_side=0)))
def test_array_whose_first_axis_is_rows(route: Any, values: np.ndarray) -> None:
    table = route(table_of(encode(values)))
    assert_same(values.tolist(), cells_of(table))


PAIRS = np.array([(1, 0.5), (2, NAN)], [("n", "<i4"), ("x", "<f8")])


@routes
@pytest.mark.parametrize(
    "values",
    [
        [PAIRS, PAIRS[:1], PAIRS[:0]],
        [PAIRS, None, MISSING],
        [np.array(PAIRS[0]), None],
        [PAIRS, 5, None, [1, "a"], {"a": 0.5}, MISSING],
        [PAIRS.reshape(2, 1), PAIRS],
        [PAIRS, np.zeros(1, [("n", "<u1")])],
    ],
    ids=["lengths", "gaps", "one row", "other cells", "dimensions", "other fields"],
)
def test_structured_arrays_come_back_among_other_cells(route: Any, values: list[Any]) -> None:
    received = cells_of(route(table_of(encode(values))))
    assert_same(values, received)
    for want, have in zip(values, received, strict=True):
        assert getattr(want, "dtype", None) == getattr(have, "dtype", None)
        assert np.shape(want) == np.shape(have) or want is MISSING


@settings(max_examples=60, deadline=None)
@given(columns, st.data())
def test_a_slice_of_a_column_decodes_to_its_cells(values: list[Any], data: Any) -> None:
    """Without notes that name rows, an array may be cut anywhere."""
    column = encode(values)
    if {"ints", "missing"} & column.notes.keys():
        return
    first = data.draw(st.integers(0, len(values)))
    piece = column.array.slice(first, 2)
    assert_same(values[first : first + 2], decode(piece, column.arrow_field("x")))


@routes
@settings(max_examples=60, deadline=None)
@given(columns, st.integers(1, 200))
def test_cells_that_are_made_some_rows_at_a_time(route: Any, values: list[Any], times: int) -> None:
    table = route(table_of(encode(values * times)))
    array, field = table.column("x").combine_chunks(), table.schema.field("x")
    assert_same(decode(array, field), list(iter_decoded(array, field)))


def test_cells_are_made_as_they_are_taken() -> None:
    column = encode(np.arange(100_000.0))
    tracemalloc.start()
    try:
        cells = iter_decoded(column.array, column.arrow_field("x"))
        assert next(iter(cells)) == 0.0
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("negative", [-0.0, [-0.0, 1.0], [[-0.0], [0.0]]])
def test_the_sign_of_zero_stays(negative: Any) -> None:
    assert repr(cells_of(table_of(encode([negative, negative])))) == repr([negative, negative])


# -- kinds and types -------------------------------------------------------------------------

f8, i8, text = pa.float64(), pa.int64(), pa.string()
BIG = 2**53
MIXED = [
    ([], "null", pa.null(), False),
    ([None, None], "null", pa.null(), True),
    ([MISSING, None], "null", pa.null(), True),
    ([True, False], "bool", pa.bool_(), False),
    ([True, None], "bool", pa.bool_(), True),
    ([1, BIG, -BIG], "int", i8, False),
    ([1, MISSING], "int", i8, True),
    ([1, BIG + 1], "long", i8, False),
    ([-(2**63), None], "long", i8, True),
    ([2**63, 2**64 - 1], "uint", pa.uint64(), False),
    ([0, 2**64 - 1], "json", text, False),  # as 0 may be of a chunk of its own
    ([2**63, None], "uint", pa.uint64(), True),
    ([1.5, NAN], "float", f8, False),
    ([1.0, None], "float", f8, True),
    ([1, 1.5, BIG], "number", f8, False),
    ([1, None, 1.5], "number", f8, True),
    (["a", ""], "str", text, False),
    (["a", MISSING], "str", text, True),
    ([-1, 2**63], "json", text, False),
    ([2**64], "json", text, False),
    ([1.5, BIG + 1], "json", text, False),
    ([1, True], "json", text, False),
    ([1.5, "Disconnected"], "json", text, False),
    ([{"a": 1}, MISSING], "json", text, True),
    ([[1, "a"]], "json", text, False),
    ([[1], 2], "json", text, False),
    ([[None]], "json", text, False),
    ([[[1], [1, 2]]], "json", text, False),
    ([np.zeros((1, 2)), np.zeros((2, 2))], "json", text, False),
]


@pytest.mark.parametrize(("values", "name", "arrow_type", "nulls"), MIXED)
def test_kind_and_type(values: list[Any], name: str, arrow_type: pa.DataType, nulls: bool) -> None:
    column = encode(values)
    assert (column.kind.name, column.kind.nulls) == (name, nulls)
    assert column.array.type == arrow_type


def fixed(leaf: pa.DataType, *shape: int) -> pa.DataType:
    for size in reversed(shape):
        leaf = pa.list_(leaf, size)
    return leaf


NESTED = [
    ([[1, 2], [3, 4]], ColumnKind("array", False, "i8", (2,)), fixed(i8, 2)),
    ([[1, BIG + 1]], ColumnKind("array", False, "<i8", (2,)), fixed(i8, 2)),
    ([[2**63]], ColumnKind("json", False, "", (1,)), text),
    ([np.uint64([2**63])], ColumnKind("array", False, "<u8", (1,)), fixed(pa.uint64(), 1)),
    ([[1, 2.5], None], ColumnKind("json", True, "<f8", (2,)), text),
    ([[[1.5, None]], MISSING], ColumnKind("json", True, "<f8", (1, 2)), text),
    ([[1, BIG + 1.5], [BIG + 1, 1]], ColumnKind("json", False, "", (2,)), text),
    ([[None, None]], ColumnKind("json", False, "null", (2,)), text),
    ([[True, 2]], ColumnKind("json", False, "", (2,)), text),
    ([["a", None]], ColumnKind("json", False, "", (2,)), text),
    ([[b"a", 1]], ColumnKind("json", False, "", (2,)), text),
    ([[0, 2**63]], ColumnKind("json", False, "", (2,)), text),
    ([[1, 2.5], [1]], ColumnKind("json", False, "<f8"), text),
    ([[], []], ColumnKind("json", False, "none", (0,)), text),
    ([[{"a": 1}, 2]], ColumnKind("json"), text),
    ([[[1], [1, 2]]], ColumnKind("json"), text),
    ([np.uint8([1]), np.uint16([1])], ColumnKind("array", False, "i8", (1,)), fixed(i8, 1)),
    ([np.uint64([2**60]), [1]], ColumnKind("json", False, "", (1,)), text),
    ([np.float32([1]), [1, 2.5]], ColumnKind("json", False, "<f8"), text),
    ([[1.5], None], ColumnKind("array", True, "<f8", (1,)), fixed(f8, 1)),
    ([["a", "b"]], ColumnKind("array", False, "<U", (2,)), fixed(text, 2)),
    ([[[True], [False]]], ColumnKind("array", False, "|b1", (2, 1)), fixed(pa.bool_(), 2, 1)),
    (
        [np.zeros((2, 3), "u2")] * 2,
        ColumnKind("array", False, "<u2", (2, 3)),
        fixed(pa.uint16(), 2, 3),
    ),
    ([np.float32([1]), MISSING], ColumnKind("array", True, "<f4", (1,)), fixed(pa.float32(), 1)),
    ([[1], [1, 2], []], ColumnKind("list", False, "i8"), pa.list_(i8)),
    ([["a"], None, ["b", "c"]], ColumnKind("list", True, "<U"), pa.list_(text)),
    ([np.uint8([1]), np.uint8([1, 2])], ColumnKind("list", False, "|u1"), pa.list_(pa.uint8())),
]


@pytest.mark.parametrize(("values", "kind", "arrow_type"), NESTED)
def test_kind_and_type_of_arrays(
    values: list[Any], kind: ColumnKind, arrow_type: pa.DataType
) -> None:
    column = encode(values)
    assert column.kind == kind
    assert column.array.type == arrow_type


@pytest.mark.parametrize(
    ("values", "name", "arrow_type"),
    [
        (np.array([True]), "bool", pa.bool_()),
        (np.array([1, 2], "u1"), "int", i8),
        (np.array([BIG + 1]), "long", i8),
        (np.array([2**63], "u8"), "uint", pa.uint64()),
        (np.array([0.5], "f4"), "float", f8),
        (np.zeros(0, int), "int", i8),
        (np.array(["a"]), "str", text),
        (np.zeros((2, 3), "u2"), "array", fixed(pa.uint16(), 3)),
    ],
)
def test_kind_of_a_numpy_column(values: np.ndarray, name: str, arrow_type: pa.DataType) -> None:
    column = encode(values)
    assert column.kind.name == name
    assert column.array.type == arrow_type
    assert not column.kind.nulls


@routes
def test_the_field_carries_the_kind(route: Any) -> None:
    column = encode([[1, 2], None])
    kind, notes = field_kind(route(table_of(column)).schema.field("x"))
    assert kind == column.kind
    assert notes == {}


@pytest.mark.parametrize("values", [case[0] for case in (*MIXED, *NESTED)])
def test_kind_as_a_list_and_back(values: list[Any]) -> None:
    kind = encode(values).kind
    assert ColumnKind.from_list(kind.to_list()) == kind


def test_other_readers_see_plain_parquet() -> None:
    table = through_parquet(table_of(encode([1, None, 2.5])))
    assert table.column("x").to_pylist() == [1.0, None, 2.5]


def test_missing_is_one_object_through_pickle() -> None:
    assert pickle.loads(pickle.dumps(MISSING)) is MISSING
    assert repr(MISSING) == "MISSING"


# -- block -----------------------------------------------------------------------------------


@routes
@pytest.mark.parametrize("dtype", ["u1", "<i4", "<f8"])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 1, 2)])
def test_block_is_the_array_again(route: Any, dtype: str, shape: tuple[int, ...]) -> None:
    values = np.arange(4 * np.prod(shape)).reshape(4, *shape).astype(dtype)
    column = encode(values)
    array = route(table_of(column)).column("x").combine_chunks()
    np.testing.assert_array_equal(block(array, column.kind), values, strict=True)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 1, 2)])
def test_block_of_a_slice(shape: tuple[int, ...]) -> None:
    values = np.arange(5 * np.prod(shape), dtype=float).reshape(5, *shape)
    column = encode(values)
    once = column.array.slice(1, 3)
    np.testing.assert_array_equal(block(once, column.kind), values[1:4])
    np.testing.assert_array_equal(block(once.slice(1), column.kind), values[2:4])


@routes
def test_block_holds_zeros_where_null(route: Any) -> None:
    column = encode([[1, 2], None, [3, 4]])
    array = route(table_of(column)).column("x").combine_chunks()
    assert block(array, column.kind).tolist() == [[1, 2], [0, 0], [3, 4]]


def test_block_of_numbers_is_no_copy() -> None:
    column = encode(np.zeros((4, 3)))
    first, second = block(column.array, column.kind), block(column.array, column.kind)
    assert np.shares_memory(first, second)


@pytest.mark.parametrize(
    "metadata",
    [
        None, {}, {"other": "note"},
        *({"daskbroker": note} for note in (
            "", "no json", "5", "[]", "null", '"text"', "{}", '{"kind": 5}', '{"kind": []}',
            '{"kind": ["int"]}', '{"kind": ["int", 0, "", 5]}', '{"kind": [[], 0, "", []]}',
        )),
    ],
    ids=str,
)  # fmt: skip
def test_a_column_without_its_metadata(metadata):
    """Of a file that another tool has written anew, say; nothing tells what its values were."""
    lost = pa.field("data:x", pa.int64(), metadata=metadata)
    for use in (field_kind, lambda field: decode(pa.array([1, 2]), field)):
        with pytest.raises(StoreDamaged, match="the column 'data:x' of a chunk is damaged"):
            use(lost)


def test_a_column_with_the_metadata_of_a_newer_version():
    for note in ('{"kind": ["decimal", 0, "", []]}', '{"kind": ["int", 0, "", []], "unit": "m"}'):
        newer = pa.field("data:x", pa.int64(), metadata={"daskbroker": note})
        with pytest.raises(StoreVersion, match=r"column 'data:x' of a chunk: .* newer daskbroker"):
            field_kind(newer)
