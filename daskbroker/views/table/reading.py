"""Read one partition of a stream's table, wherever its task runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from ...assets.filling.contents import CellContents
from ...assets.filling.filling import Filling
from ...assets.filling.target import Target
from ...core.bad_runs import BadRun, warn_of_bad
from ...core.chunks import ChunkReader, damage_of, damaged
from ...core.errors import StoreDamaged
from ...core.schema import (
    NULLS,
    TIME_DTYPE,
    TableColumn,
    column_cells,
    empty_frame,
    joined_arrays,
    of_values,
    posix_to_datetime,
    to_pandas,
)
from ..row_order import Duplicates, in_order, keep, later_counts
from .partitions import RowChoice

Numbers = range | np.ndarray
"""``seq_num`` of the rows of a chunk; a range if known without reading."""


@dataclass(frozen=True)
class TableOptions:
    """Options of a table that its reader needs.

    Attributes
    ----------
    stream
        Name of the stream, for messages and attrs.
    duplicates
        Which rows are shown if a ``seq_num`` occurs more than once.
    target
        Target size of a partition in bytes.
    skip_damaged
        Whether rows of damaged chunks are left out, with a warning.
    """

    stream: str
    duplicates: Duplicates
    target: int
    skip_damaged: bool = False


class PartitionChunk(NamedTuple):
    """One chunk of a partition.

    Attributes
    ----------
    key
        Key of the chunk.
    constants
        Values of the columns that are the same in all rows of the chunk.
    targets
        Target to fill for each external column.
    """

    key: Any
    constants: tuple[Any, ...]
    targets: tuple[Target, ...]


class ChunkGroup(NamedTuple):
    """Chunks that are read together.

    Attributes
    ----------
    simple
        Whether this is one chunk whose rows are all in order, with none to drop.
    parts
        The chunks.
    within
        First and last ``seq_num`` wanted; None for all.
    run_fraction
        Relative position in the run, from 0 to 1.
    run
        Uid of the run.
    numbers
        ``seq_num`` of all rows of a simple piece, if known; then the column need not be read.
    """

    simple: bool
    parts: tuple[PartitionChunk, ...]
    within: tuple[int, int] | None
    run_fraction: float
    run: str
    numbers: range | None = None


@dataclass(frozen=True)
class Payload:
    """Chunks that a task reads. Pickling replaces their keys by portable ones."""

    reader: ChunkReader
    pieces: tuple[ChunkGroup, ...]
    filling: Filling | None
    chosen: tuple[RowChoice, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        keys = [part.key for piece in self.pieces for part in piece.parts]
        portable = iter(self.reader.portable_keys(keys))
        pieces = tuple(
            piece._replace(parts=tuple(part._replace(key=next(portable)) for part in piece.parts))
            for piece in self.pieces
        )
        return (Payload, (self.reader, pieces, self.filling, self.chosen))


@dataclass(frozen=True)
class TableReader:
    """Reads one partition, given a :class:`Payload` and the names of the wanted columns."""

    columns: Mapping[str, TableColumn]
    options: TableOptions

    def __call__(self, payload: Payload, names: Sequence[str]) -> pd.DataFrame:
        """Return the partition with exactly these columns, in this order.

        Raises
        ------
        StoreDamaged
            If a chunk is damaged, unless damaged ones are skipped.
        """
        wanted = [self.columns[name] for name in names]
        try:
            pieces = self._pieces(payload, payload.pieces, wanted)
            return self._frame(_with_chosen_rows(pieces, payload.chosen), wanted)
        except StoreDamaged:
            # Without errors="skip", the first damaged chunk ends it.
            if not self.options.skip_damaged:
                raise
        # Reading piece by piece is slower, so it is done only after reading all together failed.
        pieces = list(self._sound_pieces(payload, wanted))
        return self._frame(_with_chosen_rows(pieces, payload.chosen), wanted)

    def _pieces(
        self, payload: Payload, some: Sequence[ChunkGroup], wanted: Sequence[TableColumn]
    ) -> list[_GroupRows]:
        """Read some pieces of the partition together."""
        keys = [part.key for piece in some for part in piece.parts]
        known = all(piece.numbers is not None for piece in some)
        labels = [self._label(piece) for piece in some for _ in piece.parts]
        physical = self._physical(wanted, payload.filling, numbered=known)
        if not all(piece.simple for piece in some):
            physical = list(dict.fromkeys([*physical, "time"]))  # orders rows of one seq_num
        tables = payload.reader.read_labelled(keys, labels, physical)
        return [self._read(tables, piece, payload) for piece in some]

    def _sound_pieces(
        self, payload: Payload, wanted: Sequence[TableColumn]
    ) -> Iterator[_GroupRows]:
        """Yield the pieces that can be read, one by one, and warn of the others."""
        for piece in payload.pieces:
            try:
                read = self._pieces(payload, [piece], wanted)
                self._frame(read, wanted)  # what else may be damaged, such as references
            except StoreDamaged as error:
                warn_of_bad(BadRun(piece.run, str(error)))
            else:
                yield from read

    def _label(self, piece: ChunkGroup) -> str:
        """Return run and stream of a piece, for messages."""
        return f"run {piece.run!r}, stream {self.options.stream!r}"

    def _frame(self, pieces: Sequence[_GroupRows], wanted: Sequence[TableColumn]) -> pd.DataFrame:
        """Join the pieces to one frame.

        They are joined column by column, as making a frame for each of many small pieces would
        take most of the time.
        """
        chunks = [chunk for piece in pieces for chunk in piece.chunks]
        # Nothing to join, and no chunk whose dtypes could tell the columns.
        if not any(len(chunk.seq_num) for chunk in chunks):
            return empty_frame(wanted, {})
        order = _order(pieces)
        index = _index([chunk.seq_num for chunk in chunks], order)
        together = _as_one_table(chunks)
        data: dict[str, Any] = {}
        for column in wanted:
            joined = self._column(column, chunks, together)
            array = joined if order is None else joined.take(order)
            # Without an explicit dtype, pandas converts objects that are all text to dtype str.
            whole = column.dtype == "object"
            data[column.name] = pd.Series(array, index=index, dtype=object) if whole else array
        columns = None if data else pd.Index([], dtype="str")
        return pd.DataFrame(data, index=index, columns=columns, copy=False)

    def _column(
        self, column: TableColumn, chunks: Sequence[_Chunk], together: pa.Table | None
    ) -> Any:
        """Return the cells of a column in all chunks, in their order; see `_as_one_table`."""
        # A constant of the descriptor, which no chunk holds.
        if not column.physical:
            position = self.constant_names.index(column.name)
            values = of_values([chunk.part.constants[position] for chunk in chunks], column.dtype)
            return values.take(np.repeat(np.arange(len(chunks)), [len(c.seq_num) for c in chunks]))
        if together is not None and column.dtype in (*NULLS, TIME_DTYPE):
            return _joined([to_pandas(together, column.physical, column.dtype)])
        if column.dtype == TIME_DTYPE:
            return posix_to_datetime(np.concatenate([chunk.times for chunk in chunks]))
        return _joined([chunk.array(column) for chunk in chunks])

    def _physical(
        self, wanted: Sequence[TableColumn], filling: Filling | None, *, numbered: bool
    ) -> list[str]:
        """Return the names of the stored columns to read.

        ``seq_num`` is among them only if it is not known, or is needed for filling.
        """
        physical = [c.physical for c in wanted if c.physical]
        dropping = self._dropping(filling)
        # References are resolved by their events, so seq_num and the notes of filled keys are
        # read.
        if dropping or (filling is not None and any(column.external for column in wanted)):
            keys = [self.columns[name].physical for name in dropping]
            physical = ["seq_num", *physical, *keys, "filled"]
        # Not known from the plan: rewound events, or a journal.
        elif not numbered:
            physical = ["seq_num", *physical]
        return list(dict.fromkeys(physical))

    def _read(self, coming: Iterator[pa.Table], piece: ChunkGroup, payload: Payload) -> _GroupRows:
        tables = list(islice(coming, len(piece.parts)))
        with damage_of(self._label(piece)):
            seq_nums = [
                _seq_num(table, part.key, piece, payload.reader)
                for part, table in zip(piece.parts, tables, strict=True)
            ]
        chunks = [
            _Chunk(self, payload.filling, part, piece, table, _chosen(seq_num, some), some, later)
            for part, table, seq_num, some, later in zip(
                piece.parts,
                tables,
                seq_nums,
                self._rows(piece, tables, seq_nums),
                self._later(piece, tables, seq_nums),
                strict=True,
            )
        ]
        dropping = self._dropping(payload.filling)
        # Before the cells are read: rows that go need not be filled.
        if dropping:
            chunks = [chunk.only(chunk.having(dropping)) for chunk in chunks]
        return _GroupRows(chunks, piece.simple)

    def _dropping(self, filling: Filling | None) -> list[str]:
        """Return the external columns, shown or not, whose missing cells drop rows."""
        # Without rules, no missing frame takes its row away.
        if filling is None or not filling.rules:
            return []
        rules = {key: rule for (stream, key), rule in filling.rules.items()}
        keys = {name: self.columns[name].field.key for name in self.external_names}
        return [name for name, key in keys.items() if key in rules and rules[key].drops]

    def _rows(
        self, piece: ChunkGroup, tables: Sequence[pa.Table], seq_nums: Sequence[Numbers]
    ) -> list[slice | np.ndarray]:
        """Return the rows of each chunk that are shown."""
        if piece.simple:
            # One chunk, all of it: nothing is copied.
            if piece.within is None:
                return [slice(None)]
            first, last = piece.within
            (seq,) = map(_array, seq_nums)
            begin, end = np.searchsorted(seq, first), np.searchsorted(seq, last, side="right")
            return [slice(int(begin), int(end))]
        together = np.concatenate([_array(seq) for seq in seq_nums])
        shown = np.zeros(len(together), bool)
        shown[keep(together, _times(tables), self.options.duplicates)] = True
        if piece.within is not None:
            shown &= (together >= piece.within[0]) & (together <= piece.within[1])
        ends = np.cumsum([len(seq) for seq in seq_nums])
        return [np.flatnonzero(part) for part in np.split(shown, ends[:-1])]

    def _later(
        self, piece: ChunkGroup, tables: Sequence[pa.Table], seq_nums: Sequence[Numbers]
    ) -> list[np.ndarray | None]:
        """Return :attr:`CellContents.later` of each chunk's rows; None if it has none."""
        # Only where repeated events are all shown, a later event may have the frame of an earlier
        # one.
        if piece.simple or self.options.duplicates != "all" or not self.external_names:
            return [None] * len(seq_nums)
        number_of: dict[str, int] = {}
        descriptors = [part.targets[0].descriptor if part.targets else "" for part in piece.parts]
        owners = [number_of.setdefault(uid, len(number_of)) for uid in descriptors]
        lengths = [len(seq) for seq in seq_nums]
        together = np.concatenate([_array(seq) for seq in seq_nums])
        later = later_counts(np.repeat(owners, lengths), together, _times(tables))
        if later is None:
            # No seq_num comes twice.
            return [None] * len(seq_nums)
        return list(np.split(later, np.cumsum(lengths)[:-1]))

    @cached_property
    def constant_names(self) -> list[str]:
        """Names of the columns that no chunk holds, as in :attr:`PartitionChunk.constants`."""
        return [name for name, column in self.columns.items() if not column.physical]

    @cached_property
    def external_names(self) -> list[str]:
        """Names of the external columns, in the order of :attr:`PartitionChunk.targets`."""
        return [name for name, column in self.columns.items() if column.external]


