"""Tables of databroker 1: computed, one row per event, metadata as constant columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from ..core.absent_streams import no_stream
from ..core.external import external_keys
from ..header import Header
from .selecting import Selection, names_of


def table_of(
    headers: Iterable[Header],
    stream_name: str,
    fields: Iterable[str] | None,
    *,
    fill: bool,
    as_datetime: bool,
) -> pd.DataFrame:
    """Return one stream of some runs as one computed table with the index ``seq_num``.

    Runs without the stream have no rows.

    Parameters
    ----------
    headers
        Runs in the order of the rows.
    stream_name, fields, fill
        As for :meth:`daskbroker.compat.v1.Broker.get_table`.
    as_datetime
        Whether ``time`` is ``datetime64[ns]`` in UTC, without a zone; otherwise POSIX seconds.
    """
    names = names_of(fields)
    frames = [_frame(header, stream_name, names, fill=fill) for header in headers]
    found = [frame for frame in frames if frame is not None]
    table = pd.concat(found) if found else pd.DataFrame()
    table.index.name = "seq_num"
    if found:
        table["time"] = _times(table["time"], as_datetime=as_datetime)
    return table


def _frame(
    header: Header, stream_name: str, fields: set[str] | None, *, fill: bool
) -> pd.DataFrame | None:
    if not isinstance(stream_name, str):  # fields, which databroker has as second argument
        raise no_stream(header.uid, stream_name, header.streams)
    descriptors = header.descriptors.get(stream_name, [])
    chosen = {d["uid"]: Selection.of(fields, d, header.start, header.stop) for d in descriptors}
    keys = {key: None for d in descriptors for key in chosen[d["uid"]].kept(d)}
    if not keys:
        return None
    external = {key for d in descriptors for key in external_keys(d)}
    added = {key: None for selection in chosen.values() for key in selection.data}
    wanted = [f"data:{key}" for key in keys] + (["descriptor"] if added else [])
    lazy = header.table(
        stream_name, wanted, fill=bool(fill and external & keys.keys()), duplicates="all"
    )
    frame = lazy.compute()
    if not len(frame):
        return None
    columns = {"time": frame["time"], **{key: _plain(frame[key]) for key in keys}}
    for key in added:
        values = [chosen[uid].data.get(key) for uid in frame["descriptor"]]
        columns[key] = pd.Series(values, index=frame.index, name=key)
    return pd.DataFrame(columns)


def _plain(column: pd.Series) -> pd.Series:
    """Return a column with a NumPy dtype; clients of databroker know no other dtypes."""
    if isinstance(column.dtype, pd.api.extensions.ExtensionDtype):
        missing = bool(column.isna().any())
        values: Any = column.to_numpy(dtype=object if missing else None, na_value=None)
        return pd.Series(values, index=column.index, name=column.name).infer_objects()
    return column


def _times(times: pd.Series, *, as_datetime: bool) -> pd.Series:
    naive = times.dt.tz_localize(None)
    if as_datetime:
        return naive.astype("datetime64[ns]")
    return naive.astype("datetime64[us]").astype("int64") / 1e6
