"""Runs as netCDF files and Zarr groups, a group for each stream, in the form of ``savable``."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.documents import ALL
from ..core.durable_files import make_folder, publish_file, replacing, sync_file, sync_folder
from ..core.errors import BadQuery, ConfigError
from ..views.dataset.attributes import root_attrs
from ..views.dataset.savable import SLASH, savable
from ..views.dataset.trees import tree
from .options import ExportOptions, Place, storing

if TYPE_CHECKING:
    from ..header import Header

__all__ = ["write_netcdf", "write_zarr"]


def write_netcdf(header: Header, place: Place, options: ExportOptions) -> Iterator[Path]:
    """A file of all streams as groups, or of the one that is asked for."""
    for data in _data(header, options):
        target = place.of_run(header, options)
        with storing(target), replacing(target) as temporary:
            data.to_netcdf(temporary, engine="h5netcdf")
        yield target


def write_zarr(header: Header, place: Place, options: ExportOptions) -> Iterator[Path]:
    """A group of all streams as groups, or of the one that is asked for.

    Version 2 of the format, as version 3 has no specification of text yet.
    """
    if find_spec("zarr") is None:
        raise ConfigError("to write Zarr, install daskbroker[formats]")
    for data in _data(header, options):
        target = place.of_run(header, options)
        with storing(target), _replacing_group(target) as temporary:
            data.to_zarr(temporary, zarr_format=2, consolidated=True)
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


@contextmanager
def _replacing_group(target: Path) -> Iterator[Path]:
    """A folder to write to, which becomes the target, durably, when the block ends well."""
    is_group = any(target.joinpath(name).is_file() for name in (".zgroup", "zarr.json"))
    if target.exists() and not is_group:
        raise BadQuery(f"{target} is there and is no Zarr group; name another")
    make_folder(target.parent)
    mark = uuid.uuid4().hex
    temporary, former = (target.with_name(f".{mark}.{kind}") for kind in ("part", "old"))
    try:
        yield temporary
        _sync_all(temporary)
        if is_group:
            os.replace(target, former)
        publish_file(temporary, target)
    finally:
        for folder in (temporary, former):
            shutil.rmtree(folder, ignore_errors=True)


def _sync_all(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            with Path(place, name).open("rb+") as file:
                sync_file(file)
        sync_folder(Path(place))
