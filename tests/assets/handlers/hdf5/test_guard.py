"""Chunks that unpack to more than a chunk are refused before HDF5 unpacks them."""

from __future__ import annotations

import bz2
import struct
import zlib

import h5py
import hdf5plugin
import numpy as np
import pytest
from h5py import h5z

from daskbroker.assets.handlers.hdf5.chunk_bytes import ChunkBytes
from daskbroker.core.errors import FillError
from daskbroker.testing.files import AD_DATASET, frames

FILTERS = {
    "lz4": hdf5plugin.LZ4(),
    "bitshuffle": hdf5plugin.Bitshuffle(),
    "zstd": hdf5plugin.Zstd(),
    "blosc": hdf5plugin.Blosc(),
}
HUGE = 2**31 - 1
CLAIMS = {
    "lz4": struct.pack(">QI", HUGE, 2**20),
    "bitshuffle": struct.pack(">QI", HUGE, 8192),
    "zstd": b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", HUGE),
    "blosc": struct.pack("<BBBBIII", 2, 1, 1, 2, HUGE, 2**20, 64),
}


@pytest.fixture(autouse=True, params=["past HDF5", "by HDF5"])
def way(request, monkeypatch):
    """Files that are still written, among others, are read by HDF5."""
    if request.param == "by HDF5":
        monkeypatch.setattr(ChunkBytes, "of", lambda dataset: None)
    return request.param


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("frame", [1, 30])
def test_a_chunk_that_claims_to_be_huge(tmp_path, reader, name, frame):
    """Looked for alone, and after many others; the sound ones are read."""
    path = tmp_path / "f.h5"
    data = frames(32, (256, 256))  # too large to be read and dropped
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(AD_DATASET, data=data, chunks=(1, 256, 256), **FILTERS[name])
        dataset.id.write_direct_chunk((frame, 0, 0), CLAIMS[name] + bytes(64))
    sound = [{"point_number": n} for n in range(32) if n != frame]
    if frame == 30:
        got = reader.resource("AD_HDF5", path, sound)
        np.testing.assert_array_equal(got[:, 0], np.delete(data, frame, axis=0))
    with pytest.raises(FillError, match=rf"chunk \({frame}, 0, 0\).*131072 (bytes )?of a"):
        reader.resource("AD_HDF5", path, [{"point_number": frame}])


def test_a_chunk_that_is_stored_larger_than_it_is(tmp_path, reader, way):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(
            AD_DATASET, (2, 64, 64), np.uint16, chunks=(1, 64, 64), compression="lzf"
        )
        dataset.id.write_direct_chunk((0, 0, 0), bytes(2**22))
    message = (
        "4,194,304 bytes is not possible"
        if way == "past HDF5"
        else "far more than the 8192 of a chunk"
    )
    with pytest.raises(FillError, match=message):
        reader.resource("AD_HDF5", path, [{"point_number": 0}])


@pytest.mark.parametrize("name", FILTERS)
def test_chunks_beyond_the_edge_and_unwritten_ones(tmp_path, reader, name):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        dataset = file.create_dataset(
            AD_DATASET, (7, 6, 8), np.uint16, chunks=(4, 4, 5), **FILTERS[name]
        )
        dataset[:4] = frames(4)
    datums = [{"point_number": n} for n in range(7)]
    got = reader.resource("AD_HDF5", tmp_path / "f.h5", datums)
    np.testing.assert_array_equal(got[:4, 0], frames(4))
    assert not got[4:].any()


DEFLATE, SHUFFLE, SCALE_OFFSET = h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_SCALEOFFSET
LZF, BZIP2 = 32000, 307
NOTHING = bytes(2**25)
SOMETHING = np.random.default_rng(1).bytes(6 * 10**5)
PACKED = zlib.compress(NOTHING, 9)


def bytes_apart(data):
    """Return pairs of bytes after the byte shuffle."""
    return np.frombuffer(data, np.uint8).reshape(-1, 2).T.tobytes()


def write_through(path, filters, chunk=None, mask=0):
    """A dataset of two chunks that have passed through these filters, one of them given."""
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1, 64, 64))
        for code, *values in filters:
            plist.set_filter(code, 0, tuple(values))
        group = file.create_group(AD_DATASET.rpartition("/")[0])
        space = h5py.h5s.create_simple((2, 64, 64))
        made = h5py.h5d.create(
            group.id, AD_DATASET.rpartition("/")[2].encode(), h5py.h5t.NATIVE_UINT16, space, plist
        )
        h5py.Dataset(made)[:] = frames(2, (64, 64))
        if chunk is not None:
            made.write_direct_chunk((0, 0, 0), chunk, filter_mask=mask)


GROWING = {
    "twice": ([(DEFLATE, 9), (DEFLATE, 9)], zlib.compress(PACKED, 9), 0),
    "in the middle": ([(DEFLATE, 9), (SHUFFLE,), (DEFLATE, 9)], zlib.compress(PACKED, 9), 0b10),
    "then shuffled": (
        [(DEFLATE, 9), (SHUFFLE, 2)],
        bytes_apart(PACKED + bytes(len(PACKED) % 2)),
        0,
    ),
    "the last one left out": ([(DEFLATE, 9), (LZF,)], zlib.compress(SOMETHING + NOTHING, 9), 0b10),
    "bzip2": ([(BZIP2, 9)], bz2.compress(NOTHING), 0),
}


@pytest.mark.parametrize("name", GROWING)
def test_no_filter_makes_much_of_a_chunk(tmp_path, reader, name):
    filters, chunk, mask = GROWING[name]
    write_through(tmp_path / "f.h5", filters, chunk, mask)
    if name != "the last one left out":
        got = reader.resource("AD_HDF5", tmp_path / "f.h5", [{"point_number": 1}])
        np.testing.assert_array_equal(got[0, 0], frames(2, (64, 64))[1])
    with pytest.raises(FillError, match=r"8192 (bytes )?of a chunk"):
        reader.resource("AD_HDF5", tmp_path / "f.h5", [{"point_number": 0}])


def test_a_filter_whose_output_nothing_tells(tmp_path, reader):
    write_through(tmp_path / "f.h5", [(DEFLATE, 9), (LZF,)])
    with pytest.raises(FillError, match="cannot be read safely: the size of what filter 32000"):
        reader.resource("AD_HDF5", tmp_path / "f.h5", [{"point_number": 0}])


def test_elements_that_the_parameters_of_a_filter_claim(tmp_path, reader):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(
            AD_DATASET, data=frames(2, (64, 64)), chunks=(1, 64, 64), scaleoffset=0
        )
        *_, values, _ = dataset.id.get_create_plist().get_filter(0)
    stored = struct.pack("<5I", *values[:5])
    claimed = struct.pack("<5I", *values[:2], 2**28, *values[3:5])
    assert path.read_bytes().count(stored) == 1
    path.write_bytes(path.read_bytes().replace(stored, claimed))
    with pytest.raises(FillError, match="536,870,912 bytes or more, far more than the 8192"):
        reader.resource("AD_HDF5", path, [{"point_number": 0}])
