"""The codecs as classes of Zarr, for its format 3."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from zarr.abc.codec import BytesBytesCodec

from . import BITSHUFFLE, LZ4, LZF, decode_bitshuffle, decode_lz4, decode_lzf

__all__ = ["BitshuffleCodec", "LZ4Codec", "LZFCodec"]


class _Decoder(BytesBytesCodec):  # type: ignore[misc]
    """Base class of codecs that only decode."""

    is_fixed_size = False
    name: ClassVar[str]

    def decoder(self) -> Callable[[np.ndarray], np.ndarray]:
        """Return the function that decodes a chunk to bytes, as a uint8 array."""
        raise NotImplementedError

    def configuration(self) -> dict[str, Any]:
        """Return the configuration of the codec in an array's metadata."""
        return {}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> _Decoder:
        return cls(**data.get("configuration", {}))

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "configuration": self.configuration()}

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        values = await asyncio.to_thread(self.decoder(), chunk_bytes.as_numpy_array())
        return chunk_spec.prototype.buffer.from_bytes(values.tobytes())

    async def _encode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        raise NotImplementedError(f"{self.name} only decodes")

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        raise NotImplementedError


@dataclass(frozen=True)
class LZ4Codec(_Decoder):
    """Decoder of HDF5's LZ4 filter: ``{"name": "hdf5_lz4"}``."""

    name = LZ4

    def decoder(self) -> Callable[[np.ndarray], np.ndarray]:
        return decode_lz4


@dataclass(frozen=True)
class LZFCodec(_Decoder):
    """Decoder of HDF5's LZF filter.

    Its metadata are ``{"name": "hdf5_lzf", "configuration": {"size": 96}}``.

    Parameters
    ----------
    size
        Bytes of a decoded chunk.
    """

    size: int
    name = LZF

    def decoder(self) -> Callable[[np.ndarray], np.ndarray]:
        return lambda data: decode_lzf(data, self.size)

    def configuration(self) -> dict[str, Any]:
        return {"size": self.size}


@dataclass(frozen=True)
class BitshuffleCodec(_Decoder):
    """Decoder of HDF5's bitshuffle filter.

    Its metadata are ``{"name": "hdf5_bitshuffle", "configuration": {"elementsize": 2, "packing":
    "lz4"}}``.

    Parameters
    ----------
    elementsize
        Bytes of an element.
    packing
        Compression of the shuffled blocks: ``"lz4"`` or ``"zstd"``.
    """

    elementsize: int
    packing: str = "lz4"
    name = BITSHUFFLE

    def decoder(self) -> Callable[[np.ndarray], np.ndarray]:
        return lambda data: decode_bitshuffle(data, self.elementsize, self.packing)

    def configuration(self) -> dict[str, Any]:
        return {"elementsize": self.elementsize, "packing": self.packing}
