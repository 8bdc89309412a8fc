"""Chunks read past HDF5 are what HDF5 reads, and it is asked wherever that is not sure."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskbroker.assets.handlers.hdf5_bytes import ChunkBytes
from daskbroker.assets.handlers.hdf5_rows import RowSource, read_rows
from daskbroker.assets.handlers.regions import axes_of
from daskbroker.core.errors import FillError
from daskbroker.testing.files import frames, write_hdf5

DATASET = "/entry/data/data"


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(1, 7)),
    chunk=st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(1, 7)),
    dtype=st.sampled_from(["u1", "<u2", ">u2", "<i4", "<f8", ">f4", "<c8"]),
    shuffle=st.booleans(),
    data=st.data(),
)
@settings(deadline=None, max_examples=150)
def test_the_same_as_through_hdf5(tmp_path_factory, shape, chunk, dtype, shuffle, data):
    values = frames(shape[0], shape[1:]).astype(dtype)
    chunk = tuple(map(min, chunk, shape))
    path = tmp_path_factory.mktemp("bytes") / "f.h5"
    write_hdf5(path, values, chunks=chunk, compression="gzip", shuffle=shuffle)
    rows = np.array(data.draw(st.lists(st.integers(0, shape[0] - 1), max_size=6)), np.int64)
    ends = st.none() | st.integers(-8, 8)
    steps = st.sampled_from([None, 1, 2, -1, -3])
    roi = tuple(
        data.draw(
            st.builds(slice, ends, ends, steps)
            | st.integers(0, size - 1)
            | st.lists(st.integers(0, size - 1), max_size=4).map(lambda v: np.array(v, np.int64))
        )
        for size in shape[1:]
    )
    with h5py.File(path) as file:
        dataset = file[DATASET]
        chunks = ChunkBytes.of(dataset)
        assert chunks is not None
        axes = axes_of(roi, shape[1:])
        got = read_rows(dataset, rows, axes, chunks)
        expected = read_rows(dataset, rows, axes)
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == expected.dtype == np.dtype(dtype).newbyteorder("=")


def test_chunks_that_were_never_written(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        dataset = file.create_dataset(
            "d", (6, 4), "i4", chunks=(2, 2), compression="gzip", fillvalue=-7
        )
        dataset[2:4, :2] = 5
    with h5py.File(tmp_path / "f.h5") as file:
        chunks = ChunkBytes.of(file["d"])
        got = read_rows(file["d"], np.arange(6), (range(4),), chunks)
        np.testing.assert_array_equal(got, file["d"][:])


def test_chunks_that_skip_a_filter(tmp_path):
    """HDF5 may store single chunks without a filter; each tells so."""
    values = frames(2, (4,), np.uint16)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        dataset = file.create_dataset("d", (2, 4), "<u2", chunks=(1, 4), compression="gzip")
        dataset[0] = values[0]
        dataset.id.write_direct_chunk((1, 0), values[1].tobytes(), filter_mask=1)
    with h5py.File(tmp_path / "f.h5") as file:
        got = read_rows(file["d"], np.arange(2), (range(4),), ChunkBytes.of(file["d"]))
    np.testing.assert_array_equal(got, values)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (1, 6, 8)},
        {"chunks": (1, 6, 8), "fletcher32": True, "compression": "gzip"},
        {"compression": "lzf"},
        {"scaleoffset": 4},
    ],
)
def test_other_layouts_are_left_to_hdf5(tmp_path, options):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        assert ChunkBytes.of(file.create_dataset("d", data=frames(3), **options)) is None


def test_other_types_are_left_to_hdf5(tmp_path):
    twelve_bits = h5py.h5t.STD_U16LE.copy()
    twelve_bits.set_precision(12)
    types = {
        "text": h5py.string_dtype(),
        "enum": h5py.enum_dtype({"a": 1}),
        "bool": np.dtype("?"),
        "record": np.dtype([("a", "i4")]),
    }
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for name, dtype in types.items():
            dataset = file.create_dataset(name, (3,), dtype, chunks=(1,), compression="gzip")
            assert ChunkBytes.of(dataset) is None
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1,))
        plist.set_deflate(4)
        h5py.h5d.create(file.id, b"bits", twelve_bits, h5py.h5s.create_simple((3,)), plist)
        assert ChunkBytes.of(file["bits"]) is None
    with h5py.File(tmp_path / "g.h5", "w", userblock_size=512) as file:
        assert ChunkBytes.of(file.create_dataset("d", data=frames(2), compression="gzip")) is None


def test_a_file_that_is_written_is_left_to_hdf5(tmp_path):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w", libver="latest") as file:
        dataset = file.create_dataset(
            "d", data=frames(2), compression="gzip", maxshape=(None, 6, 8)
        )
        file.swmr_mode = True
        with h5py.File(path, "r", swmr=True) as watched:
            assert ChunkBytes.of(watched["d"]) is None
        dataset.flush()
    with h5py.File(path) as file:
        chunks = ChunkBytes.of(file["d"])
        with chunks.opened() as number:
            assert number is not None
        with path.open("ab") as other:
            other.write(b"more")
        with chunks.opened() as number:
            assert number is None
        got = read_rows(file["d"], np.arange(2), axes_of((), (6, 8)), chunks)
        np.testing.assert_array_equal(got, frames(2))


def test_a_damaged_chunk(tmp_path, reader):
    path = write_hdf5(tmp_path / "f.h5", frames(3, (40, 40)), compression="gzip")
    with h5py.File(path) as file:
        info = file[DATASET].id.get_chunk_info(1)
    raw = bytearray(path.read_bytes())
    raw[info.byte_offset : info.byte_offset + info.size] = bytes(info.size)
    path.write_bytes(raw)
    got = reader.resource("AD_HDF5", path, [{"point_number": 0}])
    np.testing.assert_array_equal(got[0], frames(1, (40, 40)))
    with pytest.raises(FillError, match=r"spec 'AD_HDF5'.*chunk \(1, 0, 0\).*damaged"):
        reader.resource("AD_HDF5", path, [{"point_number": 1}])


def test_the_way_is_taken_where_it_applies(tmp_path, monkeypatch):
    """Values without a call of HDF5's own reading."""
    path = write_hdf5(tmp_path / "f.h5", frames(5), compression="gzip", shuffle=True)
    with h5py.File(path) as file:
        source = RowSource(file[DATASET])
        monkeypatch.setattr("daskbroker.assets.handlers.hdf5_rows._read_span", None)
        got = source.read(np.array([4, 0]), axes_of((slice(2), 3), (6, 8)))
    np.testing.assert_array_equal(got, frames(5)[[4, 0], :2, 3])
