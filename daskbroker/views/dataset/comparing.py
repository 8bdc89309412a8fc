"""Compare Datasets with cells that are arrays or lists, on which xarray's comparisons fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr


def of_one_form(one: xr.Dataset, other: xr.Dataset, *, shapes: bool) -> bool:
    """Return whether two Datasets have the same variables and coordinates, without their values.

    With `shapes`, the variables have the same dimensions and lengths, too.
    """
    if one.variables.keys() != other.variables.keys() or one.coords.keys() != other.coords.keys():
        return False
    pairs = ((variable, other.variables[name]) for name, variable in one.variables.items())
    return not shapes or all((a.dims, a.shape) == (b.dims, b.shape) for a, b in pairs)


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
    cells = (_tuple(cell, within=False) for cell in values.ravel().tolist())
    return np.fromiter(cells, object, values.size).reshape(values.shape)


def _tuple(cell: Any, *, within: bool = True) -> Any:
    if isinstance(cell, np.ndarray):
        # The shape, as arrays without elements may differ in it.
        return (cell.shape, cell.dtype.names, _tuple(cell.tolist()))
    if isinstance(cell, (list, tuple)):
        return tuple(map(_tuple, cell))
    if isinstance(cell, dict):
        return {key: _tuple(value) for key, value in cell.items()}
    # NaN equals nothing, and xarray looks for it in cells, but not within them.
    missing = within and isinstance(cell, (float, complex, np.generic)) and cell != cell
    return None if missing else cell
