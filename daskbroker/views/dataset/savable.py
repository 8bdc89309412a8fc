"""Convert Datasets with variables of Python objects to a form that files can hold, and back.

Numbers, text, booleans and times need no conversion: xarray's writers write them as they are
(missing text as ``""``, missing booleans as NaN among 0.0 and 1.0). Cells of different lengths or
of mixed types exist neither in netCDF nor in Zarr, and text with null characters not in netCDF:

=============================== ==================================================================
cells                           form
=============================== ==================================================================
flat arrays of numbers of       padded along a dimension ``<name>_dim_0`` with NaN, or 0 for whole
differing lengths               numbers and booleans; ``<name>_length`` has the length of each, -1
                                if there is no cell. Attribute ``ragged``: the lengths' name, which
                                ends in a number if another variable has it.
text with null characters       escaped characters, which xarray writes and reads by itself with the
                                encoding :data:`ESCAPED_TEXT`.
anything else (lists of text,   JSON text. Attribute ``form``: ``"json"``.
mappings, mixed types, integers
beyond 2**53 that are objects,
text with lone surrogates)
names that files cannot have,   escaped, see :mod:`daskbroker.core.group_names`: a ``/`` is
such as those with ``/``        ``%2F``, as files have groups by it. Attribute ``names`` of the
                                Dataset: ``"escaped"``.
=============================== ==================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import xarray as xr
from dask.utils import is_dataframe_like, is_series_like

from ...core.documents import is_unicode, normalize, to_json
from ...core.errors import BadDocument
from ...core.group_names import group_name, of_group_name
from ...core.json_text import from_extended_json
from ...core.leaves import EXACT_INTEGER
from ...core.numbered_names import free_name

RAGGED, FORM, JSON = "ragged", "form", "json"
NAMES, ESCAPED = "names", "escaped"
ESCAPED_TEXT = {"dtype": "S1", "_Encoding": "unicode_escape"}
"""Encoding of text with null characters, which xarray undoes when it reads a file."""
SIMPLE = ({str}, {bool}, {bytes}, {int}, {float})
"""Types of cells that xarray's writers accept in arrays of objects, None beside them allowed."""


def savable(dataset: Any) -> Any:
    """Return a Dataset, or tree of Datasets, that ``to_netcdf`` and ``to_zarr`` can write.

    ``to_netcdf`` and ``to_zarr`` of what daskbroker gives write this form by themselves. It is for
    Datasets that functions of xarray put together of several, such as ``xr.merge``.

    Only variables of objects and text are examined, and computed for that; all others stay lazy.
    The stored forms, from which ``daskbroker ingest`` restores the cells, are described in
    :mod:`daskbroker.views.dataset.savable`.

    Parameters
    ----------
    dataset
        ``xarray.Dataset`` or ``xarray.DataTree``.

    Raises
    ------
    BadDocument
        If it is neither.
    """
    check_is_dataset(dataset)
    if isinstance(dataset, xr.DataTree):
        # Of xarray's own class, as the writers of ours call this function.
        return xr.DataTree.map_over_datasets(dataset, savable)
    dataset = named_as_in_files(dataset)
    found = dataset
    # The writers of our own subclass call this function, so what it returns is a plain Dataset.
    if type(found) is not xr.Dataset:
        found = xr.Dataset(dataset.data_vars, dataset.coords, dataset.attrs)
        found.encoding = dict(dataset.encoding)
    for name, variable in dataset.variables.items():
        if variable.dtype.kind in "OU" and name not in dataset.xindexes:
            values = variable.values
            if variable.dtype.kind == "U" and _is_plain(values):
                continue
            changed = _written(str(name), variable, values, {*found.variables, *found.dims})
            is_coordinate = name in dataset.coords
            found = found.drop_vars(name)
            found = found.assign_coords(changed) if is_coordinate else found.assign(changed)
    return found


def named_as_in_files(dataset: xr.Dataset) -> xr.Dataset:
    """Rename variables and dimensions to the names that files have, such as those with ``/``."""
    if NAMES in dataset.attrs:  # which a Dataset has that is in this form already
        return dataset
    return _renamed(dataset, group_name)


