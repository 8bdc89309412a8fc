"""Chunks that are decoded outside of HDF5 equal what HDF5 reads; unsure cases are left to HDF5."""

from __future__ import annotations

import ctypes
import struct
from importlib.util import find_spec

import h5py
import hdf5plugin
import imagecodecs
import numpy as np
import pytest
from dask import config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daskbroker.assets.handlers.hdf5 import chunk_filters
from daskbroker.assets.handlers.hdf5.chunk_bytes import ChunkBytes
from daskbroker.assets.handlers.hdf5.row_source import RowSource, read_rows
from daskbroker.assets.regions import axes_of
from daskbroker.core.errors import FillError
from daskbroker.testing.files import frames, write_hdf5

DATASET = "/entry/data/data"


FILTERS = {
    "gzip": {"compression": "gzip"},
    "gzip, shuffled": {"compression": "gzip", "shuffle": True},
    "gzip, shuffled, checksum": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "shuffled": {"shuffle": True},
    "checksum": {"fletcher32": True},
    "lzf": {"compression": "lzf", "shuffle": True},
    "lz4": hdf5plugin.LZ4(),
    "lz4, small blocks": hdf5plugin.LZ4(nbytes=64),
    "zstd": hdf5plugin.Zstd(),
    "zstd, checksum": {**hdf5plugin.Zstd(), "fletcher32": True},
    "bzip2": hdf5plugin.BZip2(),
    "bitshuffle": hdf5plugin.Bitshuffle(cname="none"),
    "bitshuffle, LZ4": hdf5plugin.Bitshuffle(),
    "bitshuffle, LZ4, blocks": hdf5plugin.Bitshuffle(nelems=16),
    "bitshuffle, Zstd": hdf5plugin.Bitshuffle(cname="zstd", nelems=8),
    **{
        f"blosc {name}, shuffle {shuffle}": hdf5plugin.Blosc(cname=name, shuffle=shuffle)
        for name, shuffle in [("lz4", 2), ("lz4hc", 1), ("zstd", 0), ("blosclz", 1), ("zlib", 1)]
    },
}


LZ4_WAYS = ["hdf5plugin", "blosc", *(["dectris"] if find_spec("dectris") else [])]
"""The last one needs a compiler to be installed; ``ci/long.sh eiger`` tests it."""
WAYS = [
    (name, way)
    for name in FILTERS
    for way in (LZ4_WAYS if name.startswith("bitshuffle, LZ4") else ["hdf5plugin"])
]


