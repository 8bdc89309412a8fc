"""The figures of docs/performance.md that the README quotes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.report.numbers import seconds, side_by_side

__all__ = ["quote", "write_quote"]

BLOCK = re.compile(r"(<!-- python -m benchmarks.report -->\n).*?(\n<!-- end -->)", re.DOTALL)
PLACES = {
    "daskbroker": ("daskbroker, embedded", "daskbroker"),
    "databroker {databroker}": ("databroker 1",),
    "databroker {databroker 2}": ("databroker 2",),
    "Tiled {tiled}": ("Tiled",),
    "floor": ("pyarrow", "h5py"),
}
"""Programs of each column. The first one that has a figure is shown."""
FLOORS = ("pyarrow", "h5py")
ROWS = {
    "table": "a table of {events:,} events, 12 columns",
    "documents": "its documents",
    "frames": "{file_frames:,} frames of {frame_side} x {frame_side}, not compressed",
    "search and table of {runs_in_table:,}": (
        "a search among {runs:,} runs and the table of its {runs_in_table:,}, MongoDB"
    ),
}
"""Quoted measurements, by the names of their cases."""
BESIDE = {
    "daskbroker, MongoDB sealed": "MongoDB, sealed",
    "daskbroker, without dask": "without Dask",
}
"""Programs that are named in brackets beside daskbroker."""


def write_quote(numbers: Mapping[str, Any], readme: Path) -> None:
    """Write the figures into the marked block of a README."""
    text = readme.read_text(encoding="utf8")
    table = quote(numbers).replace("\\", r"\\")
    readme.write_text(BLOCK.sub(rf"\g<1>{table}\g<2>", text), encoding="utf8")


def quote(numbers: Mapping[str, Any]) -> str:
    """Return the table in Markdown, without programs and rows that have no figure."""
    sets = side_by_side(numbers["results"], dict.fromkeys(("long", "frames", "short")))
    rows = {
        text.format(**numbers["sizes"]): sets.get(case.format(**numbers["sizes"]), {})
        for case, text in ROWS.items()
    }
    columns = {
        head.format(**{"databroker": "", "databroker 2": "", "tiled": ""} | numbers["peers"]): names
        for head, names in PLACES.items()
        if any(name in found for found in rows.values() for name in names)
    }
    lines = [["", *columns]]
    for text, found in rows.items():
        if found:
            lines.append([text, *(_cell(found, names) for names in columns.values())])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |".replace("|  ", "| ") for line in lines)


def _cell(found: Mapping[str, dict[str, Any]], names: tuple[str, ...]) -> str:
    """Return the figure of one program, followed by others in brackets."""
    shown = next((name for name in names if name in found), None)
    if shown is None:
        return ""
    text = seconds(found[shown]["median"])
    if shown in FLOORS:
        return f"{text}, {shown}"
    if shown.startswith("daskbroker"):
        beside = [
            f"{words}: {seconds(found[name]['median'])}"
            for name, words in BESIDE.items()
            if name in found
        ]
        text += f" ({'; '.join(beside)})" if beside else ""
    return text
