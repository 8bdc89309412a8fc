"""Contexts that an interrupt (Ctrl-C) leaves as any other error does."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from functools import wraps
from types import TracebackType
from typing import ParamSpec, TypeVar

__all__ = ["interruptible"]

P = ParamSpec("P")
T = TypeVar("T")


def interruptible(
    function: Callable[P, Generator[T, None, None]],
) -> Callable[P, AbstractContextManager[T]]:
    """As :func:`contextlib.contextmanager`, for generators that hold a lock or a transaction.

    An interrupt may come when the generator has yielded, before the block is entered. With
    contextlib the generator would stay where it is for as long as somebody keeps the traceback,
    and a notebook keeps the last one. Errors of the block must not be swallowed.
    """

    @wraps(function)
    def context(*args: P.args, **kwargs: P.kwargs) -> AbstractContextManager[T]:
        return _Context(function(*args, **kwargs))

    return context


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
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is None:
            next(self._generator, None)
        else:
            self._generator.throw(error)
