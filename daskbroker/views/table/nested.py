"""Computations that are needed while an expression is being examined."""

# dask does not annotate its private API.
# mypy: allow-untyped-calls

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
from dask._expr import Expr
from dask.base import get_scheduler

__all__ = ["graphs_made_here"]


@contextmanager
def graphs_made_here() -> Iterator[None]:
    """Return a context in which graphs of computations are made by this thread.

    Divisions are cached properties of expressions. In Python 3.11 one lock guards such a property
    of all instances, and the thread that computes divisions holds it. A Client leaves making the
    graph to the scheduler. If that runs in the same process, as of a ``LocalCluster``, its thread
    needs divisions too, and both would wait for ever.

    The setting is that of the whole process. The same lock keeps a second thread from changing it
    meanwhile; later versions of Python have no lock, and nothing is set.
    """
    get = get_scheduler()
    # Without a scheduler, Dask chooses one by the collection.
    if get is None or sys.version_info >= (3, 12):
        yield
        return

    def get_with_graph(dsk: Any, keys: Any, **options: Any) -> Any:
        graph = dict(dsk.__dask_graph__()) if isinstance(dsk, Expr) else dsk
        return get(graph, keys, **options)

    with dask.config.set(scheduler=get_with_graph):
        yield
