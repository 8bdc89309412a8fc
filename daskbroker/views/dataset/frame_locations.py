"""A Dataset, and where in detector files the cells of its external variables lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import xarray as xr

from ...assets.handlers.stored_frames import CellFrames, NoReference
from ...core.errors import FillError
from ..view_options import View
from .lazy_dataset import assembly
from .loading import load
from .row_block import planned_block


@dataclass(frozen=True)
class DatasetFrames:
    """A Dataset, and where its frames lie.

    Attributes
    ----------
    dataset
        Dataset with xarray's own lazy arrays.
    frames
        Bytes of files that the cells of each external variable are, or why that cannot be told: a
        ``NoReference``, or the error of a file that is missing or cannot be read.
    """

    dataset: xr.Dataset
    frames: Mapping[str, CellFrames | FillError]


def dataset_frames(view: View) -> DatasetFrames:
    """Return the Dataset of one stream, as :func:`.lazy_dataset.dataset` does, and its frames."""
    made = assembly(view, view.filling(), chunks=None)
    (loaded,) = load([made.loading])
    found: dict[str, CellFrames | FillError] = {}
    count = len(made.rows)
    for name, column in made.external.items() if count else ():
        pieces, order = made.rows.pieces(0, count)
        block = planned_block(made.plan.events, pieces, order, None, made.rows.later)
        try:
            if column.declared.shape is None:
                raise NoReference("cells have no common shape")
            found[name] = column.frames(block)
        except FillError as error:
            found[name] = error
    return DatasetFrames(made.dataset(loaded), found)
