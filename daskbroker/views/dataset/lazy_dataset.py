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

from ...assets.filling.filling import Filling
from ...core.chunks import ChunkPlan
from ...core.digests import digest_of
from ...core.errors import FieldNotFound
from ...core.fields import Field, data_keys_of, select
from ...core.name_lists import listed
from ...core.scanned import dimensions_of
from ...core.schema import TableColumn, table_columns
from ...core.settings import setting
from ..view_options import Runs, View, check_is_one_stream
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


def dataset(view: View, *, chunks: Any = "auto", with_run: bool = False) -> xr.Dataset:
    """Return a lazy Dataset of the chunks of one stream, of one run or of many.

    Parameters
    ----------
    view
        What to show. ``dtypes`` of its options replace those that are declared, that files have,
        or that stored values have in common.
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
    view.check()
    if view.options.grid or view.options.index is not None:
        return _arranged(view, chunks)
    made = assembly(view, view.filling(), chunks=chunks, with_run=with_run)
    (loaded,) = load([made.loading])
    return made.dataset(loaded)


def datasets(view: View, cuts: Sequence[Any]) -> list[xr.Dataset]:
    """Return the Dataset of :func:`dataset` once for each of several values of ``chunks``.

    What is in memory is read once, and shared by all of them.
    """
    made = assembly(view, view.filling(), chunks=cuts[0])
    (loaded,) = load([made.loading])
    return [replace(made, chunks=chunks).dataset(loaded) for chunks in cuts]


def _arranged(view: View, chunks: object) -> xr.Dataset:
    """Return the Dataset of one run as a grid, or along a motor."""
    check_chunk_sizes(chunks)
    options, descriptors = view.options, view.plan.descriptors
    ((start, _),) = view.runs.values()
    if options.grid:
        motors, setpoints = needed(start, view.stream, data_keys_of(descriptors))
    else:
        motors, setpoints = [str(options.index)], []
    shown = options.keys(descriptors)
    if shown is not None:
        given = options.fields
        given = [given] if isinstance(given, (str, re.Pattern)) else given
        # The grid is made from these, requested or not.
        options = replace(options, fields=[*given, *motors, *setpoints])
        view = replace(view, options=options)
    # A grid is cut along its own axes, after it was laid out.
    made = assembly(view, view.filling(), chunks=None if options.grid else chunks)
    (loaded,) = load([made.loading])
    flat = made.dataset(loaded)
    if not options.grid:
        return indexed(flat, str(options.index))
    grid = gridded(flat, start, view.stream, loaded)
    if shown is not None:
        grid = grid.drop_vars([name for name in setpoints if name not in shown])
    if chunks is None:
        return grid
    size = setting("partition-size")
    return cut_grid(grid, chunks, {*loaded, *made.objects}, size, made.task_name)


def assembly(
    view: View, filling: Filling | None, *, chunks: Any = "auto", with_run: bool = False
) -> Assembly:
    """Return the parts of which :func:`dataset` makes a Dataset, before variables are loaded."""
    check_is_one_stream(view.stream)
    check_chunk_sizes(chunks)
    restoring, columns = _chosen(view)
    events = view.events(filling, columns.values())
    shared = coordinate_sources(events, with_run=with_run)
    columns, sources = _sources(view, events, filling, restoring, columns, shared)
    scanned = restoring.coordinates if restoring is not None else _scanned(view.runs, view.stream)
    token = _token(view, events, filling)
    rows = DatasetRows.of(events, view.options.duplicates)
    dropping = _dropping(sources)
    if dropping:
        mask = with_every_cell(events, rows, dropping)
        rows, token = rows.only(mask), f"{token}-{mask_token(mask)}"
    return Assembly(
        replace(view.plan, events=events),
        rows,
        columns,
        sources,
        # Once each: hints may name a motor for two dimensions.
        tuple(dict.fromkeys([*shared, *(name for name in scanned if name in columns)])),
        _attrs(view, with_run=with_run),
        view.stream,
        token,
        chunks,
        restoring,
    )


def _chosen(view: View) -> tuple[Restoring | None, dict[str, TableColumn]]:
    """Return what is to be restored of a former Dataset, and the chosen columns by name."""
    plan, options = view.plan, view.options
    selected = select(options.fields, plan.descriptors, timestamps=options.timestamps)
    chosen = [field for field in selected if field.role != "time"]
    names = None if options.fields is None else {field.name for field in chosen}
    restoring = Restoring.of(plan.descriptors, names)
    if restoring is not None and names is None:
        chosen += [Field("ts", key, f"ts_{key}") for key in restoring.stamps]
    return restoring, {c.name: c for c in table_columns(plan.events, chosen, view.runs)}


def _sources(
    view: View,
    events: ChunkPlan,
    filling: Filling | None,
    restoring: Restoring | None,
    columns: Mapping[str, TableColumn],
    shared: Mapping[str, ColumnSource],
) -> tuple[dict[str, TableColumn], dict[str, ColumnSource]]:
    """Return the column and the source of each variable, by name; a column may have several."""
    dtypes, roi = view.options.dtypes or {}, view.options.roi or {}
    of_variables, sources = dict(columns), dict(shared)
    for name, column in columns.items():
        if name not in shared:
            own = _restored(restoring, column)
            found = own or variable_sources(events, column, view.runs, filling, dtypes)
            # The field of a structured array may have the name of another key.
            fresh = {_free(n, name, of_variables, sources): source for n, source in found.items()}
            sources |= fresh
            of_variables |= dict.fromkeys(fresh, column)
    _check_names(dtypes, of_variables)
    return of_variables, sources | _regions(roi, sources)


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


def _attrs(view: View, *, with_run: bool) -> dict[str, Any]:
    described = view.plan.descriptors
    if not with_run:
        (start, stop), *_ = view.runs.values()
        return run_attrs(start, stop, view.stream, described)
    uids = dict.fromkeys(descriptor["run_start"] for descriptor in described)
    descriptors = [descriptor["uid"] for descriptor in described]
    return {"runs": list(uids), "stream": view.stream, "descriptors": descriptors}


def _token(view: View, events: ChunkPlan, filling: Filling | None) -> str:
    options = view.options
    stops = [stop and stop["uid"] for _, stop in view.runs.values()]
    fill = filling and filling.token
    chosen = {key: str(dtype) for key, dtype in (options.dtypes or {}).items()}
    regions = repr(sorted((options.roi or {}).items(), key=lambda pair: pair[0]))
    note = json.dumps([events.token, view.stream, stops, fill, options.duplicates, chosen, regions])
    return digest_of(note)


def _scanned(runs: Runs, stream: str) -> list[str]:
    """Return the names of the motors that all runs scanned."""
    of_each = [_scanned_by(start, stream) for start, _ in runs.values()]
    return [name for name in of_each[0] if all(name in names for names in of_each)]


def _scanned_by(start: Mapping[str, Any], stream: str) -> list[str]:
    dimensions = dimensions_of(start)
    return [name for names, of in dimensions if of == stream for name in names if name != "time"]
