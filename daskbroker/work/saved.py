"""Runs from Datasets that xarray has saved: netCDF files and Zarr folders.

Each file becomes a run, and a tree of runs becomes several, one for each of its Datasets. The uid
of a run is derived from the content of the file, so the same file always gives the same run. The
start document names the run that the data comes from.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import xarray as xr

from ..core.clock import seconds_of
from ..core.documents import Document
from ..core.errors import BadDocument, BadRecording
from ..core.schema import datetime_to_posix
from ..views.dataset.attributes import SOFTWARE, attrs
from ..views.dataset.savable import cells_restored
from ..views.runs import dataset_to_stream, derived_uid
from .unpacked_sizes import RATIO, most_unpacked

MAGIC = (b"\x89HDF\r\n\x1a\n", b"CDF\x01", b"CDF\x02", b"CDF\x05")
_SUFFIXES = (".nc", ".nc4", ".netcdf")
_ZARR_ATTRS = ("zarr.json", ".zattrs", ".zmetadata")


def is_ours(path: Path) -> bool:
    """Return whether a file or a Zarr group was saved from a Dataset of daskbroker.

    Used when a folder is searched: detectors write netCDF and Zarr files, too, and these are not
    recordings. A file that the user names is read in any case.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    if path.is_dir():
        # A folder that must not be read cannot be recognized.
        with suppress(PermissionError):
            texts = [file for file in map(path.joinpath, _ZARR_ATTRS) if file.is_file()]
            return is_zarr(path) and any(SOFTWARE.encode() in file.read_bytes() for file in texts)
        return False
    if not path.name.lower().endswith(_SUFFIXES):
        return False
    try:
        with h5py.File(path, "r") as file:
            groups = [file, *(g for g in file.values() if isinstance(g, h5py.Group))]
            return any(group.attrs.get("software") == SOFTWARE for group in groups)
    except OSError as error:
        # An error of the system says nothing of the content; reading the file reports it.
        if error.errno is not None:
            raise
        return False  # not HDF5, or truncated: its content cannot be known


def is_zarr(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder is a Zarr group, of format 2 or 3."""
    try:
        return any(Path(folder, name).is_file() for name in ("zarr.json", ".zgroup"))
    except PermissionError:  # a folder that must not be entered
        return False


def is_saved(path: Path) -> bool:
    """Return whether a path is a netCDF file (by its first bytes) or a Zarr group."""
    if path.is_dir():
        return is_zarr(path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(8).startswith(MAGIC)


def read_saved(path: Path) -> Iterator[tuple[str, Document]]:
    """Yield the names and documents of the runs that a netCDF file or Zarr group becomes.

    Raises
    ------
    BadRecording
        If the file cannot be read, has no variables that a run could be made from, or claims far
        more bytes than its size.
    """
    digest, size = _digest(path)
    try:
        # Not by Zarr's consolidated metadata, which not every group has.
        by_zarr = {"engine": "zarr", "consolidated": False}
        options: dict[str, Any] = by_zarr if path.is_dir() else {"engine": _engine(path)}
        with xr.open_datatree(path, **options) as tree:
            _check_size(path, tree, size)
            # Each Dataset becomes a run; its uid follows from the content, so a second ingest
            # finds it.
            ordered = _in_order(tree) if path.is_dir() else tree
            for number, product in enumerate(_products(ordered)):
                yield from _documents(product, derived_uid(digest, f"saved {number}"))
    except BadRecording:
        raise
    except BadDocument as error:
        raise BadRecording(f"{path}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # the reading libraries may raise anything
        raise BadRecording(
            f"{path}: xarray cannot read it: {type(error).__name__}: {error}"
        ) from error


def _engine(path: Path) -> str | None:
    with path.open("rb") as file:
        return "h5netcdf" if file.read(8) == MAGIC[0] else None


def _digest(path: Path) -> tuple[str, int]:
    """Return a digest of the content of a file or folder, and its size in bytes."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    digest, size = hashlib.blake2b(digest_size=16), 0
    for file in files:
        # Zarr keeps chunks in folders, too.
        if file.is_file():
            name = file.relative_to(path).as_posix() if path.is_dir() else ""
            digest.update(repr((name, file.stat().st_size)).encode())
            size += file.stat().st_size
            with file.open("rb") as opened:
                while part := opened.read(2**20):
                    digest.update(part)
    return digest.hexdigest(), size


def _check_size(path: Path, tree: xr.DataTree, size: int) -> None:
    held = sum(node.dataset.nbytes for node in tree.subtree)
    # A small file may declare arrays of any size, which would be allocated.
    if held > most_unpacked(size):
        raise BadRecording(
            f"{path}: declares {held:,} bytes of data, more than {RATIO} times its size"
        )


def _in_order(tree: xr.DataTree) -> xr.DataTree:
    """Return a tree with nodes and variables in the order of their names.

    Zarr lists the members of a group in any order, and the documents of a file must be the same
    each time.
    """
    nodes = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
    return xr.DataTree.from_dict(
        {path: nodes[path][sorted(nodes[path].variables, key=str)] for path in sorted(nodes)}
    )


def _products(tree: xr.DataTree) -> Iterator[xr.Dataset | xr.DataTree]:
    """Yield the Dataset, the tree of a run's streams, or each Dataset of a tree of runs."""
    if not tree.children:
        yield tree.to_dataset()
    elif "run" in tree.attrs or not all("run" in node.attrs for node in tree.children.values()):
        yield tree
    else:
        yield from (node.to_dataset() for node in tree.children.values())


def _documents(product: Any, uid: str) -> Iterator[tuple[str, Document]]:
    if isinstance(product, xr.DataTree):
        product = product.map_over_datasets(cells_restored)
    else:
        product = cells_restored(product)
    return dataset_to_stream(product, uid=uid, time=_time_of(product))


def _time_of(product: Any) -> float:
    """Return the time of the original run, else the first ``time``, else 0.0.

    It is always the same for the same content, as the documents of a run must be.
    """
    start = attrs(product).get("start")
    # A Dataset of daskbroker names the run that it is from.
    if start is not None:
        return seconds_of(start, 0.0)
    datasets = [product] if isinstance(product, xr.Dataset) else [*product.children.values()]
    for dataset in datasets:
        time = dataset.variables.get("time")
        if time is not None and time.dtype.kind == "M" and time.size:
            return float(datetime_to_posix(time.values.ravel()[:1])[0])
    return 0.0
