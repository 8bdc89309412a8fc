"""Reading one partition of a stream's table, wherever its task runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from ..assets.filling import Filling, Target
from ..assets.held import Held
from ..core.chunks import ChunkReader
from ..core.schema import (
    TIME,
    TableColumn,
    constant,
    empty_frame,
    posix_to_datetime,
    to_pandas,
)
from .rows import Duplicates, keep

__all__ = ["Part", "Payload", "Piece", "TableOptions", "TableReader"]


@dataclass(frozen=True)
class TableOptions:
    """What a table was asked to be.

    Attributes
    ----------
    stream
        Name, for messages and attrs.
    duplicates
        Of rewound events.
    timezone
        Of the column ``time``.
    target
        Bytes of a partition to aim at.
    """

    stream: str
    duplicates: Duplicates
    timezone: str
    target: int

    @property
    def time_dtype(self) -> str:
        """Of the column ``time``."""
        return f"datetime64[ns, {self.timezone}]"


class Part(NamedTuple):
    """One chunk of a partition.

    Attributes
    ----------
    key
        Of the chunk.
    constants
        Values of the columns that are the same in all its rows.
    targets
        What is filled, one an external column.
    """

    key: Any
    constants: tuple[Any, ...]
    targets: tuple[Target, ...]


class Piece(NamedTuple):
    """Chunks that are read together.

    Attributes
    ----------
    simple
        One chunk, all its rows shown, in order.
    parts
        The chunks.
    within
        First and last ``seq_num`` wanted; None: all.
    near
        Where in the run it is, from 0 to 1.
    """

    simple: bool
    parts: tuple[Part, ...]
    within: tuple[int, int] | None
    near: float


@dataclass(frozen=True)
class Payload:
    """What a task reads. Pickled, it holds keys that other processes can read."""

    reader: ChunkReader
    pieces: tuple[Piece, ...]
    filling: Filling | None

    def __reduce__(self) -> tuple[Any, ...]:
        keys = [part.key for piece in self.pieces for part in piece.parts]
        portable = iter(self.reader.portable(keys))
        pieces = tuple(
            piece._replace(parts=tuple(part._replace(key=next(portable)) for part in piece.parts))
            for piece in self.pieces
        )
        return (Payload, (self.reader, pieces, self.filling))


@dataclass(frozen=True)
class TableReader:
    """Reads one partition; called with a :class:`Payload` and the wanted columns."""

    columns: Mapping[str, TableColumn]
    options: TableOptions

    def __call__(self, payload: Payload, names: Sequence[str]) -> pd.DataFrame:
        """The partition with exactly these columns."""
        wanted = [self.columns[name] for name in names]
        keys = [part.key for piece in payload.pieces for part in piece.parts]
        chunks = payload.reader.read_many(keys, self._physical(wanted, payload.filling))
        frames = [
            self._piece_frame(chunks, piece, wanted, payload.filling) for piece in payload.pieces
        ]
        if len(frames) == 1:
            return frames[0]
        if not frames:
            return self._empty(wanted)
        return pd.concat(frames).astype({c.name: self._dtype(c) for c in wanted})

    def _dtype(self, column: TableColumn) -> str:
        return self.options.time_dtype if column.dtype == TIME else column.dtype

    def _empty(self, wanted: Sequence[TableColumn]) -> pd.DataFrame:
        frame = empty_frame(wanted, {})
        return frame.astype({c.name: self._dtype(c) for c in wanted})

    def _physical(self, wanted: Sequence[TableColumn], filling: Filling | None) -> list[str]:
        """Names of the chunks' columns to read."""
        physical = ["seq_num", *(c.physical for c in wanted if c.physical)]
        if filling is not None and any(column.external for column in wanted):
            physical.append("filled")
        return list(dict.fromkeys(physical))

    def _piece_frame(
        self,
        coming: Iterator[pa.Table],
        piece: Piece,
        wanted: Sequence[TableColumn],
        filling: Filling | None,
    ) -> pd.DataFrame:
        chunks = list(islice(coming, len(piece.parts)))
        rows = self._rows(piece, [chunk.column("seq_num").to_numpy() for chunk in chunks])
        frames = [
            _Chunk(self, filling, part, piece.near, chunk, some).frame(wanted)
            for part, chunk, some in zip(piece.parts, chunks, rows, strict=True)
        ]
        if len(frames) == 1 and piece.simple:
            return frames[0]
        frame = pd.concat(frames) if len(frames) > 1 else frames[0]
        return frame.iloc[np.argsort(frame.index.to_numpy(), kind="stable")]

    def _rows(self, piece: Piece, seq_nums: Sequence[np.ndarray]) -> list[slice | np.ndarray]:
        """Which rows of each chunk are shown."""
        if piece.simple:
            if piece.within is None:
                return [slice(None)]
            first, last = piece.within
            (seq,) = seq_nums
            begin, end = np.searchsorted(seq, first), np.searchsorted(seq, last, side="right")
            return [slice(int(begin), int(end))]
        together = np.concatenate(seq_nums)
        shown = np.zeros(len(together), bool)
        shown[keep(together, self.options.duplicates)] = True
        if piece.within is not None:
            shown &= (together >= piece.within[0]) & (together <= piece.within[1])
        ends = np.cumsum([len(seq) for seq in seq_nums])
        return [np.flatnonzero(part) for part in np.split(shown, ends[:-1])]

    @cached_property
    def constant_names(self) -> list[str]:
        """Columns that no chunk holds, as :attr:`Part.constants` has them."""
        return [name for name, column in self.columns.items() if not column.physical]

    @cached_property
    def external_names(self) -> list[str]:
        """External columns, as :attr:`Part.targets` has them."""
        return [name for name, column in self.columns.items() if column.external]


class _Chunk(NamedTuple):
    """A chunk in hand, of which some rows become part of a table."""

    reader: TableReader
    filling: Filling | None
    part: Part
    near: float
    table: pa.Table
    rows: slice | np.ndarray

    def frame(self, wanted: Sequence[TableColumn]) -> pd.DataFrame:
        index = pd.Index(self.table.column("seq_num").to_numpy()[self.rows], name="seq_num")
        data = {column.name: self._array(column, len(index)) for column in wanted}
        for column in wanted:
            if column.dtype == "object":  # pandas takes objects that are all text for type str
                data[column.name] = pd.Series(data[column.name], index=index, dtype=object)
        return pd.DataFrame(data, index=index, columns=[c.name for c in wanted], copy=False)

    def _array(self, column: TableColumn, count: int) -> Any:
        if not column.physical:
            constants = dict(zip(self.reader.constant_names, self.part.constants, strict=True))
            return constant(constants[column.name], count, column.dtype)
        if column.dtype == TIME:
            stamps = posix_to_datetime(self.table.column("time").to_numpy()[self.rows])
            zone = self.reader.options.timezone
            return stamps if zone == "UTC" else stamps.tz_convert(zone)
        if column.external and self.filling is not None:
            place = self.reader.external_names.index(column.name)
            target = self.part.targets[place]
            held = Held.of_table(self.table, target.key, self.rows, external=target.external)
            return self.filling.cells(target, held, self.near)
        return to_pandas(self.table, column.physical, column.dtype)[self.rows]
