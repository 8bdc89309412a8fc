"""Frames without filters, read without HDF5."""

import itertools
import tracemalloc

import h5py
import numpy as np
import pytest
from dask import config

from daskbroker.assets.files.readable import ANYWHERE
from daskbroker.assets.handlers.hdf5.frame_bytes import PIECE, FrameBytes
from daskbroker.assets.handlers.hdf5.open_datasets import OpenDatasets
from daskbroker.assets.handlers.hdf5.row_source import RowSource
from daskbroker.assets.regions import axes_of, take_roi
from daskbroker.core.errors import FillError
from daskbroker.testing.files import AD_DATASET, frames, write_hdf5

COUNT, SIDE = 200, 64
VALUES = frames(COUNT, (SIDE, SIDE), np.uint16)
WHOLE = (range(SIDE), range(SIDE))

LAYOUTS = {
    "contiguous": {},
    "a chunk a frame": {"chunks": (1, SIDE, SIDE)},
    "chunks of several frames": {"chunks": (7, SIDE, SIDE), "maxshape": (None, SIDE, SIDE)},
}


@pytest.fixture
def only_bytes(monkeypatch):
    """Make each read of values by HDF5 fail."""
    monkeypatch.setattr("daskbroker.assets.handlers.hdf5.row_source._read_span", None)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_frames_by_several_threads(tmp_path, layout, only_bytes):
    """All, some with gaps, and some more than once in any order; the last piece is shorter."""
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("d", VALUES.shape, VALUES.dtype, **LAYOUTS[layout])
        for number in (*range(1, COUNT), 0):  # chunks do not lie in order
            dataset[number] = VALUES[number]
    random = np.random.default_rng(0)
    chosen = [np.arange(COUNT), np.arange(3, COUNT), np.arange(COUNT)[::-1]]
    chosen += [np.delete(np.arange(COUNT), [5, 6, 90]), random.integers(0, COUNT, 2 * COUNT)]
    with h5py.File(path) as file, config.set({"daskbroker.decode-threads": 3}):
        source = RowSource(file["d"])
        for rows in chosen:
            np.testing.assert_array_equal(source.read(rows, WHOLE), VALUES[rows])
    assert VALUES.nbytes < PIECE  # rows of one piece, so gaps and their order divide the read


def test_a_read_of_several_pieces(tmp_path, only_bytes):
    values = frames(5, (1024, 1100), np.uint16)  # a piece has one frame, and not two
    assert values[0].nbytes < PIECE < 2 * values[0].nbytes
    for chunks in (None, (1, 1024, 1100), (5, 1024, 1100)):
        path = write_hdf5(tmp_path / f"{chunks}.h5", values, chunks=chunks)
        with h5py.File(path) as file:
            got = RowSource(file[AD_DATASET]).read(np.arange(5), (range(1024), range(1100)))
        np.testing.assert_array_equal(got, values)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_of_frames(tmp_path, layout, monkeypatch, only_bytes):
    """Any region is equal to NumPy's, whatever is read together."""
    cells, path = VALUES.reshape(COUNT, 4, 16, SIDE), tmp_path / "f.h5"
    chunks = LAYOUTS[layout].get("chunks")
    options = {} if chunks is None else {"chunks": (chunks[0], 4, 16, SIDE)}
    with h5py.File(path, "w") as file:
        file.create_dataset("d", data=cells, **options)
    rows = np.array([7, 3, 3, 190])
    monkeypatch.setattr("daskbroker.assets.handlers.hdf5.frame_bytes.PER_CHUNK", 0)
    with h5py.File(path) as file:
        source = RowSource(file["d"])
        for gap, roi in itertools.product(
            (0, 100, 1000),
            (
                (2, 5, 9),
                (slice(None), 15, -1),
                (slice(None, None, -2), 3, slice(9, 2, -3)),
                (np.array([3, 0, 3]), slice(4, 12, 5), np.array([60, 2])),
                (1, slice(8, 10)),
                (slice(2, 4), np.array([0])),
            ),
        ):
            monkeypatch.setattr("daskbroker.assets.handlers.hdf5.frame_bytes.GAP", gap)
            axes = axes_of(roi, cells.shape[1:])
            np.testing.assert_array_equal(source.read(rows, axes), take_roi(cells[rows], roi))
            assert source.read(rows[:0], axes).shape == (0, *take_roi(cells[rows], roi).shape[1:])