def check_is_dataset(value: Any) -> None:
    """Check that a value is a Dataset or a DataTree.

    Raises
    ------
    BadDocument
        If it is neither; the message says how to make a Dataset of a DataArray.
    """
    if not isinstance(value, (xr.Dataset, xr.DataTree)):
        advice = ""
        if isinstance(value, xr.DataArray):
            name = value.name or "value"
            advice = f"; .to_dataset(name={name!r}) makes one of it"
        elif is_dataframe_like(value) or is_series_like(value):
            advice = "; table_to_stream takes a table"
        raise BadDocument(f"a {type(value).__name__} is not a Dataset{advice}")


def _renamed(dataset: xr.Dataset, by: Callable[[str], str]) -> xr.Dataset:
    """Rename variables and dimensions, and note whether names are now as files have them."""
    names = {name: by(name) for name in {*dataset.variables, *dataset.dims} if type(name) is str}
    changed = {old: new for old, new in names.items() if old != new}
    if not changed:
        return dataset
    found = dataset.rename(changed)
    attrs = {key: value for key, value in dataset.attrs.items() if key != NAMES}
    found.attrs = {**attrs, NAMES: ESCAPED} if by is group_name else attrs
    return found


def _written(
    name: str, variable: xr.Variable, values: np.ndarray, taken: Collection[Any]
) -> dict[str, Any]:
    """Return the variables, by name, that are written for a variable of objects.

    New ones get names that are not among those that are taken.
    """
    cells = _present(values)
    # netCDF refuses booleans that are objects, where a selection has left no missing one.
    if _are_booleans(cells) and len(cells) == values.size:
        return {name: (variable.dims, values.astype(bool), variable.attrs)}
    if _are_simple(cells):
        # Give the computed values, as xarray's writers warn of Dask arrays of objects.
        return {name: (variable.dims, values, variable.attrs, text_encoding(values))}
    if values.ndim == 1 and all(map(_is_flat, cells)) and _have_one_dtype(cells):
        return _padded(name, variable, values, taken)
    texts = np.array(
        [to_json(normalize(cell, f"variable {name}")) for cell in values.ravel().tolist()],
        dtype=object,
    )
    attrs = {**variable.attrs, FORM: JSON}
    return {name: (variable.dims, texts.reshape(values.shape), attrs)}


def needs_form(variable: xr.Variable, *, in_memory: bool) -> bool:
    """Return whether :func:`savable` may write another form of a variable, or needs an encoding.

    Of lazy objects this is assumed.
    """
    if not in_memory or variable.dtype.kind != "O":
        return variable.dtype.kind == "O" or (in_memory and bool(text_encoding(variable.values)))
    cells = _present(variable.values)
    # Selections may leave booleans without a missing one, which are written in another form.
    simple = _are_simple(cells) and not _are_booleans(cells)
    return not simple or bool(text_encoding(variable.values))


def text_encoding(values: Any) -> dict[str, Any]:
    """Return the encoding that text needs to be written by xarray; empty for all other arrays."""
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "OU":
        return {}
    texts = [cell for cell in values.ravel().tolist() if isinstance(cell, str)]
    return dict(ESCAPED_TEXT) if "\0" in "".join(texts) else {}


def _present(values: np.ndarray) -> list[Any]:
    return [cell for cell in values.ravel().tolist() if not _is_missing(cell)]


def _are_booleans(cells: list[Any]) -> bool:
    return set(map(type, cells)) == {bool}


def _are_simple(cells: list[Any]) -> bool:
    """Return whether xarray's writers accept these cells, missing ones left out."""
    return not cells or (set(map(type, cells)) in SIMPLE and all(map(_is_storable, cells)))


def _is_storable(cell: object) -> bool:
    """Return whether files can hold a cell, text with null characters in :data:`ESCAPED_TEXT`.

    UTF-8 holds no surrogates. Integers that are objects become floats beside missing ones; large
    ones have no type that all formats know.
    """
    if type(cell) is int:
        return abs(cell) <= EXACT_INTEGER
    return not isinstance(cell, str) or is_unicode(cell)


def _is_plain(texts: np.ndarray) -> bool:
    return not text_encoding(texts) and all(map(is_unicode, texts.ravel().tolist()))