@dataclass(frozen=True)
class _Chunk:
    """A chunk that has been read, and the rows of it that become part of a table.

    Attributes
    ----------
    table
        Columns of all rows of the chunk.
    seq_num
        Numbers of the chosen rows.
    rows
        Which rows of `table` are chosen.
    later
        :attr:`CellContents.later` of all rows, or None.
    """

    reader: TableReader
    filling: Filling | None
    part: PartitionChunk
    piece: ChunkGroup
    table: pa.Table
    seq_num: Numbers
    rows: slice | np.ndarray
    later: np.ndarray | None

    @property
    def is_whole(self) -> bool:
        """Whether all rows of the chunk were chosen."""
        return isinstance(self.rows, slice) and self.rows == slice(None)

    @property
    def times(self) -> np.ndarray:
        """Times of the chosen rows in POSIX seconds."""
        return self.table.column("time").to_numpy()[self.rows]

    def array(self, column: TableColumn) -> Any:
        """Return the cells of a stored column other than ``time``, filled if it is external."""
        if column.external and self.filling is not None:
            return self.filling.cells(*self._contents(column.name), self.piece.run_fraction)
        try:
            return column_cells(self.table, column, self.rows)
        except StoreDamaged as error:
            raise damaged(self.reader._label(self.piece), error) from error

    def _contents(self, name: str) -> tuple[Target, CellContents]:
        """Return what fills an external column: its target, and what the chunk holds for it."""
        target = self.part.targets[self.reader.external_names.index(name)]
        contents = CellContents.of_table(
            self.table, target.key, self.rows, external=target.external
        )
        return target, replace(
            contents, later=None if self.later is None else self.later[self.rows]
        )

    def having(self, names: Sequence[str]) -> np.ndarray:
        """Return a mask of the chosen rows that have a cell in each of these external columns."""
        assert self.filling is not None
        there = [
            self.filling.present(*self._contents(name), self.piece.run_fraction) for name in names
        ]
        return np.logical_and.reduce(there)

    def only(self, mask: np.ndarray) -> _Chunk:
        """Return the chunk with only those of its chosen rows that the mask marks."""
        # Usually no row goes.
        if mask.all():
            return self
        rows = np.arange(self.table.num_rows)[self.rows][mask]
        return replace(self, rows=rows, seq_num=_array(self.seq_num)[mask])


