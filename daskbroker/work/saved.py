"""Runs from Datasets that xarray has saved: netCDF files and Zarr folders.

Each file makes a run, whose uid is derived from the content, so that the same file again is the
same run; a tree of runs makes one for each. The run says which it comes from.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
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

__all__ = ["is_ours", "is_saved", "is_zarr", "read_saved"]

MAGIC = (b"\x89HDF\r\n\x1a\n", b"CDF\x01", b"CDF\x02", b"CDF\x05")
_SUFFIXES = (".nc", ".nc4", ".netcdf")
_ZARR_ATTRS = ("zarr.json", ".zattrs", ".zmetadata")

LARGEST = 64 * 2**20
RATIO = 250
"""A Dataset may have `LARGEST` bytes in memory, or so many times its file's size."""


def is_ours(path: Path) -> bool:
    """Whether a file, or a Zarr group, in a folder that is searched was saved of a Dataset of ours.

    Detectors write such files too, which are no recordings; who names one means it.
    """
    if path.is_dir():
        texts = [file for file in map(path.joinpath, _ZARR_ATTRS) if file.is_file()]
        return is_zarr(path) and any(SOFTWARE.encode() in file.read_bytes() for file in texts)
    if not path.name.lower().endswith(_SUFFIXES):
        return False
    try:
        with h5py.File(path, "r") as file:
            groups = [file, *(g for g in file.values() if isinstance(g, h5py.Group))]
            return any(group.attrs.get("software") == SOFTWARE for group in groups)
    except OSError:  # no HDF5, or cut off: what is in it cannot be told
        return False


def is_zarr(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is a Zarr group."""
    return any(Path(folder, name).is_file() for name in ("zarr.json", ".zgroup"))


def is_saved(path: Path) -> bool:
    """Whether a place is a netCDF file, by its first bytes, or a Zarr group."""
    if path.is_dir():
        return is_zarr(path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(8).startswith(MAGIC)


def read_saved(path: Path) -> Iterator[tuple[str, Document]]:
    """The documents of the runs that a file makes.

    Raises
    ------
    BadRecording
        If it cannot be read, has no variables along which a run could be made, or is far larger
        than its file.
    """
    digest, size = _digest(path)
    try:
        with xr.open_datatree(path, engine="zarr" if path.is_dir() else _engine(path)) as tree:
            _check_size(path, tree, size)
            for number, product in enumerate(_products(tree)):
                yield from _documents(product, derived_uid(digest, f"saved {number}"))
    except BadRecording:
        raise
    except BadDocument as error:
        raise BadRecording(f"{path}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # of the libraries that read, which raise whatever they meet
        raise BadRecording(
            f"{path}: xarray cannot read it: {type(error).__name__}: {error}"
        ) from error


def _engine(path: Path) -> str | None:
    with path.open("rb") as file:
        return "h5netcdf" if file.read(8) == MAGIC[0] else None


def _digest(path: Path) -> tuple[str, int]:
    """What tells the content from any other, and its size."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    digest, size = hashlib.blake2b(digest_size=16), 0
    for file in files:
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
    if held > max(LARGEST, RATIO * size):
        raise BadRecording(
            f"{path}: says that it holds {held:,} bytes, more than {RATIO} times its size"
        )


def _products(tree: xr.DataTree) -> Iterator[xr.Dataset | xr.DataTree]:
    """A Dataset; the streams of a run as a tree; of a tree of runs, one by one."""
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
    """The origin's, else the first ``time``: always the same for the same content."""
    start = attrs(product).get("start")
    if start is not None:
        return seconds_of(start, 0.0)
    datasets = [product] if isinstance(product, xr.Dataset) else [*product.children.values()]
    for dataset in datasets:
        time = dataset.variables.get("time")
        if time is not None and time.dtype.kind == "M" and time.size:
            return float(datetime_to_posix(time.values.ravel()[:1])[0])
    return 0.0
