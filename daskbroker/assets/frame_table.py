"""Stream_datums of one data key as a table of intervals: from seq_num to resource and index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.chunks import ChunkReader
from ..core.documents import Document
from ..core.layouts import STREAM_DATUM, STREAM_RESOURCE, whole
from .reference_chunks import documents, reference_table

__all__ = ["FrameTable", "UnevenStreamDatum", "read_frame_table"]

KEPT = 64
"""So many tables stay in memory."""


class UnevenStreamDatum(LookupError):
    """A stream_datum names more indices than events, or fewer."""


@dataclass(frozen=True)
class FrameTable:
    """Which frames belong to which events, for one descriptor and key.

    Attributes
    ----------
    starts, stops
        Half-open intervals of seq_num, in order, none overlapping another.
    indices
        Index, in its resource, of the first frame of each.
    numbers
        Place of its resource in ``resources``.
    resources
        The stream_resources.
    spans
        First index of each, and the one after its last, over all descriptors.
    """

    starts: np.ndarray
    stops: np.ndarray
    indices: np.ndarray
    numbers: np.ndarray
    resources: Sequence[Document]
    spans: Sequence[tuple[int, int]]

    def find(self, seq_nums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number of the resource (-1: none) and index in it, of each event."""
        if not len(self.starts):
            return np.full(len(seq_nums), -1), np.zeros(len(seq_nums), np.int64)
        place = np.searchsorted(self.starts, seq_nums, side="right") - 1
        inside = (place >= 0) & (seq_nums < self.stops[place])
        numbers = np.where(inside, self.numbers[place], -1)
        return numbers, self.indices[place] + (seq_nums - self.starts[place])


@lru_cache(KEPT)
def read_frame_table(
    store: str,
    reader: ChunkReader,
    resource_keys: tuple[Any, ...],
    datum_keys: tuple[Any, ...],
    descriptor: str,
    key: str,
) -> FrameTable:
    """The table of one descriptor and data key.

    Parameters
    ----------
    store, reader
        Of the chunks; ``store`` tells chunks of one key apart.
    resource_keys, datum_keys
        Chunks of all stream_resources and stream_datums of the run.
    descriptor, key
        Its uid; the data key.

    Raises
    ------
    UnevenStreamDatum
    """
    every = documents(store, reader, resource_keys, STREAM_RESOURCE)
    resources = [doc for doc in every.values() if doc.get("data_key") == key]
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
    of_each = [numbers == number for number in range(len(resources))]
    spans = [_span(first[some], first_stop[some]) for some in of_each]
    intervals = _latest(start[own], rows["seq_stop"][own], first[own], numbers[own])
    return FrameTable(*intervals, resources, spans)


def _stream_datums(
    store: str, reader: ChunkReader, keys: Sequence[Any], resources: list[str]
) -> dict[str, np.ndarray]:
    """The stream_datums of some resources, of all descriptors, in the order they came."""
    tables = [reference_table(store, reader, key) for key in keys]
    numbers = [
        pc.index_in(whole(table.column(STREAM_DATUM.owner)), value_set=pa.array(resources, "str"))
        .fill_null(-1)
        .to_numpy()
        for table in tables
    ]
    names = {
        "seq": "seq_nums:start", "seq_stop": "seq_nums:stop",
        "index": "indices:start", "index_stop": "indices:stop",
    }  # fmt: skip
    parts = {
        name: [t.column(column).to_numpy().astype(np.int64) for t in tables]
        for name, column in names.items()
    }
    parts["descriptor"] = [np.array(t.column("descriptor").to_pylist(), object) for t in tables]
    parts["number"] = numbers
    if not tables:
        return {name: np.zeros(0, object if name == "descriptor" else np.int64) for name in parts}
    ours = np.concatenate(numbers) >= 0
    return {name: np.concatenate(arrays)[ours] for name, arrays in parts.items()}


def _span(begins: np.ndarray, ends: np.ndarray) -> tuple[int, int]:
    return (int(begins.min()), int(ends.max())) if len(begins) else (0, 0)


def _latest(
    start: np.ndarray, stop: np.ndarray, index: np.ndarray, number: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Intervals in order; where some overlap (a scan was rewound), the latest counts."""
    order = np.argsort(start, kind="stable")
    if (start[order][1:] >= stop[order][:-1]).all():
        return start[order], stop[order], index[order], number[order]
    borders = np.unique(np.concatenate([start, stop]))
    owner = np.full(len(borders) - 1, -1)
    begins, ends = np.searchsorted(borders, start), np.searchsorted(borders, stop)
    for row, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
        owner[begin:end] = row
    held = owner >= 0
    owner, begins = owner[held], borders[:-1][held]
    return begins, borders[1:][held], index[owner] + (begins - start[owner]), number[owner]
