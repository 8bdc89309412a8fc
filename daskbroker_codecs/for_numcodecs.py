"""The codecs as classes of numcodecs, for Zarr's format 2."""

from __future__ import annotations

from typing import Any

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ndarray_copy

from . import BITSHUFFLE, LZ4, LZF, decode_bitshuffle, decode_lz4, decode_lzf

__all__ = ["HDF5LZ4", "HDF5LZF", "HDF5Bitshuffle"]


class _Decoder(Codec):  # type: ignore[misc]
    """Base class of codecs that only decode, as nothing new is written in HDF5's own blocks."""

    def encode(self, buf: Any) -> Any:
        raise NotImplementedError(f"{self.codec_id} only decodes")


class HDF5LZ4(_Decoder):
    """Decoder of HDF5's LZ4 filter: ``{"id": "hdf5_lz4"}``."""

    codec_id = LZ4

    def decode(self, buf: Any, out: Any = None) -> Any:
        return ndarray_copy(decode_lz4(np.ascontiguousarray(buf)), out)


class HDF5LZF(_Decoder):
    """Decoder of HDF5's LZF filter: ``{"id": "hdf5_lzf", "size": 96}``.

    Parameters
    ----------
    size
        Bytes of a decoded chunk.
    """

    codec_id = LZF

    def __init__(self, size: int) -> None:
        self.size = size

    def decode(self, buf: Any, out: Any = None) -> Any:
        return ndarray_copy(decode_lzf(np.ascontiguousarray(buf), self.size), out)


class HDF5Bitshuffle(_Decoder):
    """Decoder of HDF5's bitshuffle filter.

    Its configuration is ``{"id": "hdf5_bitshuffle", "elementsize": 2, "packing": "lz4"}``.

    Parameters
    ----------
    elementsize
        Bytes of an element.
    packing
        Compression of the shuffled blocks: ``"lz4"`` or ``"zstd"``.
    """

    codec_id = BITSHUFFLE

    def __init__(self, elementsize: int, packing: str = "lz4") -> None:
        self.elementsize, self.packing = elementsize, packing

    def decode(self, buf: Any, out: Any = None) -> Any:
        values = decode_bitshuffle(np.ascontiguousarray(buf), self.elementsize, self.packing)
        return ndarray_copy(values, out)
