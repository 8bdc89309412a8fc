"""Numbered variants of a name that is taken."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count


def free_name(name: str, is_taken: Callable[[str], bool]) -> str:
    """Return the first of ``name``, ``name_2``, ``name_3``, … that is not taken."""
    if not is_taken(name):
        return name
    return next(free for n in count(2) if not is_taken(free := f"{name}_{n}"))
