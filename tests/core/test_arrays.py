"""Columns of arrays: leaves unify as scalars do, however the column was cut into chunks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from daskbroker.core.arrays import ArrayForm, array_block, array_form, with_gaps
from daskbroker.core.codec import encode
from daskbroker.core.column_kinds import MISSING, ColumnKind
from daskbroker.core.errors import StoreDamaged
from daskbroker.core.leaves import common_leaf, leaf_of_array, leaf_of_values
from daskbroker.core.schema import object_cells, unify

BIG = 2**53 + 1
LEAVES = [
    "", "none", "null", "|b1", "|u1", "<u2", "<i4", "i8", "u8", "<i8", "<u8", "<f4", "<f8", "<U",
]  # fmt: skip

# -- leaf types ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("leaves", "common"),
    [
        ([], "none"),
        (["<u2", "none"], "<u2"),
        (["i8", "<f8"], "<f8"),
        (["|u1", "<u2"], "i8"),
        (["<u2", "<f4"], "<f8"),
        (["<f4", "<f8"], "<f8"),
        (["u8", "i8"], "i8"),
        (["i8", "<i8"], "<i8"),
        (["<i8", "<f8"], ""),
        (["<u8", "i8"], ""),
        (["<u8", "u8"], "<u8"),
        (["i8", "null"], "<f8"),
        (["|b1", "i8"], ""),
        (["|b1", "null"], ""),
        (["<U", "<f8"], ""),
    ],
    ids=repr,
)
def test_the_common_leaf_type(leaves, common):
    assert common_leaf(leaves) == common


@given(st.lists(st.sampled_from(LEAVES), min_size=1, max_size=6), st.data())
def test_the_order_does_not_matter(leaves, data):
    """Nor does it matter which are put together first."""
    cut = data.draw(st.integers(0, len(leaves)))
    other = data.draw(st.permutations(leaves))
    parts = [common_leaf(leaves[:cut]), common_leaf(leaves[cut:])]
    assert common_leaf(leaves) == common_leaf(other) == common_leaf(parts)


@pytest.mark.parametrize(
    ("values", "leaf"),
    [
        ([], "none"),
        ([None], "null"),
        ([1, 2.5, None], "<f8"),
        ([1, BIG], "<i8"),
        ([1.5, BIG], ""),
        ([None, BIG], ""),
        ([-1, 2**63], ""),
        ([True, 1], ""),
        (["a", b"a"], ""),
        ([[1], 1], None),
        ([{}], None),
    ],
    ids=repr,
)
def test_leaf_types_of_values(values, leaf):
    assert leaf_of_values(values) == leaf


@pytest.mark.parametrize(
    ("values", "leaf"),
    [
        (np.array([1], ">i8"), "i8"),
        (np.array([-BIG]), "<i8"),
        (np.array([5], "u8"), "u8"),
        (np.array([BIG], "u8"), "<u8"),
        (np.array([1], ">u2"), "<u2"),
        (np.array([True]), "|b1"),
        (np.array([0.5], "f4"), "<f4"),
    ],
    ids=repr,
)
def test_leaf_types_of_arrays(values, leaf):
    assert leaf_of_array(values) == leaf


# -- forms -----------------------------------------------------------------------------------


def arrays(leaf, *shape, nulls=False, name="array"):
    return ColumnKind(name, nulls, leaf, shape)


@pytest.mark.parametrize(
    ("kinds", "form", "dtype"),
    [
        ([arrays("i8", 2), arrays("<f8", 2)], ArrayForm("<f8", (2,), False), "f8"),
        ([arrays("<u2", 2), None], ArrayForm("<u2", (2,), True), "f4"),
        ([arrays("<i4", 2, nulls=True)], ArrayForm("<i4", (2,), True), "f8"),
        ([arrays("<i8", 2)], ArrayForm("<i8", (2,), False), "i8"),
        ([arrays("<i8", 2, nulls=True)], ArrayForm("<i8", (2,), True), "O"),
        ([arrays("|b1", 2), ColumnKind("null", True)], ArrayForm("|b1", (2,), True), "O"),
        ([arrays("null", 2, name="json")], ArrayForm("null", (2,), False), "f8"),
        ([arrays("", 2, name="json")], ArrayForm("", (2,), False), "O"),
        ([arrays("i8", 2), arrays("i8", 3)], ArrayForm("i8", None, False), "i8"),
        ([arrays("i8", 2), ColumnKind("list", False, "<f8")], ArrayForm("<f8", None, False), "f8"),
        ([arrays("none", 0, name="json")], ArrayForm("none", None, False), "f8"),
    ],
    ids=repr,
)
def test_forms_of_columns(kinds, form, dtype):
    assert array_form(kinds) == form
    assert form.dtype == np.dtype(dtype)


@pytest.mark.parametrize(
    "kinds",
    [
        [],
        [None],
        [ColumnKind("null", True)],
        [ColumnKind("float")],
        [ColumnKind("json")],
        [arrays("i8", 2), ColumnKind("int")],
        [arrays("i8", 2), ColumnKind("json")],
        [arrays("i8", 2, 2), arrays("i8", 2, 3)],
        [arrays("i8", 2, 2), ColumnKind("list", False, "i8")],
        [arrays("i8", 2, 2), arrays("i8", 2)],
    ],
    ids=repr,
)
def test_columns_that_have_no_form(kinds):
    assert array_form(kinds) is None


def test_gaps_as_xarray_has_them():
    found = {d: with_gaps(np.dtype(d)).str for d in ("u1", "i2", "i4", "u8", "f4", "?", "O")}
    assert found == {
        "u1": "<f4", "i2": "<f4", "i4": "<f8", "u8": "<f8", "f4": "<f4", "?": "|O", "O": "|O",
    }  # fmt: skip


# -- however the column is cut ---------------------------------------------------------------

integers = st.sampled_from([0, 1, -1, 7, 2**53, BIG, -BIG, 2**63 - 1, 2**63, 2**64 - 1, 2**64])
floats = st.floats(allow_nan=False, width=16)
numbers = integers | floats
mixed = numbers | st.none() | st.booleans() | st.text(max_size=2) | st.binary(max_size=2)
leaves = st.sampled_from([integers, floats, numbers, numbers | st.none(), st.booleans(), mixed])
shapes = st.sampled_from([(), (1,), (2,), (2, 2), (1, 0)])
dtypes = st.sampled_from(["?", "u1", "u2", "i4", "i8", "u8", "f4", "f8"])


def nested(leaf, shape):
    for length in reversed(shape):
        leaf = st.lists(leaf, min_size=length, max_size=length)
    return leaf


cells = st.one_of(
    leaves.flatmap(lambda leaf: shapes.map(lambda shape: nested(leaf, shape))),
    leaves.map(lambda leaf: st.lists(leaf, max_size=3)),
    dtypes.map(lambda dtype: hnp.arrays(dtype, (2,))),
    dtypes.map(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(max_dims=1, max_side=2))),
)
gap = st.none() | st.just(MISSING)


@st.composite
def cut_columns(draw):
    """Cells of one or two sorts, some None or missing, and places to cut them at."""
    some = draw(st.lists(cells, min_size=1, max_size=2))
    values = draw(st.lists(st.one_of(*some, gap), min_size=1, max_size=6))
    cuts = draw(st.sets(st.integers(1, len(values))))
    return values, sorted(cuts | {len(values)})


def pieces(values, ends):
    return [values[begin:end] for begin, end in zip([0, *ends], ends)]


def chunk(values):
    column = encode(values)
    return pa.Table.from_arrays([column.array], schema=pa.schema([column.arrow_field("x")]))


@settings(max_examples=600, deadline=None)
@example(([[1, 2], [1.5, 2]], [1, 2]))
@example(([[1, BIG], [1.5, 2], None], [1, 2, 3]))
@example(([2**63, 5], [1, 2]))
@example(([np.array([BIG], "u8"), [1]], [1, 2]))
@example(([[], [1, 2.5], [None]], [1, 2, 3]))
@example(([[[]], [[1]]], [1, 2]))
@given(cut_columns())
def test_a_column_is_of_one_dtype_however_it_was_cut(column):
    values, ends = column
    parts = pieces(values, ends)
    whole, kinds = [encode(values).kind], [encode(part).kind for part in parts]
    for claim in ("object", "float64", "int64", "str"):
        assert unify(kinds, claim) == unify(whole, claim)
    form = array_form(whole)
    assert array_form(kinds) == form
    if form is None:
        return
    together = object_cells(chunk(values), "x", slice(None), form, None)
    apart = [object_cells(chunk(part), "x", slice(None), form, None) for part in parts]
    same(np.concatenate(apart), together)
    if form.shape is not None:
        blocks = [block_of(part, form) for part in parts]
        assert {block.dtype for block in blocks} == {form.dtype}
        same(np.concatenate(blocks), block_of(values, form))


def block_of(values, form):
    table = chunk(values)
    found = array_block(table.column(0).chunk(0), table.schema.field(0), len(values), form)
    assert found.shape == (len(values), *form.shape)
    return found


def same(one, other):
    assert [repr(cell) for cell in one] == [repr(cell) for cell in other]


@pytest.mark.parametrize(
    ("values", "expected", "dtype"),
    [
        ([[1, 2.5], None], [[1, 2.5], [np.nan, np.nan]], "f8"),
        ([[1, None], [3, 4]], [[1, np.nan], [3, 4]], "f8"),
        ([np.array([1, 2], "u1"), MISSING], [[1, 2], [np.nan, np.nan]], "f4"),
        ([["a", "b"], None], [["a", "b"], [None, None]], "O"),
        ([[True, 2], [3, 4]], [[True, 2], [3, 4]], "O"),
        ([[[1], [2]], [[3], [None]]], [[[1], [2]], [[3], [np.nan]]], "f8"),
    ],
    ids=repr,
)
def test_cells_as_one_array(values, expected, dtype):
    found = block_of(values, array_form([encode(values).kind]))
    np.testing.assert_array_equal(found, np.array(expected, dtype), strict=True)


def test_a_chunk_that_lacks_the_column():
    found = array_block(None, None, 2, ArrayForm("<f4", (3,), True))
    assert found.dtype == np.float32
    assert np.isnan(found).all()


def test_a_chunk_of_another_form_is_damaged():
    with pytest.raises(StoreDamaged, match="'x' of a chunk is damaged"):
        block_of([[1, 2.5, 3]], ArrayForm("<f8", (2,), False))
