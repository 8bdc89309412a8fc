"""Checksums of the bytes that a store keeps, so that damage is noticed before they are parsed.

Arrow trusts its own files: damaged ones can crash the process. msgpack returns wrong values.
"""

from __future__ import annotations

import zlib

from .errors import StoreDamaged

SIZE = 4
RESIDUE = 0x2144DF1C
"""CRC-32 of any bytes that are followed by their own CRC-32.

Comparing with it checks the bytes without cutting them first.
"""


def with_checksum(data: bytes) -> bytes:
    """Return the bytes with their CRC-32 appended."""
    return data + zlib.crc32(data).to_bytes(SIZE, "little")


SMALL = 4096
"""Bytes below which a copy is made faster than a view."""


def without_checksum(data: bytes, what: str) -> bytes | memoryview:
    """Return the bytes that :func:`with_checksum` was given, after a check.

    Parameters
    ----------
    data
        Bytes with their checksum.
    what
        Name of the bytes for messages.

    Returns
    -------
    bytes or memoryview
        A copy if there are few bytes, else a view, as that takes less time.

    Raises
    ------
    StoreDamaged
        If the bytes have changed since, or are of another type.
    """
    if not isinstance(data, bytes):
        raise StoreDamaged(f"{what} is damaged: bytes are expected, not {type(data).__name__}")
    size = len(data)
    if size <= SIZE or zlib.crc32(data) != RESIDUE:
        raise StoreDamaged(f"{what} is damaged: its checksum is wrong")
    return data[:-SIZE] if size < SMALL else memoryview(data)[:-SIZE]
