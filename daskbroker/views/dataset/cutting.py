"""Where Dask cuts the variables of a Dataset along ``time``: one cut for all of them.

It depends on the largest data: a cell of the largest external variable, or a row of all stored
columns if there is none. Blocks have about the partition size, are even, so that there is no
short last one, and end at chunk borders in the files as far as that fits. Blocks of many columns
are larger (:func:`size_of_rows`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from dask.utils import parse_bytes

from ...core.chunks import ChunkPlan
from ...core.column_kinds import ColumnKind
from ...core.errors import BadQuery
from ..row_order import LEAST_BYTES
from .column_sources import ColumnSource, Constants

GROUP_BYTES = 8 * 2**20
"""Maximum bytes of the columns that one task reads together, unless a single one is larger."""
MOST_IN_GROUP = 64
"""Maximum number of columns that one task reads together."""
MANY_COLUMNS = 128
"""Number of columns above which blocks grow, so that there are not more tasks than needed."""
MOST_GROWTH = 2
"""How many times the usual size blocks of many columns have at most."""
OBJECT_BYTES = 56
"""Bytes of a Python object in addition to its content."""
SIZES = {"bool": 1, "null": 0}
"""Bytes of a scalar by kind, if they are not 8."""
LOOSE = ("str", "list", "rows", "json")
"""Kinds of cells that have no fixed size."""


def even_cut(count: int, most: int, align: int = 1) -> tuple[int, ...]:
    """Return lengths of blocks, all equal except a shorter last one.

    Parameters
    ----------
    count
        Number of rows.
    most
        Maximum number of rows of a block.
    align
        Number of rows of which block lengths are multiples, unless it is larger than `most`.
    """
    if count < 1:
        return (0,)
    most = max(1, most)
    unit = align if align <= most else 1
    length = -(-count // -(-count // (most // unit * unit)))
    length = -(-length // unit) * unit
    whole, rest = divmod(count, length)
    return (length,) * whole + ((rest,) if rest else ())


def size_of_rows(target: int, columns: int) -> int:
    """Return the bytes of a block of rows of this number of stored columns, for a usual size.

    A column of each block is a task, however narrow the column is: Dask takes longer for the tasks
    of some hundred columns than it takes to read them. What a task reads at once does not grow,
    as that is a group of columns (:func:`column_groups`).
    """
    return round(target * min(max(1.0, columns / MANY_COLUMNS), MOST_GROWTH))


def regular_length(lengths: np.ndarray) -> int:
    """Return the number of rows that all chunks have, except a shorter last one; else 1."""
    if len(lengths) < 2:
        return 1
    most = int(lengths[0])
    return most if (lengths[:-1] == most).all() and lengths[-1] <= most else 1


def check_chunk_sizes(chunks: Any) -> None:
    """Check that ``chunks`` can be a cut at all; Dask takes lengths below zero, and divides by 0.

    Raises
    ------
    BadQuery
        If a length is no integer above 0 (-1: the whole dimension), or a size has no bytes.
    """
    cuts = chunks.values() if isinstance(chunks, Mapping) else [chunks]
    if not all(map(_is_possible, cuts)):
        raise BadQuery(
            f"chunks={chunks!r:.200}: the length of a block is an integer of 1 or more, or -1 for "
            "all of a dimension; a size is text such as '8 MiB'"
        )


def _is_possible(cut: Any) -> bool:
    if cut is None or isinstance(cut, str):
        return cut in (None, "auto") or (cut.strip() != "" and text_bytes(cut) > 0)
    if isinstance(cut, (tuple, list)):  # lengths, some of which may be 0
        return len(cut) > 0 and all(
            n >= 0 if _is_integral(n) else isinstance(n, (tuple, list)) and _is_possible(n)
            for n in cut
        )
    return _is_integral(cut) and (cut > 0 or cut == -1)


def _is_integral(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_cut(cut: object) -> bool:
    """Return whether `cut` is a number of rows, -1 for all of them, or lengths of blocks."""
    if isinstance(cut, (tuple, list)):
        return all(isinstance(n, int) and n > 0 for n in cut)
    return isinstance(cut, int) and (cut > 0 or cut == -1)


def given_cut(cut: int | Sequence[int], count: int) -> tuple[int, ...]:
    """Return the lengths of blocks that a requested cut gives for `count` rows.

    Raises
    ------
    BadQuery
        If given lengths do not add up to `count`.
    """
    if not isinstance(cut, int):
        if sum(cut) != count:
            raise BadQuery(
                f"the chunks {tuple(cut)} along time add up to {sum(cut)} events, not {count}"
            )
        return tuple(cut)
    if cut == -1 or count < 1:
        return (count,)
    whole, rest = divmod(count, cut)
    return (cut,) * whole + ((rest,) if rest else ())


def text_bytes(size: str) -> int:
    """Return a size such as ``"8 MiB"`` in bytes.

    Raises
    ------
    BadQuery
        If the text is not a valid size.
    """
    try:
        return int(parse_bytes(size))
    except (ValueError, OverflowError):
        raise BadQuery(f"chunks {size!r} is neither 'auto' nor a size such as '8 MiB'") from None


def row_bytes(plan: ChunkPlan, sources: Mapping[str, ColumnSource]) -> dict[str, int]:
    """Return the bytes in memory of a cell of each stored variable, estimated from the plan."""
    loose = _loose_bytes(plan)
    sizes = {}
    for name, source in sources.items():
        size = prod(source.cell_shape) * source.dtype.itemsize
        if source.dtype.kind == "O" and not isinstance(source, Constants):
            size += round(loose) + OBJECT_BYTES * prod(source.cell_shape)
        sizes[name] = max(1, size)
    return sizes


def _loose_bytes(plan: ChunkPlan) -> float:
    """Return the mean bytes of a stored cell without a fixed size.

    This is what the cells of fixed size leave of a row, divided among the others.
    """
    if not plan.rows:
        return 0.0
    common = int(np.bincount(plan.records["schema"], plan.records["rows"]).argmax())
    kinds = plan.schemas[common].values()
    loose = sum(kind.name in LOOSE for kind in kinds)
    left = int(plan.records["bytes"].sum()) / plan.rows - sum(map(_fixed_bytes, kinds))
    return max(0.0, left) / max(1, loose)


def _fixed_bytes(kind: ColumnKind) -> int:
    if kind.name in LOOSE:
        return 0
    if kind.name == "array" and kind.dtype != "<U":
        return prod(kind.shape) * np.dtype(kind.dtype).itemsize
    return SIZES.get(kind.name, LEAST_BYTES)


def column_groups(sizes: Mapping[str, int], rows: int) -> list[tuple[str, ...]]:
    """Return the groups of columns that one task reads together.

    They do not depend on which columns are used later.

    Parameters
    ----------
    sizes
        Bytes of a cell of each column, in order.
    rows
        Number of rows of a block.
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
