"""Convert a table to the documents of a new run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from dask.utils import is_dataframe_like, is_series_like

from ...core.arguments import FLAG, MAPPING, NAME, NUMBER, accepts
from ...core.documents import Document, as_lists, normalize
from ...core.errors import BadDocument
from ...core.frozen import ArrayList
from .flat import FlatTable
from .new_run import DTYPES, NOT_DATA, NewRun, Pairs
from .numbering import Numbering


@accepts(
    stream=NAME.or_none(),
    uid=NAME.or_none(),
    time=NUMBER.or_none(),
    provenance=MAPPING.or_none(),
    pages=FLAG,
)
def table_to_stream(
    table: Any,
    header: Any = None,
    stream: str | None = None,
    *,
    uid: str | None = None,
    time: float | None = None,
    provenance: Mapping[str, Any] | None = None,
    pages: bool = False,
    scheduler: str | None = None,
) -> Pairs:
    """Convert a table, new columns included, to the documents of a new, valid run.

    The start document repeats that of `header` (except uid, time and scan_id), and names its
    origin under ``derived_from``: run, stream and descriptors. Columns that the origin has keep
    their data keys; new columns are declared from their values, with the source ``"derived"``.

    Parameters
    ----------
    table
        DataFrame or Series, of pandas or Dask. One of Dask is computed partition by partition.
        The index ``seq_num`` numbers the rows. Of any other index, each level becomes a column of
        its name (``index`` if it has none), except the 0, 1, 2, … that pandas makes by itself.
        An index of times becomes the events' time. Rows of several runs (column ``run``) are
        numbered again, and so are rows that repeat a number, as those of ``explode`` do: see
        :class:`daskbroker.views.runs.numbering.Numbering`.
    header
        Header, or start document, of the origin. If None, only ``table.attrs`` describes it.
    stream
        Name of the stream; by default the origin's, else ``"primary"``.
    uid
        Uid of the new run; by default a random one. All other uids are derived from it.
    time
        Time of the start document in POSIX seconds; by default now.
    provenance
        More keys for ``derived_from``.
    pages
        Whether to yield one event_page, instead of events, for each partition in which no cell
        is missing.
    scheduler
        Dask scheduler to compute partitions with.

    Yields
    ------
    (name, Document)
        start, descriptor, events or event_pages, stop. Column ``time`` becomes the events' time,
        columns ``ts_<key>`` the timestamps; missing cells stay missing. See
        :class:`daskbroker.views.runs.flat.FlatTable` for what becomes of intervals, categories,
        times other than ``time``, and names that are not text.

    Raises
    ------
    BadDocument
        If `table` is not a table, if two columns have the same name, or if a cell has no
        JSON-like form.
    """
    # Dask takes a DataArray for a Series.
    if is_series_like(table) and not isinstance(table, xr.DataArray):
        table = table.to_frame(name="value" if table.name is None else table.name)
    if not is_dataframe_like(table):
        raise BadDocument(
            f"a {type(table).__name__} is not a table; give a DataFrame or a Series, or use "
            "dataset_to_stream for a Dataset"
        )
    attrs = dict(
        getattr(table, "attrs", None) or getattr(getattr(table, "_meta", None), "attrs", {})
    )
    run = NewRun.of(attrs, header, stream, uid, time, provenance)
    rows = _Table(run)
    yield "start", run.start
    for part in map(rows.flat, _partitions(table, scheduler)):
        if run.descriptor is None:
            yield "descriptor", rows.declare(part)
        yield from rows.page(part) if pages else rows.events(part)
    # A table without partitions still has columns with dtypes to declare.
    if run.descriptor is None:
        empty = table.head(0, compute=True) if hasattr(type(table), "dask") else table
        yield "descriptor", rows.declare(rows.flat(empty))
    yield "stop", run.stop()


def _partitions(frame: Any, scheduler: str | None) -> Iterator[pd.DataFrame]:
    if isinstance(frame, pd.DataFrame):
        if len(frame):
            yield frame
        return
    for number in range(frame.npartitions):
        part = frame.get_partition(number).compute(scheduler=scheduler)
        if len(part):
            yield part


@dataclass
class _Table:
    """Makes the descriptor and the events of the rows of a table."""

    run: NewRun
    flat: FlatTable = field(default_factory=FlatTable)
    numbering: Numbering = field(init=False)

    def __post_init__(self) -> None:
        self.numbering = Numbering(of_one_run=self.run.of_one_run)

    def declare(self, partition: pd.DataFrame) -> Document:
        """Return the descriptor, derived from the first partition."""
        names = self._data(partition)
        return self.run.declare({self.run.key_of(n): self._declared(partition, n) for n in names})

    def _data(self, partition: pd.DataFrame) -> list[str]:
        stamps = {f"ts_{self.run.key_of(name)}" for name in partition.columns}
        return [name for name in partition.columns if name not in NOT_DATA and name not in stamps]

    def _declared(self, partition: pd.DataFrame, name: str) -> dict[str, Any]:
        key = self.run.key_of(name)
        if name in self.flat.specs:
            return dict(self.flat.specs[name])
        if key in self.run.known:
            # The values of a filled column are in the events of the new run.
            return {k: v for k, v in self.run.known[key].items() if k != "external"}
        present = partition[name].dropna()
        first = _cell(present.iloc[0], key) if len(present) else None
        shape = _shape(first) if isinstance(first, list) else []
        kind = getattr(partition[name].dtype, "kind", "O")
        dtype = "array" if shape else DTYPES.get(kind, "string")
        return {"source": "derived", "dtype": dtype, "shape": shape}

    def page(self, partition: pd.DataFrame) -> Pairs:
        """Yield one event_page of all rows, or events if some cells are missing."""
        names = self._data(partition)
        if partition[names].isna().to_numpy().any():
            yield from self.events(partition)
            return
        data = {self.run.key_of(name): _column(partition[name], name) for name in names}
        stamps = _stamps(partition, data)
        seconds = self._times(partition)
        yield self.run.page(self._numbers(partition, seconds), seconds, data, stamps)

    def events(self, partition: pd.DataFrame) -> Pairs:
        """Yield an event per row; missing cells are left out of it."""
        run = self.run
        assert run.descriptor is not None
        names = self._data(partition)
        seconds = self._times(partition)
        columns = {run.key_of(n): partition[n].astype(object).tolist() for n in names}
        present = {run.key_of(n): partition[n].notna().tolist() for n in names}
        stamps = _stamps(partition, columns)
        numbers = self._numbers(partition, seconds)
        for row in range(len(partition)):
            run.count += 1
            keys = [key for key in columns if present[key][row]]
            run.last_time = seconds[row]
            event = {
                "uid": run.uid_of(f"event {run.count}"),
                "descriptor": run.descriptor["uid"],
                "seq_num": run.count if numbers is None else numbers[row],
                "time": seconds[row],
                "data": {key: _cell(columns[key][row], key) for key in keys},
                "timestamps": {
                    key: stamps[key][row] if key in stamps else seconds[row] for key in keys
                },
                "filled": {},
            }
            yield "event", Document(event)

    def _numbers(self, partition: pd.DataFrame, seconds: list[float]) -> list[int] | None:
        """Return ``seq_num`` of the rows; None if they must be counted again.

        That is so without an index ``seq_num``, and for rows of several runs, whose numbers clash.
        """
        if partition.index.name != "seq_num" or "run" in partition.columns or not self.run.single:
            return None
        return self.numbering([int(number) for number in partition.index], seconds)

    def _times(self, partition: pd.DataFrame) -> list[float]:
        times = partition.get("time")
        if times is None or not isinstance(times.dtype, pd.DatetimeTZDtype):
            if self.flat.other_time is not None:
                self.run.warn_of_other_time(self.flat.other_time)
            return [float(self.run.start["time"])] * len(partition)
        return self.run.seconds(times.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy())


def _stamps(partition: pd.DataFrame, keys: Iterable[str]) -> dict[str, list[Any]]:
    """Return the timestamps of those keys that have a column of them."""
    columns = {key: f"ts_{key}" for key in keys}
    return {k: partition[name].tolist() for k, name in columns.items() if name in partition.columns}


def _column(column: pd.Series, name: str) -> Any:
    """Return the cells of a column without missing ones, in the form of an event_page."""
    if getattr(column.dtype, "kind", "O") in "fiub":
        plain = getattr(column.dtype, "numpy_dtype", column.dtype)
        return column.to_numpy(dtype=plain, copy=True)  # the table stays the caller's
    return [_cell(cell, name) for cell in column.tolist()]


def _cell(value: object, name: str) -> Any:
    """Return a cell in the form of documents; a list of an array remembers its dtype."""
    return as_lists(normalize(value, name, arrays=True))


def _shape(cell: list[Any]) -> list[int]:
    if type(cell) is ArrayList:
        return list(cell.shape)
    try:
        return list(np.shape(cell))
    except ValueError:  # its rows differ in length
        return [len(cell)]
