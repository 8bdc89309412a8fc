"""Compare what a file claims to hold with what it can hold, before memory is taken for it."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from ...core.errors import FillError

RATIO = 1032
"""Maximum ratio of values to stored bytes: that of deflate for a run of zeros. Other filters only
reach it with data of as little content."""
SMALL_CELL = 64 * 2**20
SMALL_BLOCK = 2**30
"""Bytes of a cell and of a block below which nothing is compared, as parts that were never written
take no place in a file."""


def is_believable(claimed: int, stored: int | None, small: int = SMALL_CELL) -> bool:
    """Return whether ``stored`` bytes of files can hold ``claimed`` bytes of values.

    Anything up to ``small`` bytes is believed, and anything at all if ``stored`` is None (unknown).
    """
    return stored is None or claimed <= max(small, RATIO * stored)


def check_cell(shape: Iterable[int], itemsize: int, stored: int | None) -> None:
    """Check that cells are not larger than their files can hold.

    Parameters
    ----------
    shape, itemsize
        Shape of a cell and bytes of an element, as the file claims.
    stored
        Bytes of the files that hold the cells; None if unknown.

    Raises
    ------
    FillError
        If the files cannot hold such a cell.
    """
    shape = tuple(map(int, shape))
    if not is_believable(prod(shape) * itemsize, stored):
        raise FillError(
            f"cells of {shape}, {_in_units(prod(shape) * itemsize)}, are declared, but the file "
            f"has only {_in_units(stored or 0)}"
        )


def check_block(claimed: int, stored: int | None) -> None:
    """Check that a block of cells is not larger than its files can hold.

    Parameters
    ----------
    claimed
        Bytes of the block.
    stored
        Bytes of the files that hold it; None if unknown.

    Raises
    ------
    FillError
        If the files cannot hold such a block.
    """
    if not is_believable(claimed, stored, SMALL_BLOCK):
        raise FillError(
            f"{_in_units(claimed)} are requested at once from a file of {_in_units(stored or 0)}; "
            "request smaller regions if parts of the file were never written"
        )


def _in_units(size: int) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}" if unit != "bytes" else f"{size} bytes"
        size /= 1024  # type: ignore[assignment]
    return f"{size:,.3g} TiB"
