"""Files and folders that are still there after a loss of power, each step in its order.

A file survives when its bytes are synced, its name when the folder that has it is synced, and
that folder when its own name is: up to a folder that was durable before. A transaction that counts
on a file begins after all of that.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .remembered import Remembered

__all__ = ["DurableFolders", "make_folder", "publish_file", "replacing", "sync_file", "sync_folder"]

UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP)
"""What file systems answer that sync names by themselves, or not at all."""


def sync_file(file: IO[Any]) -> None:
    """Bring what was written to an open file to disk.

    Raises
    ------
    OSError
        Then nothing that was written since the last sync counts as stored: the system may have
        given up these bytes, and a second call would succeed without them.
    """
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk.

    Raises
    ------
    OSError
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(handle)


def publish_file(temporary: Path, final: Path) -> None:
    """Give a synced file of the same folder its name, so that it has it after a crash too."""
    os.replace(temporary, final)
    sync_folder(final.parent)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path to write to, which becomes the target, durably, when the block ends without error.

    The folder of the target is made if need be.
    """
    make_folder(target.parent)
    temporary = target.with_name(f".{uuid.uuid4().hex}.part")  # threads may write the same target
    try:
        yield temporary
        with temporary.open("rb+") as file:
            sync_file(file)
        publish_file(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and those above it that are missing, durably; which were made, from above."""
    missing: list[Path] = []
    here = folder
    while not here.exists():
        missing.append(here)
        here = here.parent
    folder.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        sync_folder(made.parent)
    return missing[::-1]


class DurableFolders:
    """Folders below a root that is durable, each made and synced before its first use here.

    Whoever finds a folder does not know whether its maker lived to sync its name. So each process
    syncs it once, whether it made the folder or not.

    Parameters
    ----------
    root
        Folder whose own name is durable.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._durable: Remembered[Path, bool] = Remembered()

    def make(self, folder: Path) -> None:
        """Make a folder below the root, if it is not there, and see to it that it survives.

        Raises
        ------
        OSError
        """
        if folder in self._durable and folder.is_dir():
            return
        folder.mkdir(parents=True, exist_ok=True)
        way = [folder, *folder.parents]
        for place in reversed(way[: way.index(self._root)]):
            if place == folder or place not in self._durable:
                sync_folder(place.parent)
                self._durable[place] = True
