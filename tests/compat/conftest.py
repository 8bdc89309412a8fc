"""A broker on either store, with runs whose tables, frames and configuration are known."""

from __future__ import annotations

import pytest

import daskbroker
from daskbroker.testing import RunBuilder, make_run
from daskbroker.testing.base import insert_all
from daskbroker.testing.detector_runs import Squares, image_claim


def configured_run():
    """Two descriptors of one stream, between which a device was configured anew; a baseline."""
    run = RunBuilder("configured", 3000.0, scan_id=7, sample="Ag")
    claim = {"source": "x", "dtype": "number", "shape": []}

    def configured(gain, stream="primary"):
        device = {"data": {"gain": gain}, "timestamps": {"gain": 5.0}, "data_keys": {"gain": claim}}
        return run.descriptor(
            {"det": 1.0, "motor": 2.0},
            stream,
            configuration={"eiger": device},
            object_keys={"eiger": ["det"], "stage": ["motor"]},
        )

    first = configured(1)
    run.event(first, {"det": 1.0, "motor": 10.0}, 1)
    run.event(first, {"det": 2.0, "motor": 20.0}, 2)
    second = configured(2)
    run.event(second, {"det": 3.0, "motor": 30.0}, 3)
    run.event(run.descriptor({"temperature": 4.0}, "baseline"), {"temperature": 4.0})
    return run.stop()


def frames_run():
    """Frames that a handler computes, and a number beside each."""
    run = RunBuilder("frames", 2000.0, scan_id=6)
    descriptor = run.descriptor({"img": image_claim(dtype_numpy="<f8"), "x": 0.5})
    resource = run.resource("SQUARES", root="/", resource_path="", resource_kwargs={"scale": 2.0})
    for place in range(4):
        run.event(
            descriptor, {"img": run.datum(resource, n=place), "x": 0.5}, filled={"img": False}
        )
    return run.stop()


@pytest.fixture(params=["embedded", "mongodb"])
def db(request, tmp_path):
    """Three runs, the newest ``configured``; ``frames`` has data of a handler."""
    place = tmp_path / "store"
    if request.param == "mongodb":
        place = request.getfixturevalue("mongo_database")
    with daskbroker.connect(place) as broker:
        broker.register_handler("SQUARES", Squares)
        insert_all(
            broker, make_run(3, uid="plain-run", time=1000.0, plan_name="count", exit_status=5)
        )
        insert_all(broker, frames_run())
        insert_all(broker, configured_run())
        yield broker
