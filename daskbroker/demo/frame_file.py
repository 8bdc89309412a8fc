"""Write a stack of detector frames to an HDF5 file, compressed as detectors do it."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

DATASET = "/entry/data/data"
FRAMES = 1_000
FRAME_SIDE = 512
DRAWN = 25
"""Number of frames that are drawn at random; the others are these, rotated and mirrored."""
AT_ONCE = 50
"""Number of frames that are in memory while the file is written."""


def write_frames(path: Path) -> None:
    """Write the frames with bitshuffle-LZ4, one per chunk.

    The file gets its name only when it is complete.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = _rings(np.random.default_rng(0))
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    with h5py.File(unfinished, "w") as file:
        dataset = file.create_dataset(
            DATASET,
            (FRAMES, FRAME_SIDE, FRAME_SIDE),
            "<u2",
            chunks=(1, FRAME_SIDE, FRAME_SIDE),
            compression=hdf5plugin.Bitshuffle(),
        )
        for first in range(0, FRAMES, AT_ONCE):
            block = [_turned(drawn, first + number) for number in range(AT_ONCE)]
            dataset[first : first + AT_ONCE] = np.stack(block)
    unfinished.replace(path)


def _turned(drawn: np.ndarray, number: int) -> np.ndarray:
    """Return a frame by its number: a drawn one, rotated and mirrored."""
    turns, which = divmod(number, DRAWN)
    frame = np.rot90(drawn[which], turns % 4)
    return frame[:, ::-1] if turns % 8 >= 4 else frame


def _rings(rng: np.random.Generator) -> np.ndarray:
    """Return counts of a powder's rings around a beam stop, ``(DRAWN, FRAME_SIDE, FRAME_SIDE)``."""
    across = np.arange(FRAME_SIDE) - (FRAME_SIDE - 1) / 2
    radius = np.hypot(across, across[:, np.newaxis])
    rate = 0.05 + 0.3 * np.exp(-radius / 120)
    for number in (3, 4, 8, 11, 12, 16, 19, 20, 24):  # of a face-centred lattice
        ring = 55.0 * np.sqrt(number) / np.sqrt(3)
        rate += 4.0 / np.sqrt(number) * np.exp(-((radius - ring) ** 2) / 12.0)
    rate[radius < 22] = 0.0
    return rng.poisson(rate, (DRAWN, FRAME_SIDE, FRAME_SIDE)).astype("<u2")
