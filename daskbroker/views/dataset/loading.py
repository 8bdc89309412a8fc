"""Choose and load the variables of a Dataset that are in memory.

xarray groups, aligns and selects by what is in memory: ``time``, ``seq_num``, ``run`` and the
scanned motors, up to :data:`INDEX_BYTES`. If a stream is small as a whole, all its stored
variables are in memory, too, read in one pass; a task for each column would take far longer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...core.batches import batched
from ...core.chunks import ChunkPlan
from ...core.settings import setting
from .column_sources import ColumnSource, Constants, read_columns
from .dataset_rows import DatasetRows
from .row_block import RowBlock, planned_block

INDEX_BYTES = 64 * 2**20
"""Maximum bytes of ``time``, ``seq_num``, ``run`` and scanned motors together to be in memory."""

TEXT_BYTES = 16 * 2**20
"""Maximum bytes of text in memory as NumPy's fixed-width text; larger text stays objects."""

MOST_TOGETHER = 500
"""Maximum number of Datasets that are read together, so that little is in memory twice."""

MOST_CHUNKS = 1000
"""Maximum number of chunks to read when a Dataset is opened, as each takes time, however small."""


def names_to_load(
    plan: ChunkPlan,
    rows: int,
    sizes: Mapping[str, int],
    coordinates: Collection[str],
    *,
    variables: bool = True,
) -> list[str]:
    """Return the names of the stored variables that must be in memory.

    Parameters
    ----------
    plan, rows
        Plan and number of rows of the Dataset.
    sizes
        Bytes of a cell of each stored variable.
    coordinates
        Names of those stored variables that are coordinates.
    variables
        Whether variables other than coordinates may be in memory.
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
    """The rows and sources of the stored variables that must be in memory."""

    plan: ChunkPlan
    rows: DatasetRows
    sources: Mapping[str, ColumnSource]

    @cached_property
    def block(self) -> RowBlock:
        """Block of all rows."""
        return planned_block(self.plan, *self.rows.pieces(0, len(self.rows)))

    @cached_property
    def alike(self) -> Any:
        """Hashable value that is equal for Loadings that can be read together."""
        owned = any(isinstance(source, Constants) for source in self.sources.values())
        if owned or self.block.order is not None:
            return id(self)
        return self.plan.store, tuple(self.sources.items())


def load(wanted: Sequence[Loading]) -> list[dict[str, np.ndarray]]:
    """Return the values of the variables of each Loading, reading those that are alike together."""
    together: dict[Any, list[int]] = {}
    for number, loading in enumerate(wanted):
        together.setdefault(loading.alike, []).append(number)
    found: dict[int, dict[str, np.ndarray]] = {}
    for numbers in together.values():
        for some in batched(numbers, MOST_TOGETHER):
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
    # Copy the parts, as views would keep the whole column in memory.
    return [dict(zip(sources, [_text(part.copy()) for part in row])) for row in zip(*parts)]


def _text(values: np.ndarray) -> np.ndarray:
    """Convert short text without missing cells to fixed-width text, which Dask can cut by size."""
    if values.dtype.kind != "O" or not values.size:
        return values
    texts = values.ravel()
    # NumPy would drop null characters at the end.
    if set(map(type, texts)) != {str} or any(text.endswith("\0") for text in texts):
        return values
    letters = max(1, *map(len, texts))
    # NumPy takes four bytes for each letter of the longest text, in all cells.
    return values.astype(f"<U{letters}") if 4 * letters * len(texts) <= TEXT_BYTES else values
