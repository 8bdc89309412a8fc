"""Find the columns with arrays, lists or mappings, which text files cannot hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

ARRAYS = ("raise", "drop")
"""Values of the option ``arrays``: what becomes of these columns."""


def is_nested(cell: object) -> bool:
    """Return whether a cell is an array, a list, a tuple or a mapping."""
    return isinstance(cell, (np.ndarray, list, tuple, Mapping))


def holds_arrays(frames: Iterable[pd.DataFrame]) -> set[str]:
    """Return the names of the columns in which a cell is an array, a list or a mapping."""
    found: set[str] = set()
    for frame in frames:
        objects = [name for name in frame.columns if frame[name].dtype.kind == "O"]
        found |= {name for name in objects if any(map(is_nested, frame[name]))}
    return found
