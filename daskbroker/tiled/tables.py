"""The table of a stream as a node of Tiled's tree, in the partitions of the lazy table."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
from anyio.to_thread import run_sync
from tiled.adapters.array import ArrayAdapter
from tiled.adapters.core import Adapter
from tiled.server.core import NoEntry
from tiled.structures.core import Spec, StructureFamily
from tiled.structures.table import TableStructure
from tiled.utils import safe_json_dump

from ..core.clock import is_zoned
from ..core.errors import DaskbrokerError
from ..core.json_text import to_json
from .folders import refuse

TABLE_SPEC = "DaskbrokerTable"

RESERVED = "_"
"""First character of the names of columns that are reserved for Tiled."""
STAND_IN = "key"
"""Prefix of a reserved name when it is served."""
MICROSECONDS = 1_000_000


class StreamTable(Adapter[TableStructure]):
    """The scalars and timestamps of a stream.

    Parameters
    ----------
    table
        Lazy table with the columns ``ts_<key>``.
    leave_out
        Names of columns that are served as arrays.
    """

    structure_family = StructureFamily.table

    def __init__(self, table: dd.DataFrame, leave_out: Container[str]) -> None:
        self._table = table
        own = [name for name in table.columns if name not in leave_out]
        self._names = {served_name(str(name)): name for name in own}
        meta = self._served(table._meta[own], ["seq_num", *self._names])
        schema = pa.Schema.from_pandas(meta, preserve_index=False)
        structure = TableStructure.from_schema(schema, table.npartitions)
        super().__init__(structure, specs=[Spec(TABLE_SPEC)])

    def __repr__(self) -> str:
        return f"<StreamTable of {self._structure.columns}>"

    def read_partition(self, partition: int, fields: list[str] | None = None) -> pd.DataFrame:
        """Read the rows of one partition; only the columns ``fields`` are read if given."""
        return self._computed(self._table.partitions[partition], fields)

    def read(self, fields: list[str] | None = None) -> pd.DataFrame:
        """Read all rows; only the columns ``fields`` are read if given."""
        return self._computed(self._table, fields)

    def _computed(self, table: dd.DataFrame, fields: list[str] | None) -> pd.DataFrame:
        wanted = self._structure.columns if fields is None else list(fields)
        own = [self._names[name] for name in wanted if name != "seq_num"]
        try:
            return self._served(table[own].compute(), wanted)
        except DaskbrokerError as error:
            refuse(error)

    def _served(self, frame: pd.DataFrame, wanted: list[str]) -> pd.DataFrame:
        """Return a computed table with the served names, and with cells that Arrow can hold."""
        columns = {}
        for name in wanted:
            if name == "seq_num":
                columns[name] = frame.index.to_series().reset_index(drop=True)
            else:
                columns[name] = _cells(frame[self._names[name]].reset_index(drop=True))
        return pd.DataFrame(columns)

    # -- columns -----------------------------------------------------------------------------

    def __getitem__(self, name: str) -> ArrayAdapter:
        if name not in self._structure.columns:
            raise KeyError(name)
        return ArrayAdapter.from_array(self.read([name])[name].to_numpy())

    def get(self, name: str) -> ArrayAdapter | None:
        """Return one column as an array; None if there is none of this name."""
        return self[name] if name in self._structure.columns else None

    def items(self) -> Iterator[tuple[str, ArrayAdapter]]:
        """Iterate over pairs of name and column; each column is read when its pair is given."""
        return ((name, self[name]) for name in self._structure.columns)

    async def lookup_adapter(self, segments: list[str]) -> Any:
        """Return one column as an array.

        Raises
        ------
        NoEntry
            If there is none of this name.
        """
        found = await run_sync(self.get, "/".join(segments))
        if found is None:
            raise NoEntry(segments)
        return found


def served_name(name: str) -> str:
    """Return the name under which a column is served."""
    return STAND_IN + name if name.startswith(RESERVED) else name


def _cells(column: pd.Series) -> pd.Series:
    """Return a column with times in POSIX seconds, and objects as lists.

    If Arrow cannot hold the lists of a column in one type, its cells become JSON text.
    """
    if is_zoned(column.dtype):
        return column.astype("int64") / MICROSECONDS
    if column.dtype != object:
        return column
    cells = [cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in column]
    try:
        pa.array(cells, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        # Arrow has no type for cells of several types.
        cells = [None if cell is None else to_json(cell) for cell in cells]
    return pd.Series(cells, dtype=object)


def export_rows(media_type: str, frame: pd.DataFrame, metadata: dict[str, Any]) -> bytes:
    """Return the rows as JSON texts, one per line, for Tiled's web page.

    The exporter of Tiled 0.2.20 itself puts a record separator before each row, which its web page
    cannot parse, so that it would show no table.
    """
    rows = zip(*(frame[name].tolist() for name in frame.columns))
    names = list(frame.columns)
    return b"".join(safe_json_dump(dict(zip(names, row))) + b"\n" for row in rows)
