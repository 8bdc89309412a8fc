"""Select rows of an encoded table, with the notes of its columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from .codec import pack_mask, unpack_mask
from .column_kinds import Column, exact_alone, field_kind
from .layouts import as_one_chunk


def take_rows(table: pa.Table, positions: np.ndarray) -> pa.Table:
    """Return some rows of an encoded table, as if these had been encoded.

    Arrow's own ``take``, ``filter`` and ``slice`` leave the notes of the columns as they are, of
    which some apply to rows by their position in the whole table.

    Parameters
    ----------
    table
        Table of whole rows or of some columns, as the readers of chunks return it.
    positions
        Positions of the wanted rows.

    Raises
    ------
    StoreDamaged
        If the notes of a column are damaged.
    """
    taken = table.take(pa.array(positions, pa.int64()))
    for number, arrow_field in enumerate(table.schema):
        if not exact_alone(arrow_field):
            chosen = _field_of_rows(as_one_chunk(table.column(number)), arrow_field, positions)
            taken = taken.set_column(number, chosen, taken.column(number))
    return taken


def _field_of_rows(array: pa.Array, arrow_field: pa.Field, positions: np.ndarray) -> pa.Field:
    """Return the field of a column with only the notes of some rows."""
    kind, notes = field_kind(arrow_field)
    notes = dict(notes)
    if notes.get("missing", "all") != "all":
        missing = unpack_mask(notes["missing"], len(array))
        notes["missing"] = pack_mask(missing[positions])
    if "ints" in notes:  # of the cells that are there
        there = array.is_valid().to_numpy(zero_copy_only=False)
        ints = np.zeros(len(array), bool)
        ints[there] = unpack_mask(notes["ints"], int(there.sum()))
        notes["ints"] = pack_mask(ints[positions][there[positions]])
    return Column(array, kind, notes).arrow_field(arrow_field.name)
