"""Register of iterators of stored documents, which never wait for events at a beamline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar
from weakref import WeakSet

Item = TypeVar("Item")

_streams: WeakSet[Iterator[Any]] = WeakSet()


def from_store(stream: Iterator[Item]) -> Iterator[Item]:
    """Register an iterator of stored documents and return it."""
    _streams.add(stream)
    return stream


def is_from_store(stream: object) -> bool:
    """Return whether an iterator was registered by :func:`from_store`."""
    return isinstance(stream, Iterator) and stream in _streams
