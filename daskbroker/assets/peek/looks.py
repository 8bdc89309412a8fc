"""One look into one file, in whichever process can access it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...core.errors import FrameMissing
from ...core.peeks import Cell, FileState
from ..filling.blocks import BlockReader
from ..handlers.contract import Datums, FramesThere
from .memory import file_state


class Look(NamedTuple):
    """Request to look into a resource, in any process: small and picklable."""

    reader: BlockReader
    datums: Datums


class Looked(NamedTuple):
    """Result of a look.

    Attributes
    ----------
    cells
        Shapes and dtypes of the cells that were looked at.
    state
        Path, size and time of the file or folder; None if there is none at the path.
    frames
        Number of frames for all events; None if the handler cannot tell.
    """

    cells: list[Cell]
    state: FileState | None
    frames: FramesThere | None


def look(one: Look, *, keep_open: bool = True) -> Looked:
    """Look into a file, without reading pixels if its handler can tell shape and dtype.

    Raises
    ------
    FillError
        If the file cannot be read.
    """
    cells, frames = one.reader.look(one.datums, keep_open=keep_open)
    return Looked(cells, file_state(one.reader.resource.path), frames)


def look_at_any(looks: Sequence[Look], *, keep_open: bool = True) -> list[Looked | None]:
    """Look into some files; None stands for one of which all requested frames are lost.

    Raises
    ------
    FrameMissing
        If that is so of all files.
    FillError
        If a file cannot be read for another reason.
    """
    found: list[Looked | None] = []
    lost: FrameMissing | None = None
    for one in looks:
        try:
            found.append(look(one, keep_open=keep_open))
        except FrameMissing as error:
            lost = lost or error
            found.append(None)
    if lost is not None and not any(found):
        raise lost
    return found
