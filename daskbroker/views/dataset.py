"""A stream as a lazy xarray Dataset along ``time``.

One :class:`~daskbroker.views.chunk_column.ChunkColumn` per variable serves with dask and
without: indexing reads only the chunks, the columns and the cells that are asked for. Opening a
Dataset reads nothing but ``time`` and ``seq_num``, and no detector file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping
from typing import Any

import xarray as xr

from ..assets.filling import Filling
from ..core.chunks import ChunkPlan
from ..core.documents import plain
from ..core.errors import FieldNotFound
from ..core.fields import select
from ..core.schema import TableColumn, table_columns
from .chunk_column import ColumnSource, ExternalColumn
from .dataframe import Runs, target_bytes
from .dataset_rows import DatasetRows
from .rows import Duplicates
from .variables import chunk_length, coordinates, variable, variable_source

__all__ = ["dataset", "run_attrs"]

MOST_CHUNKS_FOR_INDEX = 1000
"""Up to so many chunks are read for the index of ``time``; beyond, ``time`` stays lazy."""


def dataset(
    plan: ChunkPlan,
    stream: str,
    runs: Runs,
    *,
    fields: Any = None,
    filling: Filling | None = None,
    chunks: Any = "auto",
    timestamps: bool = False,
    duplicates: Duplicates = "last",
    dtypes: Mapping[str, Any] | None = None,
    with_run: bool = False,
) -> xr.Dataset:
    """A Dataset of the chunks of one stream, of one run or of many.

    Parameters
    ----------
    plan
        The chunks, run after run.
    stream
        For attrs and messages.
    runs
        Start and stop of each run, for attrs and projections.
    fields, timestamps
        See :func:`daskbroker.core.fields.select`.
    filling
        How external variables are filled when they are computed; None: they hold references.
    chunks
        ``"auto"``: dask arrays, of what is stored cut where chunks end, of external cells in
        blocks of about the partition size, aligned to the files' own chunks where
        stream_resources tell of them; so variables may be cut differently along ``time``. None:
        xarray's own lazy arrays. Anything else as :meth:`xarray.Dataset.chunk` takes it.
    duplicates
        As for a table.
    dtypes
        Of external variables, in place of the declared ones.
    with_run
        Add the coordinate ``run``, the uid.

    Returns
    -------
    xarray.Dataset
        Dimension ``time`` (UTC, without zone, as xarray has none), then the data key's own
        ``dims`` or ``<key>_dim_N``. Coordinates ``time``, ``seq_num`` and the scanned motors of
        ``start.hints.dimensions``. Variables have the names of the table's columns. Numbers
        with gaps are floats; cells of no common shape are objects. External variables have the
        declared shape and dtype (``float64`` where none is declared).
    """
    chosen = [
        f for f in select(fields, plan.descriptors, timestamps=timestamps) if f.role != "time"
    ]
    rows = DatasetRows.of(plan, duplicates)
    columns = {column.name: column for column in table_columns(plan, chosen, runs)}
    _check_names(dtypes or {}, columns)
    sources = {
        name: variable_source(plan, column, runs, filling, dtypes or {})
        for name, column in columns.items()
    }
    variables: dict[Hashable, xr.Variable] = {
        name: variable(plan, rows, columns[name], source) for name, source in sources.items()
    }
    result = xr.Dataset(
        variables,
        coords=_coordinates(plan, rows, with_run),
        attrs=_attrs(plan, stream, runs, with_run),
    )
    result = result.set_coords([name for name in _scanned(runs, stream) if name in variables])
    if chunks is None:
        return result
    token = _token(plan, stream, runs, filling, duplicates, dtypes)
    if chunks not in ("auto", {}):
        return result.chunk(chunks, token=token, name_prefix="daskbroker-")
    return _chunked(result, plan, rows, sources, token)


def _check_names(dtypes: Mapping[str, Any], columns: Mapping[str, TableColumn]) -> None:
    known = {*columns, *(column.field.key for column in columns.values())}
    for name in dtypes:
        if name not in known:
            raise FieldNotFound(
                f"dtypes names {name!r}, which is no variable; there are: {', '.join(columns)}"
            )


def _coordinates(plan: ChunkPlan, rows: DatasetRows, with_run: bool) -> xr.Coordinates:
    lazy = coordinates(plan, rows, with_run)
    if len(plan) > MOST_CHUNKS_FOR_INDEX:
        return xr.Coordinates(lazy, indexes={})
    return xr.Coordinates({name: found.load() for name, found in lazy.items()})


def _chunked(
    lazy: xr.Dataset,
    plan: ChunkPlan,
    rows: DatasetRows,
    sources: Mapping[str, ColumnSource],
    token: str,
) -> xr.Dataset:
    """Each variable as a dask array in chunks of its own; what is in memory stays there."""
    stored, target = rows.cuts(target_bytes()), target_bytes()
    chunked: dict[Hashable, xr.Variable] = {}
    for name, found in lazy.variables.items():
        if name in lazy.xindexes or (name not in sources and lazy.xindexes):
            continue
        source = sources.get(str(name))
        cuts = stored
        if isinstance(source, ExternalColumn):
            align = chunk_length(source, plan)
            cuts = rows.external_cuts(target, source.declared.cell_bytes, align)
        chunked[name] = found.chunk({"time": cuts}, name=f"daskbroker-{name}-{token}")
    # As a mapping, a coordinate ``time`` would be read for an index.
    coords = {name: chunked.pop(name) for name in lazy.coords if name in chunked}
    return lazy.assign(chunked).assign_coords(xr.Coordinates(coords, indexes={}))


def run_attrs(
    start: Mapping[str, Any],
    stop: Mapping[str, Any] | None,
    stream: str | None = None,
    plan: ChunkPlan | None = None,
) -> dict[str, Any]:
    """What a Dataset carries of where it comes from."""
    attrs: dict[str, Any] = {"run": start["uid"]}
    for key in ("scan_id", "plan_name"):
        if key in start:
            attrs[key] = start[key]
    if stream is not None:
        attrs["stream"] = stream
    if plan is not None:
        attrs["descriptors"] = [descriptor["uid"] for descriptor in plan.descriptors]
    attrs["start"] = plain(start)
    attrs["stop"] = plain(stop)
    return attrs


def _attrs(plan: ChunkPlan, stream: str, runs: Runs, with_run: bool) -> dict[str, Any]:
    if not with_run:
        (start, stop), *_ = runs.values()
        return run_attrs(start, stop, stream, plan)
    uids = dict.fromkeys(descriptor["run_start"] for descriptor in plan.descriptors)
    descriptors = [descriptor["uid"] for descriptor in plan.descriptors]
    return {"runs": list(uids), "stream": stream, "descriptors": descriptors}


def _token(
    plan: ChunkPlan,
    stream: str,
    runs: Runs,
    filling: Filling | None,
    duplicates: Duplicates,
    dtypes: Mapping[str, Any] | None,
) -> str:
    stops = [stop and stop["uid"] for _, stop in runs.values()]
    fill = filling and filling.token
    chosen = {key: str(dtype) for key, dtype in (dtypes or {}).items()}
    note = json.dumps([plan.token, stream, stops, fill, duplicates, chosen])
    return hashlib.blake2b(note.encode("utf8", "surrogatepass"), digest_size=16).hexdigest()


def _scanned(runs: Runs, stream: str) -> list[str]:
    """Motors that all the runs scanned."""
    of_each = [_scanned_by(start, stream) for start, _ in runs.values()]
    return [name for name in of_each[0] if all(name in names for names in of_each)]


def _scanned_by(start: Mapping[str, Any], stream: str) -> list[str]:
    dimensions = (start.get("hints") or {}).get("dimensions", [])
    names: list[str] = []
    for entry in dimensions if isinstance(dimensions, list) else []:
        if isinstance(entry, list) and len(entry) == 2 and entry[1] == stream:
            names.extend(name for name in entry[0] if isinstance(name, str) and name != "time")
    return names
