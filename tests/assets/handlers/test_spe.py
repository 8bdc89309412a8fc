"""SPE files, written by their structure, beside area-detector-handlers where it reads them."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from area_detector_handlers.handlers import AreaDetectorSPEHandler

from daskbroker.assets.handlers import Datums
from daskbroker.assets.handlers.spe import AreaDetectorSPE
from daskbroker.core.errors import FillError, FrameMissing

TYPES = {"f4": 0, "i4": 1, "i2": 2, "u2": 3, "f8": 5, "u1": 6, "u4": 8}
DATA = np.random.default_rng(0).integers(0, 100, (3, 2, 5, 7))
KWARGS = {"template": "%s%s_%3.3d.spe", "filename": "ccd"}
POINTS = [{"point_number": n} for n in (2, 0)]
ROIS = [(), (slice(None), 2), (0, slice(None, None, -2), np.array([6, 0]))]


def spe(frames, version=2, *, dtype=None, more=b""):
    """Bytes of a file; version 3 has a description after the frames."""
    head = bytearray(4100)
    head[20:29], head[172:178] = b"01Jan2020", b"120000"
    for kind, offset, value in (
        ("H", 42, frames.shape[2]), ("H", 656, frames.shape[1]), ("i", 1446, len(frames)),
        ("h", 108, TYPES[dtype or frames.dtype.str[1:]]), ("f", 1992, version), ("h", 4098, 0x5555),
    ):  # fmt: skip
        struct.pack_into(f"<{kind}", head, offset, value)
    data = frames.tobytes() + more
    if version < 3:
        return bytes(head) + data
    struct.pack_into("<Q", head, 678, len(head) + len(data))
    return bytes(head) + data + b"<SpeFormat version='3.0'/>"


def write(folder, data, version=2):
    for number, frames in enumerate(data):
        (folder / f"ccd_{number:03d}.spe").write_bytes(spe(frames, version))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("dtype", TYPES)
def test_frames(tmp_path, reader, version, dtype):
    data = DATA.astype(f"<{dtype}")
    write(tmp_path, data, version)
    reader.roots = tmp_path
    for roi in ROIS:
        got = reader.resource("AD_SPE", tmp_path, POINTS, roi, frame_per_point=2, **KWARGS)
        expected = data[[2, 0]]
        for axis, item in reversed(list(enumerate(roi, 1))):
            expected = expected[(slice(None),) * axis + (item,)]
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == dtype
    datums = Datums.of(POINTS)
    handler = AreaDetectorSPE(str(tmp_path), frame_per_point=2, **KWARGS)
    assert (handler.cell_shape(datums), handler.cell_dtype(datums)) == ((2, 5, 7), dtype)
    assert handler.frames_there(datums).frames == 3
    (rows, *_) = handler.frames_of(datums).stored
    assert (tmp_path / "ccd_000.spe").read_bytes()[rows.offset :][: rows.row_bytes] == (
        data[0].tobytes()
    )


@pytest.mark.parametrize("shape", [(1, 5, 7), (1, 1, 7), (2, 5, 7), (2, 5, 1)])
def test_as_area_detector_handlers(tmp_path, reader, shape):
    """Cells have no axes of length 1."""
    data = np.arange(2 * np.prod(shape), dtype="<u2").reshape(2, *shape)
    write(tmp_path, data)
    theirs = AreaDetectorSPEHandler(str(tmp_path), frame_per_point=shape[0], **KWARGS)
    got = reader.resource(
        "AD_SPE", tmp_path, [{"point_number": 1}], frame_per_point=shape[0], **KWARGS
    )
    np.testing.assert_array_equal(got[0], theirs(point_number=1))


def test_other_numbers_of_frames(tmp_path, reader):
    write(tmp_path, DATA.astype("<u2"))
    with pytest.raises(FillError, match="holds 2 frames, where frame_per_point is 1") as caught:
        reader.resource("AD_SPE", tmp_path, POINTS, **KWARGS)
    assert not isinstance(caught.value, FrameMissing)
    with pytest.raises(FrameMissing, match="holds 2 frames, where frame_per_point is 3"):
        reader.resource("AD_SPE", tmp_path, POINTS, frame_per_point=3, **KWARGS)
    with pytest.raises(FrameMissing, match=r"ccd_003\.spe"):
        reader.resource("AD_SPE", tmp_path, [{"point_number": 3}], frame_per_point=2, **KWARGS)


def test_what_is_not_read(tmp_path, reader):
    frames = DATA[0].astype("<u2")
    cases = {
        "not an SPE file": [b"", b"none"],
        "and the file has only 139": [spe(frames)[:-1], spe(frames, 3)[: 4100 + 139]],
        "metadata of frames": [spe(frames, more=bytes(2)), spe(frames, 3, more=bytes(16))],
        "with the type 0": [spe(frames[:, :, :0], dtype="f4")],
    }
    for message, contents in cases.items():
        for content in contents:
            (tmp_path / "ccd_000.spe").write_bytes(content)
            with pytest.raises(FillError, match=rf"spec 'AD_SPE'.*file '.*_000.spe': .*{message}"):
                reader.resource(
                    "AD_SPE", tmp_path, [{"point_number": 0}], frame_per_point=2, **KWARGS
                )
