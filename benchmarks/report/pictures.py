"""The pictures of the page: bars of programs side by side, and growth in log-log plots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.report.numbers import seconds

__all__ = ["bars", "loglog"]

OURS, OTHERS = "#c25b2b", "#7d8b99"
MARKS = "osD^v"


def bars(sets: Mapping[str, Mapping[str, dict[str, Any]]], file: Path) -> None:
    """Draw the time that each program takes, with one panel per task."""
    heights = [len(programs) for programs in sets.values()]
    figure = Figure((7.5, 0.42 * sum(heights) + 0.6 * len(heights)), layout="constrained")
    panels = figure.subplots(
        len(sets), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axes, (what, programs) in zip(panels[:, 0], sets.items(), strict=True):
        _bars(axes, what, {name: result["median"] for name, result in programs.items()})
    panels[-1, 0].set_xlabel("seconds; less is better")
    _save(figure, file)


def _bars(axes: Axes, what: str, medians: Mapping[str, float]) -> None:
    ordered = sorted(medians.items(), key=lambda pair: -pair[1])
    names, values = zip(*ordered, strict=True)
    colors = [OURS if name.startswith("daskbroker") else OTHERS for name in names]
    drawn = axes.barh(names, values, color=colors)
    axes.bar_label(drawn, [f" {seconds(value)}" for value in values])
    axes.set_xscale("log")
    axes.set_title(what, loc="left", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.3)


def loglog(curves: Mapping[str, list[tuple[int, float]]], things: str, file: Path) -> None:
    """Draw seconds over the number of things, with a dotted line of proportional growth."""
    figure = Figure((6.5, 4), layout="constrained")
    axes = figure.subplots()
    for mark, (series, points) in zip(MARKS, curves.items(), strict=False):
        axes.loglog(*zip(*points, strict=True), marker=mark, label=series)
    _proportional(axes, curves)
    axes.set_xlabel(things)
    axes.set_ylabel("seconds")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
    _save(figure, file)


def _proportional(axes: Axes, curves: Mapping[str, list[tuple[int, float]]]) -> None:
    sizes = [size for points in curves.values() for size, _ in points]
    slowest = max(value for points in curves.values() for _, value in points)
    first, last = min(sizes), max(sizes)
    low, high = axes.get_ylim()
    ends = [slowest * first / last, slowest]
    axes.loglog([first, last], ends, ":", color="gray", label="in proportion", zorder=0)
    axes.set_ylim(low, high)


def _save(figure: Figure, file: Path) -> None:
    """Save as SVG whose text is the same for the same numbers."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "daskbroker", "svg.fonttype": "none"}):
        figure.savefig(file, metadata={"Date": None})
    text = file.read_text(encoding="utf8")
    kept = "\n".join(line.rstrip() for line in text.splitlines())
    file.write_text(kept + "\n", encoding="utf8")
