"""Stream_datums of one data key as intervals that map seq_num to a resource and an index in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from ...core.chunks import ChunkReader
from ...core.documents import Document
from ...core.layouts import STREAM_DATUM, STREAM_RESOURCE, as_one_chunk
from .last_frames import file_of
from .reference_chunks import documents, reference_table

MAX_CACHED = 64
"""Maximum number of tables that stay in memory."""
_NUMBERS = {
    "seq": "seq_nums:start", "seq_stop": "seq_nums:stop",
    "index": "indices:start", "index_stop": "indices:stop",
}  # fmt: skip
"""Columns of numbers of stream_datums, by their names here."""


class UnevenStreamDatum(LookupError):
    """Raised if a stream_datum has more or fewer indices than events."""


@dataclass(frozen=True)
class Intervals:
    """Frames of intervals of consecutive events, with one frame per event.

    Attributes
    ----------
    starts, stops
        Half-open intervals of seq_num, sorted and without overlap.
    indices
        Index of the first frame of each interval in its resource.
    numbers
        Number of the resource of each interval.
    """

    starts: np.ndarray
    stops: np.ndarray
    indices: np.ndarray
    numbers: np.ndarray

    def find(self, seq_nums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of each event's resource (-1 if there is none) and the index in it."""
        if not len(self.starts):
            return np.full(len(seq_nums), -1), np.zeros(len(seq_nums), np.int64)
        position = np.searchsorted(self.starts, seq_nums, side="right") - 1
        inside = (position >= 0) & (seq_nums < self.stops[position])
        numbers = np.where(inside, self.numbers[position], -1)
        return numbers, self.indices[position] + (seq_nums - self.starts[position])


