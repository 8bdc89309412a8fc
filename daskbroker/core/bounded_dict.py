"""A mapping of limited size for what was looked up recently."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["BoundedDict"]

K = TypeVar("K")
V = TypeVar("V")

MAX_ENTRIES = 2000


class BoundedDict(dict[K, V]):
    """A dict of at most 2,000 entries, which drops the entry that was added first."""

    def __setitem__(self, key: K, value: V) -> None:
        if len(self) >= MAX_ENTRIES and key not in self:
            self.pop(next(iter(self)), None)  # another thread may be quicker
        super().__setitem__(key, value)

    def find(self, key: K, look_up: Callable[[K], V | None]) -> V | None:
        """Return the value of a key; if none is kept, look it up, and keep it unless None."""
        found = self.get(key)
        if found is None:
            found = look_up(key)
            if found is not None:
                self[key] = found
        return found
