"""A gate to SQLite that is closed while the process forks.

SQLite keeps a note in memory of the file locks that the process has. In a forked child this note
is wrong, even for connections that the child opens itself: it would take no locks, and lose what
it writes. Also, a mutex that another thread holds while the process forks is never released in
the child. So before a fork all threads must leave SQLite, and all connections are closed; parent
and child open new ones.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from ...core.errors import StoreError
from ...core.forking import in_each_process

__all__ = ["gate"]

PATIENCE_SECONDS = 10.0
"""Maximum seconds that a fork waits for threads that read or write."""


class _Connected(Protocol):
    def disconnect(self) -> None:
        """Close all connections; used ones are opened again."""


class ForkGate:
    """A gate that lets threads use SQLite, except while the process forks.

    If a thread does not leave before a fork, the child may not use SQLite at all.
    """

    def __init__(self) -> None:
        self._connected: weakref.WeakSet[_Connected] = weakref.WeakSet()
        self._was_quiet = True
        in_each_process(self._begin)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._close, after_in_parent=self._open)

    def _begin(self) -> None:
        self._inside: set[int] = set()
        self._lock = threading.RLock()
        self._shut = not self._was_quiet
        self._usable = self._was_quiet

    def add(self, connected: _Connected) -> None:
        """Register the owner of connections that have to be closed before a fork."""
        self._connected.add(connected)

    def enter(self) -> bool:
        """Let this thread in, after a fork that is under way.

        Returns
        -------
        bool
            Whether :meth:`leave` must be called; False if this thread is inside already.

        Raises
        ------
        StoreError
            In a child that was forked while a thread was inside.
        """
        me = threading.get_ident()
        if me in self._inside:
            return False
        # Noted before looking at the gate, as the thread that shuts it looks at the note
        # afterwards: one of the two sees the other.
        self._inside.add(me)
        if self._shut:
            self._inside.discard(me)
            self._wait(me)
        return True

    def leave(self) -> None:
        """Let this thread out; only after an :meth:`enter` that returned True."""
        self._inside.discard(threading.get_ident())

    @contextmanager
    def passed(self) -> Iterator[None]:
        """Return a context within which this thread is inside."""
        entered = self.enter()
        try:
            yield
        finally:
            if entered:
                self.leave()

    def _wait(self, me: int) -> None:
        if not self._usable:
            raise StoreError(
                "this process was forked while a thread of its parent was reading or writing, so "
                "it cannot use the store: fork when no thread does, or start processes by 'spawn'"
            )
        with self._lock:  # held by the forking thread until the fork is done
            self._inside.add(me)

    # -- a fork ------------------------------------------------------------------------------

    def _close(self) -> None:
        self._lock.acquire()
        self._shut = True
        patience = time.monotonic() + PATIENCE_SECONDS
        mine = {threading.get_ident()}  # a thread that forks while inside must not wait for itself
        while not self._inside <= mine and time.monotonic() < patience:
            time.sleep(0.0002)
        self._was_quiet = self._usable and not self._inside
        if self._was_quiet:
            for connected in list(self._connected):
                connected.disconnect()

    def _open(self) -> None:
        self._shut = not self._usable
        self._lock.release()


gate = ForkGate()
"""The gate of this process."""
