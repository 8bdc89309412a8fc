"""Write files as detectors do, for tests and benchmarks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import tifffile

AD_DATASET = "/entry/data/data"
"""Dataset in which an area detector's HDF5 plugin stores its frames."""


def frames(
    count: int, shape: tuple[int, ...] = (6, 8), dtype: Any = np.uint16, start: int = 0
) -> np.ndarray:
    """Return frames that differ from one another: pixels count on, modulo 65521.

    Parameters
    ----------
    count, shape, dtype
        Number, shape and dtype of the frames; the result has shape ``(count, *shape)``.
    start
        Number of the first frame, so that the frames of several files differ, too.
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
    """Write a dataset to an HDF5 file, which is created if it does not exist.

    Parameters
    ----------
    path, data, dataset
        Path of the file, whole array, and name of the dataset in the file.
    chunks
        Shape of a chunk. If None, the dataset is contiguous, or has one frame per chunk if it is
        compressed.
    compression
        ``"gzip"``, ``"lz4"``, ``"bitshuffle"``, ``"blosc"`` or ``"zstd"``.
    shuffle
        Whether to shuffle bytes before compression.

    Returns
    -------
    pathlib.Path
        Path of the file.
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
        Folder to write to; created if it does not exist.
    data
        Array of shape ``(frames, height, width)``.
    template
        Template of file names for ``str.format``, with the number of the file.
    frames_per_file
        Number of pages of a file; a single page is written as a plain image.
    start
        Number of the first file.
    **options
        Options of ``tifffile.imwrite``, for instance ``compression="zlib"``.

    Returns
    -------
    pathlib.Path
        Path of the folder.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number, block in _blocks(data, frames_per_file, start):
        image = block[0] if frames_per_file == 1 else block
        options.setdefault("photometric", "minisblack")
        tifffile.imwrite(Path(folder) / template.format(number), image, **options)
    return Path(folder)


def write_npys(stem: str | os.PathLike[str], data: np.ndarray, *, start: int = 0) -> Path:
    """Write one frame per file, ``<stem>_<number>.npy``, as ophyd's simulated detectors do.

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
    for index, first in enumerate(range(0, len(data), size)):
        yield start + index, data[first : first + size]
