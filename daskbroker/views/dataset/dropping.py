"""Find the rows of a Dataset that are left out for a missing cell (``missing="drop"``)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import dask
import numpy as np

from ...core.chunks import ChunkPlan
from ...core.digests import digest_of
from .column_sources import ExternalColumn
from .cutting import even_cut
from .dataset_rows import DatasetRows
from .graphs import Blocks
from .row_block import RowBlock

MOST_ROWS = 1000
"""Maximum number of rows that one task examines."""


def with_every_cell(
    plan: ChunkPlan, rows: DatasetRows, columns: Sequence[ExternalColumn]
) -> np.ndarray:
    """Return a mask of the rows that have a cell in each of some columns.

    This is computed at once, and may look into files, as the number of rows of a Dataset must be
    known when it is opened.
    """
    lengths = even_cut(len(rows), MOST_ROWS)
    blocks = Blocks(plan, rows, lengths)
    tasks = []
    for number in range(len(lengths)):
        block, owners = blocks[number]
        own = tuple(column.of_owners(owners) for column in columns)
        tasks.append(dask.delayed(partial(_with_every_cell, block, own), pure=False)())
    return np.concatenate(dask.compute(*tasks))


def _with_every_cell(block: RowBlock, columns: Sequence[ExternalColumn]) -> np.ndarray:
    there = np.ones(len(block), bool)
    for column in columns:
        there &= column.present(block)
    return there


def mask_token(mask: np.ndarray) -> str:
    """Return a token that distinguishes masks of the same length."""
    return digest_of(np.packbits(mask).tobytes())
