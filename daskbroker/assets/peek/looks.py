"""One look into one file, by whoever sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...core.peeks import Cell, FileState
from ..files.resolving import ResolvedResource
from ..filling.blocks import look_into_file
from ..handlers.contract import Datums, FramesThere
from ..handlers.registry import Factory
from .memory import file_state

__all__ = ["Look", "Looked", "look"]


class Look(NamedTuple):
    """One look into a resource, by whoever sees it: small and picklable."""

    resource: ResolvedResource
    factory: Factory
    datums: Datums
    claim: Mapping[str, Any]
    where: str


class Looked(NamedTuple):
    """What was found.

    Attributes
    ----------
    cells
        The different ones.
    state
        The file as it was, None where there is no single one.
    frames
        How many there are for all events, None where they do not share them.
    """

    cells: list[Cell]
    state: FileState | None
    frames: FramesThere | None


def look(one: Look, keep_open: bool = True) -> Looked:
    """Look into a file, without reading pixels where its handler can tell.

    Raises
    ------
    FillError
    """
    resource, factory, datums, claim, where = one
    cells, frames = look_into_file(
        resource, factory, datums, data_key=claim, where=where, keep_open=keep_open
    )
    return Looked(cells, file_state(resource.path), frames)
