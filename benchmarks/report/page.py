"""Write docs/performance.md from the numbers of one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.report.growth import GROWTH
from benchmarks.report.numbers import amount, goals, growth, seconds, side_by_side
from benchmarks.report.pictures import bars, loglog

__all__ = ["write_page"]

BUSY = 0.5
"""Load average per core above which the page warns of a busy machine."""
SECTIONS = {
    "run": (
        "One long run",
        "{events:,} events of 12 columns. databroker 1 and 2 and the two MongoDB stores read from "
        "one MongoDB server. databroker 2 is a Tiled server on that database, in the same process "
        "as its client. Tiled with BlueskyPlugins (`bluesky-tiled-plugins`) is a server on the "
        "same machine with files of its own. pyarrow reads a plain Parquet file of the same "
        "columns, which is the lower limit for any table.",
        ("long",),
    ),
    "frames": (
        "Detector frames",
        "{file_frames:,} frames of {frame_side} x {frame_side} `uint16`, not compressed, in one "
        "HDF5 file. `h5py` reads the dataset by its name. The time to make VirtualiZarr's "
        "references is not counted. databroker 1 and 2 use a handler that reads one frame per "
        "call.",
        ("frames",),
    ),
    "runs": (
        "Many short runs",
        "{runs:,} runs of 20 events in MongoDB. Each search looks up 50 runs, one after the other. "
        "databroker has no table of many runs: pandas concatenates the tables of single runs.",
        ("short",),
    ),
}
INSERTED = {
    "insert": "A run of {single_events:,} events of 12 columns into MongoDB. daskbroker waits "
    "until the server's log is on disk; suitcase-mongo does not.",
    "short-insert": "Runs of ten events, each with its start and stop.",
}

WORKLOADS = {
    "long": "a run of {events:,} events of 12 columns, beside other programs",
    "frames": "{file_frames:,} frames of {frame_side} x {frame_side} in one file",
    "short": "{runs:,} runs of 20 events in MongoDB: look-ups of 50 of them, the table of "
    "{runs_in_table:,}, and the number of commands sent for views of all of them, including "
    "those for further batches",
    "insert": "{single_events:,} events of 12 columns into MongoDB",
    "short-insert": "runs of ten events, beside suitcase-mongo",
    "wide": "{wide_events:,} events of 23 columns",
    "build": "a run of {chunks:,} chunks, with one partition per chunk: opened, not computed",
    "image-runs": "{runs:,} runs of three frames, each run with a file of its own: one table of "
    "all, opened",
    "columns": "a baseline of {baseline_keys:,} keys; {columns} columns of {column_events:,} "
    "events; {wide_events:,} events of 23 columns: datasets beside tables",
    "claims": "{file_frames:,} frames of {frame_side} x {frame_side}, described in full, without "
    "a dtype, and without dtype and shape, as older descriptors do",
    "compressed": "{compressed_frames} frames of {compressed_side} x {compressed_side}, by filter",
}
"""Descriptions of the workloads with goals."""


def write_page(numbers: Mapping[str, Any], docs: Path) -> None:
    """Write the page and the pictures into a folder of documentation."""
    images = docs / "images" / "performance"
    for old in images.glob("*.svg"):
        old.unlink()
    text = "\n".join(_page(numbers, images)) + "\n"
    (docs / "performance.md").write_text(text, encoding="utf8")


def _page(numbers: Mapping[str, Any], images: Path) -> Iterator[str]:
    yield "# Performance\n"
    yield from _about(numbers)
    yield from _not_measured(numbers)
    yield from _beside(numbers, images)
    yield from _inserted(numbers)
    yield from _compressed(numbers)
    yield from _growth(numbers, images)
    if not numbers["quick"]:
        yield from _goals(numbers)


# -- where and when --------------------------------------------------------------------------


def _about(numbers: Mapping[str, Any]) -> Iterator[str]:
    machine, revision = numbers["machine"], numbers["revision"] or {}
    memory = (machine["memory_bytes"] or 0) / 2**30
    yield (
        "All figures on this page come from one run of one command on one machine. Ratios carry "
        "over to other machines better than seconds do.\n"
    )
    yield "    python -m benchmarks.report\n"
    yield (
        f"writes this page, its pictures and [`performance.json`](performance.json). On this "
        f"machine that took {numbers['seconds'] / 60:.0f} minutes. A figure is the median of up to "
        f"{numbers['repeat']} samples, or of fewer if one takes many seconds. Each result is "
        "compared with the data that were stored.\n"
    )
    for warning in _warnings(numbers):
        yield f"**{warning}**\n"
    yield from _table(
        ("", ""),
        ("date", numbers["date"][:10]),
        ("machine", f"{machine['cpu']}, {machine['cores']} cores, {memory:.0f} GiB"),
        ("system", f"{machine['platform']}, Python {machine['python']}"),
        ("packages", _versions(machine["packages"])),
        ("beside", _versions(numbers["peers"]) or "no other program"),
        ("commit", f"`{revision.get('commit', 'unknown')[:12]}`"),
    )


def _warnings(numbers: Mapping[str, Any]) -> Iterator[str]:
    load = numbers["machine"]["load"] or [0.0]
    if numbers["quick"]:
        yield "The sizes were tiny, to try the report: the figures mean nothing."
    if load[0] > BUSY * numbers["machine"]["cores"]:
        yield (
            f"The machine was busy with other work (load average {load[0]:.1f} at the beginning): "
            "times are too long, and ratios uncertain."
        )


def _versions(packages: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {version}" for name, version in packages.items() if version)


def _not_measured(numbers: Mapping[str, Any]) -> Iterator[str]:
    missing, failures = numbers["missing"], numbers["failures"]
    if missing or failures:
        yield "\n## What is missing\n"
        yield from _table(
            ("not measured", "why"),
            *((name, _in_a_cell(reason)) for name, reason in (missing | failures).items()),
        )


def _in_a_cell(text: str) -> str:
    """Format an error message as code in a cell of a table."""
    return f"`{' '.join(text.replace('|', ' ').replace('`', ' ').split())}`"


# -- beside other programs -------------------------------------------------------------------


def _beside(numbers: Mapping[str, Any], images: Path) -> Iterator[str]:
    for name, (title, text, workloads) in SECTIONS.items():
        sets = side_by_side(numbers["results"], dict.fromkeys(workloads))
        if sets:
            yield f"\n## {title}\n"
            yield text.format(**numbers["sizes"]) + "\n"
            bars(sets, images / f"{name}.svg")
            yield f"![{title}: seconds of each program](images/performance/{name}.svg)\n"
            yield from _matrix(sets)


def _matrix(sets: Mapping[str, Mapping[str, dict[str, Any]]]) -> Iterator[str]:
    """Yield a row for each program, with its time relative to the fastest of daskbroker."""
    programs = list(dict.fromkeys(name for found in sets.values() for name in found))
    programs.sort(key=lambda name: not name.startswith("daskbroker"))
    rows = [(name, *(_beside_best(name, found) for found in sets.values())) for name in programs]
    yield from _table(("", *sets), *rows)
    yield "\nIn brackets: the time divided by the fastest time of daskbroker."


def _beside_best(name: str, found: Mapping[str, dict[str, Any]]) -> str:
    if name not in found:
        return ""
    ours = [r["median"] for program, r in found.items() if program.startswith("daskbroker")]
    median = found[name]["median"]
    alone = name.startswith("daskbroker") or not ours
    return seconds(median) + ("" if alone else f" ({_times(median / min(ours))})")


def _times(ratio: float) -> str:
    """Format a ratio with two digits, without an exponent."""
    return f"{float(f'{ratio:.2g}'):,g}"


def _inserted(numbers: Mapping[str, Any]) -> Iterator[str]:
    for place, (workload, text) in enumerate(INSERTED.items()):
        found = [result for result in numbers["results"] if result["workload"] == workload]
        if found:
            yield "" if place else "\n## Inserting\n"
            yield text.format(**numbers["sizes"]) + "\n"
            rows = [
                (r["case"], seconds(r["median"]), f"{r['per_second']:,.0f} {r['things']}/s")
                for r in found
            ]
            yield from _table(("", "", ""), *rows)


def _compressed(numbers: Mapping[str, Any]) -> Iterator[str]:
    found = side_by_side(numbers["results"], {"compressed": None})
    if found:
        yield "\n## Compressed frames\n"
        yield (
            "{compressed_frames} frames of {compressed_side} x {compressed_side} `uint32` in one "
            "process. HDF5 decodes under its lock, one thread at a time; daskbroker decodes "
            "without the lock.\n"
        ).format(**numbers["sizes"])
        programs = list(dict.fromkeys(name for cases in found.values() for name in cases))
        rows = [
            (name, *(seconds(cases[p]["median"]) if p in cases else "" for p in programs))
            for name, cases in found.items()
        ]
        yield from _table(("filter", *programs), *rows)


# -- growth and goals ------------------------------------------------------------------------


def _growth(numbers: Mapping[str, Any], images: Path) -> Iterator[str]:
    yield "\n## How cost grows\n"
    yield "Both axes are logarithmic. The dotted line shows proportional growth.\n"
    for name, one in GROWTH.items():
        curves = growth(numbers["results"], name)
        if curves:
            loglog(curves, one.things, images / f"{name}.svg")
            yield f"\n### {one.things.capitalize()}\n"
            yield f"{one.text}\n"
            yield f"![Seconds over the number of {one.things}](images/performance/{name}.svg)\n"
            yield from _points(curves, one.things)


def _points(curves: Mapping[str, list[tuple[int, float]]], things: str) -> Iterator[str]:
    sizes = sorted({size for points in curves.values() for size, _ in points})
    rows = [
        (series, *(seconds(dict(points)[s]) if s in dict(points) else "" for s in sizes))
        for series, points in curves.items()
    ]
    yield from _table((things, *(f"{size:,}" for size in sizes)), *rows)


def _goals(numbers: Mapping[str, Any]) -> Iterator[str]:
    rows = [_goal(result, comparison) for result, comparison in goals(numbers["results"])]
    yield "\n## Goals\n"
    yield (
        "The goals that we want to meet, and whether this run met them. A result is close if more "
        "than a quarter of the single samples disagree with it. `python -m benchmarks` and "
        "`python -m benchmarks.peers` measure more.\n"
    )
    measured = {result["workload"] for result, _ in goals(numbers["results"])}
    for workload, text in WORKLOADS.items():
        if workload in measured:
            yield f"- `{workload}`: {text.format(**numbers['sizes'])}"
    yield ""
    yield from _table(("what", "took", "beside", "ratio", "goal", "met"), *rows)


def _goal(result: Mapping[str, Any], comparison: Mapping[str, Any]) -> tuple[str, ...]:
    unit, faster = result["unit"], comparison["goal_times_faster"]
    met = {True: "yes", False: "**no**", None: ""}[comparison["met"]]
    met += ", close" if comparison["clear"] is False else ""
    if not comparison["with"]:
        ratio, goal = "", f"at most {amount(comparison['goal_at_most'], unit)}"
    elif faster is not None:
        ratio, goal = f"{comparison['times_faster']:.3g} times faster", f"{faster:g} times faster"
    else:
        ratio, goal = f"{comparison['ratio']:.3g}", f"at most {comparison['goal_at_most']:.3g}"
    beside = comparison["with"] or "a limit"
    what = f"{result['workload']}: {result['case']}"
    return what, amount(result["median"], unit), beside, ratio, goal, met


def _table(head: tuple[str, ...], *rows: tuple[str, ...]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"
