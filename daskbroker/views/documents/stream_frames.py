"""The stream_datums of a run, by descriptor: chunks hold those of all descriptors together."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...core.bounded_dict import BoundedDict
from ...core.chunks import ChunkPlan
from ...core.documents import Document
from ...core.errors import StoreDamaged
from ...core.layouts import STREAM_DATUM, as_one_chunk, iter_rows
from ...core.shared_property import unlocked_property
from .prefetch import Prefetcher

FIRST_SEQ = "seq_nums:start"
MANY_DESCRIPTORS = 8
"""Number of descriptors with stream_datums above which a chunk is divided once for all."""
MOST_DIVIDED = 4
"""Maximum number of divided chunks that stay in memory."""


class _Part(NamedTuple):
    """The chunk that has some stream_datums of a descriptor, and their extremes of `FIRST_SEQ`."""

    lowest: int
    highest: int
    chunk: int


class StreamFrames:
    """Stream_datums of a plan, divided by descriptor.

    Parameters
    ----------
    plan
        Plan of the chunks of stream_datums.
    """

    def __init__(self, plan: ChunkPlan) -> None:
        self._plan = plan
        self._divided: BoundedDict[int, dict[str, pa.Table]] = BoundedDict(MOST_DIVIDED)

    def of(self, descriptor: str, ahead: Prefetcher) -> Iterator[Document]:
        """Yield the stream_datums of a descriptor in the order of ``seq_nums``.

        If the ranges of the chunks do not overlap, one chunk at a time is in use; else all are
        merged.
        """
        parts = self._parts.get(descriptor)
        if parts is None:
            return iter(())
        tables = self._tables(descriptor, [part.chunk for part in parts], ahead)
        rows = (iter_rows(STREAM_DATUM, table, "") for table in tables)
        # Chunks follow each other, as one process writes them in order.
        if all(one.highest <= other.lowest for one, other in pairwise(parts)):
            return chain.from_iterable(rows)
        return heapq.merge(*rows, key=lambda doc: doc["seq_nums"]["start"])

    @unlocked_property
    def _parts(self) -> dict[str, list[_Part]]:
        """The parts of each descriptor that has stream_datums, in the order of `FIRST_SEQ`."""
        found: dict[str, list[_Part]] = {}
        for index in range(len(self._plan)):
            table = self._plan.read(index, ["descriptor", FIRST_SEQ])
            of_each = table.group_by("descriptor").aggregate(
                [(FIRST_SEQ, "min"), (FIRST_SEQ, "max")]
            )
            names = ("descriptor", f"{FIRST_SEQ}_min", f"{FIRST_SEQ}_max")
            rows = zip(*(of_each.column(name).to_pylist() for name in names), strict=True)
            for uid, lowest, highest in rows:
                found.setdefault(uid, []).append(_Part(lowest, highest, index))
        for parts in found.values():
            parts.sort()
        return found

    def _tables(self, descriptor: str, indices: list[int], ahead: Prefetcher) -> Iterable[pa.Table]:
        """Yield the rows of a descriptor in some chunks, each sorted by `FIRST_SEQ`."""
        # No column of stream_datums depends on the position of a row, so rows may be sorted.
        if len(self._parts) <= MANY_DESCRIPTORS:
            is_own = pc.field("descriptor") == descriptor
            for table in ahead.tables(self._plan, indices):
                yield sound(table).filter(is_own).sort_by(FIRST_SEQ)
            return
        for index in indices:
            divided = self._divided.find(index, self._divide)
            assert divided is not None
            yield divided[descriptor]

    def _divide(self, index: int) -> dict[str, pa.Table]:
        """Return the rows of a chunk by descriptor, each sorted by `FIRST_SEQ`."""
        order = [("descriptor", "ascending"), (FIRST_SEQ, "ascending")]
        table = self._plan.read(index).sort_by(order)
        uids = as_one_chunk(table.column("descriptor"))
        changes = pc.not_equal(uids[1:], uids[:-1]).to_numpy(zero_copy_only=False)
        bounds = [0, *(np.flatnonzero(changes) + 1).tolist(), len(uids)]
        return {
            uids[begin].as_py(): table.slice(begin, end - begin) for begin, end in pairwise(bounds)
        }


def sound(table: pa.Table | StoreDamaged) -> pa.Table:
    """Return a chunk that was read ahead.

    Raises
    ------
    StoreDamaged
        If it is damaged.
    """
    if isinstance(table, StoreDamaged):
        raise table
    return table
