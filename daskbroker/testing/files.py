"""Detector files as detectors write them, for tests and benchmarks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import tifffile

__all__ = ["frames", "write_hdf5", "write_npys", "write_tiffs"]

AD_DATASET = "/entry/data/data"
"""Where an area detector's HDF5 plugin puts its frames."""


def frames(
    count: int, shape: tuple[int, ...] = (6, 8), dtype: Any = np.uint16, start: int = 0
) -> np.ndarray:
    """Frames that can be told apart: pixels count on from frame to frame, wrapping round.

    Parameters
    ----------
    count, shape, dtype
        The result has shape ``(count, *shape)``.
    start
        Number of the first frame, so that files can be told apart too.
    """
    size = int(np.prod(shape, dtype=int))
    values = np.arange(start * size, (start + count) * size) % 65521
    return values.astype(dtype).reshape(count, *shape)


def write_hdf5(
    path: str | os.PathLike[str],
    data: np.ndarray,
    dataset: str = AD_DATASET,
    *,
    chunks: tuple[int, ...] | bool | None = None,
    compression: str | None = None,
    shuffle: bool = False,
) -> Path:
    """Write a dataset to an HDF5 file, made if need be.

    Parameters
    ----------
    path, data, dataset
        The file, the whole dataset, its place in the file.
    chunks
        Shape of a chunk; None: contiguous, or one frame a chunk where compressed.
    compression
        ``"gzip"``, ``"lz4"``, ``"bitshuffle"``, ``"blosc"`` or ``"zstd"``.
    shuffle
        Shuffle bytes before compression.

    Returns
    -------
    pathlib.Path
        Of the file.
    """
    plugins: dict[str, Any] = {
        "lz4": hdf5plugin.LZ4,
        "bitshuffle": hdf5plugin.Bitshuffle,
        "blosc": hdf5plugin.Blosc,
        "zstd": hdf5plugin.Zstd,
    }
    options: dict[str, Any] = {"chunks": chunks, "shuffle": shuffle or None}
    if compression is not None:
        options["chunks"] = chunks or (1, *data.shape[1:])
        options["compression"] = plugins[compression]() if compression in plugins else compression
    with h5py.File(path, "a") as file:
        file.create_dataset(dataset, data=data, **options)
    return Path(path)


def write_tiffs(
    folder: str | os.PathLike[str],
    data: np.ndarray,
    template: str = "img_{:05d}.tif",
    *,
    frames_per_file: int = 1,
    start: int = 0,
    **options: Any,
) -> Path:
    """Write frames to a sequence of TIFF files.

    Parameters
    ----------
    folder
        Made if need be.
    data
        Shape ``(frames, height, width)``.
    template
        Name of a file by its number, in the style of ``str.format``.
    frames_per_file
        Pages of one file; one page is written as a plain image.
    start
        Number of the first file.
    **options
        As for ``tifffile.imwrite``, for instance ``compression="zlib"``.

    Returns
    -------
    pathlib.Path
        Of the folder.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number, block in _blocks(data, frames_per_file, start):
        image = block[0] if frames_per_file == 1 else block
        options.setdefault("photometric", "minisblack")
        tifffile.imwrite(Path(folder) / template.format(number), image, **options)
    return Path(folder)


def write_npys(stem: str | os.PathLike[str], data: np.ndarray, *, start: int = 0) -> Path:
    """Write frames as ``<stem>_<number>.npy``, one a file, as ophyd's simulated detectors do.

    Returns
    -------
    pathlib.Path
        The stem.
    """
    Path(stem).parent.mkdir(parents=True, exist_ok=True)
    for number, block in _blocks(data, 1, start):
        np.save(f"{os.fspath(stem)}_{number}.npy", block[0], allow_pickle=False)
    return Path(stem)


def _blocks(data: np.ndarray, size: int, start: int) -> Iterator[tuple[int, np.ndarray]]:
    for place, first in enumerate(range(0, len(data), size)):
        yield start + place, data[first : first + size]
