"""How many frames there are for all events of a resource."""

from __future__ import annotations

import numpy as np
import pytest

from daskbroker.assets.files.readable import ANYWHERE, ReadableRoots
from daskbroker.assets.handlers.contract import Datums, FramesThere
from daskbroker.assets.handlers.hdf5.detectors import (
    AreaDetectorTimes,
    FlyScan,
    SingleHDF5,
    Timepix,
    Xspress3,
)
from daskbroker.assets.handlers.hdf5.frames import FrameHDF5
from daskbroker.assets.handlers.name_templates import count_files
from daskbroker.assets.handlers.npy import FrameNPY, SequenceNPY
from daskbroker.testing.files import frames, write_hdf5, write_npys


@pytest.mark.parametrize("there", [1, 2, 3, 4, 5, 17, 64, 65])
@pytest.mark.parametrize("last", [0, 1, 2, 10])
def test_files_of_a_sequence(tmp_path, there, last):
    for number in range(there):
        (tmp_path / f"{number}.x").touch()
    found = count_files(lambda number: str(tmp_path / f"{number}.x"), last, ANYWHERE)
    assert found == max(there, last + 1)


def test_a_name_without_a_number_is_one_file(tmp_path):
    (tmp_path / "a").touch()
    assert count_files(lambda number: str(tmp_path / "a"), 3, ANYWHERE) == 4


def test_files_outside_the_readable_roots_are_not_asked_for(tmp_path):
    (tmp_path / "1").touch()
    roots = ReadableRoots.of([tmp_path / "in"])
    assert count_files(lambda number: str(tmp_path / str(number)), 0, roots) == 1


def test_detectors(tmp_path):
    data = frames(6)
    detector = "entry/instrument/detector"
    timepix = Timepix(str(write_hdf5(tmp_path / "t.h5", data, f"{detector}/data")), 2)
    expected = FramesThere(6, "point_number", 2, option="frame_per_point")
    assert timepix.frames_there(Datums.of([{"point_number": 1}])) == expected
    assert expected.up_to(1) == 4
    spectra = Xspress3(str(write_hdf5(tmp_path / "x.h5", data, f"{detector}/data")))
    datums = Datums.of([{"frame": 1, "channel": 2}])
    assert spectra.frames_there(datums) == FramesThere(6, "frame")
    stream = FrameHDF5(str(write_hdf5(tmp_path / "f.h5", data)), swmr=False)
    assert stream.frames_there(Datums.of([{"frame": 1}])) == FramesThere(
        6, "frame", 1, option="frame_per_point"
    )


def test_files_that_are_numbered(tmp_path):
    for number, frame in enumerate(frames(5)):
        write_hdf5(tmp_path / f"s_{number:03d}.h5", frame)
    single = SingleHDF5(str(tmp_path), "%s%s_%3.3d.h5", "s", frame_per_point=2)
    datums = Datums.of([{"point_number": 0}, {"point_number": 1}])
    assert single.frames_there(datums).frames == 5
    sequence = SequenceNPY(str(write_npys(tmp_path / "n", frames(5))))
    assert sequence.frames_there(Datums.of([{"index": 2}])) == FramesThere(5, "index")


def test_one_npy_file(tmp_path):
    np.save(tmp_path / "a.npy", frames(5))
    handler = FrameNPY(str(tmp_path / "a.npy"))
    assert handler.frames_there(Datums.of([{"frame_no": 2}])) == FramesThere(5, "frame_no")


@pytest.mark.parametrize("handler", [AreaDetectorTimes, FlyScan])
def test_where_frames_are_not_shared_by_place_nobody_counts(tmp_path, handler):
    assert handler(str(tmp_path / "none.h5")).frames_there(Datums({}, 0)) is None
