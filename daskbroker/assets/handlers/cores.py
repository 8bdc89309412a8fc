"""Divide the work of one call among the cores that no other call of this process uses.

Decoding releases the GIL, so it speeds up with the number of threads. Calls that Dask runs at the
same time count: a call gets helper threads only for cores that are not taken by another call, and
gets more when others end, so that the last block of a computation is not left to one thread.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import parent_process
from typing import TypeVar

import dask
from dask.system import CPU_COUNT

from ...core.errors import this_worker
from ...core.forking import in_each_process
from ...core.settings import setting

Item = TypeVar("Item")


class _Helpers:
    """The pool of helper threads and the number of busy threads; one per process."""

    def __init__(self) -> None:
        in_each_process(self._begin)

    def _begin(self) -> None:
        """Start without threads; also after a fork, as a child has none of its parent's."""
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._busy = 0

    def enter(self) -> None:
        """Count one more call."""
        with self._lock:
            self._busy += 1

    def take(self, wanted: int, most: int) -> int:
        """Take up to ``wanted`` idle cores for helpers, which are counted; return how many."""
        if self._busy >= most:
            return 0
        with self._lock:
            taken = max(0, min(wanted, most - self._busy))
            self._busy += taken
            return taken

    def leave(self) -> None:
        """Stop counting one call or one helper."""
        with self._lock:
            self._busy -= 1

    def too_many(self, most: int) -> bool:
        """Return whether more calls and helpers are busy than there are cores."""
        return self._busy > most

    def submit(self, work: Callable[[], None]) -> Future[None] | None:
        """Start a helper; return None if the interpreter is shutting down."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(CPU_COUNT, "daskbroker-decode")
            pool = self._pool
        try:
            return pool.submit(work)
        except RuntimeError:
            return None


_helpers = _Helpers()


def most_threads() -> int:
    """Return the maximum number of threads of this process that may decode at once.

    This is the setting ``decode-threads``. If it is 0, it is the number of threads of the Dask
    worker that runs this task; outside of workers, ``num_workers`` of dask's configuration or the
    number of cores that the process may use. In a child process that is no Dask worker it is 1, as
    there are as many such processes as cores.
    """
    told = setting("decode-threads")
    if told:
        return max(1, int(told))
    worker = this_worker()
    if worker is not None:
        return max(1, int(worker.state.nthreads))
    if parent_process() is not None:
        return 1
    return max(1, int(dask.config.get("num_workers", None) or CPU_COUNT))


def divide(work: Callable[[Item], None], items: Iterable[Item], *, alone: bool = False) -> None:
    """Call ``work`` on all items, in several threads if cores are idle.

    It returns when all items are done. After an error no further items are begun, and the error is
    raised when those already begun are done.

    Parameters
    ----------
    work
        Function that is called once with each item, by any thread.
    items
        Items, in the order in which they are begun.
    alone
        If True, use no helper threads, because the work is too small to be worth it.
    """
    waiting = deque(items)
    most = 1 if alone or len(waiting) < 2 else most_threads()
    if most == 1:
        _drain(work, waiting)
        return

    def help_out() -> None:
        try:
            # A helper gives its core back as soon as another call of Dask needs it.
            _drain(work, waiting, lambda: _helpers.too_many(most))
        finally:
            _helpers.leave()

    begun: list[Future[None]] = []

    def enlist() -> bool:
        """Start helpers on idle cores; return False, for the call itself to go on."""
        for _ in range(_helpers.take(len(waiting) - 1, most)):
            future = _helpers.submit(help_out)
            if future is None:
                _helpers.leave()
            else:
                begun.append(future)
        return False

    _helpers.enter()
    try:
        _drain(work, waiting, enlist)  # other calls may end meanwhile, so look before each item
    finally:
        waiting.clear()
        _helpers.leave()
        for future in begun:
            if future.cancel():  # it did not begin
                _helpers.leave()
        failed = [future.exception() for future in begun if not future.cancelled()]
    for error in failed:
        if error is not None:
            raise error


def _drain(
    work: Callable[[Item], None], waiting: deque[Item], stop: Callable[[], bool] = lambda: False
) -> None:
    while not stop():
        try:
            item = waiting.popleft()
        except IndexError:
            return
        try:
            work(item)
        except BaseException:
            waiting.clear()
            raise
