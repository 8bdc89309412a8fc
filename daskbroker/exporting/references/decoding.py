"""Reading of a cell by its references alone, as any other reader will, for a comparison."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np

from ...assets.handlers.stored_frames import Codec, NoReference
from ...core.regular_files import open_regular
from .frame_grid import FrameGrid

ChunkDecoder = Callable[[bytes, Codec, int], Any]


def read_grid_cell(grid: FrameGrid, index: int) -> np.ndarray:
    """Read one cell of a grid. All chunks that it is in are decoded as a whole.

    Parameters
    ----------
    grid
        Grid of the array.
    index
        Index of the cell along the first axis.

    Returns
    -------
    numpy.ndarray
        Array of shape ``grid.shape[1:]`` and dtype ``grid.dtype``.

    Raises
    ------
    NoReference
        If a chunk does not decode to values of the chunk's shape.
    OSError
        If a file cannot be read.
    """
    out = np.empty(grid.shape[1:], grid.dtype)
    row, inside = divmod(index, grid.chunk[0])
    for where in itertools.product(*map(range, grid.numbers.shape[1:])):
        chunk = _read_chunk(grid, (row, *where))[inside]
        corner = [at * side for at, side in zip(where, grid.chunk[1:])]
        target = tuple(slice(c, c + side) for c, side in zip(corner, grid.chunk[1:]))
        part = out[target]
        part[...] = chunk[tuple(map(slice, part.shape))]
    return out


def _read_chunk(grid: FrameGrid, where: tuple[int, ...]) -> np.ndarray:
    file = grid.files[int(grid.numbers[where])]
    with open_regular(file.path, buffering=0) as opened:
        data = os.pread(opened.fileno(), int(grid.sizes[where]), int(grid.offsets[where]))
    try:
        for number in reversed(range(len(grid.codecs))):
            codec = grid.codecs[number]
            # Checksums that were appended before this codec was applied count in its output.
            sums = sum(before["id"] == "fletcher32" for before in grid.codecs[:number])
            data = bytes(_DECODERS[codec["id"]](data, codec, grid.chunk_bytes + 4 * sums))
        return np.frombuffer(data, grid.dtype).reshape(grid.chunk)
    except (RuntimeError, ValueError) as error:
        raise NoReference(
            f"the chunk {where} in {file.path!r} does not decode to values of {grid.chunk}: {error}"
        ) from None


def _unshuffle(data: bytes, codec: Codec, size: int) -> bytes:
    return np.frombuffer(data, np.uint8).reshape(codec["elementsize"], -1).T.tobytes()


def _of_hdf5(data: bytes, codec: Codec, size: int) -> np.ndarray:
    """Decode by the package that other readers use, too; imported only if a file needs it."""
    from daskbroker_codecs import decode_bitshuffle, decode_lz4, decode_lzf

    if codec["id"] == "hdf5_lz4":
        return decode_lz4(data)
    if codec["id"] == "hdf5_lzf":
        return decode_lzf(data, codec["size"])
    return decode_bitshuffle(data, codec["elementsize"], codec["packing"])


_DECODERS: dict[str, ChunkDecoder] = {
    "zlib": lambda data, codec, size: imagecodecs.zlib_decode(data, out=size),
    "bz2": lambda data, codec, size: imagecodecs.bz2_decode(data, out=size),
    "zstd": lambda data, codec, size: imagecodecs.zstd_decode(data, out=size),
    "blosc": lambda data, codec, size: imagecodecs.blosc_decode(data, out=size),
    "shuffle": _unshuffle,
    "fletcher32": lambda data, codec, size: data[:-4],
    "gzip": lambda data, codec, size: imagecodecs.gzip_decode(data, out=size),
    "hdf5_lz4": _of_hdf5,
    "hdf5_lzf": _of_hdf5,
    "hdf5_bitshuffle": _of_hdf5,
}
