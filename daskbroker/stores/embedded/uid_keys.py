"""Numbers for uids, under which ``document_key`` looks documents up.

Close together for the documents of one run, otherwise spread evenly. Two uids may have one number:
who looks up compares the uids themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache

import numpy as np

__all__ = ["KEY_BITS", "uid_key", "uid_keys"]

KEY_BITS = 38
"""The rest of 63 bits numbers the runs."""

FACTOR = 0x9E37_79B9_7F4A_7C15
WORD = 2**64 - 1
FOLD = 29


def uid_key(uid: str, kind: str, run: int) -> int:
    """The number of one document of a run; ``kind`` is that of its layout."""
    state = _state(_seed(kind), _encoded(uid))
    return (run << KEY_BITS) + (state >> (64 - KEY_BITS))


def uid_keys(uids: Sequence[str], kind: str, run: int) -> np.ndarray:
    """The numbers of :func:`uid_key`, as int64 of shape ``(len(uids),)``."""
    width = len(uids[0])
    try:
        if set(map(len, uids)) != {width}:
            raise ValueError("uids of different length")
        texts = np.array(uids, f"S{max(1, width)}")
    except ValueError:  # or letters that are not ASCII
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


def _encoded(uid: str) -> bytes:
    return uid.encode("utf8", "surrogatepass")
