"""Parquet files that stay open, as opening one takes longer than reading a column of it."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from ...core.forking import in_each_process

MOST_OPEN = 128
"""Maximum number of files that stay open in a process."""

State = tuple[int, ...]
"""Device, inode, size and times of a file, which change if it is replaced or written to."""

_waiting: OrderedDict[str, tuple[State, pq.ParquetFile]]
_lock: threading.Lock


def _begin() -> None:
    global _waiting, _lock
    _waiting, _lock = OrderedDict(), threading.Lock()


in_each_process(_begin)


def state_of(stat: os.stat_result) -> State:
    """Return the state of a file, by which a replacement or a change is noticed."""
    return (
        stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns,
    )  # fmt: skip


class OpenFile:
    """Holder of a file that one thread uses for a while.

    Attributes
    ----------
    file
        The open file, or None; a file that is assigned here stays open for the next use.
    """

    def __init__(self, file: pq.ParquetFile | None) -> None:
        self.file = file


@contextmanager
def file_in_use(path: Path, state: State) -> Iterator[OpenFile]:
    """Return a context with the open file of this state, if any, which no other thread has."""
    key = str(path)
    with _lock:
        found = _waiting.pop(key, None)
    mine = OpenFile(found[1] if found is not None and found[0] == state else None)
    yield mine  # after an error in the block, the file is not kept
    if mine.file is not None:
        with _lock:
            _waiting[key] = (state, mine.file)
            while len(_waiting) > MOST_OPEN:
                _waiting.popitem(last=False)


def close_below(folder: Path) -> None:
    """Close the files below the folder of a closed store; a file in use closes after its use."""
    with _lock:
        for key in [key for key in _waiting if folder in Path(key).parents]:
            del _waiting[key]
