"""Decoders of three HDF5 filters for numcodecs and Zarr: LZ4, LZF and bitshuffle.

References to HDF5 files lead to chunks as HDF5's filters wrote them. numcodecs has codecs for most
filters, but not for LZ4 (32004) and bitshuffle (32008), which write headers of their own before
blocks, nor for LZF (32000). This package needs NumPy and imagecodecs, and nothing of daskbroker. To
open references, install daskbroker without its dependencies (``pip install --no-deps``), or copy
this folder and call :func:`register`.

===================== ================================ ==========================================
codec                 configuration                    entry points
===================== ================================ ==========================================
``hdf5_lz4``          none                             ``numcodecs.codecs``, ``zarr.codecs``
``hdf5_lzf``          ``size``: bytes of a chunk        likewise
``hdf5_bitshuffle``   ``elementsize``, ``packing``     likewise
                      (``"lz4"`` or ``"zstd"``)
===================== ================================ ==========================================
"""

from __future__ import annotations

import struct
from typing import Any

import imagecodecs
import numpy as np

__all__ = ["decode_bitshuffle", "decode_lz4", "decode_lzf", "register"]

LZ4, LZF, BITSHUFFLE = "hdf5_lz4", "hdf5_lzf", "hdf5_bitshuffle"
PACKINGS = {"lz4": imagecodecs.lz4_decode, "zstd": imagecodecs.zstd_decode}
GROUP = 8
"""Number of elements that bitshuffle shuffles together; fewer at the end are left as they are."""

MOST_RATIO = 2**16
"""Maximum ratio of decoded to stored bytes; no filter reaches more, even for zeros."""

_SIZES = struct.Struct(">QI")
_LENGTH = struct.Struct(">I")


def decode_lz4(data: Any) -> np.ndarray:
    """Decode a chunk of HDF5's LZ4 filter.

    Parameters
    ----------
    data
        Stored chunk, any object with the buffer protocol.

    Returns
    -------
    numpy.ndarray
        Decoded bytes, one-dimensional uint8.

    Raises
    ------
    ValueError
        If the chunk is cut off, or its header is not valid.
    """
    view, size, block, at = _begin(data)
    out = np.empty(size, np.uint8)
    for first in range(0, size, block):
        part = out[first : first + block]
        packed, at = _next(view, at)
        if len(packed) == len(part):  # a block that LZ4 cannot make smaller is stored as it is
            part[:] = np.frombuffer(packed, np.uint8)
        else:
            _expect(len(imagecodecs.lz4_decode(packed, out=part)), len(part))
    return out


def decode_lzf(data: Any, size: int) -> np.ndarray:
    """Decode a chunk of HDF5's LZF filter.

    Parameters
    ----------
    data
        Stored chunk, any object with the buffer protocol.
    size
        Bytes of the decoded chunk, which LZF does not store.

    Returns
    -------
    numpy.ndarray
        Decoded bytes, one-dimensional uint8.

    Raises
    ------
    ValueError
        If the chunk decodes to another number of bytes.
    """
    _check_ratio(size, memoryview(data).nbytes)
    out = np.empty(size, np.uint8)
    found = imagecodecs.lzf_decode(data, out=out)
    if len(found) != size:
        raise ValueError(f"the chunk has {len(found):,} bytes, not {size:,}")
    return out


def decode_bitshuffle(data: Any, elementsize: int, packing: str) -> np.ndarray:
    """Decode a chunk of HDF5's bitshuffle filter with compression.

    Parameters
    ----------
    data
        Stored chunk, any object with the buffer protocol.
    elementsize
        Bytes of an element.
    packing
        Compression of the shuffled blocks: ``"lz4"`` or ``"zstd"``.

    Returns
    -------
    numpy.ndarray
        Decoded bytes, one-dimensional uint8.

    Raises
    ------
    ValueError
        If the chunk is cut off, or its header is not valid.
    """
    view, size, block, at = _begin(data)
    unpack = PACKINGS[packing]
    out = np.empty(size, np.uint8)
    whole = size // (GROUP * elementsize) * GROUP * elementsize
    for first in range(0, whole, block):
        part = out[first : min(first + block, whole)]
        packed, at = _next(view, at)
        planes = np.empty(len(part), np.uint8)
        _expect(len(unpack(packed, out=planes)), len(part))
        # `planes` is passed as a buffer: of an array, imagecodecs would use the dtype.
        imagecodecs.bitshuffle_decode(
            planes.data, itemsize=elementsize, blocksize=len(part) // elementsize, out=part
        )
    if at + size - whole > len(view):  # NumPy would repeat a single byte
        raise ValueError("the chunk is cut off after its blocks")
    out[whole:] = np.frombuffer(view[at : at + size - whole], np.uint8)
    return out


def _begin(data: Any) -> tuple[memoryview, int, int, int]:
    """Return the bytes, the decoded size, that of a block, and the offset of the first block."""
    view = memoryview(data).cast("B")
    if len(view) < _SIZES.size:
        raise ValueError("the chunk is too short for its header")
    size, block = _SIZES.unpack_from(view)
    if size and block == 0:
        raise ValueError("the chunk has blocks of no length")
    _check_ratio(size, len(view))
    return view, size, block, _SIZES.size


def _check_ratio(size: int, stored: int) -> None:
    if size > MOST_RATIO * max(stored, 2**12):
        raise ValueError(f"a chunk of {stored:,} bytes claims to be {size:,}")


def _expect(found: int, size: int) -> None:
    if found != size:
        raise ValueError(f"a block has {found:,} bytes, not {size:,}")


def _next(view: memoryview, at: int) -> tuple[memoryview, int]:
    """Return the block at an offset, and the offset after it."""
    if at + _LENGTH.size > len(view):
        raise ValueError("the chunk is cut off")
    (length,) = _LENGTH.unpack_from(view, at)
    end = at + _LENGTH.size + length
    if end > len(view):
        raise ValueError("the chunk is cut off")
    return view[at + _LENGTH.size : end], end


def register() -> None:
    """Register the codecs in this process with numcodecs, and with Zarr if it is installed.

    This is not needed if the package is installed, as its entry points are found.
    """
    import numcodecs.registry

    from .for_numcodecs import HDF5LZ4, HDF5LZF, HDF5Bitshuffle

    for codec in (HDF5LZ4, HDF5LZF, HDF5Bitshuffle):
        numcodecs.registry.register_codec(codec)
    try:
        import zarr.registry
    except ImportError:
        return
    from .for_zarr import BitshuffleCodec, LZ4Codec, LZFCodec

    zarr.registry.register_codec(LZ4, LZ4Codec)
    zarr.registry.register_codec(LZF, LZFCodec)
    zarr.registry.register_codec(BITSHUFFLE, BitshuffleCodec)