@pytest.mark.parametrize("chunks", [None, (1, 512, 256), (3, 512, 256)])
def test_only_the_wanted_part_is_read(tmp_path, chunks, only_bytes):
    """HDF5 reads whole chunks of this size into its cache for each of these."""
    values = frames(6, (512, 256), np.uint16)
    path = write_hdf5(tmp_path / "f.h5", values, chunks=chunks)
    with h5py.File(path) as file:
        source = RowSource(file[AD_DATASET])
        for roi, most in (((5, 7), 2), ((5,), 512), ((slice(10, 20), slice(10, 20)), 10 * 512)):
            axes, before = axes_of(roi, values.shape[1:]), bytes_read()
            got, after = source.read(np.arange(6), axes), bytes_read()
            np.testing.assert_array_equal(got, values[(slice(None), *roi)])
            assert after - before < 6 * most + 2**14


def test_finding_many_chunks_must_be_worth_it(tmp_path, monkeypatch):
    """A pixel of one frame of many is read by HDF5, until all chunks are known."""
    values = frames(40, (256, 256), np.uint16)
    path = write_hdf5(tmp_path / "f.h5", values, chunks=(1, 256, 256))
    monkeypatch.setattr("daskbroker.assets.handlers.hdf5.frame_bytes.PER_CHUNK", 2**13)
    with h5py.File(path) as file:
        found = FrameBytes.of(file[AD_DATASET])
        with found.opened() as number:
            assert found.read_rows(number, np.array([3]), (5, 7)) is None
            whole = found.read_rows(number, np.arange(40), (range(256), range(256)))
            np.testing.assert_array_equal(whole, values)
            assert found.read_rows(number, np.array([3]), (5, 7)) == values[3, 5, 7]


def bytes_read() -> int:
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])


def test_what_is_left_to_hdf5(tmp_path):
    """Regions, few bytes, other byte orders, compression; chunks of parts of frames."""
    path = tmp_path / "f.h5"
    others = {
        "swapped": {"dtype": ">u2"},
        "parts": {"chunks": (1, SIDE // 2, SIDE)},
        "compact": {"dtype": "u1", "shape": (2, SIDE)},
        "compressed": {"chunks": (1, SIDE, SIDE), "compression": "gzip"},
        "bool": {"dtype": "?"},
        "text": {"dtype": h5py.string_dtype()},
    }
    with h5py.File(path, "w") as file:
        file["d"] = VALUES
        for name, options in others.items():
            file.create_dataset(name, **{"shape": VALUES.shape, "dtype": "<u2", **options})
        file["swapped"][...] = VALUES
    with h5py.File(path) as file:
        for name in others:
            assert FrameBytes.of(file[name]) is None, name
        swapped = RowSource(file["swapped"]).read(np.arange(COUNT), WHOLE)
        np.testing.assert_array_equal(swapped, VALUES)
        source = RowSource(file["d"])
        for roi in (
            (slice(3, 60),),
            (slice(None, None, -1),),
            (slice(None), 5),
            (slice(None), [2]),
        ):
            axes = axes_of(roi, (SIDE, SIDE))
            expected = VALUES[(slice(None), *roi)]
            np.testing.assert_array_equal(source.read(np.arange(COUNT), axes), expected)
        np.testing.assert_array_equal(source.read(np.array([7]), WHOLE), VALUES[[7]])


def test_frames_that_were_never_written(tmp_path):
    """They have the fill value, whatever else is written."""
    for name, options in LAYOUTS.items():
        path = tmp_path / f"{name}.h5"
        with h5py.File(path, "w") as file:
            dataset = file.create_dataset("d", VALUES.shape, "<u2", fillvalue=7, **options)
            if dataset.chunks:
                dataset[:50] = VALUES[:50]
        with h5py.File(path) as file:
            expected = file["d"][...]
            assert expected[-1, 0, 0] == 7
            got = RowSource(file["d"]).read(np.arange(COUNT), WHOLE)
        np.testing.assert_array_equal(got, expected)


def never_filled():
    """Return options of a dataset without fill values; h5py has `fill_time` since 3.16."""
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return {"dcpl": made}


@pytest.mark.parametrize(
    "options",
    [{}, {"chunks": (1, 5, 8)}, {"chunks": (1, 5, 8), "compression": "gzip"}, {"virtual": True}],
    ids=["plain", "chunks", "gzip", "virtual"],
)
def test_what_hdf5_does_not_fill(tmp_path, options, monkeypatch):
    """As h5py has it, not what is in memory: without fill values, and beside overlapping parts."""
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["d"] = frames(6, (10, 8)).astype("u4")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        if options == {"virtual": True}:
            layout = h5py.VirtualLayout((6, 10, 16), "u2")
            for first in (0, 4):
                source = h5py.VirtualSource("s.h5", "d", (6, 10, 8))
                layout[:, :, first : first + 8] = source
            file.create_virtual_dataset("d", layout)
        else:
            more = {"fillvalue": 3, **never_filled(), **options}
            dataset = file.create_dataset("d", (6, 10, 16), ">u2", **more)
            if dataset.chunks:
                dataset[2, 7:] = 5
    monkeypatch.setattr(np, "empty", lambda shape, dtype=None: np.full(shape, 77, dtype))
    rows = OpenDatasets(str(tmp_path / "f.h5"), swmr=False).get("d", ANYWHERE)
    got = rows.read(np.arange(6), (range(10), range(16)))
    with h5py.File(tmp_path / "f.h5") as file:
        np.testing.assert_array_equal(got, file["d"][...])
    picked = rows.read(np.array([5, 0, 2]), (range(8, 1, -3), np.array([1, 14])))
    np.testing.assert_array_equal(picked, got[[5, 0, 2]][:, 8:1:-3][..., [1, 14]])


def test_text_that_was_never_written(tmp_path):
    """It is empty, not "0"."""
    records = np.dtype([("name", "S3"), ("x", "f8")])
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for key, dtype in (("text", np.dtype("S3")), ("records", records)):
            dataset = file.create_dataset(key, (6, 4), dtype, chunks=(2, 4), **never_filled())
            rows = RowSource(dataset).read(np.arange(6), (range(4),))
            np.testing.assert_array_equal(rows, dataset[...])
            np.testing.assert_array_equal(rows, np.zeros((6, 4), dtype))


@pytest.mark.parametrize("chunks", [None, (1, SIDE, SIDE)])
def test_a_file_that_was_cut_off(tmp_path, chunks, reader):
    """An error that names the file, not zeros."""
    path = write_hdf5(tmp_path / "f.h5", VALUES, chunks=chunks)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 3 * VALUES[0].nbytes)
    with pytest.raises(FillError, match=f"path '{path}'"):
        reader.resource("AD_HDF5", path, [{"point_number": n} for n in range(COUNT)])


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}])
def test_a_file_that_this_process_writes(tmp_path, options):
    """What HDF5 still holds in its cache is read, too."""
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as writer:
        chunks = (1, SIDE, SIDE)
        dataset = writer.create_dataset("d", data=VALUES, chunks=chunks, **options)
        writer.flush()
        with h5py.File(path) as file:
            source = RowSource(file["d"])
            np.testing.assert_array_equal(source.read(np.arange(COUNT), WHOLE), VALUES)
            dataset[3] = 9
            assert (source.read(np.arange(COUNT), WHOLE)[3] == 9).all()


