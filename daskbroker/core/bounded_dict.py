"""A mapping of limited size for what was looked up recently."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedDict(dict[K, V]):
    """A dict with a maximum number of entries, which drops the entry that was added first.

    Threads may share it.

    Parameters
    ----------
    most
        Maximum number of entries.
    """

    def __init__(self, most: int = 2000) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: K, value: V) -> None:
        while len(self) >= self._most and key not in self:
            with suppress(RuntimeError):  # another thread may be quicker, which next tells
                self.pop(next(iter(self), key), None)
        super().__setitem__(key, value)

    def put_last(self, key: K, value: V) -> None:
        """Set a value as the entry that was added last, so that it is dropped last."""
        self.pop(key, None)
        self[key] = value

    def find(self, key: K, look_up: Callable[[K], V | None]) -> V | None:
        """Return the value of a key; if none is kept, look it up, and keep it unless None."""
        found = self.get(key)
        if found is None:
            found = look_up(key)
            if found is not None:
                self[key] = found
        return found
