"""Looking into the files of runs that have stopped, in a thread, while nobody waits for it.

A process that forks waits for a look that is under way: the child would have locks of libraries,
and of Python's own cached properties, that nobody gives back.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from functools import lru_cache

from ...core.forking import ForkBarrier, in_each_process

__all__ = ["BackgroundPeeker"]

logger = logging.getLogger(__name__)

QUIET_SECONDS = 0.5
"""So long no run must have stopped: whoever brings in many runs is not slowed down."""
MOST_WAITING = 256
"""Of more runs those that stopped first are left to their first reader."""
CLOSE_SECONDS = 5.0
"""So long a look that is under way is waited for when its store is closed."""

FORK_SECONDS = 10.0
"""So long a fork waits for a look."""

_peekers: weakref.WeakSet[BackgroundPeeker] = weakref.WeakSet()


@lru_cache
def _barrier() -> ForkBarrier:
    """One for all looks of the process, made when the first begins.

    What is registered last is done first before a fork. h5py waits there for its own lock, and
    keeps it; so h5py has to come before.
    """
    import h5py  # noqa: F401

    return ForkBarrier(FORK_SECONDS)


class BackgroundPeeker:
    """Runs that wait to be looked into, and the thread that does it as long as there are some.

    What fails, or is not reached, is left to the first reader. A forked child leaves what waits to
    its parent.

    Parameters
    ----------
    peek
        Looks into the files of a run, by its uid, in bounded time.
    """

    def __init__(self, peek: Callable[[str], object]) -> None:
        self._peek = peek
        self._closed = False
        in_each_process(self._begin)
        _peekers.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[str] = deque(maxlen=MOST_WAITING)
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None
        self._newest = 0.0

    def add(self, run: str) -> None:
        """Look into the files of a run that has just stopped, later."""
        with self._lock:
            if self._closed:
                return
            self._waiting.append(run)
            self._newest = time.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="daskbroker-peek", daemon=True
                )
                self._thread.start()

    def _work(self) -> None:
        while True:
            with self._lock:
                pause = self._newest + QUIET_SECONDS - time.monotonic()
                if self._closed or not self._waiting:
                    self._thread = None
                    return
                run = None if pause > 0 else self._waiting.pop()
            if run is None:
                self._woken.wait(pause)
                continue
            with _barrier().held():
                try:
                    self._peek(run)
                except Exception as error:
                    logger.debug("the files of run %r were not looked into: %s", run, error)

    def close(self) -> None:
        """Begin nothing more; wait a moment for what is under way."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            self._woken.set()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_SECONDS)


@atexit.register
def _close_all() -> None:
    """A thread in the middle of HDF5 must not outlive the interpreter."""
    for peeker in list(_peekers):
        peeker.close()
