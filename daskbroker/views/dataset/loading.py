"""Which variables of a Dataset are in memory.

xarray groups, aligns and selects by what is in memory: ``time``, ``seq_num``, ``run`` and the
scanned motors, up to :data:`INDEX_BYTES`. Of a stream that is small in all, whatever is stored is
in memory too, read in one pass; a task for each of its columns would take far longer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...core.chunks import ChunkPlan
from ...core.settings import setting
from .columns import Block, ColumnSource, Constants, planned_block, read_columns
from .rows import DatasetRows

__all__ = ["INDEX_BYTES", "MOST_CHUNKS", "Loading", "load", "names_to_load"]

INDEX_BYTES = 64 * 2**20
"""Of ``time``, ``seq_num``, ``run`` and scanned motors together: larger ones are not in memory."""

TEXT_BYTES = 16 * 2**20
"""Text that is in memory is of NumPy's type for it up to this size; larger text is objects."""

MOST_TOGETHER = 500
"""So many Datasets are read together, so that little is in memory twice."""

MOST_CHUNKS = 1000
"""Of more chunks, nothing is read when a Dataset is opened: each takes a moment, however small."""


def names_to_load(
    plan: ChunkPlan,
    rows: int,
    sizes: Mapping[str, int],
    coordinates: Collection[str],
    *,
    variables: bool = True,
) -> list[str]:
    """Which stored variables are to be in memory.

    Parameters
    ----------
    plan, rows
        Of the Dataset.
    sizes
        Bytes of a cell of each stored variable.
    coordinates
        Those of them that are coordinates.
    variables
        Whether the others may be.
    """
    if len(plan) > MOST_CHUNKS:
        return []
    if variables and rows * sum(sizes.values()) <= setting("loaded-size"):
        return list(sizes)
    if rows * sum(sizes[name] for name in coordinates) <= INDEX_BYTES:
        return list(coordinates)
    return []


@dataclass(frozen=True, eq=False)
class Loading:
    """Stored variables that have to be in memory: of which rows, read from what."""

    plan: ChunkPlan
    rows: DatasetRows
    sources: Mapping[str, ColumnSource]

    @cached_property
    def block(self) -> Block:
        """All rows."""
        return planned_block(self.plan, *self.rows.pieces(0, len(self.rows)))

    @cached_property
    def alike(self) -> Any:
        """What other Loadings that can be read together with this one have too."""
        owned = any(isinstance(source, Constants) for source in self.sources.values())
        if owned or self.block.order is not None:
            return id(self)
        return self.plan.store, tuple(self.sources.items())


def load(wanted: Sequence[Loading]) -> list[dict[str, np.ndarray]]:
    """Values of the variables of each; many small ones of the same variables are read together."""
    together: dict[Any, list[int]] = {}
    for number, loading in enumerate(wanted):
        together.setdefault(loading.alike, []).append(number)
    found: dict[int, dict[str, np.ndarray]] = {}
    for numbers in together.values():
        for begin in range(0, len(numbers), MOST_TOGETHER):
            some = numbers[begin : begin + MOST_TOGETHER]
            found.update(zip(some, _load([wanted[number] for number in some])))
    return [found[number] for number in range(len(wanted))]


def _load(alike: Sequence[Loading]) -> list[dict[str, np.ndarray]]:
    sources = alike[0].sources
    if not sources:
        return [{} for _ in alike]
    first, *others = [loading.block for loading in alike]
    columns = read_columns(first.followed_by(others), tuple(sources.values()))
    if not others:
        return [dict(zip(sources, map(_text, columns)))]
    ends = np.cumsum([len(loading.rows) for loading in alike])[:-1]
    parts = [np.split(column, ends) for column in columns]
    # Copies, as parts would keep all of it in memory.
    return [dict(zip(sources, [_text(part.copy()) for part in row])) for row in zip(*parts)]


def _text(values: np.ndarray) -> np.ndarray:
    """Short text without gaps as such, which Dask can cut by itself, and not as objects."""
    if values.dtype.kind != "O" or not values.size:
        return values
    texts = values.ravel()
    kinds = set(map(type, texts))
    if kinds != {str} or any(text.endswith("\0") for text in texts):  # NumPy would drop the end
        return values
    letters = max(1, *map(len, texts))
    return values.astype(f"<U{letters}") if 4 * letters * len(texts) <= TEXT_BYTES else values
