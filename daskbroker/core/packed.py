"""Normalized values as msgpack bytes with a checksum, as they are stored."""

from __future__ import annotations

import uuid
from typing import Any

import msgpack
import numpy as np

from .checksum import with_checksum, without_checksum
from .dtypes import fields_dtype, fields_text, plain_dtype
from .field_rows import lists_of
from .frozen import ArrayList
from .plain_msgpack import Unpacker, packb, unpackb

# Codes of extension types in stored bytes: they must never change.
_EXT_INTEGER = 1
_EXT_ARRAY = 2
_EXT_UUID = 3
_EXT_ROWS = 4


def _default(value: object) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.names:
        parts = fields_text(value.dtype), value.shape, lists_of(value)
        return msgpack.ExtType(
            _EXT_ROWS, packb(parts, default=_default, unicode_errors="surrogatepass")
        )
    if isinstance(value, np.ndarray):
        head = packb((value.dtype.str, value.shape))
        return msgpack.ExtType(_EXT_ARRAY, head + value.tobytes())
    if isinstance(value, int):  # beyond 64 bits
        return msgpack.ExtType(_EXT_INTEGER, str(value).encode())
    if isinstance(value, uuid.UUID):
        return msgpack.ExtType(_EXT_UUID, value.bytes)
    raise TypeError(type(value))


def ext_hook(code: int, data: bytes) -> Any:
    """Return the value of an extension type of msgpack, of those that :func:`pack` makes."""
    if code == _EXT_INTEGER:
        return int(data)
    if code == _EXT_UUID:
        return uuid.UUID(bytes=data)
    if code == _EXT_ROWS:
        text, shape, rows = unpackb(data, ext_hook=ext_hook, unicode_errors="surrogatepass")
        return ArrayList(rows, fields_dtype(text), shape)
    unpacker = Unpacker()
    unpacker.feed(data)
    dtype, shape = unpacker.unpack()
    return np.frombuffer(data, plain_dtype(dtype), offset=unpacker.tell()).reshape(shape)


def pack(value: Any) -> bytes:
    """Return a normalized value as msgpack bytes with a checksum.

    NaN, integers of any size, UUIDs and arrays are kept exactly.
    """
    return with_checksum(packb(value, default=_default, unicode_errors="surrogatepass"))


def unpack(data: bytes) -> Any:
    """Return the value that :func:`pack` was given.

    Raises
    ------
    StoreDamaged
        If the bytes have changed since.
    """
    return unpackb(
        without_checksum(data, "a stored document"),
        ext_hook=ext_hook,
        unicode_errors="surrogatepass",
        strict_map_key=False,
    )
