"""Comparison of Datasets in files with what was written, variable by variable, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .verifying import differs, regions_of


def check_datasets(written: Any, path: Path, engine: str, target: Path, **options: Any) -> None:
    """Compare a Dataset, or a tree of Datasets, with the file that was written from it.

    Lazy variables are computed once more, a block at a time. Attributes are not compared.

    Parameters
    ----------
    written
        ``xarray.Dataset`` or ``xarray.DataTree``.
    path
        Path of the file or folder to read.
    engine
        Name of xarray's engine that opens it.
    target
        Path that is named in messages.
    **options
        Options of the engine.

    Raises
    ------
    StoreError
        If a variable is missing or differs. The message names the first one.
    """
    is_tree = isinstance(written, xr.DataTree)
    # In microseconds, as nanoseconds end in 2262.
    times = xr.coders.CFDatetimeCoder(time_unit="us")
    opened = xr.open_datatree if is_tree else xr.open_dataset
    with opened(path, engine=engine, decode_times=times, **options) as found:
        for group, dataset in _datasets(written):
            there = found[group].to_dataset() if is_tree else found
            for name, variable in dataset.variables.items():
                label = f"the variable {name!r}" + (f" of {group!r}" if is_tree else "")
                other = there.variables.get(name)
                if other is None or other.shape != variable.shape:
                    raise differs(target, label)
                for region in regions_of(variable):
                    if not _are_equal(*(np.asarray(v[region].values) for v in (variable, other))):
                        raise differs(target, label)


def _datasets(written: Any) -> Iterator[tuple[str, xr.Dataset]]:
    if not isinstance(written, xr.DataTree):
        yield "/", written
        return
    for node in written.subtree:
        yield node.path, node.to_dataset(inherit=False)


def _are_equal(one: np.ndarray, other: np.ndarray) -> bool:
    kind = one.dtype.kind
    if kind in "iub" and other.dtype.kind in "iufb":
        return np.array_equal(one, other)
    if kind in "fc":
        return np.array_equal(one, other, equal_nan=True)
    if kind in "mM":
        return np.array_equal(one, other.astype(one.dtype), equal_nan=True)
    return all(map(_is_same, one.ravel().tolist(), other.ravel().tolist()))


def _is_same(cell: object, stored: object) -> bool:
    """Return whether a cell equals what a file holds; missing cells are empty text or NaN there."""
    if cell is None or cell != cell:
        return stored is None or stored != stored or stored in ("", b"")
    return bool(cell == stored)
