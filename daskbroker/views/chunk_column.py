"""One column of a stream as an array that reads what is indexed, and what it is read from.

xarray holds a :class:`ChunkColumn` lazily, with dask and without: indexing reads only the chunks,
the columns, the rows and, of external cells, the regions that are asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from ..assets.filling import Filling, Target
from ..assets.held import Held, held_table
from ..assets.shapes import Declared, outer_index
from ..core.chunks import ChunkPlan, damage_of
from ..core.codec import block, field_kind
from ..core.layouts import whole
from ..core.schema import TIME, posix_to_datetime, to_pandas
from .dataset_rows import DatasetRows

__all__ = ["ChunkColumn", "ColumnSource", "Constants", "ExternalColumn", "StoredColumn"]

Rows = slice | np.ndarray


class ColumnSource(ABC):
    """What a variable is read from.

    Attributes
    ----------
    cell_shape, dtype
        Of the variable's cells.
    """

    cell_shape: tuple[int, ...]
    dtype: np.dtype

    @abstractmethod
    def read(self, plan: ChunkPlan, place: int, rows: Rows, inner: tuple[Any, ...]) -> np.ndarray:
        """Some rows of a chunk, of each cell one region: ``(rows, *cell[inner])``."""


@dataclass(frozen=True)
class Constants(ColumnSource):
    """One value per descriptor, which no chunk holds."""

    values: tuple[Any, ...]
    dtype: np.dtype
    cell_shape: tuple[int, ...] = ()

    def read(self, plan: ChunkPlan, place: int, rows: Rows, inner: tuple[Any, ...]) -> np.ndarray:
        """See :meth:`ColumnSource.read`."""
        record = plan.records[place]
        value = self.values[int(record["descriptor"])]
        out = np.empty(len(np.arange(int(record["rows"]))[rows]), dtype=self.dtype)
        if self.dtype.kind == "O":
            for row in range(len(out)):
                out[row] = value
        else:
            out[:] = np.nan if value is None else value
        return out


@dataclass(frozen=True)
class StoredColumn(ColumnSource):
    """A physical column.

    Attributes
    ----------
    physical
        Its name.
    kind
        A table's dtype by name, or ``"array"`` where all cells are arrays of one shape.
    """

    physical: str
    kind: str
    dtype: np.dtype
    cell_shape: tuple[int, ...] = ()

    def read(self, plan: ChunkPlan, place: int, rows: Rows, inner: tuple[Any, ...]) -> np.ndarray:
        """See :meth:`ColumnSource.read`."""
        table = plan.read(place, [self.physical])
        if self.kind == TIME:
            stamps = posix_to_datetime(table.column("time").to_numpy()[rows])
            return stamps.tz_localize(None).to_numpy()
        if self.kind == "array":
            kind = field_kind(table.schema.field(self.physical))[0]
            return outer_index(block(whole(table.column(self.physical)), kind)[rows], inner)
        if table.num_columns == 0:
            table = plan.read(place, ["seq_num"])
        values = to_pandas(table, self.physical, self.kind)[rows]
        if self.kind == "Int64":
            return values.to_numpy(dtype=np.float64, na_value=np.nan)  # type: ignore[no-any-return]
        if isinstance(values, np.ndarray):
            return values
        out = np.array(values, dtype=object)
        out[np.asarray(values.isna())] = None
        return out


@dataclass(frozen=True, eq=False)
class ExternalColumn(ColumnSource):
    """References, filled as they are read.

    Attributes
    ----------
    key
        Data key.
    declared
        Shape and dtype of a cell; without a shape, cells are objects.
    filling
        How.
    """

    key: str
    declared: Declared
    filling: Filling

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        """Of the cells' elements."""
        return self.declared.dtype

    @property
    def cell_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Of a cell; () where cells are objects."""
        return self.declared.shape or ()

    def read(self, plan: ChunkPlan, place: int, rows: Rows, inner: tuple[Any, ...]) -> np.ndarray:
        """See :meth:`ColumnSource.read`."""
        target = Target.of(plan.descriptors[int(plan.records[place]["descriptor"])], self.key)
        with damage_of(plan.label(place)):
            table = held_table(plan.store, plan.reader, plan.keys[place], self.key)
        held = Held.of_table(table, self.key, rows, external=target.external)
        near = (place + 0.5) / len(plan)
        if self.declared.shape is None:
            return self.filling.cells(target, held, near)
        return self.filling.array(target, held, self.declared, inner, near)


class ChunkColumn(BackendArray):
    """One column of a stream, as xarray's backends are.

    Parameters
    ----------
    plan, rows, source
        Where the chunks are, which rows are shown, what is read.
    """

    def __init__(self, plan: ChunkPlan, rows: DatasetRows, source: ColumnSource) -> None:
        self._plan = plan
        self._rows = rows
        self._source = source
        self.shape = (len(rows), *source.cell_shape)
        self.dtype = source.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        places = _places(key[0], len(self._rows))
        values = self._gather(np.atleast_1d(places), key[1:])
        return values[0] if np.ndim(places) == 0 else values  # type: ignore[no-any-return]

    def _gather(self, places: np.ndarray, inner: tuple[Any, ...]) -> np.ndarray:
        """Cells of some rows, chunk by chunk, in the asked order."""
        if not len(places):
            return outer_index(np.empty((0, *self._source.cell_shape), self.dtype), inner)
        chunks, rows = self._rows.locate(places)
        order = np.argsort(chunks, kind="stable")
        pieces = np.split(order, np.flatnonzero(np.diff(chunks[order])) + 1)
        if len(pieces) == 1:
            return self._piece(chunks, rows, order, inner)
        out: np.ndarray | None = None
        for piece in pieces:
            part = self._piece(chunks, rows, piece, inner)
            if out is None:
                out = np.empty((len(places), *part.shape[1:]), self.dtype)
            out[_as_slice(piece)] = part
        assert out is not None
        return out

    def _piece(
        self, chunks: np.ndarray, rows: np.ndarray, piece: np.ndarray, inner: Sequence[Any]
    ) -> np.ndarray:
        place = int(chunks[piece[0]])
        return self._source.read(self._plan, place, _as_slice(rows[piece]), tuple(inner))


def _places(item: Any, count: int) -> np.ndarray:
    """Which rows are meant, of ``count``; a stream may claim more than fit into memory."""
    if isinstance(item, slice):
        return np.arange(*item.indices(count))
    places = np.asarray(item)
    if places.dtype == bool:
        return np.flatnonzero(places)
    if ((places < -count) | (places >= count)).any():
        raise IndexError(f"row {places!r} is outside {count} rows")
    return np.where(places < 0, places + count, places)


def _as_slice(places: np.ndarray) -> Rows:
    """A slice where the rows are consecutive, so that no copy is made."""
    if places[-1] - places[0] == len(places) - 1 and (np.diff(places) == 1).all():
        return slice(int(places[0]), int(places[-1]) + 1)
    return places
