"""Checks of the arguments of public functions, where a wrong one would fail far from the call.

A checked argument is refused when the function is called, also if that only makes a generator, and
the message names the argument and what it takes. Arguments that have a meaning of their own, such
as fields and queries, are checked where that is known.
"""

from __future__ import annotations

import math
import numbers
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from inspect import signature
from typing import Any, TypeVar, cast

import numpy as np

from .errors import BadArgument, BadQuery
from .name_lists import listed, nearest
from .old_names import OTHER_ARGUMENTS
from .printable import shown

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Accepted:
    """What an argument takes.

    Attributes
    ----------
    what
        Description for messages.
    test
        Function that returns whether a value is accepted.
    """

    what: str
    test: Callable[[Any], bool]

    def or_none(self) -> Accepted:
        """Return the same, with None as well."""
        return replace(self, what=f"{self.what}, or None", test=lambda v: v is None or self.test(v))

    def check(self, name: str, value: Any) -> None:
        """Check the value of an argument.

        Raises
        ------
        BadArgument
            If it is not accepted.
        """
        if not self.test(value):
            raise BadArgument(f"{name} takes {self.what}, not {shown(value, 100)}")


def _is_flag(value: object) -> bool:
    return isinstance(value, (bool, np.bool_)) or (type(value) is int and value in (0, 1))


def is_whole(value: object) -> bool:
    """Return whether a value is a whole number: of Python or NumPy, but not a bool."""
    # NumPy registers its time spans as whole numbers, without a unit that says of what.
    return isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.timedelta64))


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.timedelta64))
    return is_real and math.isfinite(value)


def _is_seconds(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= threading.TIMEOUT_MAX  # what the system can wait


def _is_text_path(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike)) and isinstance(os.fspath(value), str)


FLAG = Accepted("True or False", _is_flag)
SECONDS = Accepted("a number of seconds, 0 or more", _is_seconds)
TIMEOUT = Accepted(
    "a number of seconds, 0 or more, or None",
    lambda v: v is None or _is_seconds(v) or (isinstance(v, numbers.Real) and v == math.inf),
)
NUMBER = Accepted("a finite number", _is_number)
COUNT = Accepted("a whole number, 1 or more", lambda v: is_whole(v) and v >= 1)
TEXT = Accepted("text", lambda v: isinstance(v, str))
NAME = Accepted("a name, which is text and not empty", lambda v: isinstance(v, str) and v != "")
PATH = Accepted(
    "a path, as text or pathlib.Path",
    lambda v: _is_text_path(v) and v != "",
)
PATHS = Accepted(
    "several paths, such as a list, each as text or pathlib.Path",
    lambda v: isinstance(v, Collection) and not isinstance(v, str) and all(map(_is_text_path, v)),
)
ROOTS = Accepted(
    "a mapping of roots to folders, such as {'/old': '/new'}, each as text or pathlib.Path",
    lambda v: (
        isinstance(v, Mapping)
        and all(map(_is_text_path, v))
        and all(_is_text_path(folder) and folder != "" for folder in v.values())
    ),
)
MAPPING = Accepted("a mapping, such as a dict", lambda v: isinstance(v, Mapping))
ITERABLE = Accepted("an iterable, such as a list", lambda v: isinstance(v, Iterable))
CALLABLE = Accepted("a function", callable)


def check_one_of(what: str, given: object, known: Collection[str]) -> None:
    """Check that an option has one of the known values.

    Raises
    ------
    BadQuery
        If it has another one; the message lists them.
    """
    if given not in known:
        raise BadQuery(f"{what} must be one of {', '.join(known)}, not {given!r}")


def instance(what: str, *types: type) -> Accepted:
    """Return a description of an argument that takes objects of some types."""
    return Accepted(what, lambda value: isinstance(value, types))


def unknown_argument(function: str, name: str, names: Collection[str]) -> BadArgument:
    """Return the error for an argument that a function lacks; it says what to write instead."""
    near = nearest(names, name)
    hint = f"it has: {listed(names)}" if near is None else f"the nearest is {near}="
    instead = OTHER_ARGUMENTS.get(function, {}).get(name)
    hint = hint if instead is None else f"write {instead}"
    return BadArgument(f"{function}() has no argument {shown(name)}; {hint}")


def accepts(**kinds: Accepted) -> Callable[[Function], Function]:
    """Return a decorator that checks arguments of a function by name, however they are given.

    Arguments that are not given are not checked. Names that the function does not take are refused,
    and the nearest one, or all, are listed. The exception is :class:`BadArgument`.
    """

    def decorated(function: Function) -> Function:
        parameters = signature(function).parameters
        names = list(parameters)
        by_name = [
            name
            for name, one in parameters.items()
            if name != "self" and one.kind is not one.POSITIONAL_ONLY
        ]
        takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        by_position = [(names.index(name), name, kind) for name, kind in kinds.items()]

        @wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            for position, name, kind in by_position:
                if name in kwargs:
                    kind.check(name, kwargs[name])
                elif position < len(args):
                    kind.check(name, args[position])
            if not takes_any:
                for name in kwargs:
                    if name not in by_name:
                        raise unknown_argument(function.__name__, name, by_name)
            return function(*args, **kwargs)

        return cast("Function", checked)

    return decorated
