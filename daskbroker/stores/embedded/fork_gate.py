"""A gate before SQLite that is closed while the process forks.

SQLite notes in the memory of a process which locks that has on a file. In a forked child these
notes are wrong, even for connections that it opens itself: it would not take locks, and lose what
it writes. And a mutex that another thread holds while the process forks is never released in the
child. So before a fork threads come out of SQLite, and all connections are closed: parent and
child open new ones.
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
"""So long a fork waits for threads that read or write."""


class _Connected(Protocol):
    def disconnect(self) -> None:
        """Close all connections; used ones are opened again."""


class ForkGate:
    """Lets threads use SQLite, but not while the process forks.

    A child that was forked although a thread would not come out may not use SQLite at all.
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
        """Know of connections that have to be closed before a fork."""
        self._connected.add(connected)

    def enter(self) -> bool:
        """Come in, and call :meth:`leave` afterwards; False if this thread is inside already.

        Raises
        ------
        StoreError
            In a child that was forked while a thread was inside.
        """
        me = threading.get_ident()
        if me in self._inside:
            return False
        self._inside.add(me)  # before the look at the gate: whoever shuts it looks here after that
        if self._shut:
            self._inside.discard(me)
            self._wait(me)
        return True

    def leave(self) -> None:
        """Go out; only after an :meth:`enter` that was True."""
        self._inside.discard(threading.get_ident())

    @contextmanager
    def passed(self) -> Iterator[None]:
        """Inside."""
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
        with self._lock:  # held by the thread that forks
            self._inside.add(me)

    # -- a fork ------------------------------------------------------------------------------

    def _close(self) -> None:
        self._lock.acquire()
        self._shut = True
        patience = time.monotonic() + PATIENCE_SECONDS
        mine = {threading.get_ident()}
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
"""Of this process."""
