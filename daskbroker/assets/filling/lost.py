"""Read cells of which some may be lost, without knowing which."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from ...core.errors import FrameMissing
from ..references.locating import CellsOfResource
from .missing import GO_ON

__all__ = ["read_there"]

T = TypeVar("T")


def read_there(
    found: CellsOfResource, read: Callable[[CellsOfResource], T], *, strict: bool
) -> Iterator[tuple[np.ndarray, T]]:
    """Yield the places of cells that exist, and what ``read`` returns for them.

    Handlers do not tell which cells are lost, so the datums are bisected.

    Parameters
    ----------
    found
        Cells of one resource.
    read
        Reads cells of the resource in one call.
    strict
        Whether a lost cell is an error, rather than left out.

    Raises
    ------
    FrameMissing
        If ``strict`` and a cell is lost.
    """
    try:
        block = read(found)
    except FrameMissing as error:
        if strict:
            raise FrameMissing(f"{error}; {GO_ON}") from error
    else:
        yield found.places, block
        return
    # A single lost cell has no halves: it is left out.
    middle = len(found.places) // 2
    for some in (slice(0, middle), slice(middle, None)) if middle else ():
        half = found._replace(datums=found.datums.take(some), places=found.places[some])
        yield from read_there(half, read, strict=strict)
