"""Runs as netCDF files and Zarr groups, a group for each stream, in the form of ``savable``."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.documents import ALL
from ..core.durable_files import replacing
from ..core.errors import ConfigError
from ..views.dataset.attributes import root_attrs
from ..views.dataset.savable import SLASH, savable
from ..views.dataset.trees import tree
from .folders import replacing_folder
from .options import ExportOptions, Place, storing
from .reading_back import check_datasets

if TYPE_CHECKING:
    from ..header import Header

__all__ = ["write_netcdf", "write_zarr"]

GROUP = (".zgroup", "zarr.json")
"""One of these is in a folder that is a Zarr group."""


def write_netcdf(header: Header, place: Place, options: ExportOptions) -> Iterator[Path]:
    """A file of all streams as groups, or of the one that is asked for."""
    for data in _data(header, options):
        target = place.of_run(header, options)
        with storing(target), replacing(target) as temporary:
            data.to_netcdf(temporary, engine="h5netcdf")
            if options.verify:
                check_datasets(data, temporary, "h5netcdf", target)
        yield target


def write_zarr(header: Header, place: Place, options: ExportOptions) -> Iterator[Path]:
    """A group of all streams as groups, or of the one that is asked for.

    Version 2 of the format, as version 3 has no specification of text yet.
    """
    if find_spec("zarr") is None:
        raise ConfigError("to write Zarr, install daskbroker[formats]")
    for data in _data(header, options):
        target = place.of_run(header, options)
        with storing(target), replacing_folder(target, GROUP) as temporary:
            data.to_zarr(temporary, zarr_format=2, consolidated=True)
            if options.verify:
                check_datasets(data, temporary, "zarr", target)
        yield target


def _data(header: Header, options: ExportOptions) -> Iterator[Any]:
    """A tree of the streams, or the Dataset of one; nothing of a run that does not have it."""
    if options.stream is ALL:
        # Of each stream before they are a tree: a tree takes no names with a slash.
        nodes = {
            name.replace("/", SLASH): savable(header.dataset(name, fill=options.fill))
            for name in header.streams
        }
        yield tree(nodes, root_attrs(header.start, header.known_stop), header.uid)
    elif options.streams(header):
        yield savable(header.dataset(options.stream, fill=options.fill))
