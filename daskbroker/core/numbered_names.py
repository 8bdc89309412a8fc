"""Numbered variants of a name, for a caller who takes the first that is free."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

__all__ = ["numbered_names"]


def numbered_names(name: str) -> Iterator[str]:
    """Yield ``name``, ``name_2``, ``name_3``, … without end."""
    yield name
    for number in count(2):
        yield f"{name}_{number}"
