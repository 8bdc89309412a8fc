"""From a plan to a lazy Dataset along ``time``.

Opening one reads what is in memory (:mod:`.loading`), and of detector files only what descriptors
leave open (:mod:`daskbroker.assets.peek`). All else is Dask's, cut alike along ``time``
(:mod:`.cutting`), or xarray's own lazy arrays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import xarray as xr

from ...assets.access import FileAccess
from ...assets.filling import Filling
from ...core.chunks import ChunkPlan
from ...core.documents import plain
from ...core.errors import FieldNotFound
from ...core.fields import select
from ...core.listing import listed
from ...core.run_plan import RunPlan
from ...core.schema import TableColumn, table_columns
from ..dataframe import Runs
from ..options import ViewOptions
from .assembly import Assembly
from .columns import ColumnSource, ExternalColumn
from .loading import load
from .regions import check_names, region_of
from .rows import DatasetRows
from .variables import coordinate_sources, variable_source

__all__ = ["assembly", "dataset", "run_attrs"]


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
        ``"auto"``: what is not in memory are dask arrays, all cut alike along ``time``; a block
        of the largest has about the partition size. None: xarray's own lazy arrays.
        ``{"time": n}``, ``{name: n}``: so many events a block, for all variables, or for one;
        a size such as ``"8 MiB"`` in place of ``n``, or alone: blocks of about that size.
        Anything else as :meth:`xarray.Dataset.chunk` takes it.
    with_run
        Add the coordinate ``run``, the uid.

    Returns
    -------
    xarray.Dataset
        Dimension ``time`` (UTC, without zone, as xarray has none), then the data key's own
        ``dims`` or ``<key>_dim_N``. Coordinates ``time``, ``seq_num`` and the scanned motors of
        ``start.hints.dimensions``, which are in memory, as are all stored variables if they are
        small together. Variables have the names of the table's columns. Numbers
        with gaps are floats; cells of no common shape are objects. External variables have the
        shape and dtype that is declared, or that their files have where somebody has looked.
    """
    filling = options.filling(plan, files)
    made = assembly(plan, stream, runs, options, filling, chunks=chunks, with_run=with_run)
    (loaded,) = load([made.loading])
    return made.dataset(loaded)


def assembly(
    plan: RunPlan,
    stream: str,
    runs: Runs,
    options: ViewOptions,
    filling: Filling | None,
    *,
    chunks: Any = "auto",
    with_run: bool = False,
) -> Assembly:
    """What :func:`dataset` puts together, before anything is in memory."""
    selected = select(options.fields, plan.descriptors, timestamps=options.timestamps)
    chosen = [field for field in selected if field.role != "time"]
    events, dtypes = plan.events, options.dtypes or {}
    columns = {column.name: column for column in table_columns(events, chosen, runs)}
    _check_names(dtypes, columns)
    shown = coordinate_sources(events, with_run)
    sources = shown | {
        name: variable_source(events, column, runs, filling, dtypes)
        for name, column in columns.items()
        if name not in shown
    }
    sources |= _regions(options.roi or {}, sources)
    scanned = [name for name in _scanned(runs, stream) if name in columns]
    return Assembly(
        plan,
        DatasetRows.of(events, options.duplicates),
        columns,
        sources,
        (*shown, *scanned),
        _attrs(events, stream, runs, with_run),
        stream,
        _token(events, stream, runs, filling, options),
        chunks,
    )


def _regions(
    roi: Mapping[str, Any], sources: Mapping[str, ColumnSource]
) -> dict[str, ColumnSource]:
    """The variables of which only a region of each cell is to be shown."""
    external = {name: s for name, s in sources.items() if isinstance(s, ExternalColumn)}
    check_names(roi, {name: source.declared.shape for name, source in external.items()})
    return {
        name: replace(external[name], region=region_of(name, part, external[name].cell_shape))
        for name, part in roi.items()
    }


def _check_names(dtypes: Mapping[str, Any], columns: Mapping[str, TableColumn]) -> None:
    known = {*columns, *(column.field.key for column in columns.values())}
    for name in dtypes:
        if name not in known:
            raise FieldNotFound(
                f"dtypes names {name!r}, which is no variable; there are: {listed(columns, name)}"
            )


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
    regions = repr(sorted((options.roi or {}).items(), key=lambda pair: pair[0]))
    note = json.dumps([plan.token, stream, stops, fill, options.duplicates, chosen, regions])
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
