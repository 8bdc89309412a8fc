"""Chunks that unpack to more than a chunk are refused before HDF5 unpacks them."""

from __future__ import annotations

import struct

import h5py
import hdf5plugin
import numpy as np
import pytest

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
    message = "more than" if way == "past HDF5" else "far more than the 8192 of a chunk"
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
