"""Plans put together of chunks in hand, or of what a manifest has kept of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from daskbroker.core.chunks import ChunkReader, to_ipc
from daskbroker.core.documents import Document
from daskbroker.core.errors import StoreVersion
from daskbroker.core.layouts import EVENT, chunk_metadata, encode_rows
from daskbroker.core.plan_builder import PlanBuilder, describe_chunk


class NoReader(ChunkReader):
    def read_stored(self, key, columns):
        raise AssertionError("the keys of these plans are bytes")


DESCRIPTOR = Document({"uid": "d", "run_start": "r", "name": "primary", "data_keys": {"x": {}}})


def chunk(first, x):
    rows = [
        {"descriptor": "d", "uid": f"e{n}", "seq_num": n, "time": float(n), "data": {"x": value},
         "timestamps": {"x": 0.0}}
        for n, value in enumerate(x, first)
    ]  # fmt: skip
    return encode_rows(EVENT, rows, chunk_metadata(EVENT, DESCRIPTOR))


CHUNKS = [chunk(0, [1, 2, 3]), chunk(3, [4, 5]), chunk(5, [0.5, None]), chunk(7, [6])]


def builder():
    return PlanBuilder(NoReader(), EVENT, "store", [DESCRIPTOR])


@pytest.mark.parametrize("keep", [lambda d: d, lambda d: json.loads(json.dumps(d))])
def test_what_was_described_is_planned_as_what_is_in_hand(keep):
    described, in_hand = builder(), builder()
    first = 0
    for table in CHUNKS:
        described.add_described(0, to_ipc(table), first, keep(describe_chunk(EVENT, table)))
        in_hand.add_table(0, first, table)
        first += table.num_rows
    plan, other = described.plan(), in_hand.plan()
    assert plan.token == other.token
    assert plan.rows == first
    assert [dict(one.kinds) for one in plan] == [dict(one.kinds) for one in other]
    assert all(a.equals(b) for a, b in zip(plan.read_all(), CHUNKS, strict=True))


def test_equal_columns_are_described_once():
    plan_of = builder()
    for number in range(50):
        plan_of.add_described(0, b"", number, describe_chunk(EVENT, CHUNKS[number % 2]))
    plan = plan_of.plan()
    assert len(plan.schemas) == 1
    assert np.all(plan.records["schema"] == 0)


def test_a_kind_of_column_that_is_not_known_is_refused():
    description = describe_chunk(EVENT, CHUNKS[0])
    description["columns"]["data:x"] = ["quaternion", False, "", []]
    with pytest.raises(StoreVersion, match="data:x"):
        builder().add_described(0, b"", 0, description)
