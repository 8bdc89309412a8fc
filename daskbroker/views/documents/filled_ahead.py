"""Fill the events of a stream of documents; with a Client, its workers read some blocks ahead.

A worker sends a block back as the arrays that it read. These, and the events that wait for them,
count towards what a stream of documents may read ahead (:mod:`.prefetch`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ...assets.filling.contents import CellContents, FilledBlock
from ...assets.filling.event_filling import fill_events, with_cells
from ...assets.filling.filling import Filling
from ...assets.filling.target import Target
from ...core.documents import Document
from ...core.errors import FillError
from .prefetch import Prefetcher, Step


class EventChunk(NamedTuple):
    """Events of one descriptor that are stored together.

    Attributes
    ----------
    table, events
        The chunk as a table, and as an iterator of documents.
    run_fraction
        Relative position in the run, from 0 to 1.
    later
        :attr:`~daskbroker.assets.filling.contents.CellContents.later` of the events.
    """

    table: pa.Table
    events: Iterator[Document]
    run_fraction: float
    later: np.ndarray | None


def fill_chunks(
    filling: Filling,
    descriptor: Mapping[str, Any],
    chunks: Iterable[EventChunk],
    keys: Sequence[str],
    ahead: Prefetcher,
) -> Iterator[Iterator[Document]]:
    """Yield the events of a descriptor in batches, with external data in place of references.

    Workers begin at once; everything else is lazy.

    Parameters
    ----------
    filling, descriptor, keys
        As for :func:`~daskbroker.assets.filling.event_filling.fill_events`, which also says what
        the filled events hold.
    chunks
        Chunks in order. Unless workers fill, each is exhausted before the next is requested.
    ahead
        Prefetcher that decides whether workers fill, and how far ahead.

    Raises
    ------
    FillError
        If the data of an event cannot be read; all events before it are yielded first.
    """
    if not ahead.on_workers:
        return (
            fill_events(filling, descriptor, chunk.events, keys, chunk.run_fraction, chunk.later)
            for chunk in chunks
        )
    mine = filling.of_runs({descriptor["run_start"]})
    steps = _steps(mine, descriptor, chunks, keys, ahead.unit)
    return _as_read(mine, ahead.in_order(steps, begin=True))


def _as_read(
    filling: Filling, results: Iterator[tuple[Any, _Part]]
) -> Iterator[Iterator[Document]]:
    for (events, wanted), part in results:
        for begin, end, read in part.read:
            found = [
                (target, contents.part(begin, end), blocks)
                for (target, contents), blocks in zip(wanted, read, strict=True)
            ]
            yield with_cells(filling, list(islice(events, end - begin)), found)
        if part.error is not None:
            raise part.error


Wanted = Sequence[tuple[Target, CellContents]]
"""Target and cells to read of each key."""


@dataclass
class _Part:
    """The cells of a batch of events that could be read.

    Attributes
    ----------
    read
        First event, end, and blocks of each key, of consecutive ranges of events without gaps.
    error
        Why the event after these ranges cannot be read; None if all events were read.
    """

    read: list[tuple[int, int, list[list[FilledBlock]]]] = field(default_factory=list)
    error: FillError | None = None


@dataclass(frozen=True, eq=False)
class _Read:
    """The task that reads the cells of a batch of events."""

    filling: Filling
    wanted: Wanted
    run_fraction: float
    count: int

    def __call__(self) -> _Part:
        part = _Part()
        self._read(0, self.count, part)
        return part

    def _read(self, begin: int, end: int, part: _Part) -> None:
        """Read events `begin` to `end`; if that fails, bisect to find the first bad one.

        So everything before the error is read.
        """
        wanted = [(target, contents.part(begin, end)) for target, contents in self.wanted]
        try:
            blocks = [list(self.filling.blocks(*one, self.run_fraction)) for one in wanted]
            for (target, contents), read in zip(wanted, blocks, strict=True):
                if self.filling.rule(target).gap == "raise":
                    self.filling.cells_of(target, contents, read)
        except FillError as error:
            if end - begin == 1:
                part.error = error
                return
        else:
            part.read.append((begin, end, blocks))
            return
        middle = (begin + end) // 2
        self._read(begin, middle, part)
        if part.error is None:
            self._read(middle, end, part)


def _steps(
    filling: Filling,
    descriptor: Mapping[str, Any],
    chunks: Iterable[EventChunk],
    keys: Sequence[str],
    unit: int,
) -> Iterator[Step]:
    """Yield steps that each read about `unit` bytes for events of one chunk.

    The ``what`` of a step is its events and their cells.
    """
    targets = [Target.of(descriptor, key) for key in keys]
    cells = sum(filling.declared(target).cell_bytes for target in targets)
    for table, events, run_fraction, later in chunks:
        rows = table.num_rows
        event = max(1, cells + table.nbytes // max(1, rows))
        count = max(1, unit // event)
        of_chunk = [replace(CellContents.of_table(table, t.key), later=later) for t in targets]
        for begin in range(0, rows, count):
            end = min(begin + count, rows)
            contents = [(t, contents.part(begin, end)) for t, contents in zip(targets, of_chunk)]
            wanted = [(t, part.without_values()) for t, part in contents]
            read = _Read(filling, wanted, run_fraction, end - begin)
            some = islice(events, end - begin)
            yield Step(read, event * (end - begin), (some, contents), "fill")
