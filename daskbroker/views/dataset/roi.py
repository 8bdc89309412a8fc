"""The option ``roi``: check what is asked, and resolve it to a region of each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...assets.regions import Axis, Region
from ...core.errors import BadQuery


def region_of(name: str, asked: Any, shape: Sequence[int]) -> Region:
    """Return the region that an index such as ``np.s_[10:20, :]`` selects of a cell.

    Parameters
    ----------
    name
        Name of the variable, for messages.
    asked
        Slices and integers, one per axis from the first on; ``...`` stands for all others.
    shape
        Shape of a cell.

    Raises
    ------
    BadQuery
        If there are more indices than axes, if an integer is out of range, or if an index is
        neither a slice nor an integer.
    """
    parts = list(asked) if isinstance(asked, tuple) else [asked]
    if parts.count(Ellipsis) == 1:
        position = parts.index(Ellipsis)
        parts[position : position + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    shown = f"roi of {name!r} is {asked!r}, cells have the shape {tuple(shape)}"
    if len(parts) > len(shape):
        raise BadQuery(f"{shown}: these are more indices than axes")
    parts += [slice(None)] * (len(shape) - len(parts))
    region: list[Axis] = []
    for part, length in zip(parts, shape):
        if isinstance(part, slice):
            region.append(range(length)[part])
        # True and False would be taken as the positions 1 and 0.
        elif isinstance(part, (int, np.integer)) and not isinstance(part, bool):
            if not -length <= part < length:
                raise BadQuery(f"{shown}: {part} is outside")
            region.append(range(length)[int(part)])
        else:
            raise BadQuery(f"{shown}: an index is a slice or an integer, not {part!r}")
    return tuple(region)


def check_names(roi: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
    """Check that every name in ``roi`` is a variable whose cells have a shape.

    Raises
    ------
    BadQuery
        If a name is not such a variable.
    """
    for name in roi:
        if not shapes.get(name):
            there = ", ".join(found for found, shape in shapes.items() if shape)
            raise BadQuery(
                f"roi names {name!r}, which is not an external variable with a known shape; "
                f"there are: {there or 'none'}"
            )
