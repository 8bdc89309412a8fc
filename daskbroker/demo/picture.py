"""Draw the results of the demo in one picture with four panels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..broker import DataBroker
from ..core.errors import ConfigError
from ..results import Results
from .composed import FLY_ROWS, FLY_UID
from .frame_file import FRAMES


def save_picture(path: Path, db: DataBroker, results: DataBroker, mean: np.ndarray) -> None:
    """Draw a spectrum, a map, the mean of the frames, and the derived runs, into a file.

    Raises
    ------
    ConfigError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(
            "pictures are made by matplotlib, which is not installed: "
            "pip install 'daskbroker[plot]'"
        ) from None
    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    spectrum, grid, frames, peaks = figure.subplots(2, 2).ravel()
    _draw_spectrum(spectrum, db)
    db(plan_name="grid_scan")[0].plot(ax=grid)
    grid.set_title("header.plot() of a grid scan")
    drawn = frames.imshow(mean, vmax=np.quantile(mean, 0.999))
    frames.set_title(f"The mean of {FRAMES:,} frames, by two workers")
    figure.colorbar(drawn, ax=frames).set_label("counts")
    _draw_peaks(peaks, results)
    figure.savefig(path, dpi=90)


def peaks_of(results: DataBroker) -> Results:
    """Return the derived runs that have the position of a peak; others may be stored, too."""
    return results(descriptor={"data_keys.position": {"$exists": True}})


def _draw_spectrum(axes: Any, db: DataBroker) -> None:
    table = db[FLY_UID].table(fields=["energy", "i0", "it"])
    sums = table.groupby(table["energy"].round())[["i0", "it"]].sum().compute().sort_index()
    axes.plot(sums.index, np.log(sums["i0"] / sums["it"]))
    axes.set(
        xlabel="energy (eV)",
        ylabel="absorption",
        title=f"A table of {FLY_ROWS:,} rows, grouped by energy",
    )


def _draw_peaks(axes: Any, results: DataBroker) -> None:
    found = peaks_of(results).table(fields=["position", "start:temperature"]).compute()
    axes.plot(found["start:temperature"], found["position"], "o")
    axes.set(
        xlabel="temperature (K)",
        ylabel="position of the peak",
        title=f"{len(found)} derived runs as one table",
    )
