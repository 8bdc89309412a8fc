"""Set-up of what a forked child must not share with its parent, in one place.

Code that holds something that belongs to one process (locks, connections, threads, files, caches
of what may change) sets it up in one function, and passes that to :func:`in_each_process`.
This module alone registers with ``os.register_at_fork`` what a child does.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

Begin = Callable[[], None]

_functions: list[Begin] = []
_methods: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()
_left_to_parent: list[object] = []


def in_each_process(begin: Begin) -> None:
    """Call a function now, and at the start of every child that this process forks.

    Parameters
    ----------
    begin
        Function that sets up state as in a new process, without using the state it finds: another
        thread may have held a lock, or been in the middle of a change, when the process forked.
        A method is called as long as its object lives; the object must be hashable.
    """
    begin()
    in_children(begin)


def in_children(begin: Begin) -> None:
    """Call a function in children only; see :func:`in_each_process`."""
    # A method is kept by a weak reference to its object, so as not to keep the object alive.
    owner = getattr(begin, "__self__", None)
    if owner is None:
        _functions.append(begin)
    else:
        _methods[owner] = begin.__func__  # type: ignore[attr-defined]


def leave_to_parent(things: Iterable[object]) -> None:
    """Keep objects alive in a child for good, as closing them there would harm the parent."""
    _left_to_parent.extend(things)


class Origin:
    """The process that began something which no other process can continue."""

    __slots__ = ("_process",)

    def __init__(self) -> None:
        self._process = os.getpid()

    def is_here(self) -> bool:
        """Return whether this is that process, rather than a child of it."""
        return os.getpid() == self._process


class ProcessLock:
    """A re-entrant lock; every forked child has its own, which is not held."""

    def __init__(self) -> None:
        in_each_process(self._begin)

    def _begin(self) -> None:
        self._lock = threading.RLock()

    def lock(self) -> AbstractContextManager[bool]:
        """Return this process's lock, to hold in a ``with`` block.

        A block that was entered before a fork releases the lock that it acquired.
        """
        return self._lock


class ForkBarrier:
    """A lock for work of other threads, for the end of which a fork waits.

    Parameters
    ----------
    seconds
        Maximum seconds that a fork waits.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._forking = threading.local()
        in_each_process(self._begin)
        os.register_at_fork(before=self._close, after_in_parent=self._open)

    def _begin(self) -> None:
        self._lock = threading.RLock()

    def lock(self) -> AbstractContextManager[bool]:
        """Return the lock that work holds in a ``with`` block, one thread at a time."""
        return self._lock

    def _close(self) -> None:
        self._forking.closed = self._lock.acquire(timeout=self._seconds)

    def _open(self) -> None:
        if self._forking.closed:
            self._lock.release()


def _after_fork() -> None:
    for begin in _functions:
        begin()
    for owner, method in list(_methods.items()):
        method(owner)


os.register_at_fork(after_in_child=_after_fork)
