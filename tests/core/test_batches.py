"""Lists of a bounded size."""

from __future__ import annotations

import itertools

import pytest

from daskbroker.core.batches import batched


@pytest.mark.parametrize(
    ("count", "lists"),
    [(0, []), (2, [[0, 1]]), (3, [[0, 1, 2]]), (4, [[0, 1, 2], [3]]), (6, [[0, 1, 2], [3, 4, 5]])],
)
def test_all_items_come_once_in_order(count, lists):
    assert list(batched(range(count), 3)) == lists


def test_no_more_is_taken_than_a_list_needs():
    coming = itertools.count()
    assert next(batched(coming, 3)) == [0, 1, 2]
    assert next(coming) == 3
