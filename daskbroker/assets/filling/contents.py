"""What events hold of an external key: references, values, or nothing.

The event's ``filled`` tells which: True, or the foreign key that was replaced, for a value; absent
or False for a reference. Data that is not text cannot be a reference, so it is taken as a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...core.chunks import ChunkReader
from ...core.codec import block
from ...core.column_kinds import MISSING, field_kind
from ...core.documents import from_json
from ...core.layouts import as_one_chunk, cells

FilledBlock = tuple[np.ndarray, Any]
"""Places of events, and their cells: an array, or a list if the cells have no common shape."""

CELL_COLUMNS = ("seq_num", "filled")
"""Physical columns that are read besides ``data:<key>``."""


MAX_CACHED = 4
"""Maximum number of chunks whose references stay in memory: blocks of one chunk are often read in
turn."""


@lru_cache(MAX_CACHED)
def contents_table(store: str, reader: ChunkReader, chunk: Any, key: str) -> pa.Table:
    """Read the columns of a chunk that :meth:`CellContents.of_table` needs for a data key."""
    return reader.read(chunk, [f"data:{key}", *CELL_COLUMNS])


@dataclass(frozen=True, eq=False)
class CellContents:
    """Content of one external key in some events of one descriptor.

    Attributes
    ----------
    seq_nums
        Numbers of the events.
    references, referring
        References as text, and the positions of the events that have them.
    values, valued
        Values, an array or a list, and the positions of the events that have them.
    bare
        Places of events that have neither.
    later
        For each event, the number of events with the same ``seq_num`` that came after it, if each
        has a frame of its own. If None, each event has the latest frame.
    """

    seq_nums: np.ndarray
    references: pa.Array
    referring: np.ndarray
    values: np.ndarray | list[Any]
    valued: np.ndarray
    bare: np.ndarray
    later: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.seq_nums)

    @classmethod
    def of_table(
        cls,
        table: pa.Table,
        key: str,
        rows: np.ndarray | slice = slice(None),
        *,
        external: bool = True,
    ) -> CellContents:
        """Build from rows of a chunk that was read with ``data:<key>`` and :data:`CELL_COLUMNS`.

        ``external`` is whether the descriptor declares the key as external; if False, even text is
        a value.
        """
        seq_nums = table.column("seq_num").to_numpy()[rows]
        position = table.schema.get_field_index(f"data:{key}")
        none, every = np.zeros(0, np.int64), np.arange(len(seq_nums))
        if position < 0:
            return cls(seq_nums, _text([]), none, [], none, every)
        kind, _ = field_kind(table.schema.field(position))
        column = as_one_chunk(table.column(position))
        # An array cannot be a reference, whatever ``filled`` says.
        if kind.name == "array" and kind.dtype != "<U" and not kind.nulls:
            return cls(seq_nums, _text([]), none, block(column, kind)[rows], every, none)
        chosen = np.arange(table.num_rows)[rows]
        states = _states(table, key)
        plain = kind.name == "str" and not column.null_count and external
        # The common case: only references, none of them filled. The column is used as it is.
        if plain and not any(states.values()):
            return cls(seq_nums, column.take(pa.array(chosen)), every, [], none, none)
        values = cells(table, f"data:{key}")
        codes = _state_codes(table)
        return cls._of_cells(
            seq_nums,
            [values[row] for row in chosen.tolist()],
            [states.get(codes[row]) if external else True for row in chosen.tolist()],
        )

    @classmethod
    def of_events(cls, events: Sequence[Mapping[str, Any]], key: str) -> CellContents:
        """Build from event documents of one descriptor."""
        seq_nums = np.array([event["seq_num"] for event in events], np.int64)
        values = [event["data"].get(key, MISSING) for event in events]
        return cls._of_cells(
            seq_nums, values, [_state(event.get("filled"), key) for event in events]
        )

    @classmethod
    def of_column(cls, seq_nums: np.ndarray, values: Sequence[Any]) -> CellContents:
        """Build from a column of a table, in which text is a reference and NaN is nothing."""
        without_nan = [None if isinstance(v, float) and v != v else v for v in values]
        return cls._of_cells(seq_nums, without_nan, [None] * len(values))

    @classmethod
    def joined(cls, parts: Sequence[CellContents]) -> CellContents:
        """Join several to what all their events hold, in their order."""
        if len(parts) == 1:
            return parts[0]
        begins = np.cumsum([0, *map(len, parts[:-1])])
        values = [part.values for part in parts if len(part.valued)]
        arrays = [block for block in values if isinstance(block, np.ndarray)]
        alike = len({(block.dtype, block.shape[1:]) for block in arrays}) == 1
        together: np.ndarray | list[Any]
        if len(arrays) == len(values) and alike:
            together = np.concatenate(arrays)
        else:
            together = [value for block in values for value in block]

        def shifted(name: str) -> np.ndarray:
            return np.concatenate([getattr(p, name) + n for p, n in zip(parts, begins.tolist())])

        return cls(
            np.concatenate([part.seq_nums for part in parts]),
            pa.concat_arrays([part.references.cast(pa.string()) for part in parts]),
            shifted("referring"),
            together,
            shifted("valued"),
            shifted("bare"),
            None if all(part.later is None for part in parts) else _joined_later(parts),
        )

    def part(self, begin: int, end: int) -> CellContents:
        """Return the part of the events ``begin`` to ``end - 1``."""
        spans = {
            name: slice(*np.searchsorted(getattr(self, name), (begin, end)))
            for name in ("referring", "valued", "bare")
        }
        chosen = np.arange(len(self.referring))[spans["referring"]]
        return CellContents(
            self.seq_nums[begin:end],
            self.references.take(pa.array(chosen)),  # a slice would be pickled whole
            self.referring[spans["referring"]] - begin,
            self.values[spans["valued"]],
            self.valued[spans["valued"]] - begin,
            self.bare[spans["bare"]] - begin,
            None if self.later is None else self.later[begin:end],
        )

    def without_values(self) -> CellContents:
        """Return the same without values, so with only what must be read."""
        return replace(self, values=[], valued=np.zeros(0, np.int64))

    @classmethod
    def _of_cells(cls, seq_nums: np.ndarray, values: list[Any], states: list[Any]) -> CellContents:
        kinds = np.fromiter(map(_content_of, values, states), np.int64, len(values))
        referring, valued, bare = (np.flatnonzero(kinds == kind) for kind in range(3))
        references = _text([values[row] for row in referring.tolist()])
        there = [values[row] for row in valued.tolist()]
        return cls(seq_nums, references, referring, there, valued, bare)


def _content_of(value: object, state: object) -> int:
    """Return 0 for a reference, 1 for a value, 2 for nothing."""
    if value is None or value is MISSING:
        return 2
    if not isinstance(value, str) or state is True:
        return 1
    return 1 if isinstance(state, str) and state != value else 0


def _joined_later(parts: Sequence[CellContents]) -> np.ndarray:
    return np.concatenate(
        [np.zeros(len(part), np.int64) if part.later is None else part.later for part in parts]
    )


def _text(values: Sequence[str]) -> pa.Array:
    return pa.array(values, pa.string())


def _state(filled: object, key: str) -> Any:
    return filled.get(key) if isinstance(filled, Mapping) else None


def _states(table: pa.Table, key: str) -> dict[str | None, Any]:
    """Return what each distinct text of the column ``filled`` says about the key."""
    if "filled" not in table.column_names:
        return {}
    texts = pc.unique(table.column("filled")).to_pylist()
    return {text: _state(from_json(text), key) for text in texts if text is not None}


def _state_codes(table: pa.Table) -> list[str | None]:
    if "filled" not in table.column_names:
        return [None] * table.num_rows
    return table.column("filled").to_pylist()
