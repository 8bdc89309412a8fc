"""Cells put together as a block."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..shapes import long_axes
from .contract import Block

__all__ = ["gather"]


def gather(cells: Iterable[Any], count: int, declared: tuple[int, ...] | None = None) -> Block:
    """Cells as one array where they are of one shape and dtype, else as a list.

    Parameters
    ----------
    cells
        So many as ``count``; each is dropped before the next is made.
    declared
        Shape that cells should have, but for axes of length 1. If the first one has another, it
        is given in place of all: nothing is stacked that would be refused.
    """
    out: np.ndarray | None = None
    listed: list[Any] = []
    for place, cell in enumerate(cells):
        if place == 0 and _is_plain(cell):
            if declared is not None and long_axes(cell.shape) != long_axes(declared):
                return np.broadcast_to(cell, (count, *cell.shape))
            out = np.empty((count, *cell.shape), cell.dtype)
        if out is None:
            listed.append(cell)
        elif _is_plain(cell) and cell.shape == out.shape[1:] and cell.dtype == out.dtype:
            out[place] = cell
        else:
            listed, out = [*out[:place], cell], None
    return listed if out is None else out


def _is_plain(cell: Any) -> bool:
    """Arrays of numbers; masked ones and the like would lose what makes them so."""
    return type(cell) is np.ndarray and not cell.dtype.hasobject
