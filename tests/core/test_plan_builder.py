"""Putting plans together; rows that only stream_datum documents tell of."""

from __future__ import annotations

import numpy as np
import pytest

from daskbroker.core.bad_runs import BadRun
from daskbroker.core.chunk_statistics import Statistics
from daskbroker.core.column_kinds import ColumnKind
from daskbroker.core.documents import Document
from daskbroker.core.errors import StoreDamaged
from daskbroker.core.layouts import EVENT, encode_rows
from daskbroker.core.plan_builder import MOST_ROWS, PlanBuilder, with_frames
from daskbroker.core.run_plan import RunPlan
from daskbroker.views.table.from_documents import MemoryReader


def descriptor(uid, run="run", external="STREAM:"):
    spec = {"source": "s", "dtype": "array", "shape": [1], "external": external}
    return Document({"uid": uid, "run_start": run, "time": 1.0, "data_keys": {"img": spec}})


def event(number):
    data = {"x": float(number)}
    head = {"uid": f"e{number}", "seq_num": number, "time": 10.0 + number}
    return {**head, "data": data, "timestamps": data, "filled": {}}


def builder(*descriptors):
    return PlanBuilder(MemoryReader(), EVENT, "store", descriptors)


def test_chunks_come_in_the_order_of_the_descriptors():
    made = builder(descriptor("a"), descriptor("b"))
    schema = made.add_schema({"time": ColumnKind("float")})
    for place, key in ((1, "second"), (0, "first"), (1, "third")):
        made.add_chunk(place, key, 0, schema, Statistics(rows=3, bytes=10))
    plan = made.plan()
    assert plan.keys == ("first", "second", "third")
    assert [chunk.descriptor["uid"] for chunk in plan] == ["a", "b", "b"]
    assert plan.rows == 9


def test_rows_in_hand_travel_with_the_plan():
    made = builder(descriptor("a"))
    made.add_table(0, 7, encode_rows(EVENT, [event(8), event(9)], {}))
    (chunk,) = made.plan()
    assert isinstance(chunk.key, bytes)
    assert (chunk.first, chunk.rows, chunk.seq_min, chunk.seq_max) == (7, 2, 8, 9)
    assert (chunk.time_min, chunk.time_max) == (18.0, 19.0)
    assert chunk.kinds["data:x"] == ColumnKind("float")
    assert made.plan().read(0, ["data:x"]).column(0).to_pylist() == [8.0, 9.0]


@pytest.mark.parametrize(
    ("spans", "merged"),
    [
        ([], []),
        ([range(1, 3)], [range(1, 3)]),
        ([range(3, 5), range(1, 3)], [range(1, 5)]),
        ([range(1, 9), range(2, 4), range(12, 13)], [range(1, 9), range(12, 13)]),
    ],
    ids=repr,
)
def test_frames_make_rows_where_there_are_no_events(spans, merged):
    plan = with_frames(
        builder(descriptor("a")).plan(),
        lambda runs: [("a", str(n), s) for n, s in enumerate(spans)],
    )
    assert list(plan.keys) == merged
    assert plan.rows == sum(map(len, merged))
    for chunk, numbers in zip(plan, merged, strict=True):
        assert (chunk.seq_min, chunk.seq_max) == (numbers.start, numbers.stop - 1)
        assert np.isnan(chunk.time_min)
    for place, numbers in enumerate(merged):
        table = plan.read(place)
        assert table.column("seq_num").to_pylist() == list(numbers)
        assert np.isnan(table.column("time").to_numpy()).all()


def test_frames_of_one_key_that_are_claimed_again_make_further_rows():
    spans = [("img", range(1, 5)), ("other", range(1, 5)), ("img", range(3, 7))]
    plan = with_frames(builder(descriptor("a")).plan(), lambda runs: [("a", *s) for s in spans])
    assert list(plan.keys) == [range(3, 5), range(1, 7)]


def test_statistics_of_frames_are_those_of_the_table_that_is_read():
    plan = with_frames(builder(descriptor("a")).plan(), lambda runs: [("a", "img", range(5, 9))])
    made = builder(descriptor("a"))
    made.add_table(0, 5, plan.read(0))
    assert plan.records.tobytes() == made.plan().records.tobytes()
    assert plan.schemas == made.plan().schemas


def test_very_many_frames_are_cut():
    plan = with_frames(
        builder(descriptor("a")).plan(), lambda runs: [("a", "img", range(1, 2**32))]
    )
    assert len(plan) == 2**32 // MOST_ROWS
    assert plan.rows == 2**32 - 1
    assert plan.keys[-1].stop == 2**32


def test_only_descriptors_without_events_that_have_streams_are_asked_for():
    made = builder(
        descriptor("events"),
        descriptor("frames", "other"),
        descriptor("file", "third", "FILESTORE:"),
    )
    made.add_table(0, 0, encode_rows(EVENT, [event(1)], {}))
    asked = []

    def spans_of(runs):
        asked.extend(runs)
        spans = {"events": range(1, 9), "frames": range(1, 3), "elsewhere": range(1, 9)}
        return [(uid, "img", span) for uid, span in spans.items()]

    plan = with_frames(made.plan(), spans_of)
    assert asked == ["other"]
    assert [(chunk.descriptor["uid"], chunk.rows) for chunk in plan] == [
        ("events", 1),
        ("frames", 2),
    ]


def test_the_part_of_a_run_knows_that_the_run_is_bad():
    made = builder(descriptor("a"), descriptor("b", run="other"), descriptor("c", run="third"))
    made.note_bad(1, "a chunk is damaged")
    parts = made.plan().by_run()
    assert [list(parts[run].bad) for run in ("run", "other", "third")] == [[], ["other"], []]
    unlisted = {"third": BadRun("third", "a descriptor is damaged")}
    plans = RunPlan(("run", "other", "third"), made.plan(), {}, (), unlisted).by_run()
    assert plans["run"].checked() is plans["run"]
    for run in ("other", "third"):
        with pytest.raises(StoreDamaged, match=f"run '{run}'.*damaged"):
            plans[run].checked()
