"""Arrays of a run's streams: grids of frames, compared with what is read, and stored values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ...assets.handlers.stored_frames import CellFrames, NoReference
from ...core.errors import BadQuery, ExportWarning, FillError, StoreError
from ...core.file_identity import identity
from ...core.group_names import group_name
from ...core.user_warnings import warn_caller
from ...views.dataset.savable import savable
from ..export_options import ExportOptions
from .decoding import read_grid_cell
from .frame_grid import FrameGrid, frame_grid

if TYPE_CHECKING:
    from ...header import Header


@dataclass(frozen=True)
class StreamArrays:
    """The variables of a stream.

    Attributes
    ----------
    group
        Name of the stream as that of a group; see :mod:`daskbroker.core.group_names`.
    dataset
        Dataset of all variables. Those that are in ``grids`` are lazy and are not read.
    grids
        Grids of frames by the names of the variables.
    """

    group: str
    dataset: xr.Dataset
    grids: dict[str, FrameGrid]

    def check_files(self) -> None:
        """Check that no file has changed since its references were made.

        Raises
        ------
        StoreError
            If a file has changed.
        """
        for grid in self.grids.values():
            for file in grid.files:
                if identity(file.path) != file.state:
                    raise StoreError(f"{file.path!r} changed while references to it were made")


def stream_arrays(header: Header, options: ExportOptions) -> Iterator[StreamArrays]:
    """Yield the arrays of the streams to export.

    Raises
    ------
    BadQuery
        If references cannot describe some frames, unless ``arrays`` is ``"drop"``. Then an
        ExportWarning is given.
    """
    for stream in options.streams(header):
        yield _of_stream(header, stream, options)


def _of_stream(header: Header, stream: str, options: ExportOptions) -> StreamArrays:
    found = header.dataset_frames(stream)
    dataset, grids = found.dataset, {}
    for name, frames in found.frames.items():
        try:
            grids[group_name(name)] = _compared(dataset[name].variable, frames)
        except FillError as problem:
            if options.arrays == "raise" and not isinstance(problem, NoReference):
                raise
            where = f"run {header.uid!r}, stream {stream!r}: the frames of {name!r}"
            if options.arrays == "raise":
                raise BadQuery(
                    f"{where} cannot be described by references: {problem}. Leave them out by "
                    "arrays='drop' (--arrays drop), or copy them by exporting to zarr or netcdf "
                    "with fill=True (--fill)"
                ) from None
            warn_caller(
                f"{where} cannot be described by references and are left out: {problem}. "
                "Frames that can be read are copied by exporting to zarr or netcdf with fill=True "
                "(--fill)",
                ExportWarning,
            )
            dataset = dataset.drop_vars(name)
    return StreamArrays(group_name(stream), savable(dataset), grids)


def _compared(variable: xr.Variable, frames: CellFrames | FillError) -> FrameGrid:
    """Return the grid of a variable, after comparing its first and last cell with its reader.

    Raises
    ------
    NoReference
        If references cannot describe the frames, or a cell or the dtype differs.
    FillError
        If a file is missing or cannot be read.
    """
    if isinstance(frames, FillError):
        raise frames
    grid = frame_grid(frames, variable.shape)
    if grid.dtype.newbyteorder("=") != variable.dtype.newbyteorder("="):
        raise NoReference(f"files have dtype {grid.dtype.name}, the variable has {variable.dtype}")
    for position in sorted({0, variable.shape[0] - 1}):
        here, there = read_grid_cell(grid, position), variable[position].values
        if not np.array_equal(here, there, equal_nan=here.dtype.kind in "fc"):
            raise NoReference(
                f"event {position} has different values when read through the references; please "
                "report this"
            )
    return grid
