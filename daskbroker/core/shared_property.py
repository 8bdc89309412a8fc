"""Cached properties that take long to compute, and may need others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property
from typing import Any, TypeVar

T = TypeVar("T")


class unlocked_property(cached_property[T]):
    """A ``cached_property`` without a lock, as all are from Python 3.12 on.

    In Python 3.11 one lock guards such a property of all instances. While one thread reads or
    computes, others wait that need the property of another instance, or for ever if they hold what
    the first one needs next. Two threads may compute the value of one instance; they find the same.
    """

    def __init__(self, func: Callable[[Any], T]) -> None:
        super().__init__(func)
        self.lock = nullcontext()
