"""Hash numbers of uids, the keys of table ``document_key``.

The numbers of one run are close together, and are otherwise spread evenly. Two uids may have the
same number, so a look-up must compare the uids themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache

import numpy as np

KEY_BITS = 38
"""Bits of a number that come from the uid; the rest of its 63 bits is the number of the run."""

FEW = 15
"""Number of uids up to which a loop in Python is faster than NumPy."""

# Multiplying by 2**64 over the golden ratio spreads the bits of a word upwards, and folding the
# upper bits back lets the next multiplication spread them again. Stored numbers depend on these.
FACTOR = 0x9E37_79B9_7F4A_7C15
WORD = 2**64 - 1
FOLD = 29


def uid_key(uid: str, kind: str, run: int) -> int:
    """Return the number of one document.

    Parameters
    ----------
    uid
        Uid of the document.
    kind
        Kind of its layout.
    run
        Key of its run in the store.
    """
    state = _state(_seed(kind), uid.encode("utf8", "surrogatepass"))
    return (run << KEY_BITS) + (state >> (64 - KEY_BITS))


def uid_keys(uids: Sequence[str], kind: str, run: int) -> np.ndarray:
    """Return the numbers of at least one uid, as :func:`uid_key`; int64, ``(len(uids),)``."""
    width = len(uids[0])
    try:
        if len(uids) <= FEW or set(map(len, uids)) != {width}:
            raise ValueError("uids of different length")
        texts = np.array(uids, f"S{max(1, width)}")
    except ValueError:  # few, of different lengths, or with characters that are not ASCII
        return np.array([uid_key(uid, kind, run) for uid in uids], np.int64)
    count = -(-width // 8)
    words = texts.astype(f"S{max(1, count) * 8}").view("<u8").reshape(len(uids), -1)
    state = np.full(len(uids), _seed(kind), np.uint64)
    for column in words.T[:count]:
        state = (state ^ column) * np.uint64(FACTOR)
        state ^= state >> np.uint64(FOLD)
    return (state >> np.uint64(64 - KEY_BITS)).astype(np.int64) + (run << KEY_BITS)


def _state(seed: int, body: bytes) -> int:
    count = -(-len(body) // 8)
    state = seed
    for word in struct.unpack(f"<{count}Q", body.ljust(count * 8, b"\0")):
        state = (state ^ word) * FACTOR & WORD
        state ^= state >> FOLD
    return state


@cache
def _seed(kind: str) -> int:
    return _state(0, kind.encode())
