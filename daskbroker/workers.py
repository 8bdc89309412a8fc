"""Calling functions on workers, or on local threads, a bounded number at a time.

Dask says where: with an active ``distributed.Client`` calls go to its workers, otherwise to
what dask's configuration ``scheduler`` names (threads by default).
"""

from __future__ import annotations

import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from typing import Any

import cloudpickle
import dask
from dask import threaded
from dask.local import SynchronousExecutor
from dask.multiprocessing import get_context
from dask.system import CPU_COUNT

from .core.errors import ConfigError, DaskbrokerError, this_worker
from .core.forking import Origin, in_children
from .core.graph_names import graph_name

__all__ = ["Pool", "as_completed", "current_client", "open_pool"]

LEAST_AHEAD = 64
"""On a cluster, where workers may join later, and a task waits for its messages to travel."""

DISTRIBUTED = ("distributed", "dask.distributed")


def current_client() -> Any | None:
    """The ``distributed.Client`` that dask would compute with now, None if it would not.

    Inside a task there is none: a task that waits for other tasks could wait for ever.
    """
    scheduler = dask.config.get("scheduler", None)
    if scheduler is not None and scheduler not in DISTRIBUTED:
        return scheduler if _is_client(scheduler) else None
    if "distributed" not in sys.modules or this_worker() is not None:
        return None
    from distributed import default_client

    try:
        client = default_client()
    except ValueError:
        return None
    return client if _is_client(client) and client.status != "closed" else None


def _is_client(client: Any) -> bool:
    return hasattr(client, "scheduler_info") and not getattr(client, "asynchronous", False)


def _leave_threads() -> None:
    """In a forked child: threads of the parent's would never answer."""
    threaded.default_pool = None
    threaded.pools.clear()
    threaded.pools_lock = threading.Lock()
    if "distributed" in sys.modules:
        for client in list(sys.modules["distributed"].Client._instances):
            client.status = "closed"  # so that to compute with it is an error, not for ever


in_children(_leave_threads)


@dataclass(frozen=True)
class Pool:
    """Takes calls, gives futures (``result``, ``exception``, ``cancel``, ``cancelled``).

    Attributes
    ----------
    submit
        ``submit(name, func, *args)``; on a cluster the task is shown under the name.
    ahead
        So many calls under way keep everyone busy.
    remote
        Arguments are pickled: the calls run in other processes.
    """

    submit: Callable[..., Any]
    ahead: int
    remote: bool


@contextmanager
def open_pool(client: Any = None) -> Iterator[Pool]:
    """Where calls go: a given Client, the current one, or dask's local scheduler.

    Raises
    ------
    ConfigError
        For an asynchronous client.
    """
    if client is not None and not _is_client(client):
        raise ConfigError(f"a synchronous distributed.Client is needed, not {client!r}")
    client = client or current_client()
    if client is not None:
        threads = sum(client.nthreads().values())

        def submit(name: str, func: Callable[..., Any], *args: Any) -> Any:
            # Never pure: what a function does to its run may differ from call to call.
            key = f"{graph_name(name.strip('<>'))}-{uuid.uuid4().hex}"  # of a <lambda>, too
            return client.submit(func, *args, key=key, pure=False)

        yield Pool(submit, max(LEAST_AHEAD, 2 * threads), True)
        return
    executor, given = _local_executor()
    remote = isinstance(executor, ProcessPoolExecutor)
    call = _submit_pickled if remote else _submit_plain
    threads = int(getattr(executor, "_max_workers", 1))
    ahead = 2 * threads if threads > 1 else 1  # a synchronous executor runs while it submits
    try:
        yield Pool(lambda name, func, *args: call(executor, func, args), ahead, remote)
    finally:
        if not given:
            executor.shutdown(wait=True, cancel_futures=True)


def _local_executor() -> tuple[Executor, bool]:
    """What dask's ``scheduler`` names, and whether it is the user's own executor."""
    scheduler = dask.config.get("scheduler", None)
    if isinstance(scheduler, Executor):
        return scheduler, True
    count = int(dask.config.get("num_workers", None) or CPU_COUNT)
    if scheduler in ("sync", "synchronous", "single-threaded"):
        return SynchronousExecutor(), False
    if scheduler in ("processes", "multiprocessing"):
        return ProcessPoolExecutor(count, mp_context=get_context()), False
    return ThreadPoolExecutor(count, thread_name_prefix="daskbroker-call"), False


def _submit_plain(executor: Executor, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return executor.submit(func, *args)


def _submit_pickled(executor: Executor, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return executor.submit(_call_pickled, cloudpickle.dumps((func, args)))


def _call_pickled(call: bytes) -> Any:
    func, args = cloudpickle.loads(call)
    return func(*args)


def as_completed(
    start: Callable[[Any], Any], items: Iterable[Any], most: int
) -> Iterator[tuple[Any, Any]]:
    """Start a call per item; ``(item, future)`` in the order in which they end.

    Parameters
    ----------
    start
        From an item to the future of its call.
    items
        May be endless: one is taken when a call may be started.
    most
        So many calls are started and not yet given at a time.

    Notes
    -----
    Closing the iterator early cancels what has not run yet.

    Raises
    ------
    DaskbrokerError
        In a forked child, for calls that its parent has started.
    """
    origin = Origin()
    ended: SimpleQueue[Any] = SimpleQueue()
    running: dict[Any, Any] = {}
    coming = iter(items)
    try:
        while True:
            for item in islice(coming, most - len(running)):
                future = start(item)
                running[id(future)] = (item, future)
                future.add_done_callback(ended.put)
            if not running:
                return
            if not origin.is_here():
                raise DaskbrokerError("calls were started by the process that forked this one")
            yield running.pop(id(ended.get()))
    finally:
        for _, future in running.values() if origin.is_here() else ():
            future.cancel()
