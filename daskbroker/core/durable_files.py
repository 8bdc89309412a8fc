"""Files and folders that survive a loss of power, by syncing in the right order.

The bytes of a file survive once they are synced, its name once the folder that holds it is synced,
and that folder once its own name is: up to a folder that was durable before. A transaction that
relies on a file begins after all of that.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .bounded_dict import BoundedDict
from .unfinished import unfinished

UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP)
"""Errors of file systems that cannot sync a folder: they sync names by themselves, or never."""


def sync_file(file: IO[Any]) -> None:
    """Flush and sync an open file to disk.

    Raises
    ------
    OSError
        If it fails. Then nothing that was written since the last sync counts as stored: the
        system may have dropped these bytes, and a second call would succeed without them.
    """
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk.

    Raises
    ------
    OSError
        If it fails, except on file systems that cannot sync folders.
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
    """Rename a synced file within its folder, so that the new name survives a crash."""
    os.replace(temporary, final)
    sync_folder(final.parent)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces the target, durably, if the block raises no error.

    The folder of the target is made if it does not exist. After an error the target is as before,
    and the temporary file is deleted. That of a process that was killed is removed by
    :func:`.unfinished.remove_unfinished`.
    """
    make_folder(target.parent)
    temporary = unfinished(target)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            sync_file(file)
        publish_file(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and its missing parents durably; return those that were made, topmost first."""
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
    """Folders below a durable root, each made and synced before this process first uses it.

    A process that finds a folder cannot know whether the one that made it lived to sync its name.
    So each process syncs the name once, whether it made the folder or not.

    Parameters
    ----------
    root
        Folder whose own name is durable.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._durable: BoundedDict[Path, bool] = BoundedDict()

    def make(self, folder: Path) -> None:
        """Make a folder below the root unless it exists, and make its name durable.

        Raises
        ------
        OSError
            If it cannot be made or synced, or if the root does not exist.
        """
        if folder in self._durable and folder.is_dir():
            return
        way = [folder, *folder.parents]
        below = way[: way.index(self._root)][::-1]
        for one in below:  # the root is not made again if it was moved away
            one.mkdir(exist_ok=True)
        # The folder's own name is synced in any case: it may have been deleted and made again.
        for one in below:
            if one == folder or one not in self._durable:
                sync_folder(one.parent)
                self._durable[one] = True
