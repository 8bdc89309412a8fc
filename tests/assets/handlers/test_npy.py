"""Files of NumPy's own format."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from ophyd.sim import NumpySeqHandler

from daskbroker.assets.handlers import CellsDiffer, Datums
from daskbroker.assets.handlers.npy import SequenceNPY
from daskbroker.core.errors import FillError, FrameMissing
from daskbroker.testing.files import frames, write_npys

NPY = "multipart/related;type=application/x-npy"


def test_as_ophyd(tmp_path, reader):
    stem = write_npys(tmp_path / "ab12", frames(5))
    theirs = NumpySeqHandler(str(stem))
    expected = np.stack([theirs(index=i) for i in (4, 0, 4)])
    got = reader.resource("NPY_SEQ", stem, [{"index": i} for i in (4, 0, 4)])
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "roi", [(0,), (slice(1, 5, 2), 3), (slice(None), np.array([1, 1, 7])), (slice(0, 0),)]
)
def test_regions(tmp_path, reader, roi):
    stem = write_npys(tmp_path / "f", frames(3))
    expected = frames(3)
    for axis, item in reversed(list(enumerate(roi, 1))):
        expected = expected[(slice(None),) * axis + (item,)]
    got = reader.resource("NPY_SEQ", stem, [{"index": i} for i in range(3)], roi)
    np.testing.assert_array_equal(got, expected)
    got = reader.stream(NPY, stem, (6, 8), range(3), roi)
    np.testing.assert_array_equal(got, expected)


def test_stream_with_template(tmp_path, reader):
    write_npys(tmp_path / "f", frames(4))
    got = reader.stream(NPY, tmp_path, (6, 8), [1, 3], template="f_{}.npy", chunk_shape=[1, 6, 8])
    np.testing.assert_array_equal(got, frames(4)[[1, 3]])
    got = reader.stream(NPY, tmp_path / "f", (2, 6, 8), [1, 0], join_method="concat")
    np.testing.assert_array_equal(got, frames(4).reshape(2, 2, 6, 8)[[1, 0]])


def test_one_file(tmp_path, reader):
    np.save(tmp_path / "f.npy", frames(4))
    got = reader.resource("npy", tmp_path / "f.npy", [{}, {}], (slice(1, 3),))
    np.testing.assert_array_equal(got, np.stack([frames(4)[1:3]] * 2))
    rows = [{"frame_no": 3}, {"frame_no": 0}]
    got = reader.resource("npy_FRAMEWISE", tmp_path / "f.npy", rows, (slice(2),), mmap_mode="r")
    np.testing.assert_array_equal(got, frames(4)[[3, 0], :2])
    with pytest.raises(FrameMissing, match="no frame 4 among 4"):
        reader.resource("npy_FRAMEWISE", tmp_path / "f.npy", [{"frame_no": 4}])


def test_order_in_memory_and_of_bytes(tmp_path, reader):
    np.save(tmp_path / "f_0.npy", np.asfortranarray(frames(1)[0].astype(">f8")))
    for roi in ((), (slice(2, 4),)):
        got = reader.resource("NPY_SEQ", tmp_path / "f", [{"index": 0}], roi)
        np.testing.assert_array_equal(got, frames(1)[(slice(None), *roi)])
        assert got.dtype == np.dtype("=f8")


def test_pickled_objects_are_refused(tmp_path, reader):
    np.save(tmp_path / "f_0.npy", np.array([{}, None], dtype=object), allow_pickle=True)
    for roi in ((), (0,)):
        with pytest.raises(
            FillError,
            match=r"spec 'NPY_SEQ', path '.*/f': file '.*/f_0.npy': the file has pickled objects",
        ):
            reader.resource("NPY_SEQ", tmp_path / "f", [{"index": 0}], roi)


def test_missing_and_truncated(tmp_path, reader):
    stem = write_npys(tmp_path / "f", frames(2))
    with pytest.raises(FillError, match=r"no such file.*f_2\.npy"):
        reader.resource("NPY_SEQ", stem, [{"index": 2}])
    file = tmp_path / "f_1.npy"
    file.write_bytes(file.read_bytes()[:-7])
    for roi in ((), (slice(1, 2),)):
        with pytest.raises(FillError, match=r"declares an array of .*, 96 bytes, and has only 89"):
            reader.resource("NPY_SEQ", stem, [{"index": 1}], roi)


def test_the_error_of_cells_that_differ_reaches_other_processes(tmp_path):
    stem = write_npys(tmp_path / "f", frames(2, (6, 8)))
    np.save(f"{stem}_1.npy", frames(1, (7, 8))[0])
    handler = SequenceNPY(str(stem))
    with pytest.raises(CellsDiffer, match=r"f_1\.npy' holds an array of \(7, 8\)") as caught:
        handler.read(Datums.of([{"index": 0}, {"index": 1}]), (slice(2),))
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is CellsDiffer
    assert str(again) == str(caught.value)
