"""A damaged chunk, of any filter, gives an error or pixels, in bounded memory, and no crash."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from daskbroker.assets.handlers.hdf5 import chunk_filters
from daskbroker.assets.handlers.hdf5.chunk_bytes import ChunkBytes
from daskbroker.core.errors import FillError

SHAPE = (100, 131)
MEMORY = 64 * 2**20
"""Bytes of addresses beside what the process has."""
CHUNKS = 400
FILTERS = {
    "gzip": {"compression": "gzip", "shuffle": True},
    "checksum": {"compression": "gzip", "fletcher32": True},
    "lzf": {"compression": "lzf"},
    "bzip2": hdf5plugin.BZip2(),
    "lz4": hdf5plugin.LZ4(),
    "lz4-blocks": hdf5plugin.LZ4(nbytes=4096),
    "zstd": hdf5plugin.Zstd(),
    "bitshuffle-lz4": hdf5plugin.Bitshuffle(),
    "bitshuffle-zstd": hdf5plugin.Bitshuffle(cname="zstd"),
    "bitshuffle": hdf5plugin.Bitshuffle(cname="none"),
    "blosc-lz4": hdf5plugin.Blosc(cname="lz4", shuffle=2),
    "blosc-zstd": hdf5plugin.Blosc(cname="zstd", shuffle=1),
    "blosc-zlib": hdf5plugin.Blosc(cname="zlib", shuffle=1),
    "blosc-blosclz": hdf5plugin.Blosc(cname="blosclz", shuffle=0),
}
LIES = [
    *(struct.pack(">I", value) for value in (0, 1, 8, 2**31 - 1, 2**32 - 1)),
    *(struct.pack("<I", value) for value in (1, 8, 2**31 - 1)),
    struct.pack(">Q", 2**40),
    struct.pack("<Q", 2**63 - 1),
]


def damaged(sound, seed):
    """Return the bytes of a chunk, damaged in one of many ways."""
    chance = random.Random(seed)
    data = bytearray(sound)
    kind = chance.choice(["bits", "cut", "more", "lie", "lie", "noise", "other"])
    if kind == "bits":
        for _ in range(chance.choice([1, 1, 2, 9])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del data[chance.randrange(len(data)) :]
    elif kind == "more":
        data += chance.randbytes(chance.randrange(1, 300))
    elif kind == "lie":  # of sizes, in the header or between blocks
        lie = chance.choice(LIES)
        at = chance.choice([0, 4, 8, 12, 16, chance.randrange(min(64, len(data)))])
        data[at : at + len(lie)] = lie
    elif kind == "noise":
        data = bytearray(chance.randbytes(len(data)))
    else:  # a part moved
        at = chance.randrange(len(data))
        data = data[at:] + data[:at]
    return bytes(data)


def write(path, options):
    """A dataset of damaged chunks, the last one sound."""
    pixels = np.random.default_rng(1).poisson(0.5, SHAPE).astype("<u4")
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(
            "d", (CHUNKS + 1, *SHAPE), "<u4", chunks=(1, *SHAPE), **options
        )
        dataset[CHUNKS] = pixels
        _, sound = dataset.id.read_direct_chunk((CHUNKS, 0, 0))
        for number in range(CHUNKS):
            dataset.id.write_direct_chunk((number, 0, 0), damaged(sound, number) or b"\0")
    return pixels


def read_all(name, way, folder):
    """Return the numbers of chunks that gave an error, and that gave pixels."""
    if way != "dectris":
        chunk_filters._dectris = lambda: None
    if way == "blosc":
        chunk_filters._plugin = lambda: None
    path = Path(folder) / f"{name}.h5"
    pixels = write(path, FILTERS[name])
    axes = tuple(map(range, SHAPE))
    with h5py.File(path) as file, ChunkBytes.of(file["d"]).opened() as number:
        chunks = ChunkBytes.of(file["d"])
        got = chunks.read_rows(number, np.array([CHUNKS]), axes)
        np.testing.assert_array_equal(got[0], pixels)
        with open("/proc/self/statm") as file:
            have = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (have + MEMORY, have + MEMORY))
        found = {"errors": 0, "pixels": 0}
        for row in range(CHUNKS):
            signal.alarm(20)
            try:
                got = chunks.read_rows(number, np.array([row]), axes)
            except FillError as error:
                assert f"the chunk ({row}, 0, 0) of the dataset is damaged" in str(error)
                found["errors"] += 1
            else:
                assert got.shape == (1, *SHAPE)
                found["pixels"] += 1
            signal.alarm(0)
    return found


@pytest.mark.parametrize("name", FILTERS)
def test_damaged_chunks(tmp_path, name):
    ways = ["hdf5plugin"]
    if name == "bitshuffle-lz4":
        ways.append("blosc")
        if find_spec("dectris"):  # see ci/long.sh eiger
            ways.append("dectris")
    for way in ways:
        script = (
            f"import json, sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); "
            "from test_damage import read_all; "
            f"print(json.dumps(read_all({name!r}, {way!r}, {str(tmp_path)!r})))"
        )
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, (way, done.returncode, done.stdout, done.stderr[-3000:])
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["errors"] > (0 if name == "bitshuffle" else 100), found
