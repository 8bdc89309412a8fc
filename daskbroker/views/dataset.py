"""A stream as a lazy xarray Dataset along ``time``.

One :class:`~daskbroker.views.chunk_column.ChunkColumn` per variable serves with dask and
without: indexing reads only the chunks, the columns and the cells that are asked for. Opening a
Dataset reads nothing but ``time`` and ``seq_num``, and of detector files only what descriptors
leave open (:mod:`daskbroker.assets.peek`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping
from typing import Any

import xarray as xr

from ..assets.access import FileAccess
from ..assets.filling import Filling
from ..core.chunks import ChunkPlan
from ..core.documents import plain
from ..core.errors import FieldNotFound
from ..core.external import stream_keys
from ..core.fields import select
from ..core.layouts import STREAM_RESOURCE
from ..core.run_plan import RunPlan, resources_of
from ..core.schema import TableColumn, table_columns
from .chunk_column import ColumnSource, ExternalColumn
from .dataframe import Runs, target_bytes
from .dataset_rows import DatasetRows
from .options import ViewOptions
from .variables import (
    chunk_length,
    coordinates,
    loaded_coordinates,
    variable,
    variable_source,
)

__all__ = ["dataset", "run_attrs"]

MOST_CHUNKS_FOR_INDEX = 1000
"""Up to so many chunks are read for the index of ``time``; beyond, ``time`` stays lazy."""


def dataset(
    plan: RunPlan,
    stream: str,
    runs: Runs,
    options: ViewOptions,
    files: FileAccess,
    *,
    chunks: Any = "auto",
    with_run: bool = False,
) -> xr.Dataset:
    """A Dataset of the chunks of one stream, of one run or of many.

    Parameters
    ----------
    plan
        The chunks of the stream, run after run, with references where external variables shall
        be filled.
    stream
        For attrs and messages.
    runs
        Start and stop of each run, for attrs and projections.
    options
        What is shown, and how it is filled. ``dtypes`` are those of external variables, in place
        of those that are declared or that files have.
    files
        How detector files are reached.
    chunks
        ``"auto"``: dask arrays, of what is stored cut where chunks end, of external cells in
        blocks of about the partition size, aligned to the files' own chunks where
        stream_resources tell of them; so variables may be cut differently along ``time``. None:
        xarray's own lazy arrays. Anything else as :meth:`xarray.Dataset.chunk` takes it.
    with_run
        Add the coordinate ``run``, the uid.

    Returns
    -------
    xarray.Dataset
        Dimension ``time`` (UTC, without zone, as xarray has none), then the data key's own
        ``dims`` or ``<key>_dim_N``. Coordinates ``time``, ``seq_num`` and the scanned motors of
        ``start.hints.dimensions``. Variables have the names of the table's columns. Numbers
        with gaps are floats; cells of no common shape are objects. External variables have the
        shape and dtype that is declared, or that their files have where somebody has looked.
    """
    selected = select(options.fields, plan.descriptors, timestamps=options.timestamps)
    chosen = [field for field in selected if field.role != "time"]
    events, dtypes = plan.events, options.dtypes or {}
    rows = DatasetRows.of(events, options.duplicates)
    columns = {column.name: column for column in table_columns(events, chosen, runs)}
    _check_names(dtypes, columns)
    filling = options.filling(plan, files)
    sources = {
        name: variable_source(events, column, runs, filling, dtypes)
        for name, column in columns.items()
    }
    variables = {
        name: variable(events, rows, columns[name], source) for name, source in sources.items()
    }
    indexes: dict[Hashable, xr.indexes.PandasIndex] = {}
    if len(events) > MOST_CHUNKS_FOR_INDEX:
        shown = coordinates(events, rows, with_run)
    else:
        shown, indexes["time"] = loaded_coordinates(events, rows, with_run)
    token = _token(events, stream, runs, filling, options)
    if chunks in ("auto", {}):
        cuts = _cuts(plan, rows, sources)
        variables = _chunked(variables, cuts, token)
        if not indexes:
            shown = _chunked(shown, dict.fromkeys(shown, rows.cuts(target_bytes())), token)
    scanned = [name for name in _scanned(runs, stream) if name in variables]
    shown |= {name: variables.pop(name) for name in scanned}
    result = xr.Dataset(
        variables,
        # As a mapping, a lazy coordinate ``time`` would be read for an index.
        coords=xr.Coordinates(shown, indexes=indexes),
        attrs=_attrs(events, stream, runs, with_run),
    )
    if chunks is None or chunks in ("auto", {}):
        return result
    return result.chunk(chunks, token=token, name_prefix="daskbroker-")


def _check_names(dtypes: Mapping[str, Any], columns: Mapping[str, TableColumn]) -> None:
    known = {*columns, *(column.field.key for column in columns.values())}
    for name in dtypes:
        if name not in known:
            raise FieldNotFound(
                f"dtypes names {name!r}, which is no variable; there are: {', '.join(columns)}"
            )


def _cuts(
    plan: RunPlan, rows: DatasetRows, sources: Mapping[str, ColumnSource]
) -> dict[str, tuple[int, ...]]:
    """Lengths along ``time`` of the dask chunks of each variable."""
    stored, target = rows.cuts(target_bytes()), target_bytes()
    streams = {key for d in plan.descriptors for key in stream_keys(d)}
    used = streams & {s.key for s in sources.values() if isinstance(s, ExternalColumn)}
    references = {STREAM_RESOURCE.kind: plan.references[STREAM_RESOURCE.kind]} if used else {}
    resources = [doc for _, doc in resources_of(references)]
    cuts = {}
    for name, source in sources.items():
        cuts[name] = stored
        if isinstance(source, ExternalColumn):
            align = chunk_length(source, plan.events, resources)
            cuts[name] = rows.external_cuts(target, source.declared.cell_bytes, align)
    return cuts


def _chunked(
    lazy: Mapping[str, xr.Variable], cuts: Mapping[str, tuple[int, ...]], token: str
) -> dict[str, xr.Variable]:
    return {
        name: found.chunk({"time": cuts[name]}, name=f"daskbroker-{name}-{token}")
        for name, found in lazy.items()
    }


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
    options: ViewOptions,
) -> str:
    stops = [stop and stop["uid"] for _, stop in runs.values()]
    fill = filling and filling.token
    chosen = {key: str(dtype) for key, dtype in (options.dtypes or {}).items()}
    note = json.dumps([plan.token, stream, stops, fill, options.duplicates, chosen])
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
