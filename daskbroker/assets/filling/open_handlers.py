"""Open handlers of this process: bounded, shared by its threads, never closed under a reader."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from ...core.forking import in_each_process, leave_to_parent
from ...core.regular import Identity, identity
from ...core.settings import setting
from ..handlers.contract import BlockHandler

__all__ = ["HandlerCache", "open_handlers"]


@dataclass(eq=False)
class _Entry:
    """A handler that is open, or about to be: the lock is held meanwhile."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    handler: BlockHandler | None = None
    identity: Identity = None


class HandlerCache:
    """The handlers that were used last.

    Evicting one drops the cache's reference only: its files close when nobody reads any more.

    Parameters
    ----------
    size
        Number of handlers; None: ``daskbroker.handler-cache`` of dask's configuration, else 64.
        0 keeps none.
    """

    def __init__(self, size: int | None = None) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, path: str, build: Callable[[], BlockHandler]) -> BlockHandler:
        """The handler of a key, built anew if there is none or the file was replaced.

        Parameters
        ----------
        key
            Factory, path and keyword arguments.
        path
            Looked at each time, so that a file that grew is refreshed.
        build
            Called by one thread at a time; what it raises is raised, and nothing is kept.
        """
        entry = self._entry(key)
        with entry.lock:
            now = identity(path)
            handler = entry.handler
            if handler is not None and now != entry.identity:
                same_file = now is not None and (now[:2] == (entry.identity or ())[:2])
                handler = handler if same_file and handler.refresh() else None
                entry.handler = handler
            if handler is None:
                handler = build()
            entry.handler, entry.identity = handler, now
            return handler

    def _entry(self, key: Hashable) -> _Entry:
        """The entry of a key, which becomes the newest; the oldest beyond the size go."""
        limit = setting("handler-cache") if self._size is None else self._size
        dropped = []
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            while len(self._entries) > max(0, int(limit)):
                dropped.append(self._entries.popitem(last=False))
        del dropped  # files may close here, outside the lock
        return entry

    def discard(self, key: Hashable) -> None:
        """Drop the handler of a key, if there is one."""
        with self._lock:
            dropped = self._entries.pop(key, None)
        del dropped

    def clear(self) -> None:
        """Drop all handlers."""
        with self._lock:
            entries, self._entries = self._entries, OrderedDict()
        entries.clear()


_current: HandlerCache | None = None


def open_handlers() -> HandlerCache:
    """The cache of this process."""
    assert _current is not None
    return _current


def _begin() -> None:
    """A child starts with a cache of its own.

    HDF5's state is a copy of the parent's. It is kept as it is: closing a file here could release
    the parent's lock on it.
    """
    global _current
    leave_to_parent([_current])
    _current = HandlerCache()


in_each_process(_begin)
