"""Items in lists of a bounded size, as by ``itertools.batched`` of Python 3.12."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of ``size`` items, the last of which may be shorter; none is empty. Lazy."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
