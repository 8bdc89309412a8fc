"""Exports that are folders: a folder appears as a whole or not at all."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..core.durable_files import make_folder, publish_file, sync_file, sync_folder
from ..core.errors import BadQuery
from ..core.unfinished import unfinished

SETTLED_SECONDS = 5.0
"""Maximum seconds in which writes that have begun are waited for after one has failed."""
PAUSE_SECONDS = 0.1
"""Seconds without a new file after which no write is going on."""


@contextmanager
def replacing_folder(target: Path, marks: Iterable[str]) -> Iterator[Path]:
    """Return a context with the path of a temporary folder that becomes the target at its end.

    If the block raises, the target stays as it was. Otherwise the new folder is synced before it
    gets its name, so that it survives a loss of power.

    Parameters
    ----------
    target
        Path of the folder. An existing folder of the same kind is replaced.
    marks
        Names of which every folder of this kind has at least one.

    Raises
    ------
    BadQuery
        If something of another kind exists at ``target``.
    """
    is_ours = any(target.joinpath(name).exists() for name in marks)
    if target.exists() and not is_ours:
        kind = "Zarr group" if ".zgroup" in marks else f"{target.suffix.lstrip('.')} folder"
        raise BadQuery(f"{target} exists and is not a {kind}; choose another target")
    make_folder(target.parent)
    temporary, former = unfinished(target), unfinished(target, "old")
    try:
        yield temporary
        _sync_all(temporary)
        try:
            if is_ours:  # a folder cannot be renamed onto one that is not empty
                os.replace(target, former)
            publish_file(temporary, target)
        except BaseException:
            if former.exists() and not target.exists():  # the export that was there is kept
                os.replace(former, target)
            raise
    except BaseException:
        _remove_settled(temporary)
        raise
    finally:
        shutil.rmtree(former, ignore_errors=True)


def _remove_settled(folder: Path) -> None:
    """Remove a folder to which others may write for a moment.

    When a write of Zarr fails, its event loop still finishes those that have begun, and each of
    them makes the folder again if it is not there.
    """
    until = time.monotonic() + SETTLED_SECONDS
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(PAUSE_SECONDS)
        if not folder.exists() or time.monotonic() > until:
            return


def _sync_all(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            with Path(parent, name).open("rb+") as file:
                sync_file(file)
        sync_folder(Path(parent))
