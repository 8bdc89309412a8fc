"""Combine single cells into a block."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..shapes import long_axes
from .contract import Block


def gather(cells: Iterable[Any], count: int, declared: tuple[int, ...] | None = None) -> Block:
    """Stack cells into one array if they have one shape and dtype, else return them as a list.

    Parameters
    ----------
    cells
        Cells, as many as ``count``; each is released before the next is made.
    count
        Number of cells.
    declared
        Shape that cells should have, except for axes of length 1. If the first cell has another
        shape, the result repeats it ``count`` times without a copy, so that no memory is taken for
        a block that the caller refuses.
    """
    out: np.ndarray | None = None
    listed: list[Any] = []
    for position, cell in enumerate(cells):
        if position == 0 and _is_plain(cell):
            if declared is not None and long_axes(cell.shape) != long_axes(declared):
                return np.broadcast_to(cell, (count, *cell.shape))
            out = np.empty((count, *cell.shape), cell.dtype)
        if out is None:
            listed.append(cell)
        elif _is_plain(cell) and cell.shape == out.shape[1:] and cell.dtype == out.dtype:
            out[position] = cell
        else:
            listed, out = [*out[:position], cell], None
    return listed if out is None else out


def _is_plain(cell: object) -> bool:
    """Return whether a cell is a plain array of numbers.

    Subclasses such as masked arrays would lose their additional content by stacking.
    """
    return type(cell) is np.ndarray and not cell.dtype.hasobject
