"""Values of the store as arrays of Zarr's format 2, with their chunks inside the references."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import xarray as xr

CHUNK_BYTES = 2**20
"""Approximate bytes of a chunk before compression."""
LEVEL = 6
"""Compression level of zlib."""


class InlineArray:
    """An array in memory, cut into chunks along its first axis.

    Parameters
    ----------
    variable
        Variable as encoded by xarray.

    Attributes
    ----------
    chunk
        Shape of a chunk.
    """

    def __init__(self, variable: xr.Variable) -> None:
        self._values = np.asarray(variable.values)
        if self._values.dtype.kind in "SU":
            self._values = self._values.astype(object)
        if self._values.dtype.kind != "O":
            self._values = self._values.astype(self._values.dtype.newbyteorder("<"), copy=False)
        self._fill = variable.attrs.get("_FillValue")
        shape = self._values.shape
        row = max(1, prod(shape[1:]) * self._values.dtype.itemsize)
        first = (max(1, min(shape[0], CHUNK_BYTES // row)),) if shape else ()
        self.chunk = (*first, *(max(1, size) for size in shape[1:]))

    @property
    def nbytes(self) -> int:
        """Approximate bytes of the values."""
        if self._values.dtype.kind != "O":
            return self._values.nbytes
        return sum(len(cell) for cell in self._values.flat if isinstance(cell, (str, bytes)))

    @property
    def metadata(self) -> dict[str, Any]:
        """Content of ``.zarray``."""
        values = self._values
        is_object = values.dtype.kind == "O"
        kind = "bytes" if any(isinstance(cell, bytes) for cell in values.flat) else "utf8"
        return {
            "zarr_format": 2,
            "shape": list(values.shape),
            "chunks": list(self.chunk),
            "dtype": "|O" if is_object else values.dtype.str,
            "filters": [{"id": f"vlen-{kind}"}] if is_object else None,
            "compressor": {"id": "zlib", "level": LEVEL},
            "fill_value": _fill_text(self._fill),
            "order": "C",
        }

    def chunks(self) -> Iterator[tuple[tuple[int, ...], bytes]]:
        """Yield the index in the grid and the compressed bytes of each chunk."""
        values = self._values
        if not values.ndim:
            yield (), self._encoded(values)
            return
        step, rest = self.chunk[0], (0,) * (values.ndim - 1)
        for number, first in enumerate(range(0, len(values) if values.size else 0, step)):
            yield (number, *rest), self._encoded(self._padded(values[first : first + step]))

    def _padded(self, part: np.ndarray) -> np.ndarray:
        """Return the last part of an array padded to a whole chunk."""
        if len(part) == self.chunk[0]:
            return part
        empty = "" if part.dtype.kind == "O" else 0
        out = np.full(self.chunk, empty, part.dtype)
        out[: len(part)] = part
        return out

    def _encoded(self, part: np.ndarray) -> bytes:
        if part.dtype.kind != "O":
            return zlib.compress(np.ascontiguousarray(part).tobytes(), LEVEL)
        texts = [c if isinstance(c, bytes) else str(c).encode() for c in part.ravel().tolist()]
        found = [struct.pack("<I", len(texts))]
        for text in texts:
            found += [struct.pack("<I", len(text)), text]
        return zlib.compress(b"".join(found), LEVEL)


def encoded_variables(dataset: xr.Dataset) -> tuple[dict[str, xr.Variable], dict[str, Any]]:
    """Return the variables and attributes of a Dataset, with its coordinates named in attributes.

    The values are encoded by :func:`inline_array`.
    """
    variables, attributes = xr.conventions.encode_dataset_coordinates(dataset)
    return {str(name): v for name, v in variables.items()}, attributes


def inline_array(name: str, variable: xr.Variable) -> tuple[InlineArray, dict[str, Any]]:
    """Return a variable as an array with times as numbers, and the content of ``.zattrs``."""
    encoded = xr.conventions.encode_cf_variable(variable, name=name)
    attributes = {key: value for key, value in encoded.attrs.items() if key != "_FillValue"}
    return InlineArray(encoded), attributes_of(encoded, attributes)


def attributes_of(variable: xr.Variable, attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the content of ``.zattrs``: attributes as JSON has them, and names of dimensions."""
    plain = json.loads(json.dumps(attributes, default=_plain))
    return {**plain, "_ARRAY_DIMENSIONS": list(map(str, variable.dims))}


def _plain(value: object) -> Any:
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else str(value)


def _fill_text(fill: object) -> Any:
    if fill is None or isinstance(fill, (str, bytes)):
        return None
    number = np.asarray(fill).item()
    return "NaN" if isinstance(number, float) and np.isnan(number) else number
