"""Statistics of a chunk: what a plan says of its rows without reading them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from .layouts import EVENT, Layout


class Statistics(NamedTuple):
    """Statistics of a chunk that a plan keeps.

    The records of plans and the manifests of stores have its fields, in its order. A new one is
    added here, with a default, and in :func:`of_events`; nowhere else. (Stores that were written
    before lack it, so the numbers of their formats are raised with it. A checksum of a manifest in
    MongoDB is of the fields that there were.)

    Attributes
    ----------
    rows, bytes
        Number of documents; size in memory in bytes.
    seq_min, seq_max, time_min, time_max
        Extent of ``seq_num`` and ``time`` (POSIX seconds); for events only.
    distinct
        Number of different ``seq_num``; fewer than rows if a scan was rewound. For events only.
    ordered
        Whether ``seq_num`` increases strictly from row to row.
    """

    rows: int
    bytes: int
    seq_min: int = 0
    seq_max: int = -1
    time_min: float = float("nan")
    time_max: float = float("nan")
    distinct: int = 0
    ordered: bool = True


def of_events(seq: np.ndarray, time: np.ndarray, nbytes: int) -> Statistics:
    """Return the statistics of one or more events.

    Parameters
    ----------
    seq, time
        ``seq_num`` and ``time`` of each event.
    nbytes
        Size in memory in bytes.
    """
    ordered = bool((seq[1:] > seq[:-1]).all())
    return Statistics(
        rows=len(seq),
        bytes=nbytes,
        seq_min=int(seq.min()),
        seq_max=int(seq.max()),
        time_min=float(time.min()),
        time_max=float(time.max()),
        distinct=len(seq) if ordered else len(np.unique(seq)),
        ordered=ordered,
    )


def of_frames(numbers: range) -> Statistics:
    """Return the statistics of events that only stream_datum documents name.

    They are those of the table that :func:`~.chunks.ranges_table` makes, which may be too large to
    be made for them.
    """
    return Statistics(
        rows=len(numbers),
        bytes=16 * len(numbers),  # seq_num and time
        seq_min=numbers.start,
        seq_max=numbers.stop - 1,
        distinct=len(numbers),
    )


def statistics(layout: Layout, table: pa.Table) -> Statistics:
    """Compute the statistics of a chunk; the extents are for events only."""
    if layout is not EVENT or table.num_rows == 0:
        return Statistics(table.num_rows, table.nbytes)
    seq, time = (table.column(name).to_numpy() for name in ("seq_num", "time"))
    return of_events(seq, time, table.nbytes)