@pytest.fixture(params=WAYS, ids=", by ".join)
def name(request, monkeypatch):
    """Of a filter; bitshuffle with LZ4 is undone in three ways, as two may not be there."""
    name, way = request.param
    if way == "dectris":
        assert chunk_filters._dectris() is not None
    else:
        monkeypatch.setattr(chunk_filters, "_dectris", lambda: None)
    if way == "blosc":
        monkeypatch.setattr(chunk_filters, "_plugin", lambda: None)
    return name


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(1, 7)),
    chunk=st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(1, 7)),
    dtype=st.sampled_from(["u1", "<u2", ">u2", "<i4", "<f8", ">f4", "<c8"]),
    version=st.sampled_from(["earliest", "latest"]),
    grows=st.booleans(),
    data=st.data(),
)
@settings(
    deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_same_as_through_hdf5(
    tmp_path_factory, name, shape, chunk, dtype, version, grows, data
):
    """Whatever the filter, the kind of index of chunks, and the region."""
    random = np.random.default_rng(data.draw(st.integers(0, 9)))
    values = random.integers(0, data.draw(st.sampled_from([2, 250])), shape).astype(dtype)
    chunk = tuple(map(min, chunk, shape))
    path = tmp_path_factory.mktemp("bytes") / "f.h5"
    with h5py.File(path, "w", libver=version) as file:
        more = {"maxshape": (None, *shape[1:])} if grows else {}
        file.create_dataset("d", data=values, chunks=chunk, **FILTERS[name], **more)
    rows = np.array(data.draw(st.lists(st.integers(0, shape[0] - 1), max_size=6)), np.int64)
    rows = data.draw(st.sampled_from([rows, np.arange(shape[0])]))
    ends = st.none() | st.integers(-8, 8)
    steps = st.sampled_from([None, 1, 2, -1, -3])
    roi = tuple(
        data.draw(
            st.just(slice(None))
            | st.builds(slice, ends, ends, steps)
            | st.integers(0, size - 1)
            | st.lists(st.integers(0, size - 1), max_size=4).map(lambda v: np.array(v, np.int64))
        )
        for size in shape[1:]
    )
    with h5py.File(path) as file:
        dataset = file["d"]
        chunks = ChunkBytes.of(dataset)
        assert chunks is not None
        axes = axes_of(roi, shape[1:])
        got = read_rows(dataset, rows, axes, chunks)
        expected = read_rows(dataset, rows, axes)
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == expected.dtype == np.dtype(dtype).newbyteorder("=")


@pytest.mark.parametrize("random", [False, True])
def test_large_chunks(tmp_path, name, random):
    """Of many blocks, by several threads; what does not compress, too."""
    values = np.random.default_rng(0).integers(0, 2**16 if random else 3, (6, 301, 201), "<u2")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("d", data=values, chunks=(1, 301, 201), **FILTERS[name])
    with h5py.File(tmp_path / "f.h5") as file:
        chunks = ChunkBytes.of(file["d"])
        with config.set({"daskbroker.decode-threads": 3}):
            got = read_rows(file["d"], np.arange(6), (range(301), range(201)), chunks)
    np.testing.assert_array_equal(got, values)


@pytest.mark.parametrize("packing", ["lz4", "zstd"])
@pytest.mark.parametrize("last", [False, True])
def test_a_block_as_long_packed_as_unpacked(tmp_path, monkeypatch, packing, last):
    """Blosc would take it for one that is not packed."""
    monkeypatch.setattr(chunk_filters, "_dectris", lambda: None)
    monkeypatch.setattr(chunk_filters, "_plugin", lambda: None)
    side = 512
    pack = {"lz4": imagecodecs.lz4_encode, "zstd": imagecodecs.zstd_encode}[packing]
    planes, packed = _as_long_packed(side, packing)
    blocks = [packed, pack(bytes(side))] if not last else [pack(bytes(side)), packed]
    data = struct.pack(">QI", 2 * side, side)
    data += b"".join(struct.pack(">I", len(block)) + block for block in blocks)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        options = hdf5plugin.Bitshuffle(nelems=side, cname=packing)
        dataset = file.create_dataset("d", (1, 2, side), "u1", chunks=(1, 2, side), **options)
        dataset.id.write_direct_chunk((0, 0, 0), data)
    with h5py.File(tmp_path / "f.h5") as file:
        axes = (range(2), range(side))
        got = read_rows(file["d"], np.arange(1), axes, ChunkBytes.of(file["d"]))
        np.testing.assert_array_equal(got, file["d"][...])
    expected = np.zeros((1, 2, side), "u1")
    expected[0, int(last)] = np.frombuffer(
        imagecodecs.bitshuffle_decode(planes, itemsize=1, blocksize=side), "u1"
    )
    np.testing.assert_array_equal(got, expected)


def _as_long_packed(size, packing):
    """Bytes that are as long when they are packed, and what they are then."""
    if packing == "zstd":  # which passes over frames of another kind
        packed = imagecodecs.zstd_encode(bytes(range(8)) * (size // 8))
        more = size - len(packed) - 8
        return bytes(range(8)) * (size // 8), packed + struct.pack("<II", 0x184D2A50, more) + bytes(
            more
        )
    noise = np.random.default_rng(0).integers(0, 256, size, "u1")
    for zeros in range(size):
        noise[:zeros] = 0
        packed = imagecodecs.lz4_encode(noise)
        if len(packed) == size:
            return noise.tobytes(), packed
    raise AssertionError("no such values were found")


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


def test_chunks_at_the_edge_that_skip_all_filters(tmp_path):
    """Newer formats may; no mask tells it."""
    values = frames(5)
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((2, 4, 5))
    plist.set_shuffle()
    setter = ctypes.CDLL(h5py.h5z.__file__).H5Pset_chunk_opts
    assert setter(ctypes.c_int64(plist.id), ctypes.c_uint(2)) >= 0
    with h5py.File(tmp_path / "f.h5", "w", libver="latest") as file:
        space = h5py.h5s.create_simple(values.shape)
        h5py.h5d.create(file.id, b"d", h5py.h5t.STD_U16LE, space, plist)
        file["d"][...] = values
    with h5py.File(tmp_path / "f.h5") as file:
        source = RowSource(file["d"])
        np.testing.assert_array_equal(source.read(np.arange(5), axes_of((), (6, 8))), values)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (1, 6, 8)},
        {"scaleoffset": 4},
        {"scaleoffset": 4, "compression": "gzip"},
        {"chunks": (1, 6, 8), **hdf5plugin.Blosc2()},
        {"chunks": (1, 6, 8), **hdf5plugin.FciDecomp()},
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
        monkeypatch.setattr("daskbroker.assets.handlers.hdf5.row_source._read_span", None)
        got = source.read(np.array([4, 0]), axes_of((slice(2), 3), (6, 8)))
    np.testing.assert_array_equal(got, frames(5)[[4, 0], :2, 3])
