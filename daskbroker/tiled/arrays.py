"""An array of a stream as a node of Tiled's tree, served in the blocks of its Dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from tiled.adapters.array import ArrayAdapter
from tiled.ndslice import NDBlock, NDSlice
from tiled.structures.array import ArrayStructure

from ..core.errors import DaskbrokerError
from .folders import refuse

SERVED = "biufcmMSU"
"""Kinds of dtypes that Tiled's clients in any language can read."""
FULL_SLICE = NDSlice(...)


def is_array(variable: xr.Variable) -> bool:
    """Whether the cells of a variable are arrays of one shape, which can be served as an array."""
    return variable.ndim > 1 and (variable.dtype.kind in SERVED or bool(variable.dtype.names))


class StreamArray(ArrayAdapter):
    """The cells of one data key as an array whose first dimension is ``time``.

    Parameters
    ----------
    variable
        The array, not cut: a region is read in one piece, and not put together from blocks.
    blocks
        The same array in the blocks that are told to clients.
    """

    def __init__(self, variable: xr.Variable, blocks: xr.Variable) -> None:
        dims = tuple(str(name) for name in blocks.dims)
        structure = ArrayStructure.from_array(blocks.data, dims=dims)
        super().__init__(blocks.data, structure)
        self._variable = variable

    def read(self, slice: NDSlice = FULL_SLICE) -> np.ndarray[Any, Any]:
        """Read a region of the array."""
        return _read(self._variable, slice)

    def read_block(self, block: NDBlock, slice: NDSlice = FULL_SLICE) -> np.ndarray[Any, Any]:
        """Read a block of the array, or a region of the block."""
        region = block.slice_from_chunks(self._structure.chunks)
        return _read(self._variable[tuple(region)], slice)


def _read(variable: xr.Variable, region: NDSlice) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(variable[tuple(region) or ...].values)
    except DaskbrokerError as error:
        refuse(error)
