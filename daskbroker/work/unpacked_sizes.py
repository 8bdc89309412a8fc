"""How large the content of a compressed file may be, which is not known before it is unpacked."""

from __future__ import annotations

FREE_BYTES = 64 * 2**20
"""Bytes that any compressed file may unpack to, whatever its size."""
RATIO = 250
"""Maximum ratio of the unpacked size to the size of the file, above :data:`FREE_BYTES`."""


def most_unpacked(size: int) -> int:
    """Return the maximum bytes that a compressed file of a size may unpack to."""
    return max(FREE_BYTES, RATIO * size)
