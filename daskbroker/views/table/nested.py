"""Computations that are needed while an expression is being examined."""

# dask does not annotate its private API.
# mypy: allow-untyped-calls

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import dask
from dask._expr import Expr
from dask.base import get_scheduler

_lock = threading.Lock()
_entered = 0
_setting = ExitStack()


@contextmanager
def graphs_made_here() -> Iterator[None]:
    """Return a context in which graphs of computations are made by the thread that computes.

    Divisions are cached properties of expressions. In Python 3.11 one lock guards such a property
    of all instances, and the thread that computes divisions holds it. A Client leaves making the
    graph to the scheduler. If that runs in the same process, as of a ``LocalCluster``, its thread
    needs divisions too, and both would wait for ever. Later versions of Python have no such lock.

    Dask's computations of divisions take no scheduler, so it is a setting of the process: other
    threads that compute meanwhile make their own graphs, too. The first of several contexts sets
    it, and the last one takes it back.
    """
    global _entered
    get = get_scheduler()
    # Without a scheduler, Dask chooses one by the collection.
    if sys.version_info >= (3, 12) or get is None:
        yield
        return

    def get_with_graph(dsk: Any, keys: Any, **options: Any) -> Any:
        graph = dict(dsk.__dask_graph__()) if isinstance(dsk, Expr) else dsk
        return get(graph, keys, **options)

    with _lock:
        if not _entered:
            _setting.enter_context(dask.config.set(scheduler=get_with_graph))
        _entered += 1
    try:
        yield
    finally:
        with _lock:
            _entered -= 1
            if not _entered:
                _setting.close()
