"""Benchmarks of the embedded store: ``python -m benchmarks`` from the checkout."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.building import build
from benchmarks.claims import claimed_runs, claims
from benchmarks.cluster import cluster
from benchmarks.command_line import parser_of, results_of
from benchmarks.compressed import compressed
from benchmarks.datasets import columns, legacy, tree
from benchmarks.filling import fill, references
from benchmarks.harness import QUICK, Result, Sizes, Workload
from benchmarks.image_runs import image_runs
from benchmarks.inserts import insert
from benchmarks.output import lines, to_json
from benchmarks.reference import NOTE
from benchmarks.runs import runs
from benchmarks.scale import headers, long_run
from benchmarks.short_inserts import short_inserts
from benchmarks.spectra import spectra
from benchmarks.tables import table, wide
from benchmarks.upkeep import upkeep

WORKLOADS: dict[str, Callable[[Sizes, Path], Workload]] = {
    "table": table,
    "insert": insert,
    "short-inserts": short_inserts,
    "wide": wide,
    "runs": runs,
    "spectra": spectra,
    "build": build,
    "columns": columns,
    "tree": tree,
    "legacy": legacy,
    "fill": fill,
    "compressed": compressed,
    "references": references,
    "claims": claims,
    "claimed-runs": claimed_runs,
    "image-runs": image_runs,
    "cluster": cluster,
    "long-run": long_run,
    "headers": headers,
    "upkeep": upkeep,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run workloads, print the table and write the JSON; return 0 whether goals are met or not."""
    options = _parser().parse_args(arguments)
    sizes = QUICK if options.quick else Sizes()
    if options.quick:
        gc.freeze()  # no figure is judged, and collecting garbage would take longest
    if options.full:
        sizes = replace(sizes, headers=1_000_000, stored_bytes=2_000_000_000)
    results: list[Result] = []
    for name in options.only or WORKLOADS:
        results += results_of(name, partial(WORKLOADS[name], sizes), sizes, options.repeat)
    print("\n".join(lines(results)))
    print(f"databroker, tiled and recorded floor: {NOTE}")
    if options.json is not None:
        options.json.write_text(to_json(results, sizes, options.repeat) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("python -m benchmarks", __doc__ or "", WORKLOADS)
    parser.add_argument(
        "--full", action="store_true", help="a million headers, a store of 2 GB; takes long"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
