"""What messages tell the user to write: Python, or words of the command line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

ANY = "…"
"""Value that stands for any, in the conditions of messages."""

_for_shell: ContextVar[bool] = ContextVar("for_shell", default=False)


@contextmanager
def for_command_line() -> Iterator[None]:
    """Return a context in which messages are for a user of the command line."""
    token = _for_shell.set(True)
    try:
        yield
    finally:
        _for_shell.reset(token)


def words(**asked: Any) -> str:
    """Return arguments of a search, such as ``data_key='det'``."""
    if not _for_shell.get():
        return ", ".join(f"{name}={_python(value)}" for name, value in asked.items())
    return " ".join(shlex.quote(f"{name}={_shell(value)}") for name, value in asked.items())


def condition(key: str, value: Any, document: str = "start") -> str:
    """Return a condition of a query on documents of a kind, such as ``{'scan_id': 1}``."""
    if not _for_shell.get():
        return _python({key: value})
    return words(**({key: value} if document == "start" else {document: {key: value}}))


def run_by(key: str) -> str:
    """Return what finds a run by its uid or the beginning of it."""
    return f"daskbroker show {shlex.quote(key)}" if _for_shell.get() else f"db[{key!r}]"


def newest() -> str:
    """Return how a search is limited to the newest runs."""
    return "--limit 10" if _for_shell.get() else "a slice, db(...)[:10]"


def option(name: str) -> str:
    """Return how an option of a call, or of a command, is named."""
    return f"--{name}" if _for_shell.get() else f"{name}="


def call(name: str) -> str:
    """Return the name of a function that is a command, too."""
    return f"daskbroker {name}" if _for_shell.get() else f"daskbroker.{name}()"


def opening(place: str, *, as_option: bool = False) -> str:
    """Return how a store at a place is named; for ``as_option`` with the ``--db`` of commands."""
    if not _for_shell.get():
        return f'connect("{place}")'
    return f"--db {shlex.quote(place)}" if as_option else shlex.quote(place)


def _python(value: Any) -> str:
    return repr(value).replace(repr(ANY), ANY)


def _shell(value: Any) -> str:
    """Return a value as the command line reads it: JSON, or text that is not JSON."""
    if isinstance(value, str) and value != ANY:
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value, ensure_ascii=False, default=str).replace(f'"{ANY}"', ANY)
