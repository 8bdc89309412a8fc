"""Call functions on workers, or on local threads, a bounded number at a time.

With an active ``distributed.Client`` calls go to its workers, otherwise to the scheduler of
dask's configuration (threads by default).
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
from typing import TYPE_CHECKING, Any

import cloudpickle
import dask
from dask import threaded
from dask.local import SynchronousExecutor
from dask.multiprocessing import get_context
from dask.system import CPU_COUNT

from .core.errors import ConfigError, DaskbrokerError, this_worker
from .core.forking import Origin, in_children
from .core.graph_names import graph_name

if TYPE_CHECKING:
    from distributed import Client

LEAST_AHEAD = 64
"""Minimum number of calls under way on a cluster.

Workers may join later, and messages to and from each task take time.
"""

DISTRIBUTED = ("distributed", "dask.distributed")


def current_client() -> Client | None:
    """Return the ``distributed.Client`` that dask would compute with now, or None.

    Inside a task it is None: a task that waits for other tasks could wait forever.
    """
    scheduler = dask.config.get("scheduler", None)
    if scheduler is not None and scheduler not in DISTRIBUTED:
        return scheduler if _is_client(scheduler) else None
    # Without the module there is no client, and importing it takes long.
    if "distributed" not in sys.modules or this_worker() is not None:
        return None
    from distributed import default_client

    try:
        client = default_client()
    except ValueError:
        return None
    return client if _is_client(client) and client.status != "closed" else None


def _is_client(client: object) -> bool:
    return hasattr(client, "scheduler_info") and not getattr(client, "asynchronous", False)


def _leave_threads() -> None:
    """Forget the thread pools and clients of the parent in a forked child.

    Their threads do not exist in the child, so they would never answer.
    """
    threaded.default_pool = None
    threaded.pools.clear()
    threaded.pools_lock = threading.Lock()
    # Without the class there is no client, also if a thread of the parent was importing the module.
    kind = getattr(sys.modules.get("distributed"), "Client", None)
    for client in [] if kind is None else list(kind._instances):
        client.status = "closed"  # so that computing with it raises, and does not hang


in_children(_leave_threads)


@dataclass(frozen=True)
class Pool:
    """A pool that takes calls and returns futures.

    Futures have ``result``, ``exception``, ``cancel`` and ``cancelled``.

    Attributes
    ----------
    submit
        Function ``submit(name, func, *args)``; on a cluster the task is shown under the name.
    ahead
        Number of calls under way that keeps all workers busy.
    remote
        Whether calls run in other processes, so that their arguments are pickled.
    """

    submit: Callable[..., Any]
    ahead: int
    remote: bool


@contextmanager
def open_pool(client: Client | None = None) -> Iterator[Pool]:
    """Open a pool on a given Client, the current one, or dask's local scheduler.

    Raises
    ------
    ConfigError
        If the client is asynchronous.
    """
    if client is not None and not _is_client(client):
        raise ConfigError(f"a synchronous distributed.Client is needed, not {client!r}")
    client = client or current_client()
    if client is not None:
        threads = sum(client.nthreads().values())

        def submit(name: str, func: Callable[..., Any], *args: Any) -> Any:
            # Never pure: a function may give another result each time it is called with a run.
            # The name of a lambda is "<lambda>".
            key = f"{graph_name(name.strip('<>'))}-{uuid.uuid4().hex}"
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
    """Return the executor of dask's ``scheduler``, and whether it is the user's own.

    The user's own is not shut down by the pool.
    """
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
    """Start a call per item, and yield ``(item, future)`` in the order in which the calls end.

    Parameters
    ----------
    start
        Function from an item to the future of its call.
    items
        Items, possibly endless: each is taken when its call is started.
    most
        Maximum number of calls that are started and not yet yielded.

    Raises
    ------
    DaskbrokerError
        In a forked child, if its parent started calls.

    Notes
    -----
    Closing the iterator early cancels the calls that have not run yet.
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
