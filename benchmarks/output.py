"""The printed table, the JSON file, and the facts about the machine."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import daskbroker
from benchmarks.harness import Result, Sizes
from benchmarks.reference import NOTE, REFERENCE

__all__ = ["lines", "to_json"]

PACKAGES = (
    "dask", "distributed", "xarray", "pandas", "pyarrow", "numpy", "msgpack",
)  # fmt: skip
HEAD = ("workload", "case", "median", "min", "per second", "against", "ratio", "goal", "met")


def lines(results: Sequence[Result]) -> Iterator[str]:
    """Return the lines of the table, with aligned columns."""
    rows = [HEAD, *(row for result in results for row in _rows(result))]
    widths = [max(len(row[place]) for row in rows) for place in range(len(HEAD))]
    for number, row in enumerate(rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        if number == 0:
            yield "  ".join("-" * width for width in widths)


def _rows(result: Result) -> Iterator[tuple[str, ...]]:
    """Yield one row per comparison; only the first one names the case."""
    unit = result.case.unit
    rate = "" if result.rate is None else f"{result.rate:,.0f} {result.case.things}"
    mine: tuple[str, ...] = (
        result.workload, result.case.name, _amount(result.median, unit),
        _amount(min(result.samples), unit), rate,
    )  # fmt: skip
    for comparison in result.comparisons or [None]:
        yield (*mine, *_compared(comparison, unit))
        mine = ("",) * len(mine)


def _compared(comparison: dict[str, Any] | None, unit: str) -> tuple[str, ...]:
    if comparison is None:
        return ("", "", "", "")
    met = {True: "yes", False: "NO", None: ""}[comparison["met"]]
    met += " (close)" if comparison["clear"] is False else ""
    at_most, faster = comparison["goal_at_most"], comparison["goal_times_faster"]
    if not comparison["with"]:
        return ("", "", f"<= {_amount(at_most, unit)}", met)
    if comparison["ratio"] is None:
        ratio = ""
    elif comparison["with"] in REFERENCE or faster is not None:
        ratio = f"{comparison['times_faster']:.3g}x faster"
    else:
        ratio = f"{comparison['ratio']:.3g}x"
    goal = f"<= {at_most:.3g}x" if at_most is not None else ""
    goal = f">= {faster:g}x faster" if faster is not None else goal
    return (comparison["with"], ratio, goal, met)


def _amount(value: float, unit: str) -> str:
    if unit != "s":
        return f"{value:,.0f} {unit}"
    return f"{value:.3f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


# -- JSON ------------------------------------------------------------------------------------


def to_json(results: Sequence[Result], sizes: Sizes, repeat: int, **more: Any) -> str:
    """Return the results, the machine, the commit, and further given facts as JSON."""
    return json.dumps(
        {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": machine() if "machine" not in more else more.pop("machine"),
            "revision": revision(),
            "repeat": repeat,
            "sizes": asdict(sizes),
            "reference": {
                "note": NOTE,
                "values": {name: entry._asdict() for name, entry in REFERENCE.items()},
            },
            "results": [result.to_dict() for result in results],
            **more,
        },
        indent=1,
    )


def machine() -> dict[str, Any]:
    """Return facts about the machine and the software."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory(),
        "load": load,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {"daskbroker": daskbroker.__version__} | {n: _version(n) for n in PACKAGES},
    }


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def revision() -> dict[str, Any] | None:
    """Return the commit of the checkout and whether files are changed; None without git."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(_git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    root = Path(__file__).resolve().parent.parent
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
