"""A gate to SQLite that is closed while the process forks.

SQLite keeps a note in memory of the file locks that the process has. In a forked child this note
is wrong, even for connections that the child opens itself: it would take no locks, and lose what
it writes. Also, a mutex that another thread holds while the process forks is never released in
the child. So before a fork all threads must leave SQLite, and all connections are closed; parent
and child open new ones.
"""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ...core.errors import StoreError
from ...core.forking import in_each_process

PATIENCE_SECONDS = 10.0
"""Maximum seconds that a fork waits for threads that read or write."""


class _Connected(Protocol):
    def disconnect(self) -> None:
        """Close all connections; used ones are opened again."""


class ForkGate:
    """A gate that lets threads use SQLite, except while the process forks.

    Each thread that uses SQLite holds a lock of its own, and a fork takes the locks of all. A lock
    is released by whatever ends its ``with`` block, also by an interrupt, after which a note that
    the thread is inside could stay. If a thread does not leave before a fork, the child may not
    use SQLite at all.
    """

    def __init__(self) -> None:
        self._connected: weakref.WeakSet[_Connected] = weakref.WeakSet()
        self._was_quiet = True
        in_each_process(self._begin)
        os.register_at_fork(before=self._close, after_in_parent=self._open)

    def _begin(self) -> None:
        self._usable = self._was_quiet
        self._own = threading.local()
        self._locks: weakref.WeakSet[threading.RLock] = weakref.WeakSet()
        self._adding = threading.RLock()
        self._taken: list[threading.RLock] = []

    def add(self, connected: _Connected) -> None:
        """Register the owner of connections that have to be closed before a fork."""
        self._connected.add(connected)

    def inside(self) -> AbstractContextManager[bool]:
        """Return the lock of this thread, to hold in ``with`` blocks, which may be nested.

        Raises
        ------
        StoreError
            In a child that was forked while a thread was inside.
        """
        if not self._usable:
            raise StoreError(
                "this process was forked while a thread of its parent was reading or writing, so "
                "it cannot use the store: fork when no thread does, or start processes by 'spawn'"
            )
        lock: threading.RLock | None = getattr(self._own, "lock", None)
        if lock is None:
            with self._adding:  # held by the forking thread until the fork is done
                lock = threading.RLock()
                self._locks.add(lock)  # first, as an interrupt may come in between
                self._own.lock = lock
        return lock

    # -- a fork ------------------------------------------------------------------------------

    def _close(self) -> None:
        self._adding.acquire()
        self._was_quiet = False  # until all are outside
        end = time.monotonic() + PATIENCE_SECONDS
        own: Any = getattr(self._own, "lock", None)
        if own is not None and own._is_owned():
            # An interrupt at the end of a block leaves the block to the garbage collector.
            gc.collect()
        # It cannot wait for itself, if it forks while it is inside.
        quiet = self._usable and not (own is not None and own._is_owned())
        for lock in list(self._locks):
            if lock.acquire(timeout=max(0.0, end - time.monotonic())):
                self._taken.append(lock)
            else:
                quiet = False
        if quiet:
            for connected in list(self._connected):
                connected.disconnect()
        self._was_quiet = quiet

    def _open(self) -> None:
        while self._taken:
            self._taken.pop().release()
        self._adding.release()


gate = ForkGate()
"""The gate of this process."""
