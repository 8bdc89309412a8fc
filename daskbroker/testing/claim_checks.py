"""What is checked while files are looked into: warnings of claims, and which files are opened."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..core.errors import ClaimWarning

__all__ = ["opened_files", "warned"]


@contextmanager
def warned(word: str) -> Iterator[list[str]]:
    """Warnings of claims, each of which has the word; there are some, unless it is ""."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ClaimWarning)
        yield messages
        messages.extend(str(one.message) for one in caught if one.category is ClaimWarning)
    assert bool(messages) == bool(word), messages
    assert all(word in message for message in messages)


_watchers: dict[str, list[str]] = {}
"""Files that are opened below some folders."""


@lru_cache
def _watch() -> None:
    """Note what is opened; Python has no way to stop that again."""

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if _watchers and event == "open" and isinstance(arguments[0], str):
            for folder, opened in list(_watchers.items()):
                if arguments[0].startswith(folder) and arguments[0].endswith(".h5"):
                    opened.append(arguments[0])

    sys.addaudithook(note)


@contextmanager
def opened_files(folder: Path) -> Iterator[list[str]]:
    """HDF5 files below a folder that are opened meanwhile, as often as they are."""
    _watch()
    opened: list[str] = []
    _watchers[str(folder)] = opened
    try:
        yield opened
    finally:
        del _watchers[str(folder)]
