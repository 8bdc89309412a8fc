"""Open a plan as a lazy Dataset along ``time``.

Opening reads the variables that are in memory (:mod:`.loading`), and of detector files only what
descriptors leave open (:mod:`daskbroker.assets.peek`). All other variables are Dask arrays, cut
alike along ``time`` (:mod:`.cutting`), or xarray's own lazy arrays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import xarray as xr

from ...assets.access import FileAccess
from ...assets.filling.filling import Filling
from ...core.chunks import ChunkPlan
from ...core.digests import digest_of
from ...core.errors import FieldNotFound
from ...core.fields import Field, data_keys_of, select
from ...core.name_lists import listed
from ...core.run_plan import RunPlan
from ...core.schema import TableColumn, table_columns
from ..frames_again import with_rows_for_frames
from ..table.lazy_table import Runs, target_bytes
from ..view_options import ViewOptions, check_is_one_stream
from .assembly import Assembly
from .attributes import run_attrs
from .column_sources import ColumnSource, ExternalColumn
from .cutting import check_chunk_sizes
from .dataset_rows import DatasetRows
from .dropping import mask_token, with_every_cell
from .grids import cut_grid, gridded, indexed, needed
from .loading import load
from .restoring import Restoring
from .roi import check_names, region_of
from .variables import coordinate_sources, variable_sources

__all__ = ["assembly", "dataset"]


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
    """Return a lazy Dataset of the chunks of one stream, of one run or of many.

    Parameters
    ----------
    plan
        Chunks of the stream, run after run, with the references of external variables to fill.
    stream
        Name of the stream, for attrs and messages.
    runs
        Start and stop of each run, for attrs and projections.
    options
        What is shown, and how it is filled. ``dtypes`` of variables replace those that are
        declared, that files have, or that stored values have in common.
    files
        Access to detector files.
    chunks
        With ``"auto"``, variables that are not in memory are dask arrays, all cut alike along
        ``time``; a block of the largest has about the partition size. Stored objects, such as
        text, are xarray's own lazy arrays, unless ``chunks`` names them. With None, all
        variables are. ``{"time": n}`` or ``{name: n}`` gives the number of events per
        block, for all variables or for one; a size such as ``"8 MiB"`` in place of ``n``, or
        alone, gives blocks of about that size. Anything else is passed to
        :meth:`xarray.Dataset.chunk`.
    with_run
        Whether to add the coordinate ``run``, the uid of each event's run.

    Returns
    -------
    xarray.Dataset
        Dimensions are ``time`` (UTC, but naive, as xarray has no zones), then the data key's own
        ``dims`` or ``<key>_dim_N``. Coordinates are ``time``, ``seq_num`` and the scanned motors
        of ``start.hints.dimensions``; they are in memory, as are all stored variables if they are
        small together. Variables have the names of the table's columns; fields of rows are
        ``<name>.<field>``. Numbers with gaps are floats, and external integers of one or two
        bytes ``float32``, unless missing cells are left out or filled; cells without a common
        shape are objects. External variables have the declared shape and dtype, or those of
        their files if these have been peeked at.

    Raises
    ------
    FieldNotFound
        If a chosen field, or a name in ``dtypes`` or ``fill_value``, does not exist.
    BadQuery
        If ``roi`` or ``chunks`` is not valid, if the run is not a grid although one is
        requested, or if ``ALL`` streams are asked for.
    """
    options.check_names(plan.descriptors, runs)
    if options.grid or options.index is not None:
        return _arranged(plan, stream, runs, options, files, chunks)
    filling = options.filling(plan, files, runs)
    made = assembly(plan, stream, runs, options, filling, chunks=chunks, with_run=with_run)
    (loaded,) = load([made.loading])
    return made.dataset(loaded)


def datasets(
    plan: RunPlan,
    stream: str,
    runs: Runs,
    options: ViewOptions,
    files: FileAccess,
    cuts: Sequence[Any],
) -> list[xr.Dataset]:
    """Return the Dataset of :func:`dataset` once for each of several values of ``chunks``.

    What is in memory is read once, and shared by all of them.
    """
    filling = options.filling(plan, files, runs)
    made = assembly(plan, stream, runs, options, filling, chunks=cuts[0])
    (loaded,) = load([made.loading])
    return [replace(made, chunks=chunks).dataset(loaded) for chunks in cuts]


def _arranged(
    plan: RunPlan,
    stream: str,
    runs: Runs,
    options: ViewOptions,
    files: FileAccess,
    chunks: object,
) -> xr.Dataset:
    """Return the Dataset of one run as a grid, or along a motor."""
    check_chunk_sizes(chunks)
    ((start, _),) = runs.values()
    keys = data_keys_of(plan.descriptors)
    motors, setpoints = needed(start, stream, keys) if options.grid else ([str(options.index)], [])
    shown = options.keys(plan.descriptors)
    if shown is not None:
        given = (
            [options.fields] if isinstance(options.fields, (str, re.Pattern)) else options.fields
        )
        # The grid is made from these, requested or not.
        options = replace(options, fields=[*given, *motors, *setpoints])
    filling = options.filling(plan, files, runs)
    # A grid is cut along its own axes, after it was laid out.
    cut_first = None if options.grid else chunks
    made = assembly(plan, stream, runs, options, filling, chunks=cut_first)
    (loaded,) = load([made.loading])
    flat = made.dataset(loaded)
    if not options.grid:
        return indexed(flat, str(options.index))
    grid = gridded(flat, start, stream, loaded)
    if shown is not None:
        grid = grid.drop_vars([name for name in setpoints if name not in shown])
    if chunks is None:
        return grid
    kept = {*loaded, *made.objects}
    return cut_grid(grid, chunks, kept, target_bytes(), made.task_name)


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
    """Return the parts of which :func:`dataset` makes a Dataset, before variables are loaded."""
    check_is_one_stream(stream)
    check_chunk_sizes(chunks)
    selected = select(options.fields, plan.descriptors, timestamps=options.timestamps)
    chosen = [field for field in selected if field.role != "time"]
    names = None if options.fields is None else {field.name for field in chosen}
    restoring = Restoring.of(plan.descriptors, names)
    if restoring is not None and names is None:
        chosen += [Field("ts", key, f"ts_{key}") for key in restoring.stamps]
    events, dtypes = plan.events, options.dtypes or {}
    columns = {column.name: column for column in table_columns(events, chosen, runs)}
    if options.duplicates == "all" and filling is not None:
        keys = {column.field.key for column in columns.values() if column.external}
        events = with_rows_for_frames(events, filling, keys)
        plan = replace(plan, events=events)
    shared = coordinate_sources(events, with_run=with_run)
    sources = dict(shared)
    for name, column in list(columns.items()):
        if name not in shared:
            own = _restored(restoring, column)
            found = own or variable_sources(events, column, runs, filling, dtypes)
            # The field of a structured array may have the name of another key.
            fresh = {_free(n, name, columns, sources): source for n, source in found.items()}
            sources |= fresh
            columns |= dict.fromkeys(fresh, column)
    _check_names(dtypes, columns)
    sources |= _regions(options.roi or {}, sources)
    scanned = restoring.coordinates if restoring is not None else _scanned(runs, stream)
    token = _token(events, stream, runs, filling, options)
    rows = DatasetRows.of(events, options.duplicates)
    dropping = _dropping(sources)
    if dropping:
        mask = with_every_cell(events, rows, dropping)
        rows, token = rows.only(mask), f"{token}-{mask_token(mask)}"
    return Assembly(
        plan,
        rows,
        columns,
        sources,
        # Once each: hints may name a motor for two dimensions.
        tuple(dict.fromkeys([*shared, *(name for name in scanned if name in columns)])),
        _attrs(events, stream, runs, with_run=with_run),
        stream,
        token,
        chunks,
        restoring,
    )


def _free(name: str, column: str, columns: Mapping[str, Any], sources: Mapping[str, Any]) -> str:
    """Return the name of a variable of a column, with ``_`` appended if it is taken."""
    while name != column and (name in columns or name in sources):
        name += "_"
    return name


def _dropping(sources: Mapping[str, ColumnSource]) -> list[ExternalColumn]:
    """Return the external variables whose missing cells drop rows."""
    external = [source for source in sources.values() if isinstance(source, ExternalColumn)]
    return [one for one in external if one.filling.rule(one.targets[0]).drops]


def _restored(restoring: Restoring | None, column: TableColumn) -> dict[str, ColumnSource]:
    """Return the source of a variable that a Dataset had before; empty for other variables."""
    if restoring is None or column.external or column.field.role != "data":
        return {}
    source = restoring.source(column.field.key)
    return {} if source is None else {column.name: source}


def _regions(
    roi: Mapping[str, Any], sources: Mapping[str, ColumnSource]
) -> dict[str, ColumnSource]:
    """Return the sources of the variables of which only a region of each cell is shown."""
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
                f"dtypes names {name!r}, which is not a variable; variables are: "
                f"{listed(columns, name)}"
            )


def _attrs(plan: ChunkPlan, stream: str, runs: Runs, *, with_run: bool) -> dict[str, Any]:
    if not with_run:
        (start, stop), *_ = runs.values()
        return run_attrs(start, stop, stream, plan.descriptors)
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
    return digest_of(note)


def _scanned(runs: Runs, stream: str) -> list[str]:
    """Return the names of the motors that all runs scanned."""
    of_each = [_scanned_by(start, stream) for start, _ in runs.values()]
    return [name for name in of_each[0] if all(name in names for names in of_each)]


def _scanned_by(start: Mapping[str, Any], stream: str) -> list[str]:
    hints = start.get("hints")  # of any form in a start that another program has stored
    dimensions = hints.get("dimensions") if isinstance(hints, Mapping) else None
    names: list[str] = []
    for entry in dimensions if isinstance(dimensions, list) else []:
        if isinstance(entry, list) and len(entry) == 2 and entry[1] == stream:
            motors = entry[0] if isinstance(entry[0], list) else [entry[0]]
            names.extend(name for name in motors if isinstance(name, str) and name != "time")
    return names
