"""References of a run: map datum_ids or seq_nums to resources and what to read from them.

A :class:`References` is plain data: the chunks that hold the references of a run. Every task
that fills carries it. The chunks are read where the task runs, once per process, and searched with
Arrow and NumPy: a million datum documents never become as many Python objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ...core.chunks import ChunkReader, chunk_label, damage_of
from ...core.documents import Document
from ...core.layouts import DATUM, RESOURCE, STREAM_DATUM, STREAM_RESOURCE, Layout
from ..handlers.contract import Datums
from .frame_table import FrameTable, UnevenStreamDatum, read_frame_table
from .last_frames import file_of, last_frames
from .reference_chunks import DatumChunk, datum_chunk, documents


class ReferenceMissing(LookupError):
    """Raised if a reference cannot be followed; the message says which."""


class CellsOfResource(NamedTuple):
    """The cells of a request that are in one resource.

    Attributes
    ----------
    resource
        The resource or stream_resource document.
    datums
        Datums to read from the resource, one per cell.
    positions
        Places of these cells among the requested ones.
    indices
        First index of a stream_resource and the one after its last; None for a resource.
    """

    resource: Document
    datums: Datums
    positions: np.ndarray
    indices: tuple[int, int] | None


@dataclass(frozen=True, eq=False)
class References:
    """Location of the references of one run in a store.

    Attributes
    ----------
    run
        Uid of the run.
    store
        Identity of the store.
    reader
        Reader of the store's chunks.
    keys
        Chunk keys of each kind of reference, in order of arrival.
    """

    run: str
    store: str
    reader: ChunkReader
    keys: Mapping[str, tuple[Any, ...]]

    def __reduce__(self) -> tuple[Any, ...]:
        return (References, (self.run, self.store, self.reader, self._portable))

    @cached_property
    def _portable(self) -> dict[str, tuple[Any, ...]]:
        return {kind: tuple(self.reader.portable_keys(keys)) for kind, keys in self.keys.items()}

    @property
    def facts(self) -> tuple[Any, ...]:
        """Plain values whose text changes when references are added, for tokens."""
        return (self.store, *sorted(self.keys.items()))

    # -- datums ------------------------------------------------------------------------------

    def find(
        self, datum_ids: pa.Array, run_fraction: float = 0.0, *, strict: bool = True
    ) -> Iterator[CellsOfResource]:
        """Yield the resources of some datums with the datums' keyword arguments.

        Parameters
        ----------
        datum_ids
            Ids of the datums, as text without nulls.
        run_fraction
            Expected position of the datums in the run, from 0 to 1. Chunks near it are searched
            first, all others after them.
        strict
            If False, datums that the run does not have are left out.

        Raises
        ------
        ReferenceMissing
            If the run lacks a datum or its resource; the message names the first one.
        """
        yield from _by_file(self._find(datum_ids, run_fraction, strict=strict))

    def _find(
        self, datum_ids: pa.Array, run_fraction: float, *, strict: bool
    ) -> Iterator[CellsOfResource]:
        """Yield what :meth:`find` does, separately for each chunk of datums."""
        positions = np.arange(len(datum_ids))
        for key in self._from(run_fraction):
            if not len(positions):
                return
            with self._named():
                chunk = datum_chunk(self.store, self.reader, key)
            asked = datum_ids if len(positions) == len(datum_ids) else datum_ids.take(positions)
            hits = chunk.uids.positions(asked)
            there = hits >= 0
            if there.any():
                yield from self._by_resource(chunk, hits[there], positions[there], strict=strict)
            positions = positions[~there]
        if len(positions) and strict:
            raise ReferenceMissing(
                f"the datum {datum_ids[int(positions[0])].as_py()!r} is not stored with this run"
            )

    def _from(self, run_fraction: float) -> list[Any]:
        keys = self.keys.get(DATUM.kind, ())
        # Datums come in about the order of their events, so near chunks are tried first.
        center = run_fraction * len(keys) - 0.5
        return [keys[n] for n in sorted(range(len(keys)), key=lambda n: abs(n - center))]

    def _by_resource(
        self, chunk: DatumChunk, rows: np.ndarray, positions: np.ndarray, *, strict: bool
    ) -> Iterator[CellsOfResource]:
        groups = chunk.groups[rows]
        found = list(_alike(groups))
        owners = [chunk.owners[chunk.group_owner[group]] for group, _ in found]
        documents = self.documents(RESOURCE, owners)
        for (group, chosen), owner in zip(found, owners, strict=True):
            if owner not in documents:
                if not strict:
                    continue
                raise ReferenceMissing(f"the resource {owner!r} is not stored with this run")
            datums = chunk.datums(rows[chosen], group)
            yield CellsOfResource(documents[owner], datums, positions[chosen], None)

    def documents(self, layout: Layout, uids: Sequence[str] | None = None) -> dict[str, Document]:
        """Return resources or stream_resources by uid: all, or those of ``uids`` that exist."""
        with self._named():
            return documents(self.store, self.reader, self.keys.get(layout.kind, ()), layout, uids)

    def last_frame(self, resource: str, name: str) -> int:
        """Return the highest value of a keyword among the datums of a resource; -1 without any.

        Datums of other resources of the same file count too.
        """
        chunks = (self.keys.get(kind, ()) for kind in (RESOURCE.kind, DATUM.kind))
        with self._named():
            return last_frames(self.store, self.reader, *chunks, name).get(resource, -1)

    # -- frames of streams -------------------------------------------------------------------

    def find_frames(
        self,
        descriptor: str,
        key: str,
        seq_nums: np.ndarray,
        later: np.ndarray | None = None,
        *,
        strict: bool = True,
    ) -> Iterator[CellsOfResource]:
        """Yield the stream_resources that hold the frames of some events, with their indices there.

        Parameters
        ----------
        descriptor
            Uid of the descriptor.
        key
            Data key.
        seq_nums, later
            See :meth:`FrameTable.find`.
        strict
            If False, events that no stream_datum covers are left out.

        Raises
        ------
        ReferenceMissing
            If no stream_datum covers an event; the message names the first one.
        """
        table = self._frame_table(descriptor, key)
        numbers, indices = table.find(seq_nums, later)
        if strict and (numbers < 0).any():
            raise ReferenceMissing(
                f"no stream_datum of this run contains event {int(seq_nums[numbers < 0][0])}"
            )
        for number, positions in _alike(numbers):
            if number < 0:
                continue
            datums = Datums({"index": indices[positions]}, len(positions))
            yield CellsOfResource(table.resources[number], datums, positions, table.spans[number])

    def last_index(self, descriptor: str, key: str, resource: Document) -> int:
        """Return the last index of a stream_resource or of others of the key in the same file."""
        return self._frame_table(descriptor, key).stop_of_file[file_of(resource)] - 1

    def has_frames_again(self, descriptor: str, key: str) -> bool:
        """Return whether an event of a descriptor has several frames of a key."""
        try:
            return len(self._frame_table(descriptor, key).layers) > 1
        except ReferenceMissing:  # raised again when the frames are read
            return False

    def count_frames(self, descriptor: str, key: str, seq_nums: np.ndarray) -> np.ndarray:
        """Return the number of frames of a key that each event has."""
        return self._frame_table(descriptor, key).count(seq_nums)

    def _frame_table(self, descriptor: str, key: str) -> FrameTable:
        chunks = (self.keys.get(kind, ()) for kind in (STREAM_RESOURCE.kind, STREAM_DATUM.kind))
        try:
            with self._named():
                return read_frame_table(self.store, self.reader, *chunks, descriptor, key)
        except UnevenStreamDatum as error:
            raise ReferenceMissing(str(error)) from None

    def _named(self) -> AbstractContextManager[None]:
        """Name the run in errors of damaged chunks."""
        return damage_of(chunk_label({"run_start": self.run}))


def _alike(numbers: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each distinct number in increasing order, with its positions in the array.

    There may be as many as positions: a file for each frame.
    """
    order = np.argsort(numbers, kind="stable")
    found, begins = np.unique(numbers[order], return_index=True)
    bounds = [*begins.tolist(), len(order)]
    for number, begin, end in zip(found.tolist(), bounds, bounds[1:]):
        yield number, order[begin:end]


def _by_file(cells: Iterable[CellsOfResource]) -> Iterator[CellsOfResource]:
    """Join the parts of each resource, so that its file is read in one call.

    Datums with different keywords are kept apart, as their columns differ.
    """
    found: dict[tuple[str, tuple[str, ...]], list[CellsOfResource]] = {}
    for part in cells:
        names = tuple(sorted(part.datums.columns))
        found.setdefault((part.resource["uid"], names), []).append(part)
    for some in found.values():
        if len(some) == 1:
            yield some[0]
            continue
        positions = np.concatenate([part.positions for part in some])
        order = np.argsort(positions, kind="stable")
        datums = Datums.joined([part.datums for part in some]).take(order)
        yield CellsOfResource(some[0].resource, datums, positions[order], some[0].indices)
