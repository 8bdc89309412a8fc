"""Convert a column once for many small chunks, instead of once for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ...core.errors import StoreDamaged
from ...core.schema import TIME_DTYPE, TableColumn, column_cells

__all__ = ["one_table", "scalars"]

MANY = 16
"""Number of chunks from which they are joined; few chunks take as long either way."""


def one_table(tables: Sequence[pa.Table], rows: Sequence[slice | np.ndarray]) -> pa.Table | None:
    """Return the chosen rows of many chunks as one table.

    None if the chunks are few, if they have different columns, or if chosen rows are scattered.
    """
    ranges = [some for some in rows if isinstance(some, slice)]
    if len(tables) < MANY or len(ranges) < len(rows):
        return None
    first = tables[0].schema
    if not all(table.schema.equals(first) for table in tables):
        return None
    parts = []
    for table, some in zip(tables, ranges, strict=True):
        begin, end, step = some.indices(table.num_rows)
        if step != 1:
            return None
        parts.append(table.slice(begin, max(0, end - begin)))
    return pa.concat_tables(parts)


def scalars(table: pa.Table, column: TableColumn) -> Any:
    """Return the cells of a column of joined chunks; None if each chunk must convert its own.

    That is so for ``time``, for external columns, for objects, because chunks have notes of single
    rows, and for what is damaged, because the message names the chunk.
    """
    own = not column.physical or column.external or column.dtype in ("object", TIME_DTYPE)
    if own:
        return None
    try:
        cells = column_cells(table, column, slice(None))
    except StoreDamaged:
        return None
    # Joined by NumPy, cells could be written to.
    frozen = isinstance(cells, np.ndarray) and not cells.flags.writeable
    return cells.copy() if frozen else cells
