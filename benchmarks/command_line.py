"""What ``python -m benchmarks`` and ``python -m benchmarks.peers`` have in common."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from benchmarks.harness import Result, Sizes, Workload, measure

__all__ = ["parser_of", "positive", "results_of"]


def parser_of(
    program: str, description: str, workloads: Collection[str]
) -> argparse.ArgumentParser:
    """Return a parser of the options that both commands have."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--repeat", type=positive, default=5, help="samples of each case (5)")
    parser.add_argument(
        "--only", nargs="+", choices=sorted(workloads), metavar="NAME",
        help=f"only these workloads: {', '.join(workloads)}",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to this file")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; no goal is judged")
    return parser


def positive(text: str) -> int:
    """Convert a command-line argument to an integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def results_of(
    name: str, make: Callable[[Path], Workload], sizes: Sizes, repeat: int
) -> list[Result]:
    """Make a workload in a temporary folder, and measure it."""
    print(f"{name} …", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="daskbroker-benchmark-") as folder:
        workload = make(Path(folder))
        try:
            return measure(name, workload, repeat, quick=sizes.quick)
        finally:
            workload.close()
