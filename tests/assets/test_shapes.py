"""The shape rule, and the dtype rule beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskbroker.assets.regions import take_roi
from daskbroker.assets.shapes import (
    GUESSED_BYTES,
    Cell,
    Declared,
    Mismatch,
    cast,
    contradicts,
    fit,
    reshaped,
)


def claim(shape, dtype="array", **more):
    return {"source": "x", "dtype": dtype, "shape": shape, **more}


@pytest.mark.parametrize(
    ("given_claim", "shape", "dtype"),
    [
        (claim([4, 5], dtype_numpy="<u2"), (4, 5), "uint16"),
        (claim([4, 5], dtype_str="<i4"), (4, 5), "int32"),
        (claim([4, 5]), (4, 5), "float64"),
        (claim([4], dtype_numpy="no such"), (4,), "float64"),
        (claim([], "number"), (), "float64"),
        (claim([], "integer"), (), "int64"),
        (claim([], "boolean"), (), "bool"),
        (claim([], "string"), (), "object"),
        (claim([1, 1], "number"), (1, 1), "float64"),
        (claim([]), None, "object"),
        (claim([None, 5]), None, "object"),
        (claim([25, 27, 0]), None, "object"),
        (claim([-1]), None, "object"),
        (claim([2**64 - 1, 6, 8], dtype_numpy="<u2"), None, "object"),
        (claim([2**31] * 3, dtype_numpy="<u2"), None, "object"),
        (claim([3], dtype_descr=[["x", "<f8"], ["y", "<i2", [2]]]), (3,), None),
        *(
            (claim([4], dtype_descr=unusable, dtype_numpy="<u2", dtype_str="<f4"), (4,), "uint16")
            for unusable in (
                "no such", 5, [1], [[]], [["x"]], [["x", "no such"]], [["x", "<f8", -1]],
                [["x", "<f8"], ["x", "<f8"]], {"x": 1}, "(2, i4", [["x", "(2, i4"]],
            )
        ),
        (claim([4], dtype_descr=[1], dtype_numpy="no such", dtype_str="<f4"), (4,), "float32"),
    ],
)  # fmt: skip
def test_what_a_descriptor_declares(given_claim, shape, dtype):
    declared = Declared.of([given_claim])
    assert declared.shape == shape
    expected = np.dtype([("x", "<f8"), ("y", "<i2", (2,))]) if dtype is None else np.dtype(dtype)
    assert declared.dtype == expected


U2 = np.dtype("u2")


@pytest.mark.parametrize(
    ("given_claim", "cell", "strictly", "loosely"),
    [
        (claim([4, 5], dtype_numpy=">u2"), Cell((4, 5), U2), False, False),
        (claim([4, 5]), Cell((4, 5), U2), False, False),
        (claim([4, 5], dtype_numpy="<i2"), Cell((4, 5), U2), True, True),
        (claim([4, 5]), Cell((4, 6), U2), True, True),
        (claim([4, 5]), Cell((1, 4, 5), U2), True, False),
        (claim([None, 5]), Cell((4, 5), U2), False, None),
        (claim([None, 5]), Cell((4, 6), U2), True, None),
        (claim([None]), Cell((4, 5), U2), False, None),
        (claim([4, 5]), Cell((), U2), True, True),
        (claim([]), Cell((4, 5), U2), False, False),
        (claim([], "number"), Cell((), U2), False, False),
        (claim([], "number"), Cell((4,), U2), True, True),
        (claim([4, 5]), Cell(None, U2), True, True),  # cells of the file differ in shape
        (claim([]), Cell(None, U2), False, False),
        (claim(None), Cell(None, U2), False, False),
    ],
)
def test_what_contradicts_a_claim(given_claim, cell, strictly, loosely):
    assert contradicts(given_claim, cell) is strictly
    if loosely is not None:  # claims that leave lengths open are not compared loosely
        assert contradicts(given_claim, cell, loosely=True) is loosely


def test_descriptors_that_disagree():
    assert Declared.of([claim([4, 5]), claim([5, 4])]).shape is None
    mixed = Declared.of([claim([4], dtype_numpy="<u2"), claim([4], dtype_numpy="<i2")])
    assert mixed.dtype == np.int32
    mixed = Declared.of([claim([4], dtype_numpy="<u2"), claim([4], dtype_numpy="|S3")])
    assert mixed.dtype == object
    # Counts do not become seconds, nor does it matter how the runs are put together.
    counts, times = Declared((), np.dtype("i8")), Declared((), np.dtype("m8[s]"))
    assert Declared.common([counts, times]).dtype == object


@pytest.mark.parametrize("others", [[(1, 4, 5)], [(4, 1, 5), (4, 5)]])
def test_axes_of_length_one_are_no_disagreement(others):
    shapes = [(4, 5), *others]
    u1, f4 = np.dtype("u1"), np.dtype("f4")
    assert Declared.of([claim(list(shape), dtype_numpy="|u1") for shape in shapes]).shape == (4, 5)
    assert Declared.of_cells([Cell(shape, u1) for shape in shapes]) == Declared((4, 5), u1)
    parts = [Declared(shape, dtype) for shape, dtype in zip(shapes, (u1, f4, u1), strict=False)]
    assert Declared.common(parts) == Declared((4, 5), f4)
    assert Declared.common([*parts, Declared(None, np.dtype(object))]).shape is None


def test_a_chosen_dtype_wins_where_there_is_a_shape():
    assert Declared.of([claim([4])], "uint16").dtype == np.uint16
    assert Declared.of([claim([None])], "uint16").dtype == object


def test_bytes_of_a_cell():
    assert Declared.of([claim([512, 512], dtype_numpy="<u2")]).cell_bytes == 512 * 512 * 2
    assert Declared.of([claim([None])]).cell_bytes == GUESSED_BYTES


def test_missing_cells_make_integers_floats():
    assert Declared((), np.dtype("int64")).nullable().dtype == np.float64
    assert Declared((), np.dtype("uint16")).nullable().dtype == np.float32
    assert Declared((), np.dtype("float32")).nullable().dtype == np.float32
    assert Declared((), np.dtype(bool)).nullable().dtype == object
    assert Declared((), np.dtype("M8[ns]")).nullable().dtype == "M8[ns]"
    assert Declared((), np.dtype("uint16")).nullable().exact == np.uint16


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5), (4, 1, 5), (1, 4, 1, 5, 1)])
def test_axes_of_length_one_do_not_matter(shape):
    block = np.arange(60).reshape(3, *shape)
    assert reshaped(block, (4, 5)).shape == (3, 4, 5)


@pytest.mark.parametrize("shape", [(5, 4), (2, 4, 5), (20,), (4, 5, 2)])
def test_other_shapes_are_refused_naming_both(shape):
    block = np.zeros((3, *shape))
    with pytest.raises(Mismatch, match=r"declares the shape \(4, 5\), the file holds") as caught:
        reshaped(block, (4, 5))
    assert "(4, 5)" in str(caught.value)
    assert str(shape) in str(caught.value)
    with pytest.raises(Mismatch, match=r"declares the shape \(4, 5\), the file holds"):
        fit(lambda roi: take_roi(block, roi), shape, (4, 5))


def indexes(length):
    whole = st.integers(-length, length - 1)
    return st.one_of(
        st.slices(length),
        whole,
        st.lists(whole, max_size=5).map(lambda values: np.array(values, dtype=np.int64)),
    )


@st.composite
def cases(draw):
    """A declared shape, the same with axes of length 1 elsewhere, and a region of it."""
    long = draw(st.lists(st.integers(2, 5), min_size=1, max_size=3))

    def with_ones():
        shape = []
        for n in long:
            shape += [1] * draw(st.integers(0, 1)) + [n]
        return tuple(shape + [1] * draw(st.integers(0, 1)))

    declared, held = with_ones(), with_ones()
    axes = draw(st.integers(0, len(declared)))
    roi = tuple(draw(indexes(n)) for n in declared[:axes])
    return declared, held, roi, draw(st.booleans())


@given(cases())
def test_a_region_is_that_of_the_declared_shape(case):
    declared, held, roi, known = case
    block = np.arange(2 * int(np.prod(held))).reshape(2, *held)

    def read(asked):
        for part in asked:
            if isinstance(part, slice):
                assert (part.step or 1) > 0
            else:
                assert (np.diff(part) > 0).all()
        return take_roi(block, asked)

    found = fit(read, held if known else None, declared, roi)
    expected = take_roi(block.reshape(2, *declared), roi)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([1, 2], "u2"), "i4"),
        (np.array([1, 2], "i8"), "u2"),
        (np.array([1.0, np.nan]), "f4"),
        (np.array([1, 2], ">u2"), "<u2"),
        (np.array([1.0, 2.0]), "i8"),
        (np.array([], "f8"), "u1"),
        (np.array(["a"]), "O"),
        (np.array([1 + 0j, 2]), "u2"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_values_that_survive_take_the_declared_dtype(values, dtype):
    changed = cast(values, np.dtype(dtype))
    assert changed.dtype == np.dtype(dtype)
    assert changed.tolist() == values.tolist() or np.isnan(changed[-1])


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([70_000], "i4"), "u2"),
        (np.array([-1], "i8"), "u8"),
        (np.array([0.5]), "i4"),
        (np.array([1e300]), "f4"),
        (np.array([2**53 + 1], "i8"), "f4"),
        (np.array(["a"]), "f8"),
        (np.array([np.nan]), "i4"),
        (np.array([1 + 2j]), "f8"),
        (np.array(["3000-01-01"], "M8[s]"), "M8[ns]"),
        (np.array([b"\xff"]), "U3"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_values_that_would_change_are_refused_naming_both(values, dtype):
    with pytest.raises(Mismatch, match=r"declares the dtype .*, the file holds") as caught:
        cast(values, np.dtype(dtype))
    assert str(np.dtype(dtype)) in str(caught.value)
    assert str(values.dtype) in str(caught.value)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([1, 2], "u2"), "M8[ns]"),
        (np.array([1, 2], "u2"), "U5"),
        (np.array([1, 2], "u2"), "S3"),
        (np.array([1, 2], "u2"), "V2"),
        (np.array([1, 2], "u2"), [("x", "u2")]),
        (np.array([1, 2], "M8[ns]"), "i8"),
        (np.array(["1", "2"]), "f8"),
        (np.array([2**60 + 1], "i8"), "f8"),
        (np.array([2**60 + 1], "u8"), "f8"),
        (np.array([2**60 + 1], "i8"), "c16"),
    ],
)
def test_numbers_are_not_taken_for_something_else_nor_rounded(values, dtype):
    with pytest.raises(Mismatch, match="declares the dtype") as caught:
        cast(values, np.dtype(dtype))
    for one in (values.dtype, np.dtype(dtype)):
        assert str(one) in str(caught.value)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([2**53, -(2**53)], "i8"), "f8"),
        (np.array([5, 6], "i8"), "M8[ns]"),
        (np.array(["2026-01-01T00:00:00"]), "M8[s]"),
        (np.array(["2026-01-01", "NaT"], "M8[s]"), "M8[ns]"),
        (np.array([b"ab"]), "U2"),
    ],
)
def test_what_a_claim_can_mean_is_converted(values, dtype):
    changed = cast(values, np.dtype(dtype))
    assert changed.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(changed.astype(values.dtype), values)


@pytest.mark.parametrize("name", ["dtype_numpy", "dtype_str"])
def test_claims_are_in_the_byte_order_of_the_machine(name):
    """As cells of files are, so that looking into the file changes nothing."""
    declared = Declared.of([claim([4, 5], **{name: ">u2"})])
    assert declared.dtype == np.uint16
    assert declared.dtype.isnative