class _GroupRows(NamedTuple):
    chunks: list[_Chunk]
    simple: bool


def _with_chosen_rows(pieces: list[_GroupRows], chosen: Sequence[RowChoice]) -> list[_GroupRows]:
    """Return the pieces with only the chosen rows of the partition, before any cell is filled."""
    chunks = [chunk for piece in pieces for chunk in piece.chunks]
    # Without a selection that was pushed down to the table, all rows are read.
    if not chosen or not chunks:
        return pieces
    seq_num = np.concatenate([_array(chunk.seq_num) for chunk in chunks])
    order = _order(pieces)
    positions = np.arange(len(seq_num)) if order is None else order
    for choice in chosen:
        positions = positions[choice.mask(seq_num[positions])]
    mask = np.zeros(len(seq_num), bool)
    mask[positions] = True
    ends = np.cumsum([len(chunk.seq_num) for chunk in chunks])
    parts = iter(np.split(mask, ends[:-1]))
    return [
        piece._replace(chunks=[chunk.only(next(parts)) for chunk in piece.chunks])
        for piece in pieces
    ]


def _seq_num(table: pa.Table, key: Any, piece: ChunkGroup, reader: ChunkReader) -> Numbers:
    """Return ``seq_num`` of all rows of a chunk.

    The column is read if the numbers are not known, or do not fit the chunk's number of rows.
    """
    # It was not asked for, as the plan knows the numbers.
    if table.schema.get_field_index("seq_num") < 0:
        # A chunk of another size than planned is read, which names the damage.
        if piece.numbers is not None and len(piece.numbers) == table.num_rows:
            return piece.numbers
        table = reader.read(key, ["seq_num"])
    return table.column("seq_num").to_numpy()


