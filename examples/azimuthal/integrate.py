"""Azimuthal integration with pyFAI: of a frame, of a block of events, of a Dataset.

Workers import this module. They receive the geometry as plain numbers: an integrator, with its
table of pixels and bins, is made once in each process.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import dask.array as da
import numpy as np
import pyFAI
import xarray as xr
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

RANGE = (1.0, 7.5)  # of q, in 1/Å
GAP = 65535  # what the detector writes where it has no pixel

integrator = functools.lru_cache(AzimuthalIntegrator)


def intensity(image: np.ndarray, geometry: Mapping[str, float], points: int) -> np.ndarray:
    """Return I(q) of one frame."""
    return integrator(**geometry).integrate1d(
        image, points, unit="q_A^-1", radial_range=RANGE, method=("full", "csr", "cython"),
        dummy=GAP, delta_dummy=0,
    ).intensity  # fmt: skip


def axis(points: int) -> xr.Variable:
    """Return q in the middle of each bin."""
    edges = np.linspace(*RANGE, points + 1)
    return xr.Variable("q", (edges[:-1] + edges[1:]) / 2, {"units": "1/Å"})


def integrate_block(block: xr.Dataset, geometry: Mapping[str, float], points: int) -> xr.Dataset:
    """Return I(q) of events in memory, divided by the monitor."""
    curves = np.stack([intensity(image, geometry, points) for image in block["img"].values])
    normalized = curves / block["i0"].values[:, np.newaxis]
    kept = block[["temperature", "i0"]].assign_coords(q=axis(points))
    return kept.assign(intensity=(("time", "q"), normalized))


def integrate(dataset: xr.Dataset, geometry: Mapping[str, float], points: int) -> xr.Dataset:
    """Return I(q) of a lazy Dataset of one run or many, computed block by block."""
    lazy = da.zeros((dataset.sizes["time"], points), chunks=(dataset.chunks["time"], points))
    template = dataset[["temperature", "i0"]].assign_coords(q=axis(points))
    template = template.assign(intensity=(("time", "q"), lazy))
    keywords = {"geometry": geometry, "points": points}
    made = xr.map_blocks(integrate_block, dataset, kwargs=keywords, template=template)
    return made.assign_attrs(pyFAI=pyFAI.version)