@dataclass(frozen=True)
class FrameTable:
    """Which frames belong to which events, for one descriptor and key.

    Attributes
    ----------
    layers
        Intervals of the latest frame of each event; then of the one before it, for events that
        have several because a scan was rewound; and so on.
    resources
        Stream_resource documents, in the order of the intervals' ``numbers``.
    spans
        First index of each resource and the one after its last, over all descriptors.
    """

    layers: Sequence[Intervals]
    resources: Sequence[Document]
    spans: Sequence[tuple[int, int]]

    @cached_property
    def stop_of_file(self) -> dict[str, int]:
        """The index after the last of all resources of each file, by :func:`.file_of`."""
        found: dict[str, int] = {}
        for resource, (_, stop) in zip(self.resources, self.spans, strict=True):
            file = file_of(resource)
            found[file] = max(stop, found.get(file, stop))
        return found

    def count(self, seq_nums: np.ndarray) -> np.ndarray:
        """Return the number of frames of each event."""
        counts = np.zeros(len(seq_nums), np.int64)
        for layer in self.layers:
            counts += layer.find(seq_nums)[0] >= 0
        return counts

    def find(
        self, seq_nums: np.ndarray, later: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of each event's resource (-1 if there is none) and the index in it.

        Parameters
        ----------
        seq_nums
            Numbers of the events.
        later
            For each event, the number of events with the same ``seq_num`` that came after it. They
            take the later frames, if there are several. If None, each event has the latest frame.
        """
        numbers, indices = self.layers[0].find(seq_nums)
        if later is None:
            return numbers, indices
        for depth, layer in enumerate(self.layers[1:], 1):
            older = np.flatnonzero(later >= depth)
            found, there = layer.find(seq_nums[older])
            numbers[older[found >= 0]] = found[found >= 0]
            indices[older[found >= 0]] = there[found >= 0]
        return numbers, indices


@lru_cache(MAX_CACHED)
def read_frame_table(
    store: str,
    reader: ChunkReader,
    resource_keys: tuple[Any, ...],
    datum_keys: tuple[Any, ...],
    descriptor: str,
    key: str,
) -> FrameTable:
    """Read the table of one descriptor and data key. The last tables are kept in memory.

    Parameters
    ----------
    store, reader
        Identity of the store, which distinguishes chunks of equal keys, and the reader of chunks.
    resource_keys, datum_keys
        Keys of the chunks of all stream_resources and stream_datums of the run.
    descriptor, key
        Uid of the descriptor, and data key.

    Raises
    ------
    UnevenStreamDatum
        If a stream_datum has more or fewer indices than events.
    """
    resources = _resources_by_key(store, reader, resource_keys).get(key, [])
    rows = _stream_datums(store, reader, datum_keys, [doc["uid"] for doc in resources])
    start, first, first_stop = rows["seq"], rows["index"], rows["index_stop"]
    own = (rows["descriptor"] == descriptor) & (rows["seq_stop"] > start)
    uneven = own & (rows["seq_stop"] - start != first_stop - first)
    if uneven.any():
        row = int(np.flatnonzero(uneven)[0])
        raise UnevenStreamDatum(
            f"a stream_datum gives {int(first_stop[row] - first[row])} indices to "
            f"{int(rows['seq_stop'][row] - start[row])} events, from seq_num {int(start[row])} on"
        )
    numbers = rows["number"]
    spans = _spans(numbers, first, first_stop, len(resources))
    layers = _layers(start[own], rows["seq_stop"][own], first[own], numbers[own])
    return FrameTable(layers, resources, spans)


@lru_cache(MAX_CACHED)
def _resources_by_key(
    store: str, reader: ChunkReader, keys: tuple[Any, ...]
) -> dict[str, list[Document]]:
    """Return the stream_resources of a run by data key, made once for the tables of all keys."""
    found: dict[str, list[Document]] = defaultdict(list)
    for doc in documents(store, reader, keys, STREAM_RESOURCE).values():
        if isinstance(key := doc.get("data_key"), str):
            found[key].append(doc)
    return dict(found)


def _stream_datums(
    store: str, reader: ChunkReader, keys: Sequence[Any], resources: list[str]
) -> dict[str, np.ndarray]:
    """Return the stream_datums of some resources as columns, in order of arrival.

    Those of all descriptors are included.
    """
    parts: dict[str, list[np.ndarray]] = {n: [] for n in ("descriptor", "number", *_NUMBERS)}
    for key in keys:
        table = reference_table(store, reader, key)
        none = np.zeros(0, np.int64)
        rows_of = _rows_by_resource(store, reader, key)  # a chunk has those of all keys
        found = [rows_of.get(uid, none) for uid in resources]
        rows = np.concatenate([none, *found])
        order = np.argsort(rows)
        table = table.take(pa.array(rows[order]))
        parts["number"].append(np.repeat(np.arange(len(found)), list(map(len, found)))[order])
        parts["descriptor"].append(np.array(table.column("descriptor").to_pylist(), object))
        for name, column in _NUMBERS.items():
            parts[name].append(table.column(column).to_numpy().astype(np.int64))
    if not keys:
        return {name: np.zeros(0, object if name == "descriptor" else np.int64) for name in parts}
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


@lru_cache(MAX_CACHED)
def _rows_by_resource(store: str, reader: ChunkReader, key: Any) -> dict[str, np.ndarray]:
    """Return the rows of each resource in a chunk of stream_datums, made once for all data keys."""
    column = reference_table(store, reader, key).column(STREAM_DATUM.owner)
    owners = as_one_chunk(column).dictionary_encode()
    codes = owners.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    begins = np.searchsorted(codes[order], np.arange(1, len(owners.dictionary)))
    return dict(zip(owners.dictionary.to_pylist(), np.split(order, begins)))


def _spans(
    numbers: np.ndarray, begins: np.ndarray, ends: np.ndarray, count: int
) -> list[tuple[int, int]]:
    """Return the lowest begin and the highest end for each number; 0 and 0 for one without any."""
    limits = np.iinfo(np.int64)
    low, high = np.full(count, limits.max), np.full(count, limits.min)
    np.minimum.at(low, numbers, begins)
    np.maximum.at(high, numbers, ends)
    without = low > high
    low[without] = high[without] = 0
    return list(zip(low.tolist(), high.tolist()))


def _layers(
    start: np.ndarray, stop: np.ndarray, index: np.ndarray, number: np.ndarray
) -> list[Intervals]:
    """Divide intervals into layers without overlap, sorted, with the latest ones in the first."""
    order = np.argsort(start, kind="stable")
    if (start[order][1:] >= stop[order][:-1]).all():
        return [Intervals(start[order], stop[order], index[order], number[order])]
    borders = np.unique(np.concatenate([start, stop]))
    owners = [np.full(len(borders) - 1, -1)]
    begins, ends = np.searchsorted(borders, start), np.searchsorted(borders, stop)
    for row, part in enumerate(map(slice, begins.tolist(), ends.tolist())):
        if (owners[-1][part] >= 0).any():
            owners.append(np.full(len(borders) - 1, -1))
        # This interval is the latest so far: each earlier one moves down by one layer.
        for depth in range(len(owners) - 1, 0, -1):
            owners[depth][part] = owners[depth - 1][part]
        owners[0][part] = row
    layers = []
    for owner in owners:
        held = owner >= 0
        rows, lows = owner[held], borders[:-1][held]
        firsts = index[rows] + (lows - start[rows])
        layers.append(Intervals(lows, borders[1:][held], firsts, number[rows]))
    return layers
