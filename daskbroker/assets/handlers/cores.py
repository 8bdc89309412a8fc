"""Work of one call divided among the cores that nobody else of this process uses.

Decoding holds no lock, so several threads are as many times as fast. What Dask runs side by side
counts: a call gets help only from cores for which there is no other call.
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

__all__ = ["divide", "most_threads"]

Item = TypeVar("Item")


class _Helpers:
    """The threads that help, and how many calls are at work. One for each process."""

    def __init__(self) -> None:
        in_each_process(self._begin)

    def _begin(self) -> None:
        """A child has none of its parent's threads."""
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._busy = 0

    def enter(self, wanted: int, most: int) -> int:
        """Count a call and so many helpers as there are idle cores for."""
        with self._lock:
            self._busy += 1
            helping = max(0, min(wanted, most - self._busy))
            self._busy += helping
            return helping

    def leave(self) -> None:
        """Count a call, or a helper, no longer."""
        with self._lock:
            self._busy -= 1

    def too_many(self, most: int) -> bool:
        """Whether calls have come since for which there is no core."""
        return self._busy > most

    def submit(self, work: Callable[[], None]) -> Future[None] | None:
        """Have a helper begin; None while the interpreter ends."""
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
    """How many threads of this process may decode at once.

    That is the setting ``decode-threads``; where it is 0, the threads of the Dask worker whose task
    this is, or ``num_workers`` of dask's configuration, or the cores that the process may use. In
    other processes that a process started, 1: there are as many of them as cores.
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


def divide(work: Callable[[Item], None], items: Iterable[Item], alone: bool = False) -> None:
    """Do some work on all items, side by side where cores are idle.

    It returns when all is done, or when what was begun is done after an error.

    Parameters
    ----------
    work
        Called once with each item, by any thread.
    items
        In the order in which they are begun.
    alone
        Without help: the work is not worth it.
    """
    waiting = deque(items)
    most = 1 if alone or len(waiting) < 2 else most_threads()
    if most == 1:
        _drain(work, waiting)
        return
    helping = _helpers.enter(len(waiting) - 1, most)

    def help_out() -> None:
        try:
            _drain(work, waiting, lambda: _helpers.too_many(most))
        finally:
            _helpers.leave()

    begun: list[Future[None]] = []
    try:
        for _ in range(helping):
            future = _helpers.submit(help_out)
            if future is None:
                _helpers.leave()
            else:
                begun.append(future)
        _drain(work, waiting)
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
