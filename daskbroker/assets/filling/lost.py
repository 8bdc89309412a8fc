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
    cells: CellsOfResource, read: Callable[[CellsOfResource], T], *, strict: bool
) -> Iterator[tuple[np.ndarray, T]]:
    """Yield the positions of cells that exist, and what ``read`` returns for them.

    Handlers do not tell which cells are lost, so the datums are bisected.

    Parameters
    ----------
    cells
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
        block = read(cells)
    except FrameMissing as error:
        if strict:
            raise FrameMissing(f"{error}; {GO_ON}") from error
    else:
        yield cells.positions, block
        return
    # A single lost cell has no halves: it is left out.
    middle = len(cells.positions) // 2
    for some in (slice(0, middle), slice(middle, None)) if middle else ():
        half = cells._replace(datums=cells.datums.take(some), positions=cells.positions[some])
        yield from read_there(half, read, strict=strict)
