"""The original functions of msgpack, even if other packages have replaced its names.

``msgpack_numpy.patch()``, which bluesky's clients of 0MQ and Kafka call when they are imported,
replaces ``msgpack.packb``, ``unpackb`` and the classes behind them for the whole process. What it
packs is not our format, and what it unpacks may be an array of a dtype that crashes NumPy. The
modules that define these names are left as they are.
"""

from __future__ import annotations

from typing import Any

try:
    from msgpack._cmsgpack import Packer, Unpacker, unpackb
except ImportError:  # where msgpack was built without its extension
    from msgpack.fallback import Packer, Unpacker, unpackb

__all__ = ["Unpacker", "packb", "unpackb"]


def packb(value: Any, **options: Any) -> bytes:
    """Pack one value; ``options`` are those of ``msgpack.Packer``."""
    packed: bytes = Packer(**options).pack(value)
    return packed
