"""Datasets whose ``to_netcdf`` and ``to_zarr`` accept every kind of cell.

xarray's writers know no cells of differing lengths or of mixed types, and tell neither the variable
nor what to do; the same holds for text with null characters, and of lazy text they warn. Datasets
with such variables are therefore of a class whose writers write what :func:`.savable.savable` makes
of them, and whose ``equals`` and the like take cells of arrays; it differs in nothing else. All
other Datasets are xarray's own, as :mod:`xarray.testing` compares classes. What some functions of
xarray (``merge``, ``combine_by_coords``, ``apply_ufunc``) put together of several Datasets is of
its own class too.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from errno import ENAMETOOLONG
from functools import wraps
from typing import Any

import xarray as xr

from ...core.errors import BadDocument
from ...core.group_names import group_name
from ...core.name_lists import listed
from .comparing import comparable, of_one_form
from .savable import savable

LONGEST = 255
"""Maximum number of bytes of a file's name in the usual file systems."""


# The names are those of xarray's classes, as these are what a repr shows.
class Dataset(xr.Dataset):
    """A Dataset with cells or names that files hold in another form only."""

    __slots__ = ()

    @wraps(xr.Dataset.to_netcdf)
    def to_netcdf(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Write the form of :func:`daskbroker.savable`; see :meth:`xarray.Dataset.to_netcdf`."""
        return savable(self).to_netcdf(*args, **kwargs)

    @wraps(xr.Dataset.to_zarr)
    def to_zarr(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Write the form of :func:`daskbroker.savable`; see :meth:`xarray.Dataset.to_zarr`."""
        with naming_long_names(self):
            return savable(self).to_zarr(*args, **kwargs)


def _of_cells(method: Callable[..., bool]) -> Callable[..., bool]:
    @wraps(method)
    def compared(self: Any, other: Any) -> bool:
        shapes = method.__name__ != "broadcast_equals"
        if not isinstance(other, xr.Dataset) or not of_one_form(self, other, shapes=shapes):
            return False
        return method(comparable(self), comparable(other))

    return compared


for _name in ("broadcast_equals", "equals", "identical"):
    setattr(Dataset, _name, _of_cells(getattr(xr.Dataset, _name)))


def _keeping(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def kept(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = method(self, *args, **kwargs)
        if type(found) is xr.Dataset:
            return Dataset(found.data_vars, found.coords, found.attrs)
        if type(found) is xr.DataTree:
            return DataTree.from_dict(found.to_dict(relative=True), name=found.name)
        return found

    return kept


# The methods of which xarray gives its own class, although cells and names stay what they are.
for _name in (
    "astype", "clip", "combine_first", "fillna", "isin", "isnull", "map_blocks", "notnull", "where",
):  # fmt: skip
    setattr(Dataset, _name, _keeping(getattr(xr.Dataset, _name)))


class DataTree(xr.DataTree):
    """A tree some of whose Datasets are of :class:`Dataset`."""

    __slots__ = ()

    def to_dataset(self, inherit: Any = True) -> xr.Dataset:
        found = super().to_dataset(inherit=inherit)
        mixed = any(variable.dtype.kind == "O" for variable in found.variables.values())
        made = class_for(found.variables, mixed=mixed)
        return made(found.data_vars, found.coords, found.attrs)

    @wraps(xr.DataTree.to_netcdf)
    def to_netcdf(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Write the form of :func:`daskbroker.savable`; see :meth:`xarray.DataTree.to_netcdf`."""
        return savable(self).to_netcdf(*args, **kwargs)

    @wraps(xr.DataTree.to_zarr)
    def to_zarr(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Write the form of :func:`daskbroker.savable`; see :meth:`xarray.DataTree.to_zarr`."""
        with naming_long_names(self):
            return savable(self).to_zarr(*args, **kwargs)


for _name in ("filter", "filter_like", "map_over_datasets", "match", "prune"):
    setattr(DataTree, _name, _keeping(getattr(xr.DataTree, _name)))


def class_for(variables: Mapping[Any, xr.Variable], *, mixed: bool) -> type[xr.Dataset]:
    """Return the class of a Dataset of these variables.

    Parameters
    ----------
    variables
        Variables by name.
    mixed
        Whether some have cells of differing lengths or of mixed types, text that is lazy, or text
        with null characters.
    """
    names: Iterable[Hashable] = {*variables, *(d for v in variables.values() for d in v.dims)}
    shown = ((name, group_name(str(name))) for name in names)
    changed = any(form != name or _exceeds(form) for name, form in shown)
    return Dataset if mixed or changed else xr.Dataset


def class_of_tree(nodes: Mapping[str, xr.Dataset]) -> type[xr.DataTree]:
    """Return the class of a tree of these Datasets, by the names of their nodes."""
    own = any(isinstance(one, Dataset) or _is_long(name) for name, one in nodes.items())
    return DataTree if own else xr.DataTree


def _is_long(name: Hashable) -> bool:
    return _exceeds(group_name(str(name)))


def _exceeds(name: str) -> bool:
    return len(name.encode("utf8", "surrogatepass")) > LONGEST


@contextmanager
def naming_long_names(written: xr.Dataset | xr.DataTree) -> Iterator[None]:
    """Name the variables and nodes whose names a file system has refused.

    Other stores of Zarr, such as one of memory or of objects, take them.

    Raises
    ------
    BadDocument
        In place of the OSError; the message lists the names.
    """
    try:
        yield
    except OSError as error:
        nodes = written.subtree if isinstance(written, xr.DataTree) else [written]
        names: Iterable[Hashable] = (
            name for one in nodes for name in (getattr(one, "name", None), *one.variables) if name
        )
        long = sorted({str(name) for name in names if _is_long(name)})
        if error.errno != ENAMETOOLONG or not long:
            raise
        raise BadDocument(
            f"Zarr makes a folder for each name, and the file system allows {LONGEST} bytes or "
            f"less in a name, which these exceed: {listed(long)}. Rename them (ds.rename), or use "
            "netCDF, which keeps names inside the file"
        ) from error
