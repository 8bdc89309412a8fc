"""Where Dask cuts the variables of a Dataset along ``time``: one cut for all of them.

It is chosen from what is largest: a cell of the largest external variable, or a row of all stored
columns if there is none. Blocks have about the partition size and are even, so that there is no
short tail, and end where chunks in the files do as far as that fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from dask.utils import parse_bytes

from ...core.chunks import ChunkPlan
from ...core.codec import Kind
from ...core.errors import BadQuery
from ..rows import LEAST_BYTES
from .columns import ColumnSource, Constants

__all__ = [
    "column_groups",
    "even_cut",
    "given_cut",
    "is_cut",
    "regular_length",
    "row_bytes",
    "text_bytes",
]

GROUP_BYTES = 8 * 2**20
"""Of columns that one task reads together, as far as that is more than one column."""
MOST_IN_GROUP = 64
OBJECT_BYTES = 56
"""Of a Python object beside its content."""
SIZES = {"bool": 1, "null": 0}
"""Bytes of scalars by kind, where they are not 8."""
LOOSE = ("str", "list", "json")
"""Kinds of cells that have no fixed size."""


def even_cut(count: int, most: int, align: int = 1) -> tuple[int, ...]:
    """Lengths of blocks, all equal but for a shorter last one.

    Parameters
    ----------
    count
        Of rows.
    most
        Rows of a block.
    align
        Blocks have multiples of it where ``most`` is as large as that.
    """
    if count < 1:
        return (0,)
    most = max(1, most)
    unit = align if align <= most else 1
    length = -(-count // -(-count // (most // unit * unit)))
    length = -(-length // unit) * unit
    whole, rest = divmod(count, length)
    return (length,) * whole + ((rest,) if rest else ())


def regular_length(lengths: np.ndarray) -> int:
    """Rows of each chunk, if all but the last have as many; else 1."""
    if len(lengths) < 2:
        return 1
    most = int(lengths[0])
    return most if (lengths[:-1] == most).all() and lengths[-1] <= most else 1


def is_cut(cut: Any) -> bool:
    """Whether this is a number of rows, -1 for all of them, or lengths of blocks."""
    if isinstance(cut, (tuple, list)):
        return all(isinstance(n, int) and n > 0 for n in cut)
    return isinstance(cut, int) and (cut > 0 or cut == -1)


def given_cut(cut: int | Sequence[int], count: int) -> tuple[int, ...]:
    """Lengths of blocks that were asked for.

    Raises
    ------
    BadQuery
        If they are not those of so many rows.
    """
    if not isinstance(cut, int):
        if sum(cut) != count:
            raise BadQuery(f"the chunks {tuple(cut)} along time are {sum(cut)} events, not {count}")
        return tuple(cut)
    if cut == -1 or count < 1:
        return (count,)
    whole, rest = divmod(count, cut)
    return (cut,) * whole + ((rest,) if rest else ())


def text_bytes(size: str) -> int:
    """A size such as ``"8 MiB"`` in bytes.

    Raises
    ------
    BadQuery
        If it is none.
    """
    try:
        return int(parse_bytes(size))
    except ValueError:
        raise BadQuery(f"chunks {size!r} is neither 'auto' nor a size such as '8 MiB'") from None


def row_bytes(plan: ChunkPlan, sources: Mapping[str, ColumnSource]) -> dict[str, int]:
    """What a cell of each stored variable takes in memory, as far as the plan tells."""
    loose = _loose_bytes(plan)
    sizes = {}
    for name, source in sources.items():
        size = prod(source.cell_shape) * source.dtype.itemsize
        if source.dtype.kind == "O" and not isinstance(source, Constants):
            size += round(loose) + OBJECT_BYTES * prod(source.cell_shape)
        sizes[name] = max(1, size)
    return sizes


def _loose_bytes(plan: ChunkPlan) -> float:
    """A stored cell that has no fixed size: what is left of a row, shared among all such."""
    if not plan.rows:
        return 0.0
    common = int(np.bincount(plan.records["schema"], plan.records["rows"]).argmax())
    kinds = plan.schemas[common].values()
    loose = sum(kind.name in LOOSE for kind in kinds)
    left = int(plan.records["bytes"].sum()) / plan.rows - sum(map(_fixed_bytes, kinds))
    return max(0.0, left) / max(1, loose)


def _fixed_bytes(kind: Kind) -> int:
    if kind.name in LOOSE:
        return 0
    if kind.name == "array" and kind.dtype != "<U":
        return prod(kind.shape) * np.dtype(kind.dtype).itemsize
    return SIZES.get(kind.name, LEAST_BYTES)


def column_groups(sizes: Mapping[str, int], rows: int) -> list[tuple[str, ...]]:
    """Which columns one task reads together: always the same ones, whatever is asked for.

    Parameters
    ----------
    sizes
        Bytes of a cell of each, in order.
    rows
        Of a block.
    """
    groups: list[tuple[str, ...]] = []
    some: list[str] = []
    size = 0
    for name, cell in sizes.items():
        if some and (size + cell * rows > GROUP_BYTES or len(some) == MOST_IN_GROUP):
            groups.append(tuple(some))
            some, size = [], 0
        some.append(name)
        size += cell * rows
    return [*groups, tuple(some)] if some else groups
