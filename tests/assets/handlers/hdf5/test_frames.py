"""HDF5 handlers read the same as NumPy, for any datums, region and layout of the file."""

from __future__ import annotations

import itertools
import os
import threading
import warnings

import h5py
import numpy as np
import pytest
from area_detector_handlers.handlers import AreaDetectorHDF5Handler, AreaDetectorHDF5SWMRHandler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daskbroker.assets.filling.open_handlers import open_handlers
from daskbroker.assets.handlers import Datums
from daskbroker.assets.handlers.hdf5.detectors import Eiger, FlyScan, SingleHDF5, Xspress3
from daskbroker.assets.handlers.hdf5.frames import AreaDetectorHDF5, StreamHDF5
from daskbroker.assets.handlers.hdf5.row_source import RowSource, dtype_as_read, read_rows
from daskbroker.assets.regions import axes_of
from daskbroker.core.errors import FillError, FrameMissing
from daskbroker.testing.files import AD_DATASET, frames, write_hdf5

HDF5 = "application/x-hdf5"
LAYOUTS = {
    "contiguous": {},
    "one frame a chunk": {"chunks": (1, 6, 8)},
    "several frames a chunk": {"chunks": (4, 6, 8)},
    "tiles": {"chunks": (3, 4, 3)},
    "gzip": {"chunks": (3, 4, 8), "compression": "gzip"},
    "gzip, shuffle": {"chunks": (2, 6, 8), "compression": "gzip", "shuffle": True},
    "lz4": {"compression": "lz4"},
    "bitshuffle": {"compression": "bitshuffle"},
    "blosc": {"compression": "blosc"},
    "zstd": {"compression": "zstd"},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write the same 24 frames in each layout."""
    folder, data = tmp_path_factory.mktemp("hdf5"), frames(24)
    paths = {
        name: write_hdf5(folder / f"{place}.h5", data, **options)
        for place, (name, options) in enumerate(LAYOUTS.items())
    }
    return data, paths


def outer(array, roi):
    """NumPy's own outer indexing of the dimensions after the first."""
    roi = (*roi, *(slice(None),) * (array.ndim - 1 - len(roi)))
    for axis, item in reversed(list(enumerate(roi, 1))):
        array = array[(slice(None),) * axis + (item,)]
    return array


def items(size: int):
    """Return a strategy for anything that selects along a dimension."""
    ends = st.none() | st.integers(-size - 2, size + 2)
    steps = st.none() | st.sampled_from([1, 2, 3, -1, -2])
    return (
        st.builds(slice, ends, ends, steps)
        | st.integers(-size, size - 1)
        | st.lists(st.integers(-size, size - 1), max_size=5).map(lambda v: np.array(v, np.int64))
        | st.lists(st.booleans(), min_size=size, max_size=size).map(np.array)
    )


def regions(*shape: int):
    return st.integers(0, len(shape)).flatmap(
        lambda count: st.tuples(*(items(size) for size in shape[:count]))
    )


@given(
    layout=st.sampled_from(list(LAYOUTS)),
    points=st.lists(st.integers(0, 7), max_size=9),
    roi=regions(3, 6, 8),
)
@settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_points_and_region_as_numpy(files, reader, layout, points, roi):
    data, paths = files
    expected = outer(data.reshape(8, 3, 6, 8)[np.array(points, dtype=np.int64)], roi)
    datums = [{"point_number": p} for p in points]
    got = reader.resource("AD_HDF5", paths[layout], datums, roi, frame_per_point=3)
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == np.uint16


@given(
    gap=st.integers(1, 400),
    rows=st.lists(st.integers(0, 499), max_size=40),
    roi=regions(7),
)
@settings(deadline=None, max_examples=150)
def test_rows_across_gaps_small_and_large(tmp_path_factory, gap, rows, roi):
    """Gaps are read or skipped by their size in bytes; what comes out does not depend on it."""
    data = frames(500, (7,), np.int32)
    with h5py.File("memory.h5", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("d", data=data)
        rows = np.array(rows, dtype=np.int64)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("daskbroker.assets.handlers.hdf5.row_source.GAP", gap)
            patch.setattr("daskbroker.assets.handlers.hdf5.row_source.MAX_READ_BYTES", 10 * gap)
            got = read_rows(dataset, rows, axes_of(roi, (7,)))
    np.testing.assert_array_equal(got, outer(data[rows], roi))


def test_as_area_detector_handlers(files, reader):
    path = files[1]["gzip"]
    for spec, theirs in (
        ("AD_HDF5", AreaDetectorHDF5Handler),
        ("AD_HDF5_SWMR", AreaDetectorHDF5SWMRHandler),
    ):
        for n in (1, 3, 24):
            open_handlers().clear()  # HDF5 lets one process open a file in one mode
            handler = theirs(str(path), frame_per_point=n)
            # theirs for SWMR fails when it is called again
            datums = [{"point_number": p} for p in range(24 // n if spec == "AD_HDF5" else 1)]
            expected = np.stack([handler(**datum).compute() for datum in datums])
            handler.close()
            got = reader.resource(spec, path, datums, frame_per_point=n)
            np.testing.assert_array_equal(got, expected)


def test_no_frames_a_point(files, reader):
    """Recorded documents have it."""
    got = reader.resource("AD_HDF5", files[1]["gzip"], [{"point_number": 0}], frame_per_point=0)
    assert got.shape == (1, 0, 6, 8)


@pytest.mark.parametrize("spec", ["AD_HDF5", "AD_HDF5_SWMR"])
def test_other_key(tmp_path, reader, spec):
    path = write_hdf5(tmp_path / "f.h5", frames(3), "/other/place")
    got = reader.resource(spec, path, [{"point_number": 2}], key="/other/place")
    np.testing.assert_array_equal(got[0], frames(3)[2:3])


def test_datums_that_name_dataset_and_frame(tmp_path, reader):
    """Resources of spec AD_HDF5_SWMR_STREAM."""
    write_hdf5(tmp_path / "f.h5", frames(4), "/entry/data/data_2", chunks=True)
    got = reader.resource(
        "AD_HDF5_SWMR_STREAM",
        tmp_path / "f.h5",
        [{"dataset": "/entry/data/data_2", "frame": frame} for frame in (2, 0)],
        frame_per_point=1,
        chunk_shape=[100, 6, 8],
    )
    np.testing.assert_array_equal(got, frames(4)[[2, 0]][:, None])


@pytest.mark.parametrize("dtype", ["?", "<i1", ">u2", "<f4", ">f8", "<c16", "S5", "f2"])
def test_types_come_in_the_machines_byte_order(tmp_path, reader, dtype):
    data = frames(4, (2, 3)).astype(dtype)
    path = write_hdf5(tmp_path / "f.h5", data)
    got = reader.resource("AD_HDF5", path, [{"point_number": p} for p in (3, 1)])
    np.testing.assert_array_equal(got, data[[3, 1]][:, None])
    assert got.dtype == np.dtype(dtype).newbyteorder("=")


def test_all_handlers_name_the_dtype_without_notes_of_h5py(tmp_path):
    """Notes are lost where a dtype is stored, which NumPy warns of, and elements may be arrays."""
    texts = np.full((1, 1, 2), b"abc", "S3")
    path = write_hdf5(tmp_path / "f_0.h5", texts, "/entry/instrument/detector/data")
    with h5py.File(path, "a") as file:
        file[AD_DATASET] = h5py.SoftLink("/entry/instrument/detector/data")
        file["entry/data/data_000001"] = h5py.SoftLink(AD_DATASET)
        assert file[AD_DATASET].dtype.metadata
        file.create_dataset("arrays", (2,), np.dtype((np.uint16, (6, 8))))
    path.rename(tmp_path / "f_0_master.h5")
    path = str(tmp_path / "f_0_master.h5")
    claim = {"data_key": {"shape": [2]}}
    single = SingleHDF5(str(tmp_path), template="%s%s_%d_master.h5", filename="f")
    some = {
        AreaDetectorHDF5(path): {"point_number": 0},
        StreamHDF5(path, dataset=AD_DATASET, **claim): {"index": 0},
        Xspress3(path): {"frame": 0, "channel": 1},
        FlyScan(path): {},
        Eiger(str(tmp_path / "f")): {"seq_id": 0},
        single: {"point_number": 0},
    }
    for handler, datum in some.items():
        dtype = handler.cell_dtype(Datums.of([datum]))
        assert (dtype, dtype.metadata) == (np.dtype("S3"), None), handler
    arrays = StreamHDF5(path, dataset="arrays", **claim)
    assert arrays.cell_dtype(Datums.of([{"index": 0}])) is None


def test_texts_records_and_lists_of_varying_length(tmp_path, reader):
    record = np.dtype([("a", "<i4"), ("b", "S3")])
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["texts"] = ["a", "ü", "c"]
        file["records"] = np.array([(1, b"x"), (2, b"y"), (3, b"z")], record)
        ragged = file.create_dataset("ragged", (3,), h5py.vlen_dtype(np.int32))
        ragged[:] = np.array([np.arange(n, dtype=np.int32) for n in (2, 0, 3)], dtype=object)
    uri = tmp_path / "f.h5"
    assert reader.stream(HDF5, uri, [], [2, 1], dataset="texts").tolist() == ["c", "ü"]
    records = reader.stream(HDF5, uri, [], [2, 0], dataset="records")
    assert records.tolist() == [(3, b"z"), (1, b"x")]
    assert [len(cell) for cell in reader.stream(HDF5, uri, [], [0, 1, 2], dataset="ragged")] == [
        2,
        0,
        3,
    ]


# -- streams ---------------------------------------------------------------------------------


def test_concat_has_the_data_keys_frames_per_event(files, reader):
    data, paths = files
    for m in (1, 2, 5):
        events = 24 // m
        expected = data[: events * m].reshape(events, m, 6, 8)
        for layout in ("contiguous", "gzip"):
            got = reader.stream(
                HDF5, paths[layout], (m, 6, 8), range(events), dataset="/entry/data/data"
            )
            np.testing.assert_array_equal(got, expected)


def test_five_frames_an_event_two_events(tmp_path, reader):
    path = write_hdf5(tmp_path / "f.h5", frames(10))
    got = reader.stream(HDF5, path, (5, 6, 8), [0, 1], dataset="/entry/data/data")
    np.testing.assert_array_equal(got, frames(10).reshape(2, 5, 6, 8))
    with pytest.raises(FillError, match=r"10 frames, too few for place 2 with 5 each"):
        reader.stream(HDF5, path, (5, 6, 8), [2], dataset="/entry/data/data")


@pytest.mark.parametrize(
    ("shape", "parameters", "cell"),
    [
        ((1, 6, 8), {}, (1, 6, 8)),
        ((2, 6, 8), {}, (2, 6, 8)),
        ((6, 8), {}, (6, 8)),  # the writer left out the axis of frames
        ((6, 8), {"multiplier": 1}, (1, 6, 8)),
        ((6, 8), {"multiplier": 3}, (3, 6, 8)),
        ((1, 6, 8), {"multiplier": 3}, (3, 6, 8)),
        ((3, 6, 8), {"multiplier": 3}, (3, 6, 8)),
        ((6, 8), {"join_method": "stack"}, (6, 8)),
        ((1, 6, 8), {"join_method": "stack"}, (6, 8)),
        ((), {}, (6, 8)),
        ((), {"multiplier": 1}, (6, 8)),
        ((), {"multiplier": 3}, (3, 6, 8)),
        ((8,), {"multiplier": 3}, (3, 6, 8)),
        ((2**62, 6, 8), {}, (1, 6, 8)),
        ((None, 6, 8), {}, (1, 6, 8)),
        ((1, 6, 3), {"slice": ":, :, 2:5"}, (1, 6, 3)),
        ((1, 8), {"slice": ":,5,:"}, (1, 8)),
        ((1, 8), {"slice": ":,5:6,:", "squeeze": True}, (1, 8)),
        ((2, 6, 8), {"slice": "4:"}, (2, 6, 8)),
        ((2, 6, 4), {"slice": "::2,:,::-2"}, (2, 6, 4)),
        ((1, 6, 8), {"chunk_shape": [1, 6, 8], "swmr": False, "_validate": True}, (1, 6, 8)),
        ((2, 6, 8), {"data_key": "img"}, (2, 6, 8)),  # not the handler's own argument
    ],
)
def test_how_frames_make_events(files, reader, shape, parameters, cell):
    data, paths = files
    text = parameters.get("slice", "")
    view = eval(f"data[{text}]", {"data": data}) if text else data  # the test's own text
    view = view.reshape(len(view), *(s for s in view.shape[1:] if s != 1))
    counted = len(cell) == view.ndim
    events = len(view) // cell[0] if counted else len(view)
    expected = view[: events * cell[0]].reshape(events, *cell) if counted else view
    arguments = {"dataset": "/entry/data/data", **parameters}
    for layout in ("contiguous", "tiles"):
        got = reader.stream(HDF5, paths[layout], shape, range(events), **arguments)
        np.testing.assert_array_equal(got, expected)
        assert reader.stream_shape(HDF5, paths[layout], shape, **arguments) == cell
        part = reader.stream(HDF5, paths[layout], shape, [1], (slice(0, 1),), **arguments)
        np.testing.assert_array_equal(part, expected[[1], 0:1])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "lack 'dataset'"),
        ({"dataset": "nothing"}, r"no dataset 'nothing'.*it has '/entry/data/data'"),
        ({"dataset": "/entry"}, "'/entry' is a group of the file, not a dataset"),
        (
            {"dataset": "/entry/data/data", "join_method": "sum"},
            "must be one of concat, stack, not 'sum'",
        ),
        ({"dataset": "/entry/data/data", "slice": "a:b"}, "'slice' 'a:b' is not valid"),
        ({"dataset": "/entry/data/data", "slice": "::0"}, "step of 0"),
        ({"dataset": "/entry/data/data", "slice": "3,:,:"}, "drops the first dimension"),
    ],
)
def test_parameters_that_make_no_sense(files, reader, parameters, message):
    with pytest.raises(FillError, match=message):
        reader.stream(HDF5, files[1]["contiguous"], (1, 6, 8), [0], **parameters)


def test_numbers_one_an_event(tmp_path, reader):
    values = np.arange(20.0)
    path = write_hdf5(tmp_path / "f.h5", values, "/sum", chunks=(16,))
    for shape, expected in (((), values[:4]), ((1,), values[:4, None])):
        got = reader.stream(HDF5, path, shape, range(4), dataset="/sum")
        np.testing.assert_array_equal(got, expected)
    got = reader.stream(HDF5, path, (5,), range(4), dataset="/sum")
    np.testing.assert_array_equal(got, values.reshape(4, 5))


def test_second_file_counts_from_zero_or_goes_on(tmp_path, reader):
    """A second resource of a key: its events go on at 3, its file may hold its own only."""
    own = write_hdf5(tmp_path / "own.h5", frames(8, start=6))
    shared = write_hdf5(tmp_path / "shared.h5", frames(14))
    for path in (own, shared):
        got = reader.stream(
            HDF5, path, (2, 6, 8), range(3, 7), dataset="/entry/data/data", indices=(3, 7)
        )
        np.testing.assert_array_equal(got, frames(14)[6:].reshape(4, 2, 6, 8))


# -- files that are written, truncated, replaced ----------------------------------------------


def test_a_file_that_grows(tmp_path, reader):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w", libver="latest") as file:
        dataset = file.create_dataset(
            "/entry/data/data", (2, 6, 8), np.uint16, chunks=(1, 6, 8), maxshape=(None, 6, 8)
        )
        dataset[:] = frames(2)
        file.swmr_mode = True
        for total in (2, 5, 9):
            dataset.resize(total, axis=0)
            dataset[:] = frames(total)
            dataset.flush()
            datums = [{"point_number": p} for p in range(total)]
            for spec in ("AD_HDF5_SWMR", "AD_HDF5"):
                got = reader.resource(spec, path, datums)
                np.testing.assert_array_equal(got[:, 0], frames(total))
            got = reader.stream(HDF5, path, (1, 6, 8), range(total), dataset="/entry/data/data")
            np.testing.assert_array_equal(got[:, 0], frames(total))


def test_a_file_that_is_replaced(tmp_path, reader):
    path, other = tmp_path / "f.h5", tmp_path / "g.h5"
    write_hdf5(path, frames(3))
    read = lambda: reader.resource("AD_HDF5", path, [{"point_number": 0}])[0, 0]  # noqa: E731
    np.testing.assert_array_equal(read(), frames(1)[0])
    write_hdf5(other, frames(3, start=7)).replace(path)
    np.testing.assert_array_equal(read(), frames(1, start=7)[0])


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_truncated_file(tmp_path, reader, compression):
    path = write_hdf5(tmp_path / "f.h5", frames(200), compression=compression)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(FillError, match=r"key 'k', spec 'AD_HDF5', path '.*f\.h5': "):
        reader.resource("AD_HDF5", path, [{"point_number": 150}])


def test_many_threads_read_one_file(files, reader):
    data, paths = files
    errors = []

    def read(layout: str, seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(20):
                rows = rng.integers(0, 24, 10)
                got = reader.resource(
                    "AD_HDF5", paths[layout], Datums({"point_number": rows}, 10), (0, slice(1, 4))
                )
                np.testing.assert_array_equal(got, data[rows, 1:4])
        except Exception as error:  # pytest sees no other thread's
            errors.append(error)

    threads = [
        threading.Thread(target=read, args=(layout, seed))
        for layout, seed in itertools.product(("contiguous", "gzip, shuffle", "lz4"), range(4))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_raw_external_storage_that_is_too_short(tmp_path, reader):
    """HDF5 would give zeros."""
    data, path = frames(4), tmp_path / "f.h5"
    parts = [tmp_path / "0.raw", tmp_path / "1.raw"]
    for number, part in enumerate(parts):
        data[2 * number : 2 * number + 2].tofile(part)
    size = data.nbytes // 2
    with h5py.File(path, "w") as file:
        external = [(str(parts[0]), 0, size), (str(parts[1]), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("d", data.shape, data.dtype, external=external)
    read = lambda rows: reader.stream(HDF5, path, (6, 8), rows, dataset="d")  # noqa: E731
    np.testing.assert_array_equal(read(range(4)), data)
    os.truncate(parts[1], size - 1)
    np.testing.assert_array_equal(read([2, 0]), data[[2, 0]])
    with pytest.raises(FrameMissing, match=r"1\.raw', .* too short for row 3"):
        read(range(4))
    parts[0].unlink()
    np.testing.assert_array_equal(read([2]), data[[2]])
    with pytest.raises(FrameMissing, match=r"0\.raw', which is not there"):
        read([1, 2])


def test_a_dataset_of_two_dimensions_with_points_beyond_the_first(tmp_path, reader):
    """The error says why it is one frame."""
    path = write_hdf5(tmp_path / "f.h5", frames(1)[0])
    with pytest.raises(FrameMissing, match=r"place 1 .* two dimensions that cannot grow"):
        reader.resource("AD_HDF5", path, [{"point_number": 1}])


@pytest.mark.parametrize(
    "dtype",
    [
        h5py.string_dtype(),
        h5py.enum_dtype({"a": 1}),
        np.dtype([("n", ">i4"), ("text", h5py.string_dtype())]),
        np.dtype([("x", [("on", "?"), ("name", "S3", (2,))]), ("y", h5py.enum_dtype({"a": 1}))]),
    ],
    ids=["text", "enum", "record with text", "records"],
)
def test_the_dtype_that_is_told_is_that_of_the_values(tmp_path, dtype):
    """Without the notes of h5py, of which NumPy warns when a dtype is stored."""
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("d", (3,), dtype)
        told = dtype_as_read(file["d"].dtype)
        assert RowSource(file["d"]).read(np.arange(3), ()).dtype == told
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stored = np.lib.format.dtype_to_descr(told)
    assert np.lib.format.descr_to_dtype(stored) == told
