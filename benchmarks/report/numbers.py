"""Measurements in the form that the page and its pictures need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["amount", "growth", "named", "seconds", "side_by_side"]

Results = list[dict[str, Any]]
NAMES = {
    "daskbroker": "daskbroker",
    "daskbroker, embedded": "daskbroker, embedded",
    "daskbroker, without dask": "daskbroker, without dask",
    "daskbroker, sealed": "daskbroker, MongoDB sealed",
    "daskbroker, unsealed": "daskbroker, MongoDB unsealed",
    "databroker": "databroker 1",
    "databroker 2": "databroker 2",
    "tiled": "Tiled",
    "virtualizarr": "VirtualiZarr",
}
"""Names of programs on the page, by their names in cases."""


def named(case: str) -> str:
    """Return the name of a program on the page."""
    return NAMES.get(case, case)


def side_by_side(results: Results, workloads: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return ``{task: {program: result}}`` of cases that are named ``task: program``."""
    found: dict[str, dict[str, Any]] = {}
    for result in results:
        what, _, program = result["case"].partition(": ")
        if result["workload"] in workloads and program:
            found.setdefault(what, {})[named(program)] = result
    return found


def growth(results: Results, workload: str) -> dict[str, list[tuple[int, float]]]:
    """Return ``{series: [(size, seconds)]}`` of one workload of growth."""
    found: dict[str, list[tuple[int, float]]] = {}
    for result in results:
        if result["workload"] == workload:
            series = result["case"].rpartition(": ")[0]
            found.setdefault(series, []).append((result["amount"], result["median"]))
    return {series: sorted(points) for series, points in found.items()}


def goals(results: Results) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield results with each comparison that has a goal, except with times of other days."""
    for result in results:
        for comparison in result["comparisons"]:
            goal = comparison["goal_at_most"] or comparison["goal_times_faster"]
            same_run = comparison["with"] in _cases(results, result["workload"])
            if goal is not None and (same_run or not comparison["with"]):
                yield result, comparison


def _cases(results: Results, workload: str) -> set[str]:
    return {result["case"] for result in results if result["workload"] == workload}


def seconds(value: float) -> str:
    """Format a time with two or three digits."""
    if value >= 1:
        return f"{value:,.1f} s" if value < 100 else f"{value:,.0f} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.0f} µs"


def amount(value: float, unit: str) -> str:
    """Format a measurement with its unit."""
    return seconds(value) if unit == "s" else f"{value:,.0f} {unit}"
