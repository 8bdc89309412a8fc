"""One look into one file, in whichever process can access it."""

from __future__ import annotations

from typing import NamedTuple

from ...core.peeks import Cell, FileState
from ..filling.blocks import BlockReader
from ..handlers.contract import Datums, FramesThere
from .memory import file_state

__all__ = ["Look", "Looked", "look"]


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
