"""Which iterators give stored documents: these never wait for what happens at a beamline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar
from weakref import WeakSet

__all__ = ["from_store", "is_from_store"]

Item = TypeVar("Item")

_streams: WeakSet[Iterator[Any]] = WeakSet()


def from_store(stream: Iterator[Item]) -> Iterator[Item]:
    """The same iterator, of which it is known from now on that it gives what is stored."""
    _streams.add(stream)
    return stream


def is_from_store(stream: object) -> bool:
    """Whether :func:`from_store` was told so of this iterator."""
    return isinstance(stream, Iterator) and stream in _streams
