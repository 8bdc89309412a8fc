"""Export of runs to netCDF files and Zarr groups, with a group for each stream.

The Datasets have the form of :func:`daskbroker.views.dataset.savable.savable`.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

import dask
import dask.array as da
import numpy as np
import xarray as xr

from ..core.documents import ALL
from ..core.durable_files import replacing
from ..core.errors import ConfigError
from ..core.group_names import group_name
from ..views.dataset.attributes import root_attrs
from ..views.dataset.savable import savable
from ..views.dataset.trees import tree
from ..views.dataset.writers import naming_long_names
from ..workers import current_client
from .export_options import Destination, ExportOptions, storing
from .folder_exports import replacing_folder
from .hdf5_file import hdf5_file
from .reading_back import check_datasets

if TYPE_CHECKING:
    from distributed import Client

    from ..header import Header

GROUP = (".zgroup", "zarr.json")
"""Files of which one is in every folder that is a Zarr group."""


def write_netcdf(
    header: Header, destination: Destination, options: ExportOptions
) -> Iterator[Path]:
    """Write a netCDF file of a run and yield its path.

    The file has a group for each stream, or the variables of the chosen stream at the top. Only
    this process writes, also what workers compute. Workers would write in turns under a lock of
    the scheduler. That lock expires while a slow disk holds up one of them, and HDF5 then refuses
    the second.
    """
    client = current_client()
    for data in _data(header, options, client):
        target = destination.of_run(header, options)
        with storing(target), replacing(target) as temporary, _computing_here(client):
            with hdf5_file(temporary) as file:
                data.to_netcdf(file, engine="h5netcdf")
            if options.verify:
                check_datasets(data, temporary, "h5netcdf", target)
        yield target


def write_zarr(header: Header, destination: Destination, options: ExportOptions) -> Iterator[Path]:
    """Write a Zarr group of a run and yield its path.

    The group has a group for each stream, or the arrays of the chosen stream at the top. It has
    format 2 of Zarr, as format 3 does not specify text yet.

    Raises
    ------
    ConfigError
        If zarr is not installed.
    """
    if find_spec("zarr") is None:
        raise ConfigError("to write Zarr, install daskbroker[formats]")
    for data in _data(header, options):
        target = destination.of_run(header, options)
        with storing(target), replacing_folder(target, GROUP) as temporary:
            consolidated = _can_be_consolidated(data)
            with naming_long_names(data):
                data.to_zarr(temporary, zarr_format=2, consolidated=consolidated)
            if options.verify:
                check_datasets(data, temporary, "zarr", target, consolidated=consolidated)
        yield target


def _can_be_consolidated(data: Any) -> bool:
    """Return whether the names of groups differ by more than case.

    Of groups that do not, Zarr mixes the consolidated metadata when it sorts them to write them.
    """
    names = list(data.children) if isinstance(data, xr.DataTree) else []
    return len({normalize("NFKC", name).casefold() for name in names}) == len(names)


def _data(header: Header, options: ExportOptions, client: Client | None = None) -> Iterator[Any]:
    """Yield the tree of a run's streams, or the Dataset of the chosen stream if the run has it.

    If a client is given, it computes the blocks of lazy variables when they are requested, also
    when the threads of this process ask.
    """

    def dataset(stream: str) -> xr.Dataset:
        found = savable(header.dataset(stream, fill=options.fill))
        # Coordinates first: HDF5 would have to attach the axis to all other variables again.
        coords_first = xr.Dataset(coords=found.coords, attrs=found.attrs)
        found = coords_first.assign(found.data_vars)
        return found if client is None else _fetched(found, client)

    if options.stream is ALL:
        nodes = {group_name(name): dataset(name) for name in header.streams}
        yield tree(nodes, root_attrs(header.start, header.known_stop), header.uid)
    else:
        for name in options.streams(header):  # the chosen one, if the run has it
            yield dataset(name)


def _fetched(data: xr.Dataset, client: Client) -> xr.Dataset:
    def fetched(variable: xr.Variable) -> xr.Variable:
        blocks = da.from_array(
            _ByClient(variable.data, client),
            chunks=variable.data.chunks,
            name=False,
            meta=variable.data._meta,
        )
        return variable.copy(data=blocks)

    lazy = {name: fetched(found) for name, found in data.variables.items() if found.chunks}
    coords = {name: found for name, found in lazy.items() if name in data.coords}
    return data.assign({name: lazy[name] for name in lazy.keys() - coords}).assign_coords(coords)


class _ByClient:
    """A Dask array that looks like a NumPy array; a client computes the region that is read."""

    def __init__(self, array: da.Array, client: Client) -> None:
        self._array = array
        self._client = client
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, region: tuple[slice, ...]) -> np.ndarray:
        return self._client.compute(self._array[region]).result()


@contextmanager
def _computing_here(client: Client | None) -> Iterator[None]:
    """Return a context in which threads of this process fetch blocks from a client.

    There are as many threads as the client has. Without a client nothing is changed.
    """
    if client is None:
        yield
        return
    count = max(1, sum(client.nthreads().values()))
    with (
        ThreadPoolExecutor(count, thread_name_prefix="daskbroker-fetch") as threads,
        dask.config.set(scheduler="threads", pool=threads),
    ):
        yield
