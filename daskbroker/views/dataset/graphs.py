"""Make the Dask arrays of a Dataset, whose tasks carry only their own rows.

Each block of an external variable is read by one task. Stored variables share reads: one task per
block reads a group of columns, and other tasks take single columns from the result. Layers are
blockwise, so that a block is described only when it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import dask.array as da
import numpy as np
from dask._task_spec import Task, TaskRef
from dask.array.core import getter
from dask.blockwise import Blockwise, BlockwiseDep, blockwise_token
from dask.highlevelgraph import HighLevelGraph

from ...core.chunks import ChunkPlan
from .column_sources import BlockColumn, ColumnSource, read_columns
from .dataset_rows import DatasetRows
from .row_block import RowBlock, planned_block


class Blocks:
    """The blocks of a cut along ``time``.

    Parameters
    ----------
    plan, rows
        Plan and rows of the Dataset.
    lengths
        Number of rows of each block.
    """

    def __init__(self, plan: ChunkPlan, rows: DatasetRows, lengths: tuple[int, ...]) -> None:
        self._plan = plan
        self._rows = rows
        self.lengths = lengths
        self._ends = list(accumulate(lengths))
        self._made: dict[int, tuple[RowBlock, tuple[int, ...]]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return (Blocks, (self._plan, self._rows, self.lengths))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> tuple[RowBlock, tuple[int, ...]]:
        """Return a block, cached for all columns, and the positions of its descriptors."""
        if number not in self._made:
            end = self._ends[number]
            pieces, order = self._rows.pieces(end - self.lengths[number], end)
            owners = self._plan.records["descriptor"][[number for number, _ in pieces]]
            known = tuple(dict.fromkeys(owners.tolist()))
            block = planned_block(self._plan, pieces, order, known, self._rows.later)
            self._made[number] = (block, known)
        return self._made[number]


class _Columns(BlockwiseDep):
    """The array that the task of each block of a variable indexes."""

    produces_tasks = False

    def __init__(self, name: str, blocks: Blocks, source: ColumnSource) -> None:
        self._args = (name, blocks, source)
        self.numblocks = (len(blocks), *(1 for _ in source.cell_shape))

    def __getitem__(self, idx: tuple[int, ...]) -> BlockColumn:
        _, blocks, source = self._args
        block, owners = blocks[idx[0]]
        return BlockColumn(block, source.of_owners(owners))

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Columns, self._args)

    def __dask_tokenize__(self) -> Any:
        return (type(self).__name__, self._args[0])


@dataclass(frozen=True, eq=False)
class _Read:
    """Description, for a task, of several columns of a block."""

    block: RowBlock
    sources: tuple[ColumnSource, ...]


class _Reads(BlockwiseDep):
    """The read of a group of columns, for each block."""

    produces_tasks = False

    def __init__(self, name: str, blocks: Blocks, sources: Sequence[ColumnSource]) -> None:
        self._args = (name, blocks, sources)
        self.numblocks = (len(blocks),)

    def __getitem__(self, idx: tuple[int, ...]) -> Any:
        _, blocks, sources = self._args
        block, owners = blocks[idx[0]]
        return _Read(block, tuple(source.of_owners(owners) for source in sources))

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Reads, self._args)

    def __dask_tokenize__(self) -> Any:
        return (type(self).__name__, self._args[0])


def external_array(name: str, blocks: Blocks, source: ColumnSource) -> da.Array:
    """Return an array whose tasks each read one block, or what is left of it after slicing."""
    axes = tuple(range(1 + len(source.cell_shape)))
    # Dask fuses slices into ``getter``, so that less is read of the block.
    task = Task(
        name, getter, TaskRef(blockwise_token(0)), (slice(None),) * len(axes), _data_producer=True
    )
    layer = Blockwise(name, axes, task, [(_Columns(name, blocks, source), axes)], {})
    return _array(HighLevelGraph.from_collections(name, layer), name, blocks, source)


def stored_arrays(
    read: str, names: Mapping[str, str], blocks: Blocks, sources: Mapping[str, ColumnSource]
) -> dict[str, da.Array]:
    """Return arrays of a group of columns, of which each block is read by one task.

    Parameters
    ----------
    read
        Name of the layer of reading tasks.
    names
        Name of each array, by column.
    blocks
        Blocks that are read.
    sources
        Source of each column.
    """
    task = Task(read, _read, TaskRef(blockwise_token(0)), _data_producer=True)
    dep = _Reads(read, blocks, tuple(sources.values()))
    reads = Blockwise(read, (0,), task, [(dep, (0,))], {})
    arrays = {}
    for number, (column, source) in enumerate(sources.items()):
        name = names[column]
        axes = tuple(range(1 + len(source.cell_shape)))
        layer = Blockwise(
            name,
            axes,
            Task(name, _column_of, TaskRef(blockwise_token(0)), number),
            [(read, (0,))],
            {read: (len(blocks),)},
            new_axes=dict(zip(axes[1:], source.cell_shape)),
        )
        graph = HighLevelGraph({read: reads, name: layer}, {read: set(), name: {read}})
        arrays[column] = _array(graph, name, blocks, source)
    return arrays


def _read(read: _Read) -> list[np.ndarray]:
    return read_columns(read.block, read.sources)


# Not `operator.getitem`, which Dask's optimizer takes for a slice of an array.
def _column_of(columns: list[np.ndarray], index: int) -> np.ndarray:
    return columns[index]


def _array(graph: HighLevelGraph, name: str, blocks: Blocks, source: ColumnSource) -> da.Array:
    chunks = (blocks.lengths, *((length,) for length in source.cell_shape))
    meta = np.empty((0,) * len(chunks), source.dtype)
    return da.Array(graph, name, chunks, meta=meta)