def test_a_file_that_changed(tmp_path):
    """It is read by HDF5, which has it open."""
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file["d"] = VALUES
    with h5py.File(path) as file:
        source = RowSource(file["d"])
        found = FrameBytes.of(file["d"])
        source.read(np.arange(COUNT), WHOLE)
        with path.open("ab") as other:
            other.write(b"more")
        with found.opened() as number:
            assert number is None
        np.testing.assert_array_equal(source.read(np.arange(COUNT), WHOLE), VALUES)


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_moved(tmp_path, options, replaced):
    """HDF5 has it open, and reads all of it as well as regions of any size."""
    path, values = tmp_path / "f.h5", frames(4, (512, 512), np.uint16)
    with h5py.File(path, "w") as file:
        file.create_dataset("d", data=values, chunks=(1, 512, 512), **options)
    with h5py.File(path) as file:
        source = RowSource(file["d"])
        source.read(np.arange(4), (range(512), range(512)))
        path.rename(tmp_path / "elsewhere.h5")
        if replaced:
            path.mkdir()
        for roi in ((), (5, 7), (slice(10, 20), slice(None, None, -1))):
            got = source.read(np.arange(4), axes_of(roi, (512, 512)))
            np.testing.assert_array_equal(got, values[(slice(None), *roi)])


def test_a_claimed_frame_takes_no_memory(tmp_path):
    """The file is found too short for a frame before the reads of its parts are listed."""
    frame = FrameBytes("f.h5", (0, 0, 2**20, 0), (2**16, 2**17), np.dtype("u1"), 2048)
    tracemalloc.start()
    for axes in ((range(2**16), 5), (range(0, 2**16, 2), range(7, 9))):
        assert frame.read_rows(-1, np.arange(2), axes) is None
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**17
