"""Filling the events of a stream of documents, with a Client by its workers, some blocks ahead.

What a worker reads of a block is sent back as the arrays that were read; that, and the events that
wait for it, count in what a stream of documents may have ahead (:mod:`.prefetch`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa

from ..assets.filled_events import fill_events, with_cells
from ..assets.filling import Filling, Target
from ..assets.held import FilledBlock, Held
from ..core.documents import Document
from .prefetch import Prefetcher, Step

__all__ = ["EventChunk", "fill_chunks"]


class EventChunk(NamedTuple):
    """Events of one descriptor that are stored together.

    Attributes
    ----------
    table, events
        The chunk as it was read, and as documents.
    near
        Where in the run it is, from 0 to 1.
    """

    table: pa.Table
    events: Iterator[Document]
    near: float


def fill_chunks(
    filling: Filling,
    descriptor: Mapping[str, Any],
    chunks: Iterable[EventChunk],
    keys: Sequence[str],
    ahead: Prefetcher,
) -> Iterator[Iterator[Document]]:
    """The events of a descriptor, some at a time, with external data in place of references.

    Workers begin at once, all else is lazy.

    Parameters
    ----------
    filling, descriptor, keys
        As for :func:`~daskbroker.assets.filled_events.fill_events`, which says what they hold.
    chunks
        In order. Each is gone through before the next is asked for, unless workers fill.
    ahead
        Says who fills, and how far ahead.

    Raises
    ------
    FillError
        When the first event of a block is asked for of which something cannot be read.
    """
    if not ahead.on_workers:
        return (fill_events(filling, descriptor, events, keys, near) for _, events, near in chunks)
    mine = filling.of_runs({descriptor["run_start"]})
    steps = _steps(mine, descriptor, chunks, keys, ahead.unit)
    return _as_read(ahead.in_order(steps, begin=True))


def _as_read(results: Iterator[tuple[Any, Any]]) -> Iterator[Iterator[Document]]:
    for (events, wanted), read in results:
        found = [
            (target, held, held.with_cells(blocks))
            for (target, held), blocks in zip(wanted, read, strict=True)
        ]
        yield with_cells(events, found)


Wanted = Sequence[tuple[Target, Held]]
"""Of each key, which cells."""


@dataclass(frozen=True, eq=False)
class _Read:
    """What a task carries that reads the cells of some events."""

    filling: Filling
    wanted: Wanted
    near: float

    def __call__(self) -> list[list[FilledBlock]]:
        return [list(self.filling.blocks(*one, self.near)) for one in self.wanted]


def _steps(
    filling: Filling,
    descriptor: Mapping[str, Any],
    chunks: Iterable[EventChunk],
    keys: Sequence[str],
    unit: int,
) -> Iterator[Step]:
    """Blocks of about a size, none over more than one chunk; each for its events and cells."""
    targets = [Target.of(descriptor, key) for key in keys]
    cells = sum(filling.declared(target).cell_bytes for target in targets)
    for table, events, near in chunks:
        rows = table.num_rows
        event = max(1, cells + table.nbytes // max(1, rows))
        count = max(1, unit // event)
        of_chunk = [Held.of_table(table, target.key) for target in targets]
        for begin in range(0, rows, count):
            end = min(begin + count, rows)
            wanted = [(t, held.unread(begin, end)) for t, held in zip(targets, of_chunk)]
            some = islice(events, end - begin)
            yield Step(_Read(filling, wanted, near), event * (end - begin), (some, wanted), "fill")
