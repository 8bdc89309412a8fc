"""What a forked child must not share with its parent, begun anew there, in one place.

Whoever holds something that belongs to one process (locks, connections, threads, files, what was
looked up and may change) sets it up in one function, and hands that to :func:`in_each_process`.
This module alone registers with ``os.register_at_fork`` what a child does.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

__all__ = [
    "ForkBarrier",
    "Origin",
    "ProcessLock",
    "in_children",
    "in_each_process",
    "leave_to_parent",
]

Begin = Callable[[], None]

_functions: list[Begin] = []
_methods: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()
_left_to_parent: list[object] = []


def in_each_process(begin: Begin) -> None:
    """Call a function now, and first thing in every child that this process forks.

    Parameters
    ----------
    begin
        Sets up state as in a new process, without using what was there: another thread may have
        held a lock, or been in the middle of a change, when the process forked. A method is
        called as long as its object lives, which must be hashable.
    """
    begin()
    in_children(begin)


def in_children(begin: Begin) -> None:
    """Call a function in children only; see :func:`in_each_process`."""
    owner = getattr(begin, "__self__", None)
    if owner is None:
        _functions.append(begin)
    else:
        _methods[owner] = begin.__func__  # type: ignore[attr-defined]


def leave_to_parent(things: Iterable[object]) -> None:
    """In a child: keep what would do harm to the parent if it were closed or deleted here."""
    _left_to_parent.extend(things)


class Origin:
    """The process in which something was begun that no other can go on with."""

    __slots__ = ("_process",)

    def __init__(self) -> None:
        self._process = os.getpid()

    def is_here(self) -> bool:
        """Whether this is that process, and no child of it."""
        return os.getpid() == self._process


class ProcessLock:
    """A lock, re-entrant, of which every forked child has its own that nobody holds."""

    def __init__(self) -> None:
        in_each_process(self._begin)

    def _begin(self) -> None:
        self._lock = threading.RLock()

    def held(self) -> AbstractContextManager[bool]:
        """Hold this process's lock; what was taken before a fork is given back as it was taken."""
        return self._lock


class ForkBarrier:
    """Work of other threads during which the process does not fork, for a while at least.

    Parameters
    ----------
    seconds
        So long a fork waits for the work to end.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._forking = threading.local()
        in_each_process(self._begin)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._close, after_in_parent=self._open)

    def _begin(self) -> None:
        self._lock = threading.RLock()

    def held(self) -> AbstractContextManager[bool]:
        """Do work, one thread after the other."""
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


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
