"""Look into the files of stopped runs in a background thread.

A process that forks waits for a look in progress: otherwise the child would inherit locks of
libraries, and of Python's cached properties, that are never released.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache

from ...core.forking import ForkBarrier, in_each_process

logger = logging.getLogger(__name__)

QUIET_SECONDS = 0.5
"""Seconds without a stopping run before looks begin, so that inserting many runs is not slowed."""
MOST_WAITING = 256
"""Maximum number of waiting runs; beyond it, those that stopped first are left to their first
reader."""
CLOSE_SECONDS = 5.0
"""Maximum seconds to wait for a look in progress when its store is closed."""

FORK_SECONDS = 10.0
"""Maximum seconds that a fork waits for a look."""

_peekers: weakref.WeakSet[BackgroundPeeker] = weakref.WeakSet()


@lru_cache
def _barrier() -> ForkBarrier:
    """Return the one barrier for all looks of the process, made when the first look begins.

    Hooks that are registered last run first before a fork. The hook of h5py acquires h5py's lock
    and keeps it, so h5py must be imported before, for this barrier to wait first.
    """
    import h5py  # noqa: F401

    return ForkBarrier(FORK_SECONDS)


class BackgroundPeeker:
    """Queue of runs to look into, with a thread that works as long as there are some.

    Runs that fail or are not reached are left to their first reader. A forked child leaves the
    queue to its parent.

    Parameters
    ----------
    peek
        Function that looks into the files of a run, given its uid, in bounded time.
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
        """Queue a run that has just stopped."""
        with self._lock:
            if self._closed:
                return
            self._waiting.append(run)
            self._newest = time.monotonic()
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="daskbroker-peek", daemon=True)
                # With too many threads the run is left to the next one that stops: it is stored.
                with suppress(RuntimeError):
                    thread.start()
                    self._thread = thread

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
            with _barrier().lock():
                try:
                    self._peek(run)
                # Nobody waits for this look: opening the run looks again if it has to.
                except Exception as error:
                    logger.debug(
                        "the detector files of run %r were not looked into after its stop: %s",
                        run,
                        error,
                    )

    def close(self) -> None:
        """Begin no further look; wait up to ``CLOSE_SECONDS`` for one in progress."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            self._woken.set()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_SECONDS)


@atexit.register
def _close_all() -> None:
    """Close all peekers, as a thread inside HDF5 must not outlive the interpreter."""
    for peeker in list(_peekers):
        peeker.close()
