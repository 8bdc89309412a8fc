"""Benchmarks of the embedded store: ``python -m benchmarks`` from the checkout."""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.building import build
from benchmarks.claims import claimed_runs, claims
from benchmarks.cluster import cluster
from benchmarks.compressed import compressed
from benchmarks.datasets import columns, legacy, tree
from benchmarks.filling import fill, references
from benchmarks.harness import QUICK, Result, Sizes, Workload, measure
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
        print(f"{name} …", file=sys.stderr, flush=True)
        results += _run(name, sizes, options.repeat)
    print("\n".join(lines(results)))
    print(f"databroker, tiled and recorded floor: {NOTE}")
    if options.json is not None:
        options.json.write_text(to_json(results, sizes, options.repeat) + "\n")
    return 0


def _run(name: str, sizes: Sizes, repeat: int) -> list[Result]:
    with tempfile.TemporaryDirectory(prefix="daskbroker-benchmark-") as folder:
        workload = WORKLOADS[name](sizes, Path(folder))
        try:
            return measure(name, workload, repeat, quick=sizes.quick)
        finally:
            workload.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--repeat", type=positive, default=5, help="samples of each case (5)")
    parser.add_argument(
        "--only", nargs="+", choices=sorted(WORKLOADS), metavar="NAME",
        help=f"only these workloads: {', '.join(WORKLOADS)}",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to this file")
    parser.add_argument(
        "--full", action="store_true", help="a million headers, a store of 2 GB; takes long"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes; no goal is judged")
    return parser


def positive(text: str) -> int:
    """Convert a command-line argument to an integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
