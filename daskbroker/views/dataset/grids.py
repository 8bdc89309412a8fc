"""Lay out grid scans as grids, with a dimension for each axis in place of ``time``.

The start document describes the grid (:mod:`.grid_plan`), and ``seq_num`` is the number of the
point. So a point that was taken again counts once, and one that was not taken is missing. Variables
that are not in memory stay lazy: reading a region of the grid reads only its events.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import dtypes, indexing

from ...core.errors import BadQuery
from ...core.name_lists import listed
from .column_sources import row_positions
from .grid_plan import Grid, GridRefusal

SETPOINTS = ("_user_setpoint", "_setpoint", "-setpoint")
"""Suffixes of the setpoint of a motor, beside its readback, in ophyd and ophyd-async."""


def needed(
    start: Mapping[str, Any], stream: str, keys: Collection[str]
) -> tuple[list[str], list[str]]:
    """Return those motors of a grid scan, and those of their setpoints, that are data keys."""
    motors = [name for names in Grid.of(start, stream).motors for name in names if name in keys]
    setpoints = [f"{name}{suffix}" for name in motors for suffix in SETPOINTS]
    return motors, [name for name in setpoints if name in keys]


def gridded(
    flat: xr.Dataset, start: Mapping[str, Any], stream: str, loaded: Collection[str]
) -> xr.Dataset:
    """Return the Dataset of a grid scan with a dimension for each axis.

    Parameters
    ----------
    flat
        Dataset of the stream along ``time``, without Dask; each ``seq_num`` occurs once.
    start
        Start document, which describes the grid.
    stream
        Name of the stream, for messages.
    loaded
        Names of those variables that are in memory.

    Returns
    -------
    xarray.Dataset
        Coordinates of the axes are the motors' setpoints: the recorded ones, else those of the
        plan if the readbacks agree with them, else the medians of the readbacks. The readbacks
        are coordinates ``<motor>_readback``. Missing points are NaN, NaT or None; integers become
        floats if a point is missing.

    Raises
    ------
    BadQuery
        If the stream is not a grid, or if a motor was not at its position in the grid.
    """
    grid = Grid.of(start, stream)
    refuse = GridRefusal(grid.run, stream)
    if "time" not in flat.dims:
        raise refuse(f"its dimensions are {listed(sorted(map(str, flat.dims)))}, not time")
    missing = [name for names in grid.motors for name in names if name not in flat.variables]
    # The motors of the axes are needed to say where the points are.
    if missing:
        raise refuse(f"it has no {listed(missing)}, which hints.dimensions names")
    points = flat["seq_num"].values - 1
    beyond = points[(points < 0) | (points >= grid.size)]
    # More events than points: the grid that is declared was not what was done.
    if len(beyond):
        raise refuse(
            f"an event has seq_num {int(beyond[0]) + 1}, and a grid of {list(grid.shape)} has "
            f"{grid.size} points"
        )
    rows = np.full(grid.size, -1, np.int64)
    rows[grid.flat_index(points)] = np.arange(len(points))
    layout = _Layout(grid, rows.reshape(grid.shape), flat, refuse, loaded)
    return layout.dataset()


@dataclass(frozen=True)
class _Layout:
    """Lays out variables in a grid.

    Attributes
    ----------
    rows
        Position of the event at each point of the grid, -1 if there is none.
    """

    grid: Grid
    rows: np.ndarray
    flat: xr.Dataset
    refuse: GridRefusal
    loaded: Collection[str]

    def dataset(self) -> xr.Dataset:
        """See :func:`gridded`."""
        taken = {name for names in self.grid.motors for name in names}
        coordinates: dict[str, Any] = {}
        variables: dict[str, Any] = {}
        for name, variable in self.flat.variables.items():
            if "time" in variable.dims:
                variable = self._laid(variable, in_memory=name in self.loaded)
            # The coordinate of the axis takes the motor's name.
            shown = f"{name}_readback" if name in taken else str(name)
            is_coordinate = name in self.flat.coords or name in taken
            (coordinates if is_coordinate else variables)[shown] = variable
        for axis, names in enumerate(self.grid.motors):
            for name in names:
                values = self._axis(axis, name)
                coordinates[name] = xr.Variable(
                    (self.grid.dims[axis],), values, self.flat[name].attrs
                )
        # Of the class of the flat one, whose writers know cells of objects.
        return type(self.flat)(variables, coordinates, self.flat.attrs)

    @cached_property
    def _is_complete(self) -> bool:
        return bool((self.rows >= 0).all())

    def _laid(self, variable: xr.Variable, *, in_memory: bool = True) -> xr.Variable:
        """Return a variable along ``time`` as one in the dimensions of the grid."""
        base = variable.to_base_variable().transpose("time", ...)
        array = _LaidOut(base, self.rows, complete=self._is_complete)
        data: Any = indexing.LazilyIndexedArray(array)
        # A variable in memory would else be read at each access.
        if in_memory:
            data = array.read(())
        return xr.Variable((*self.grid.dims, *base.dims[1:]), data, variable.attrs)

    # -- axes --------------------------------------------------------------------------------

    def _axis(self, axis: int, motor: str) -> np.ndarray:
        """Return the setpoints of a motor along its axis, as float64."""
        readback = self._laid(self.flat[motor].variable).values
        # The positions of the axis could not be computed.
        if readback.dtype.kind not in "fiu" or readback.ndim != self.rows.ndim:
            raise self.refuse(f"{motor} does not have a number at each point")
        readback = readback.astype(float)
        recorded = self._recorded(axis, motor)
        values = _medians(readback, axis) if recorded is None else recorded
        planned = self.grid.positions[axis] if motor == self.grid.dims[axis] else None
        if planned is not None and _agree(values, planned):
            # The plan's positions are exact; medians of readbacks scatter around them.
            values = planned if recorded is None else np.where(np.isnan(values), planned, values)
        # A position that was never reached is known only from the plan.
        if np.isnan(values).any():
            raise self.refuse(
                f"it was not finished, and neither start.extents nor the plan's arguments tell "
                f"where {motor} would have been"
            )
        self._check(axis, motor, readback, values)
        return values

    def _recorded(self, axis: int, motor: str) -> np.ndarray | None:
        """Return the recorded setpoints of a motor, if constant across the other axes, or None."""
        for suffix in SETPOINTS:
            variable = self.flat.variables.get(f"{motor}{suffix}")
            # Another variable that only has a suffix like a setpoint's.
            if variable is not None and variable.dims == ("time",) and variable.dtype.kind in "fiu":
                setpoints = self._laid(variable).values.astype(float)
                medians = _medians(setpoints, axis)
                # Setpoints that differ across the other axes are of a motor that moves with them.
                if np.isnan(medians).all() or not _spread(setpoints, medians, axis):
                    return medians
        return None

    def _check(self, axis: int, motor: str, readback: np.ndarray, values: np.ndarray) -> None:
        """Check that the motor was never nearer to another position of its axis than to its own.

        Raises
        ------
        BadQuery
            If it was, or if several positions of the axis are equal.
        """
        steps = np.abs(np.diff(values))
        # A single position has nothing to be nearer to.
        if not len(steps):
            return
        if not steps.min() > 0:
            raise self.refuse(f"{motor} was at the same position in several places of its axis")
        off = np.abs(readback - _along(values, axis, readback.ndim))
        far = np.nanmax(off) if (self.rows >= 0).any() else 0.0
        # Nearer to a neighbour than to its own position.
        if far > steps.min() / 2:
            position = np.unravel_index(int(np.nanargmax(off)), off.shape)
            number = int(self.flat["seq_num"].values[self.rows[position]])
            raise self.refuse(
                f"at seq_num {number} {motor} was at {readback[position]:g}, where the grid "
                f"has {values[position[axis]]:g}; start.shape and start.snaking may not be what "
                "was done"
            )


def _medians(values: np.ndarray, axis: int) -> np.ndarray:
    """Return the median at each position along an axis; NaN if there are no values."""
    rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    there = [row[~np.isnan(row)] for row in rows]
    return np.array([np.median(row) if len(row) else np.nan for row in there])


def _along(values: np.ndarray, axis: int, ndim: int) -> np.ndarray:
    return values.reshape([-1 if n == axis else 1 for n in range(ndim)])


def _spread(values: np.ndarray, medians: np.ndarray, axis: int) -> bool:
    off = np.abs(values - _along(medians, axis, values.ndim))
    return bool(np.nanmax(off) > 0)


def _agree(values: np.ndarray, planned: np.ndarray) -> bool:
    """Return whether each value, NaN aside, is nearer to its planned position than to others."""
    there = ~np.isnan(values)
    steps = np.abs(np.diff(planned))
    least = steps.min() if len(steps) else np.inf
    # If two planned positions are the same, values have to equal them.
    return bool((np.abs(values - planned)[there] < max(least, 1e-12) / 2).all())


class _LaidOut(BackendArray):
    """A variable along ``time``, read as a grid.

    Parameters
    ----------
    variable
        Variable whose first dimension is ``time``.
    rows
        Position of the event at each point of the grid, -1 if there is none.
    complete
        Whether every point has an event.
    """

    def __init__(self, variable: xr.Variable, rows: np.ndarray, *, complete: bool) -> None:
        self._variable = variable
        self._rows = rows
        self._fill: Any = None
        self.dtype = variable.dtype
        # Without a missing point the dtype stays.
        if not complete:
            self.dtype, self._fill = _promoted(variable.dtype)
        self.shape = (*rows.shape, *variable.shape[1:])

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self.read
        )

    def read(self, key: tuple[Any, ...]) -> np.ndarray:
        """Read a region, given by an outer index."""
        key = key + (slice(None),) * (len(self.shape) - len(key))
        axes = self._rows.ndim
        outer = [np.atleast_1d(row_positions(k, n)) for k, n in zip(key[:axes], self._rows.shape)]
        rows = self._rows[np.ix_(*outer)]
        there = rows >= 0
        cells = self._variable[(rows[there], *key[axes:])].values
        # No copy is needed to fill in missing points.
        if there.all():
            values = cells.reshape(*rows.shape, *cells.shape[1:]).astype(self.dtype, copy=False)
        else:
            values = np.empty((*rows.shape, *cells.shape[1:]), self.dtype)
            values[...] = self._fill
            values[there] = cells
        # An integer takes its axis away; the ellipsis keeps a cell that is itself an array.
        kept = (isinstance(k, slice) or np.ndim(k) > 0 for k in key[:axes])
        return values[(*(slice(None) if keep else 0 for keep in kept), ...)]


def _promoted(dtype: object) -> tuple[np.dtype, Any]:
    """Return the dtype to which xarray promotes for missing values, and its fill value."""
    found, fill = dtypes.maybe_promote(dtype)
    return np.dtype(found), None if np.dtype(found).kind == "O" else fill


def cut_grid(
    grid: xr.Dataset,
    chunks: Any,
    kept: Collection[str],
    block_bytes: int,
    task_name: Callable[..., str],
) -> xr.Dataset:
    """Return the grid with Dask arrays for variables that are not in memory.

    Parameters
    ----------
    grid
        Dataset from :func:`gridded`.
    chunks
        ``{dimension: n}``, or ``"auto"``. Dimensions that it does not name are cut into blocks of
        about `block_bytes`, with the last dimensions whole as far as they fit.
    kept
        Names of the variables that are left as they are: those in memory, and stored objects.
    block_bytes
        Target size of a block in bytes.
    task_name
        Function that makes the name of a variable's tasks from its name and cut.

    Raises
    ------
    BadQuery
        If `chunks` is not valid.
    """
    given = dict(chunks) if isinstance(chunks, Mapping) else {}
    unknown = [name for name in given if name not in grid.dims]
    if unknown or not (isinstance(chunks, Mapping) or chunks == "auto"):
        raise BadQuery(
            f"chunks of a grid are 'auto', None or {{dimension: n}} of its dimensions "
            f"{listed(sorted(map(str, grid.dims)))}, not {chunks!r:.80}"
        )
    for name, variable in grid.variables.items():
        source = str(name).removesuffix("_readback")
        # In memory already, or nothing to cut.
        if name in grid.dims or {name, source} & set(kept) or not variable.ndim:
            continue
        usual = _usual_cut(variable, block_bytes)
        lengths = usual | {dim: n for dim, n in given.items() if dim in variable.dims}
        task = task_name(
            str(name), "grid", tuple(sorted((str(d), str(n)) for d, n in lengths.items()))
        )
        grid = grid.assign({name: variable.chunk(lengths, name=task)})
    return grid


def _usual_cut(variable: xr.Variable, block_bytes: int) -> dict[Any, int]:
    """Return the length of blocks along each dimension; the last ones whole as far as they fit."""
    left = max(1, block_bytes // max(1, variable.dtype.itemsize))
    lengths: dict[Any, int] = {}
    for dim, size in reversed(variable.sizes.items()):
        lengths[dim] = min(size, left)
        left = max(1, left // max(1, size))
    return lengths


# -- one motor -------------------------------------------------------------------------------


def indexed(dataset: xr.Dataset, name: str) -> xr.Dataset:
    """Return the Dataset along a variable in place of ``time``, sorted by it if not monotonic.

    Raises
    ------
    BadQuery
        If there is no such variable, or if it has no value in some event.
    """
    variable = dataset.variables.get(name)
    if variable is None or variable.dims != ("time",) or variable.dtype.kind not in "fiuM":
        fit = [n for n, v in dataset.variables.items() if v.dims == ("time",) and n != "time"]
        raise BadQuery(
            f"index={name!r} must be a variable with one number per event; "
            f"there are: {listed(sorted(map(str, fit)), name)}"
        )
    values = variable.values
    missing = int(np.count_nonzero(values != values))
    # NaN and NaT have no position along an index.
    if missing:
        raise BadQuery(f"index={name!r} has no value in {missing} of {len(values)} events")
    steps = np.diff(values)
    zero = np.zeros((), steps.dtype)
    # Sorting reorders every variable, so monotonic ones stay as they are.
    if not ((steps >= zero).all() or (steps <= zero).all()):
        dataset = dataset.isel(time=np.argsort(values, kind="stable"))
    return dataset.set_coords(name).swap_dims(time=name)