def _is_missing(cell: object) -> bool:
    return cell is None or (isinstance(cell, float) and np.isnan(cell))


def _is_flat(cell: object) -> bool:
    array = np.asarray(cell) if isinstance(cell, np.ndarray) or _are_numbers(cell) else None
    return array is not None and array.ndim == 1 and array.dtype.kind in "biuf"


def _have_one_dtype(cells: list[Any]) -> bool:
    """Return whether arrays have a dtype in common that holds all their values."""
    arrays = [np.asarray(cell) for cell in cells]
    dtype = np.result_type(*arrays)
    return all(np.array_equal(a.astype(dtype).astype(a.dtype), a, equal_nan=True) for a in arrays)


def _are_numbers(cell: object) -> bool:
    return isinstance(cell, list) and {int, float, bool}.issuperset(map(type, cell))


def _padded(
    name: str, variable: xr.Variable, values: np.ndarray, taken: Collection[Any]
) -> dict[str, Any]:
    arrays = [None if _is_missing(cell) else np.asarray(cell) for cell in values]
    dtypes = {array.dtype for array in arrays if array is not None and array.size}
    dtype = np.result_type(*dtypes) if dtypes else np.dtype(np.float64)
    lengths = np.array([-1 if array is None else len(array) for array in arrays], np.int64)
    fill = np.nan if dtype.kind == "f" else 0
    out = np.full((len(values), max(0, int(lengths.max()))), fill, dtype)
    for row, array in zip(out, arrays):
        if array is not None:
            row[: len(array)] = array
    beside = free_name(f"{name}_length", taken.__contains__)
    dim = free_name(f"{name}_dim_0", taken.__contains__)
    return {
        name: ((*variable.dims, dim), out, {**variable.attrs, RAGGED: beside}),
        beside: (variable.dims, lengths),
    }


def cells_restored(dataset: xr.Dataset) -> xr.Dataset:
    """Restore the objects for which :func:`savable` wrote another form.

    Names stay as files have them, as nodes of trees cannot have others: see
    :func:`named_as_in_documents`.
    """
    for name, variable in list(dataset.variables.items()):
        if variable.attrs.get(FORM) == JSON:
            dataset = _replaced(dataset, name, _of_json(variable.values), variable.dims)
        elif variable.attrs.get(RAGGED) in dataset.variables and variable.ndim == 2:
            counts = dataset.variables[variable.attrs[RAGGED]]
            if counts.dims == variable.dims[:1] and counts.dtype.kind in "iu":
                cells = _unpadded(variable.values, counts.values)
                dataset = _replaced(dataset, name, cells, counts.dims)
                dataset = dataset.drop_vars(variable.attrs[RAGGED])
    # An earlier version did not note that names are as files have them.
    if NAMES not in dataset.attrs and any("%2F" in str(name) for name in dataset.variables):
        dataset = dataset.assign_attrs({NAMES: ESCAPED})
    return dataset


def named_as_in_documents(dataset: xr.Dataset) -> xr.Dataset:
    """Restore names of variables and dimensions that are as files have them."""
    return _renamed(dataset, of_group_name) if dataset.attrs.get(NAMES) == ESCAPED else dataset


def _replaced(dataset: xr.Dataset, name: Any, values: np.ndarray, dims: Any) -> xr.Dataset:
    attrs: Mapping[str, Any] = dataset.variables[name].attrs
    kept = {key: value for key, value in attrs.items() if key not in (RAGGED, FORM)}
    # With fastpath, as xarray would convert objects to pandas' text, which has no surrogates.
    changed = {name: xr.Variable(dims, values, kept, fastpath=True)}
    rest = dataset.drop_vars(name)
    is_coordinate = name in dataset.coords
    return rest.assign_coords(changed) if is_coordinate else rest.assign(changed)


def _of_json(values: np.ndarray) -> np.ndarray:
    cells = map(from_extended_json, values.ravel())
    return np.fromiter(cells, object, values.size).reshape(values.shape)


def _unpadded(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    pairs = zip(values, lengths.tolist())
    cells = (row[:length].copy() if length >= 0 else None for row, length in pairs)
    return np.fromiter(cells, object, len(values))
