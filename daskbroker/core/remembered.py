"""A mapping of what was looked up lately."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["Remembered"]

K = TypeVar("K")
V = TypeVar("V")

MOST = 2000


class Remembered(dict[K, V]):
    """A dict that forgets what was put first, beyond 2,000 entries."""

    def __setitem__(self, key: K, value: V) -> None:
        if len(self) >= MOST and key not in self:
            self.pop(next(iter(self)), None)  # another thread may be quicker
        super().__setitem__(key, value)

    def find(self, key: K, look_up: Callable[[K], V | None]) -> V | None:
        """What is remembered of a key; else what is looked up, and remembered if there is any."""
        found = self.get(key)
        if found is None:
            found = look_up(key)
            if found is not None:
                self[key] = found
        return found
