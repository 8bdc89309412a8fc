"""A real RunEngine with devices that write files: what they made comes back filled."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import h5py
import numpy as np
import pytest
from bluesky import RunEngine
from ophyd.sim import SynSignalWithRegistry, motor
from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider, init_devices
from ophyd_async.sim import SimBlobDetector

from daskbroker.testing import assert_references_first


@pytest.fixture
def engine(db):
    loop = asyncio.new_event_loop()
    engine = RunEngine({}, loop=loop, context_managers=[])
    engine.subscribe(db.insert)
    yield engine
    loop.call_soon_threadsafe(loop.stop)
    engine._th.join()
    loop.close()


@pytest.fixture
def camera(tmp_path):
    """A simulated camera of ophyd that writes an npy file a frame: 0, 1, 2, …"""
    counter = itertools.count()
    path = tmp_path / "frames"
    path.mkdir()
    return SynSignalWithRegistry(
        func=lambda: np.full((5, 7), float(next(counter))), name="img", save_path=str(path)
    )


def check_views(header, key, expected):
    shown = np.stack(header.table().compute()[key].tolist())
    np.testing.assert_array_equal(shown, expected)
    np.testing.assert_array_equal(header.dataset()[key].values, expected)
    np.testing.assert_array_equal(header.dataset(chunks=None)[key].values, expected)
    documents = list(header.documents())
    assert_references_first(documents)
    events = [doc for name, doc in documents if name == "event"]
    np.testing.assert_array_equal(np.stack([e["data"][key] for e in events]), expected)


def test_a_camera_of_ophyd_that_writes_npy_files(db, engine, camera, tmp_path):
    engine(bp.scan([camera], motor, -1, 1, 4))
    made = sorted((tmp_path / "frames").glob("*.npy"))
    assert len(made) == 4
    expected = np.stack([np.load(path) for path in made])
    assert len(np.unique(expected)) == 4
    check_views(db[-1], "img", expected)
    assert set(db[-1].dataset().coords) == {"motor", "seq_num", "time"}


def test_events_filled_while_the_run_is_going_on(db, engine, camera):
    """``db`` has each document before later callbacks get it."""
    seen = []

    def fill(name, doc):
        if name == "event":
            source = db.event_sources[0]
            seen.append(source.fill_event(doc)["data"]["img"])
            assert len(db[-1].table().compute()) == len(seen)

    engine.subscribe(fill)
    engine(bp.count([camera], 3))
    assert [cell.shape for cell in seen] == [(5, 7)] * 3
    assert len({float(cell[0, 0]) for cell in seen}) == 3


@pytest.fixture
def blobs(engine, tmp_path):
    """A simulated detector of ophyd-async, which writes HDF5 while it is read."""
    folder = tmp_path / "blobs"
    folder.mkdir()
    with init_devices():
        detector = SimBlobDetector(StaticPathProvider(UUIDFilenameProvider(), folder), name="det")
    return detector


def datasets(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    (path,) = folder.glob("*.h5")
    with h5py.File(path) as file:
        return file["/entry/data/data"][:], file["/entry/sum"][:]


def test_a_detector_of_ophyd_async_that_writes_hdf5(db, engine, blobs, tmp_path):
    rows = []

    def look(name, doc):
        if name == "event":
            table = db[-1].table().compute()
            rows.append(int(table["det"].iloc[-1].sum()))
            assert rows[-1] == table["det-sum"].iloc[-1].item()

    engine.subscribe(look)
    engine(bp.count([blobs], 3))
    images, sums = datasets(tmp_path / "blobs")
    assert rows == sums.tolist()
    header = db[-1]
    check_views(header, "det", images[:, None])
    check_views(header, "det-sum", sums[:, None])
    assert header.dataset()["det"].dtype == np.uint8
    corner = header.dataset(chunks=None)["det"][:, 0, 100:103, 7].values
    np.testing.assert_array_equal(corner, images[:, 100:103, 7])


def test_one_file_for_two_streams(db, engine, blobs, tmp_path):
    """The stream that comes second begins in the middle of the file."""

    def plan():
        yield from bps.stage(blobs)
        yield from bps.open_run()
        for _ in range(2):
            yield from bps.trigger_and_read([blobs])
        yield from bps.trigger_and_read([blobs], name="dark")
        yield from bps.close_run()
        yield from bps.unstage(blobs)

    engine(plan())
    images, _ = datasets(tmp_path / "blobs")
    header = db[-1]
    cells = np.stack(header.table().compute()["det"].tolist())
    np.testing.assert_array_equal(cells, images[:2, None])
    dark = np.stack(header.table("dark").compute()["det"].tolist())
    np.testing.assert_array_equal(dark, images[2:, None])
