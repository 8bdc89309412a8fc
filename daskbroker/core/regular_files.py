"""Reading of regular files only: no pipe that blocks, no device, no socket."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

_NOUNS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""Flags: do not wait for the writer of a pipe; do not let a terminal become the controlling one."""


def open_regular(path: str | os.PathLike[str], buffering: int = -1) -> BinaryIO:
    """Open a regular file for reading; links are followed.

    The type is checked before opening, as opening a device may have effects, and again afterwards,
    as the path may lead to something else by then.

    Raises
    ------
    OSError
        If there is no file, or if it is a folder, pipe, socket or device.
    """
    check_regular(path)
    number = os.open(path, _READ)
    try:
        _check(path, os.fstat(number).st_mode)
        return open(path, "rb", buffering, opener=lambda *_: number)
    except BaseException:
        os.close(number)
        raise


def check_regular(path: str | os.PathLike[str]) -> None:
    """Check that a path leads to a regular file, without opening it.

    Raises
    ------
    OSError
        If there is no file, or if it is a folder, pipe, socket or device.
    """
    _check(path, os.stat(path).st_mode)


def _check(path: str | os.PathLike[str], mode: int) -> None:
    if not stat.S_ISREG(mode):
        noun = _NOUNS.get(stat.S_IFMT(mode), "something else")
        raise OSError(f"{os.fspath(path)!r} is {noun}; only regular files are read")
