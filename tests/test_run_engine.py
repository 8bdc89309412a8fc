"""Documents of a real RunEngine come back as they were emitted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from ophyd.sim import det, det4, motor, motor1, motor2
from ophyd_async.core import (
    Array1D,
    StandardReadable,
    StandardReadableFormat,
    StrictEnum,
    Table,
    init_devices,
    soft_signal_rw,
)

from daskbroker.testing import assert_documents_equal, assert_references_first


@pytest.fixture
def engine(db):
    loop = asyncio.new_event_loop()
    engine = RunEngine({}, loop=loop, context_managers=[])
    engine.received = []
    engine.subscribe(lambda name, doc: engine.received.append((name, doc)))
    engine.subscribe(db.insert)
    yield engine
    loop.call_soon_threadsafe(loop.stop)
    engine._th.join()
    loop.close()


def check(db, engine):
    header = db[-1]
    received = list(header.documents())
    assert_references_first(received)
    assert_documents_equal(engine.received, received)
    return header


@pytest.mark.parametrize(
    ("plan", "rows"),
    [
        (lambda: bp.count([det], 5), 5),
        (lambda: bp.scan([det], motor, -1, 1, 7), 7),
        (lambda: bp.grid_scan([det4], motor1, 0, 1, 3, motor2, 0, 1, 4), 12),
    ],
    ids=["count", "scan", "grid_scan"],
)
def test_plans(db, engine, plan, rows):
    engine(plan())
    header = check(db, engine)
    table = header.table().compute()
    assert table.index.tolist() == list(range(1, rows + 1))
    assert header.dataset().sizes["time"] == rows


def test_scanned_motors_are_coordinates(db, engine):
    engine(bp.grid_scan([det4], motor1, 0, 1, 3, motor2, 0, 1, 4))
    assert {"motor1", "motor2", "seq_num", "time"} == set(check(db, engine).dataset().coords)


def test_baseline_and_monitor_streams(db, engine):
    plan = bpp.baseline_wrapper(bp.scan([det], motor, -1, 1, 5), [motor1, motor2])
    engine(bpp.monitor_during_wrapper(plan, [motor.readback]))
    header = check(db, engine)
    assert set(header.streams) == {"baseline", "primary", "motor_monitor"}
    assert len(header.table("baseline")) == 2
    assert len(header.table("motor_monitor")) >= 5
    assert set(header.tree().children) == set(header.streams)


def test_rewound_scan_keeps_every_event(db, engine):
    paused = []

    def plan():
        yield from bps.open_run()
        yield from bps.checkpoint()
        for step in range(5):
            yield from bps.mv(motor, step)
            yield from bps.create("primary")
            yield from bps.read(det)
            yield from bps.read(motor)
            yield from bps.save()
            if step == 3 and not paused:
                paused.append(step)
                yield from bps.pause()
        yield from bps.close_run()

    with pytest.raises(RunEngineInterrupted, match="is entering a paused state"):
        engine(plan())
    engine.resume()
    header = check(db, engine)
    table = header.table().compute()
    assert table["motor"].tolist() == [0, 1, 2, 3, 4]
    events = [doc for name, doc in header.documents() if name == "event"]
    assert len(header.table(duplicates="all")) == len(events) > 5


def test_aborted_plan(db, engine):
    def plan():
        yield from bps.open_run()
        yield from bps.trigger_and_read([det])
        yield from bps.pause()

    with pytest.raises(RunEngineInterrupted, match="is entering a paused state"):
        engine(plan())
    engine.abort("enough")
    header = check(db, engine)
    assert header.stop["exit_status"] == "abort"
    assert len(header.table()) == 1


def test_failed_plan(db, engine):
    def plan():
        yield from bps.open_run()
        yield from bps.trigger_and_read([det])
        raise RuntimeError("the shutter is stuck")

    with pytest.raises(RuntimeError, match="stuck"):
        engine(plan())
    header = check(db, engine)
    assert header.stop["exit_status"] == "fail"
    assert header.stop["reason"] == "the shutter is stuck"


class Reading(StrictEnum):
    LOW = "low"
    HIGH = "high"


class Peaks(Table):
    """Rows of a peak finder, as a detector's software gives them."""

    position: Array1D[np.float32]
    count: Array1D[np.int16]
    label: Sequence[str]
    reading: Sequence[Reading]


PEAKS = Peaks(
    position=[0.5, 1.5], count=[1, -2], label=["a", "ß" * 50], reading=["low", Reading.HIGH]
)
ROWS = [[0.5, 1, "a", "low"], [1.5, -2, "ß" * 50, "high"]]


class PeakFinder(StandardReadable):
    """A device of ophyd-async with a Table as reading, and one as configuration."""

    def __init__(self, name=""):
        with self.add_children_as_readables():
            self.peaks = soft_signal_rw(Peaks, PEAKS)
        with self.add_children_as_readables(StandardReadableFormat.CONFIG_SIGNAL):
            self.reference = soft_signal_rw(Peaks, PEAKS)
        super().__init__(name)


def test_tables_of_ophyd_async(db, engine):
    with init_devices():
        finder = PeakFinder(name="finder")
    engine(bp.count([finder], 3))
    header = db[-1]
    events = [doc for name, doc in header.documents() if name == "event"]
    assert [event["data"]["finder-peaks"] for event in events] == [ROWS] * 3
    (descriptor,) = header.descriptors["primary"]
    assert descriptor["configuration"]["finder"]["data"]["finder-reference"] == ROWS
    cells = header.table().compute()["finder-peaks"].tolist()
    assert [cell.tolist() for cell in cells] == [list(map(tuple, ROWS))] * 3
    assert [cells[0].dtype[name].kind for name in cells[0].dtype.names] == ["f", "i", "U", "U"]
    dataset = header.dataset()
    assert dataset["finder-peaks.position"].dtype == np.float32
    assert dataset["finder-peaks.count"].dtype == np.int16
    assert dataset["finder-peaks.count"].values.tolist() == [[1, -2]] * 3
    assert dataset["finder-peaks.label"].values.tolist() == [["a", "ß" * 50]] * 3
