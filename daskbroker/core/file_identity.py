"""What tells a file from another at the same path, or from itself after a change."""

from __future__ import annotations

import os
from typing import TypeAlias

Identity: TypeAlias = "tuple[int, int, int, int] | None"


def identity(file: str | int) -> Identity:
    """Return what distinguishes a file from one that replaced it, or from itself before it grew.

    Parameters
    ----------
    file
        A path, or the descriptor of an open file.

    Returns
    -------
    tuple or None
        Device, inode, size in bytes and time of the last change in nanoseconds. None if there is
        no file.
    """
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
