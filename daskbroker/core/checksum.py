"""Checksums on what a store keeps as bytes, so that damage is noticed before it is read.

Arrow trusts its own files: damaged ones can crash the process. msgpack gives other values.
"""

from __future__ import annotations

import zlib

from .errors import StoreDamaged

__all__ = ["seal_bytes", "sound_bytes"]

SIZE = 4
RESIDUE = 0x2144DF1C
"""The CRC-32 of any bytes that have their own CRC-32 behind them."""


def seal_bytes(data: bytes) -> bytes:
    """The bytes with their CRC-32 at the end."""
    return data + zlib.crc32(data).to_bytes(SIZE, "little")


SMALL = 4096
"""So many bytes are copied faster than a view of them is made."""


def sound_bytes(data: bytes, what: str) -> bytes | memoryview:
    """What :func:`seal_bytes` was given; a view of it where a copy would take longer.

    Raises
    ------
    StoreDamaged
        If the bytes have changed since; ``what`` says what they are.
    """
    if not isinstance(data, bytes):
        raise StoreDamaged(f"{what} is damaged: bytes are expected, not {type(data).__name__}")
    if len(data) <= SIZE or zlib.crc32(data) != RESIDUE:
        raise StoreDamaged(f"{what} is damaged: its checksum is wrong")
    return data[:-SIZE] if len(data) < SMALL else memoryview(data)[:-SIZE]
