"""The algebra of regions: each operation is compared with NumPy's indexing, an axis at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskbroker.assets.regions import (
    as_axis,
    as_index,
    axes_of,
    increasing,
    put_region,
    shape_of,
    take_region,
    take_roi,
    within,
)
from daskbroker.core.errors import FillError

SIDE = 4
CELLS = np.arange(2 * SIDE**3).reshape(2, SIDE, SIDE, SIDE)

places = st.integers(-SIDE, SIDE - 1)
items = st.one_of(
    st.slices(SIDE), places, st.lists(places, max_size=5).map(lambda x: np.array(x, np.int64))
)
rois = st.lists(items, max_size=3).map(tuple)


def indexed(block, roi):
    """Index with NumPy, one axis at a time, from the last to the first."""
    for axis in reversed(range(len(roi))):
        block = block[(slice(None),) * (axis + 1) + (roi[axis],)]
    return block


@given(rois)
def test_a_region_is_what_numpy_selects_along_each_axis(roi):
    expected = indexed(CELLS, roi)
    region = axes_of(roi, CELLS.shape[1:])
    assert shape_of(region) == expected.shape[1:]
    np.testing.assert_array_equal(take_roi(CELLS, roi), expected)
    np.testing.assert_array_equal(take_region(CELLS[1], region), expected[1])
    again = tuple(as_index(axis) for axis in region)
    np.testing.assert_array_equal(take_roi(CELLS, again), expected)


@given(rois, st.data())
def test_a_region_of_a_region_is_a_region(roi, data):
    region = axes_of(roi, CELLS.shape[1:])
    shown = take_roi(CELLS, roi)
    inner = tuple(data.draw(st.slices(length)) for length in shown.shape[1:])
    np.testing.assert_array_equal(take_roi(CELLS, within(region, inner)), indexed(shown, inner))


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([3], (3, 4, 1)),
        ([0, 1, 2], (0, 3, 1)),
        ([1, 4, 7], (1, 10, 3)),
        ([5, 3, 1], (5, -1, -2)),
        ([2, 2, 2], None),
        ([0, 1, 3], None),
        ([], None),
    ],
)
def test_evenly_spaced_places_are_a_range(places, expected):
    found = as_axis(np.array(places, np.int64))
    if expected is None:
        assert isinstance(found, np.ndarray)
        assert found.tolist() == places
    else:
        assert (found.start, found.stop, found.step) == expected
        assert list(found) == places


@given(items)
def test_places_are_read_in_order_and_once_and_put_back(item):
    (axis,) = axes_of((item,), (SIDE,))
    once, back = increasing(axis)
    assert np.all(np.diff(np.asarray(once)) > 0)
    values = np.arange(10, 10 + SIDE)
    np.testing.assert_array_equal(take_region(take_region(values, [once]), [back]), values[item])


@given(st.lists(st.integers(0, SIDE - 1), unique=True), st.lists(st.integers(0, 1), unique=True))
def test_values_are_put_where_places_say(rows, columns):
    chosen = [np.array(rows, np.int64), np.array(columns, np.int64)]
    out = np.zeros((SIDE, SIDE), int)
    values = 1 + np.arange(len(rows) * len(columns)).reshape(len(rows), len(columns))
    put_region(out, chosen, values)
    np.testing.assert_array_equal(out[np.ix_(*chosen)], values)
    assert np.count_nonzero(out) == values.size
    assert [*as_axis(chosen[0])] == rows


@pytest.mark.parametrize(
    ("roi", "said"),
    [
        ((0, 0, 0), r"has more dimensions than the cell, \(4, 3\)"),
        ((4,), "place 4 is outside"),
        ((np.array([0, -5]),), "place -5 is outside"),
        ((np.array([0.5]),), "float64 cannot select"),
        ((None,), "None is not a valid index"),
    ],
)
def test_what_is_not_a_region_is_an_error(roi, said):
    with pytest.raises(FillError, match=said):
        axes_of(roi, (4, 3))
