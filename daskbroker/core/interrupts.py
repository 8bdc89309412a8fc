"""Context managers that clean up after an interrupt (Ctrl-C) as after any other error."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from contextvars import copy_context
from functools import wraps
from types import TracebackType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def interruptible(
    function: Callable[P, Generator[T, None, None]],
) -> Callable[P, AbstractContextManager[T]]:
    """Make a context manager of a generator that holds a lock or a transaction.

    It differs from :func:`contextlib.contextmanager` if an interrupt comes after the generator has
    yielded and before the block is entered. With contextlib the generator would stay suspended,
    and hold its lock, for as long as the traceback is kept, and a notebook keeps the last one.
    The generator must not swallow errors of the block.
    """

    @wraps(function)
    def context(*args: P.args, **kwargs: P.kwargs) -> AbstractContextManager[T]:
        return _Context(function(*args, **kwargs))

    return context


def in_own_context(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function run in a copy of the caller's context variables, which stay as they are.

    ``pymongo.timeout`` sets several context variables, one after the other. An interrupt in
    between leaves some of them set, and every later command in that context is an error.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return copy_context().run(function, *args, **kwargs)

    return run


class _Context(AbstractContextManager[T]):
    __slots__ = ("_generator",)

    def __init__(self, generator: Generator[T, None, None]) -> None:
        self._generator = generator

    def __enter__(self) -> T:
        try:
            return next(self._generator)
        except BaseException:
            self._generator.close()
            raise

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        if error is None:
            next(self._generator, None)
        else:
            self._generator.throw(error)
