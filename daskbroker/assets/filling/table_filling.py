"""Fill the external columns of a pandas table that holds references."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ...core.errors import FillError
from .contents import CellContents
from .filling import Filling
from .target import Target


def fill_frame(
    table: pd.DataFrame,
    filling: Filling,
    descriptors: Sequence[Mapping[str, Any]],
    fields: Collection[str] | None = None,
    *,
    in_place: bool = False,
) -> pd.DataFrame:
    """Return a table with its external columns filled.

    Parameters
    ----------
    table
        Table with the index ``seq_num``. If it has the columns ``run`` or ``descriptor``, they
        tell whose events its rows are.
    filling
        Filling of the runs of the descriptors.
    descriptors
        Descriptors whose events the table may have.
    fields
        Columns to fill; all external columns if None.
    in_place
        If True, change the table rather than a copy.

    Raises
    ------
    FillError
        If a cell cannot be filled.
    """
    result = table if in_place else table.copy()
    keys = {
        key for d in descriptors for key, spec in d["data_keys"].items() if spec.get("external")
    }
    for column in table.columns:
        key = str(column).removeprefix("data:") if column not in keys else column
        if key not in keys or (fields is not None and column not in fields):
            continue
        targets = [Target.of(d, key) for d in descriptors if key in d["data_keys"]]
        cells = _column(table, column, filling, [t for t in targets if t.external])
        result[column] = pd.Series(cells, index=table.index, dtype=object)
    return result


def _column(
    table: pd.DataFrame, column: str, filling: Filling, targets: Sequence[Target]
) -> np.ndarray:
    """Return the filled cells of one column, filled descriptor by descriptor."""
    values, seq_nums = list(table[column]), table.index.to_numpy()
    out = np.empty(len(table), dtype=object)
    waiting = np.ones(len(table), bool)
    problem: FillError | None = None
    for target in targets:
        rows = np.flatnonzero(waiting & _of_target(table, target))
        if not len(rows):
            continue
        contents = CellContents.of_column(seq_nums[rows], [values[row] for row in rows.tolist()])
        try:
            out[rows] = filling.cells(target, contents)
        except FillError as error:  # these frames may belong to another descriptor
            if not len(contents.bare):
                raise
            problem = error
            continue
        waiting[rows] = False
    if problem is not None and waiting.any():
        raise problem
    return out


def _of_target(table: pd.DataFrame, target: Target) -> np.ndarray:
    rows = np.ones(len(table), bool)
    for name, uid in (("run", target.run), ("descriptor", target.descriptor)):
        if name in table.columns:
            rows &= (table[name] == uid).to_numpy(dtype=bool)
    return rows