def _array(numbers: Numbers) -> np.ndarray:
    return np.arange(numbers.start, numbers.stop) if isinstance(numbers, range) else numbers


def _chosen(numbers: Numbers, rows: slice | np.ndarray) -> Numbers:
    return numbers[rows] if isinstance(rows, slice) else _array(numbers)[rows]


def _index(numbers: Sequence[Numbers], order: np.ndarray | None) -> pd.Index:
    """Return the index of all rows in the given order; a RangeIndex if they are consecutive."""
    ranges = [some for some in numbers if isinstance(some, range) and len(some)]
    follow = all(one.stop == two.start for one, two in pairwise(ranges))
    # Consecutive numbers need no memory as an index.
    if order is None and follow and sum(map(len, ranges)) == sum(map(len, numbers)):
        return pd.RangeIndex(ranges[0].start, ranges[-1].stop, name="seq_num")
    seq_num = np.concatenate([_array(some) for some in numbers])
    return pd.Index(seq_num if order is None else seq_num[order], name="seq_num", copy=False)


def _times(tables: Sequence[pa.Table]) -> np.ndarray:
    return np.concatenate([table.column("time").to_numpy() for table in tables])


def _order(pieces: Sequence[_GroupRows]) -> np.ndarray | None:
    """Return the order that sorts the rows of each piece; None if they are sorted."""
    # Chunks without rewound events are in order already.
    if all(piece.simple for piece in pieces):
        return None
    orders: list[np.ndarray] = []
    begin = 0
    for piece in pieces:
        seq_num = np.concatenate([_array(chunk.seq_num) for chunk in piece.chunks])
        if piece.simple:
            order = np.arange(len(seq_num))
        else:
            order = in_order(seq_num, np.concatenate([chunk.times for chunk in piece.chunks]))
        orders.append(begin + order)
        begin += len(seq_num)
    return np.concatenate(orders)


def _as_one_table(chunks: Sequence[_Chunk]) -> pa.Table | None:
    """Return many chunks as one table; None if they have other columns or notes, or rows that go.

    Converting the numbers of each small chunk would take most of the time. What else Arrow's types
    do not tell of cells is in the metadata of each chunk's columns, so only numbers may be read of
    this table.
    """
    if len(chunks) == 1 or not all(chunk.is_whole for chunk in chunks):
        return None
    # Damaged notes of a run's column must be told as its own. The notes of the table name the run.
    first, *rest = (chunk.table.replace_schema_metadata() for chunk in chunks)
    if not all(table.schema.equals(first.schema, check_metadata=True) for table in rest):
        return None
    return pa.concat_tables([first, *rest])


def _joined(arrays: Sequence[Any]) -> Any:
    """Concatenate arrays of one dtype, of NumPy or of pandas."""
    first = arrays[0]
    if isinstance(first, np.ndarray):
        return joined_arrays(arrays)
    if len(arrays) == 1:
        return first
    if isinstance(first, pd.Index):
        return first.append(list(arrays[1:]))
    return type(first)._concat_same_type(arrays)
