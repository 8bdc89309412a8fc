"""Parquet files that stay open: to open one takes longer than to read a column of it."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from ...core.forking import in_each_process

__all__ = ["State", "close_below", "opened", "state_of"]

MOST_OPEN = 128
"""So many files stay open in a process."""

State = tuple[int, ...]
"""What changes when a file is replaced or written to: device, inode, size, times."""

_waiting: OrderedDict[str, tuple[State, pq.ParquetFile]]
_lock: threading.Lock


def _begin() -> None:
    global _waiting, _lock
    _waiting, _lock = OrderedDict(), threading.Lock()


in_each_process(_begin)


def state_of(found: os.stat_result) -> State:
    """What tells a file from others, and from itself before a change."""
    return (
        found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns,
    )  # fmt: skip


class Opened:
    """A file that one thread has for a while.

    Attributes
    ----------
    file
        None where none was open; what is put here stays open for the next.
    """

    def __init__(self, file: pq.ParquetFile | None) -> None:
        self.file = file


@contextmanager
def opened(path: Path, state: State) -> Iterator[Opened]:
    """A file that is open already, if there is one of this state; no other thread has it too."""
    key = str(path)
    with _lock:
        found = _waiting.pop(key, None)
    mine = Opened(found[1] if found is not None and found[0] == state else None)
    yield mine  # one that fails is not kept
    if mine.file is not None:
        with _lock:
            _waiting[key] = (state, mine.file)
            while len(_waiting) > MOST_OPEN:
                _waiting.popitem(last=False)


def close_below(folder: Path) -> None:
    """Close the files of a store that is closed; those that are in use stay open after it."""
    with _lock:
        for key in [key for key in _waiting if folder in Path(key).parents]:
            del _waiting[key]
