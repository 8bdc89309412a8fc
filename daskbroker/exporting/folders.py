"""Exports that are folders, which appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..core.durable_files import make_folder, publish_file, sync_file, sync_folder
from ..core.errors import BadQuery

__all__ = ["replacing_folder"]


@contextmanager
def replacing_folder(target: Path, marks: Iterable[str]) -> Iterator[Path]:
    """A folder to write to, which becomes the target, durably, when the block ends well.

    Parameters
    ----------
    target
        What is there is replaced if it is such a folder.
    marks
        Names of which such a folder has one.

    Raises
    ------
    BadQuery
        If something else is there.
    """
    is_ours = any(target.joinpath(name).exists() for name in marks)
    if target.exists() and not is_ours:
        kind = "Zarr group" if ".zgroup" in marks else f"{target.suffix.lstrip('.')} folder"
        raise BadQuery(f"{target} is there and is no {kind}; name another")
    make_folder(target.parent)
    mark = uuid.uuid4().hex
    temporary, former = (target.with_name(f".{mark}.{kind}") for kind in ("part", "old"))
    try:
        yield temporary
        _sync_all(temporary)
        if is_ours:
            os.replace(target, former)
        publish_file(temporary, target)
    finally:
        for folder in (temporary, former):
            shutil.rmtree(folder, ignore_errors=True)


def _sync_all(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            with Path(place, name).open("rb+") as file:
                sync_file(file)
        sync_folder(Path(place))
