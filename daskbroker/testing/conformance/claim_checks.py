"""Checks while files are peeked into: warnings, errors about claims, and which files are opened."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask
import pytest

from ...core.errors import ClaimWarning, FillError


@contextmanager
def warned(word: str) -> Iterator[list[str]]:
    """Check that a block gives warnings about claims, all with this word; none if it is ""."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ClaimWarning)
        yield messages
        messages.extend(str(one.message) for one in caught if one.category is ClaimWarning)
    assert bool(messages) == bool(word), messages
    assert all(word in message for message in messages)


def check_refused(header: Any, match: str, words: Iterable[str]) -> None:
    """Check that ``shape-mismatch: raise`` refuses the images of a run, not its other columns.

    Parameters
    ----------
    header
        Run whose claim about ``img`` is wrong, with a column ``x``.
    match, words
        Pattern, and other texts, that the errors of all views have.
    """
    with dask.config.set({"daskbroker.shape-mismatch": "raise"}):
        table, dataset, documents = header.table(), header.dataset(), header.documents()
        assert table["x"].compute().tolist() == dataset["x"].values.tolist()
        for fill in (
            lambda: table["img"].compute(),
            lambda: dataset["img"].compute(),
            lambda: list(documents),
        ):
            with pytest.raises(FillError, match=match) as caught:
                fill()
            for word in (header.uid, *words):
                assert word in str(caught.value)


_watchers: dict[str, list[str]] = {}
"""Lists of opened files, by the folder that they are below."""


@lru_cache
def _watch() -> None:
    """Install an audit hook that notes opened files, once: Python cannot remove such a hook."""

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if _watchers and event == "open" and isinstance(arguments[0], str):
            for folder, opened in list(_watchers.items()):
                if arguments[0].startswith(folder) and arguments[0].endswith(".h5"):
                    opened.append(arguments[0])

    sys.addaudithook(note)


@contextmanager
def opened_files(folder: Path) -> Iterator[list[str]]:
    """Collect the HDF5 files below a folder that a block opens, one entry for each time."""
    _watch()
    opened: list[str] = []
    _watchers[str(folder)] = opened
    try:
        yield opened
    finally:
        del _watchers[str(folder)]
