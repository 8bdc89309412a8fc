"""Compare Datasets with cells that are arrays or lists, on which xarray's comparisons fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

__all__ = ["comparable"]


def comparable(dataset: xr.Dataset) -> xr.Dataset:
    """Return the Dataset with tuples in place of cells that are arrays or lists.

    Whether two arrays are equal has no single answer in NumPy, so that xarray raises. Missing
    values are equal, as in xarray. Only variables of objects are computed.
    """
    plain = xr.Dataset(dataset.data_vars, dataset.coords, dataset.attrs)
    return plain.assign(
        {
            name: xr.Variable(
                variable.dims, _tuples(variable.values), variable.attrs, fastpath=True
            )
            for name, variable in dataset.variables.items()
            if variable.dtype.kind == "O" and name not in dataset.xindexes
        }
    )


def _tuples(values: np.ndarray) -> np.ndarray:
    cells = np.empty(values.size, dtype=object)
    for position, cell in enumerate(values.ravel().tolist()):
        cells[position] = _tuple(cell, within=False)
    return cells.reshape(values.shape)


def _tuple(cell: Any, *, within: bool = True) -> Any:
    if isinstance(cell, np.ndarray):
        # The shape, as arrays without elements may differ in it.
        return (cell.shape, _tuple(cell.tolist()))
    if isinstance(cell, (list, tuple)):
        return tuple(map(_tuple, cell))
    # NaN equals nothing, and xarray looks for it in cells, but not within them.
    return None if within and isinstance(cell, float) and np.isnan(cell) else cell
