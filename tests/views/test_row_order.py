"""Groups of chunks whose rows are in one order: which chunks, which rows, which numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from daskbroker.core.chunk_statistics import of_events
from daskbroker.core.chunks import CHUNK_RECORD, ChunkPlan
from daskbroker.core.documents import Document
from daskbroker.views.row_order import group_rows


def plan_of(*chunks, runs=("a",)):
    """A plan without a reader; a chunk is the place of its run and its numbers."""
    records = []
    for run, numbers in chunks:
        seq = np.array(numbers)
        records.append((run, 0, 0, *of_events(seq, 100.0 + seq, 1000 * len(seq))))
    descriptors = tuple(Document(uid=f"{uid}-d", run_start=uid) for uid in runs)
    keys = tuple(range(len(chunks)))
    return ChunkPlan(None, descriptors, ({},), np.array(records, CHUNK_RECORD), keys, "store")


def facts(groups):
    return [(g.run, g.indices, g.simple, g.rows, g.stored, g.numbers) for g in groups]


@pytest.mark.parametrize(
    ("numbers", "simple", "rows", "expected"),
    [
        ([1, 2, 3, 4, 5], True, 5, range(1, 6)),
        ([7], True, 1, range(7, 8)),
        ([1, 2, 4], True, 3, None),
        ([2, 1, 3], False, 3, None),
        ([1, 2, 2, 3], False, 3, None),
    ],
)
def test_one_chunk_alone(numbers, simple, rows, expected):
    plan = plan_of((0, numbers))
    last, every = group_rows(plan), group_rows(plan, "all")
    assert facts(last) == [("a", (0,), simple, rows, len(numbers), expected)]
    assert facts(every) == [("a", (0,), simple, len(numbers), len(numbers), expected)]
    (group,) = last
    assert (group.seq_min, group.seq_max) == (min(numbers), max(numbers))
    assert (group.time_min, group.time_max) == (100.0 + min(numbers), 100.0 + max(numbers))
    assert group.bytes == 1000 * len(numbers)


def test_chunks_apart_are_groups_in_the_order_of_their_numbers():
    plan = plan_of((0, [4, 5]), (0, [1, 2, 3]), (0, [9]))
    assert facts(group_rows(plan)) == [
        ("a", (1,), True, 3, 3, range(1, 4)),
        ("a", (0,), True, 2, 2, range(4, 6)),
        ("a", (2,), True, 1, 1, range(9, 10)),
    ]


@pytest.mark.parametrize(
    ("chunks", "groups"),
    [
        ([[1, 2, 3], [3, 4]], [(0, 1)]),
        ([[1, 2, 3], [4, 5], [2]], [(0, 2), (1,)]),
        ([[1, 9], [2, 3], [5], [10]], [(0, 1, 2), (3,)]),
        ([[5, 6], [1, 7], [8]], [(0, 1), (2,)]),
    ],
    ids=str,
)
def test_chunks_that_overlap_are_one_group(chunks, groups):
    plan = plan_of(*((0, numbers) for numbers in chunks))
    found = group_rows(plan)
    assert [group.indices for group in found] == groups
    for group in found:
        stored = sum(len(chunks[index]) for index in group.indices)
        alone = len(group.indices) == 1
        assert (group.simple, group.stored) == (alone, stored)
        assert group.rows == (stored if alone else None)
        assert (group.numbers is not None) is alone
    assert [group.rows for group in group_rows(plan, "all")] == [g.stored for g in found]


def test_runs_are_never_in_one_group():
    plan = plan_of((1, [1, 2]), (0, [1, 2, 3]), (1, [2, 3]), (2, [1]), runs=("a", "b", "a"))
    assert [(g.run, g.indices) for g in group_rows(plan)] == [("a", (1, 3)), ("b", (0, 2))]


def test_a_time_that_is_not_known_makes_that_of_the_group_unknown():
    plan = plan_of((0, [1, 2]), (0, [2, 3]))
    plan.records["time_max"][1] = np.nan
    (group,) = group_rows(plan)
    assert group.time_min == 101.0
    assert math.isnan(group.time_max)


def test_further_bytes_of_a_row_are_counted():
    (group,) = group_rows(plan_of((0, [1, 2, 3])), row_bytes=500)
    assert group.bytes == 3 * 1500
    assert group_rows(plan_of((0, [1])).take([])) == []
