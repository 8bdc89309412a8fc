"""What a file claims to hold, against what it can hold: before memory is taken for it."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from ...core.errors import FillError

__all__ = ["RATIO", "SMALL_BLOCK", "check_block", "check_cell", "is_believable"]

RATIO = 1032
"""What deflate makes of a run of zeros; other filters reach it with data that says as little."""
SMALL_CELL = 64 * 2**20
SMALL_BLOCK = 2**30
"""Bytes that need no proof: parts that were never written take no place in a file."""


def is_believable(claimed: int, stored: int | None, small: int = SMALL_CELL) -> bool:
    """Whether so many stored bytes can be so many values; None: it is not known how many."""
    return stored is None or claimed <= max(small, RATIO * stored)


def check_cell(shape: Iterable[int], itemsize: int, stored: int | None) -> None:
    """Refuse cells that are larger than what is stored can be.

    Parameters
    ----------
    shape, itemsize
        Of a cell, as the file claims.
    stored
        Bytes of the files that hold it.

    Raises
    ------
    FillError
    """
    shape = tuple(map(int, shape))
    if not is_believable(prod(shape) * itemsize, stored):
        raise FillError(
            f"cells of {shape}, {_shown(prod(shape) * itemsize)}, are claimed of a file of "
            f"{_shown(stored or 0)}, which cannot hold that"
        )


def check_block(claimed: int, stored: int | None) -> None:
    """Refuse a block of cells that is larger than what is stored can be.

    Raises
    ------
    FillError
    """
    if not is_believable(claimed, stored, SMALL_BLOCK):
        raise FillError(
            f"{_shown(claimed)} at once are asked of a file of {_shown(stored or 0)}, which "
            "cannot hold that; what was never written can be read in smaller parts"
        )


def _shown(size: int) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}" if unit != "bytes" else f"{size} bytes"
        size /= 1024  # type: ignore[assignment]
    return f"{size:,.3g} TiB"
