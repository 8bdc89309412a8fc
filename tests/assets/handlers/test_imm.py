"""IMM files, written by their structure, beside a decoder of the tests' own."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from area_detector_handlers.handlers import IMMHandler

from daskbroker.assets.handlers import Datums
from daskbroker.assets.handlers.imm import IMM
from daskbroker.assets.handlers.stored_frames import NoReference
from daskbroker.core.errors import FillError, FrameMissing

FRAMES = np.random.default_rng(0).integers(0, 4, (6, 5, 7)) * 30_000 // 2
DARK = np.zeros((4, 5, 7), np.int64)
ROIS = [(), (slice(None), 2), (0, slice(None, None, -2), np.array([6, 0]))]


def header(frame, count, compression=0, width=2):
    data = bytearray(1024)
    struct.pack_into("<i", data, 4, compression)
    struct.pack_into("<3i", data, 108, *frame.shape, width)
    struct.pack_into("<I", data, 152, count)
    return bytes(data)


def stored(frame, kind):
    if kind == "sparse":
        (where,) = np.nonzero(frame.ravel())
        values = frame.ravel()[where].astype("<u2").tobytes()
        return header(frame, len(where), 6) + where.astype("<u4").tobytes() + values
    width = {"u2": 2, "u4": 4}[kind]
    return header(frame, frame.size, width=width) + frame.astype(f"<u{width}").tobytes()


def write(path, frames, kind):
    path.write_bytes(b"".join(stored(frame, kind) for frame in frames))
    return path


@pytest.mark.parametrize("frames", [FRAMES, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("kind", "dtype"), [("sparse", "u4"), ("u2", "u2"), ("u4", "u4")])
def test_frames(tmp_path, reader, frames, kind, dtype):
    path, datums = write(tmp_path / "a.imm", frames, kind), [{"index": n} for n in (1, 0, 1)]
    cells = frames.reshape(-1, 2, 5, 7)[[1, 0, 1]]
    reader.roots = tmp_path
    for roi in ROIS:
        got = reader.resource("IMM", path, datums, roi, frames_per_point=2)
        expected = cells
        for axis, item in reversed(list(enumerate(roi, 1))):
            expected = expected[(slice(None),) * axis + (item,)]
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == dtype
    handler = IMM(str(path), frames_per_point=2)
    assert handler.cell_shape(Datums.of(datums)) == (2, 5, 7)
    assert handler.cell_dtype(Datums.of(datums)) == dtype
    assert handler.frames_there(Datums.of(datums)).frames == len(frames)
    if kind == "sparse":
        theirs = IMMHandler(str(path), frames_per_point=2)(index=1).compute()
        np.testing.assert_array_equal(theirs, cells[0])
        assert theirs.dtype == dtype


@pytest.mark.parametrize("kind", ["sparse", "u2"])
def test_the_last_frame_is_cut_off(tmp_path, reader, kind):
    path = write(tmp_path / "a.imm", FRAMES, kind)
    path.write_bytes(path.read_bytes()[:-1])
    got = reader.resource("IMM", path, [{"index": 4}], frames_per_point=1)
    np.testing.assert_array_equal(got[0, 0], FRAMES[4])
    with pytest.raises(FrameMissing, match="has 5 frames, too few for place 5"):
        reader.resource("IMM", path, [{"index": 5}], frames_per_point=1)


@pytest.mark.parametrize("kind", ["sparse", "u2"])
def test_zeros_follow_the_last_frame(tmp_path, reader, kind):
    """As of space that was reserved before an aborted run."""
    path = write(tmp_path / "a.imm", FRAMES, kind)
    path.write_bytes(path.read_bytes() + bytes(10_000))
    datums = [{"index": n} for n in range(6)]
    got = reader.resource("IMM", path, datums, frames_per_point=1)
    np.testing.assert_array_equal(got[:, 0], FRAMES)
    with pytest.raises(FrameMissing, match="has 6 frames, too few for place 6"):
        reader.resource("IMM", path, [{"index": 6}], frames_per_point=1)


def test_a_damaged_number_of_values(tmp_path, reader):
    """No frame disappears because one before it seems to be cut off."""
    path = tmp_path / "a.imm"
    frames = np.eye(40, dtype=int)[None] * np.arange(1, 7)[:, None, None]
    parts = [stored(frame, "sparse") for frame in frames]
    for count in (0, 1, 1600):
        damaged = parts[4][:152] + struct.pack("<I", count) + parts[4][156:]
        path.write_bytes(b"".join([*parts[:4], damaged, parts[5]]))
        message = "frame 4, .* another frame begins" if count > 1 else "the header at byte"
        with pytest.raises(FillError, match=f"spec 'IMM', path .*{message}") as caught:
            reader.resource("IMM", path, [{"index": 0}], frames_per_point=1)
        assert not isinstance(caught.value, FrameMissing)


def test_claimed_frames_take_no_memory(tmp_path, reader):
    """Frames without photons may be large, but not a thousand times as large as any detector's."""
    path, large = tmp_path / "a.imm", header(np.empty((4096, 4096)), 0, 6)
    path.write_bytes(large * 100)
    with pytest.raises(FillError, match=r"cells of .* 6\.25 GiB, are declared, but the file has"):
        reader.resource("IMM", path, [{"index": 0}], (slice(None), 0, 0), frames_per_point=100)
    path.write_bytes(header(np.empty((2048, 2048)), 0, 6) * 100)
    got = reader.resource("IMM", path, [{"index": 0}], (slice(2), 0, 0), frames_per_point=100)
    np.testing.assert_array_equal(got, [[0, 0]])


