"""Bounded cache of a process's open handlers, shared by its threads; none is closed while read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from ...core.file_identity import Identity, identity
from ...core.forking import in_each_process, leave_to_parent
from ...core.settings import setting
from ..handlers.contract import BlockHandler


@dataclass(eq=False)
class _Entry:
    """A handler that is open or being built; the lock is held while it is built or refreshed."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    handler: BlockHandler | None = None
    identity: Identity = None
    path: str = ""


class HandlerCache:
    """Cache of the most recently used handlers.

    Evicting a handler only drops the cache's reference: its files close when no thread reads them
    any more.

    Parameters
    ----------
    size
        Maximum number of handlers, 0 to keep none. If None, it is ``daskbroker.handler-cache`` of
        dask's configuration, 64 by default.
    """

    def __init__(self, size: int | None = None) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, path: str, build: Callable[[], BlockHandler]) -> BlockHandler:
        """Return the handler of a key, built if there is none or the file was replaced.

        Parameters
        ----------
        key
            Factory, path and keyword arguments of the handler.
        path
            Path whose identity is compared on each call, so that a changed file is refreshed.
        build
            Function that builds the handler, called by one thread at a time. Its exceptions are
            passed on, and no handler is kept then.
        """
        entry = self._entry(key)
        with entry.lock:
            now = identity(path)
            handler, entry.path = entry.handler, path
            if handler is not None and now != entry.identity:
                # A file that has grown can be refreshed; a replaced one has another inode.
                same_file = now is not None and (now[:2] == (entry.identity or ())[:2])
                handler = handler if same_file and _is_refreshed(handler) else None
                entry.handler = handler
                if handler is None:
                    self._drop_others(path, now)
            if handler is None:
                handler = build()
            entry.handler, entry.identity = handler, now
            return handler

    def _entry(self, key: Hashable) -> _Entry:
        """Return the entry of a key and make it the newest; the oldest ones beyond the size go."""
        limit = setting("handler-cache") if self._size is None else self._size
        dropped = []
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            while len(self._entries) > max(0, int(limit)):
                dropped.append(self._entries.popitem(last=False))
        del dropped  # files may close here, outside the lock
        return entry

    def _drop_others(self, path: str, now: Identity) -> None:
        """Drop other handlers of a file that changed: HDF5 opens no file anew that is still open.

        It shares what it has read of a file among all that have it open in the process.
        """
        with self._lock:
            keys = [
                key
                for key, entry in self._entries.items()
                if entry.path == path and entry.handler is not None and entry.identity != now
            ]
            dropped = [self._entries.pop(key) for key in keys]
        del dropped  # files may close here, outside the lock

    def discard(self, key: Hashable) -> None:
        """Drop the handler of a key, if any."""
        with self._lock:
            dropped = self._entries.pop(key, None)
        del dropped

    def clear(self) -> None:
        """Drop all handlers."""
        with self._lock:
            entries, self._entries = self._entries, OrderedDict()
        entries.clear()


def _is_refreshed(handler: BlockHandler) -> bool:
    """Return whether a handler has adapted to its file, which may have been written anew."""
    try:
        return handler.refresh()
    # Where the file had an object, it now has something else.
    except (OSError, RuntimeError, KeyError, ValueError):
        return False


_current: HandlerCache | None = None


def open_handlers() -> HandlerCache:
    """Return the cache of this process."""
    assert _current is not None
    return _current


def _begin() -> None:
    """Start with an empty cache; also in a forked child.

    The parent's handlers are kept alive in the child, whose HDF5 state is a copy of the parent's:
    closing a file there could release the parent's lock on it.
    """
    global _current
    leave_to_parent([_current])
    _current = HandlerCache()


in_each_process(_begin)
