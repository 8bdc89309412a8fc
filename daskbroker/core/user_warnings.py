"""Warnings that point at the user's line that called daskbroker, and threads that give none."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from .printable import message_text

PACKAGE = __name__.partition(".")[0]
_thread = threading.local()


@contextmanager
def quiet_thread() -> Iterator[None]:
    """Return a context in which daskbroker gives no warnings in this thread.

    Others go on: :class:`warnings.catch_warnings` is for all threads of the process at once.
    """
    before = getattr(_thread, "quiet", False)
    _thread.quiet = True
    try:
        yield
    finally:
        _thread.quiet = before


def is_quiet() -> bool:
    """Whether this thread is in a :func:`quiet_thread`."""
    return bool(getattr(_thread, "quiet", False))


def warn(text: str, category: type[Warning], stacklevel: int = 1) -> None:
    """Issue a warning as :func:`warnings.warn`, unless this thread is quiet.

    Its text is escaped and bounded as that of an error, as it may hold names from documents.
    """
    if not is_quiet():
        warnings.warn(message_text(text), category, stacklevel=stacklevel + 1)


def warn_caller(text: str, category: type[Warning]) -> None:
    """Issue a warning at the user's line that called daskbroker, however deep the call is."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warn(text, category, level)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == PACKAGE and not module.startswith(f"{PACKAGE}.testing")