def test_where_they_lie(tmp_path):
    path = write(tmp_path / "a.imm", FRAMES, "u2")
    found = IMM(str(path), frames_per_point=2).frames_of(Datums.of([{"index": 1}]))
    (rows,) = found.stored
    offset, size, _, _ = rows.ranges(found.rows.ravel(), 1)[0].ravel()
    assert path.read_bytes()[offset : offset + size] == FRAMES[2].astype("<u2").tobytes()
    path.write_bytes(stored(FRAMES[0], "u2") + stored(FRAMES[1].T, "u2"))
    with pytest.raises(FillError, match="frame 1 of the file differs in shape"):
        IMM(str(path), frames_per_point=2).frames_of(Datums.of([{"index": 0}]))
    write(path, FRAMES, "sparse")
    with pytest.raises(NoReference, match="only the pixels with photons"):
        IMM(str(path), frames_per_point=2).frames_of(Datums.of([{"index": 1}]))


def test_what_is_no_imm_file(tmp_path, reader):
    path = tmp_path / "a.imm"
    pixel = header(FRAMES[0], 1, 6) + struct.pack("<IH", 35, 1)
    other = stored(FRAMES[0], "u2") + stored(FRAMES[1].T, "u2")
    cases = {
        "not an IMM file": [
            b"",
            b"none",
            bytes(2048),
            header(FRAMES[0], 34),
            header(DARK[0], 36, 6),
        ],
        "frame 0 of the file has a pixel 35": [pixel],
        "frame 1 of the file differs in shape": [other],
    }
    for message, contents in cases.items():
        for content in contents:
            path.write_bytes(content)
            datums = [{"index": int(content is other)}]
            with pytest.raises(FillError, match=rf"spec 'IMM', path .*{message}") as caught:
                reader.resource("IMM", path, datums, frames_per_point=1)
            assert not isinstance(caught.value, FrameMissing)
    path.write_bytes(struct.pack("<ii", 0, 6) + bytes(100) + struct.pack("<3i", 2**15, 2**15, 2))
    path.write_bytes(path.read_bytes() + bytes(2048))
    with pytest.raises(FillError, match="the file has only"):
        reader.resource("IMM", path, [{"index": 0}], frames_per_point=1)
