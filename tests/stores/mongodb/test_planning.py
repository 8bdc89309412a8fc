"""Which journals travel with a plan, and which are read in ranges."""

from __future__ import annotations

import pytest

from daskbroker.stores.mongodb import planning
from daskbroker.testing.base import insert_all
from daskbroker.testing.runs import RunBuilder


def claim(shape, **more):
    return {"source": "x", "dtype": "array", "shape": shape, **more}


@pytest.mark.parametrize(
    ("data_keys", "expected"),
    [
        ({}, 200),
        ({"x": claim([])}, 252),
        ({"x": claim(None)}, 252),
        ({"x": {"source": "x", "dtype": "number"}}, 252),
        ({"x": claim([10])}, 360),
        ({"x": claim([10, 3])}, 600),
        ({"x": claim([0, -1, None, "n", 10])}, 360),
        ({"x": claim([10]), "y": claim([])}, 412),
        ({"img": claim([1000, 1000], external="FILESTORE:")}, 252),
    ],
    ids=str,
)
def test_the_bytes_of_an_event_are_estimated_by_the_shapes(data_keys, expected):
    assert planning._row_bytes({"data_keys": data_keys}) == expected


@pytest.mark.parametrize(
    ("external", "kind"),
    [({}, tuple), ({"external": "FILESTORE:"}, bytes)],
    ids=["inside", "in files"],
)
def test_few_events_with_large_arrays_are_read_in_ranges(mongo, monkeypatch, external, kind):
    run = RunBuilder(uid="the-run")
    descriptor = run.descriptor({"img": claim([100, 100], **external)})
    resource = run.resource()
    for number in range(12):
        datum = run.datum(resource, point=number)
        run.event(descriptor, {"img": datum if external else [[1.0] * 100] * 100})
    monkeypatch.setattr(planning, "INLINE_BYTES", 12 * 12 * 100 * 100 // 2)
    insert_all(mongo, run.documents)
    source = mongo.event_sources["mongo"].store
    plan = source.plan_events(source.list_descriptors(["the-run"]))
    assert plan.rows == 12
    assert {type(key) for key in plan.keys} == {kind}
