"""Measure all in one run, and make docs/performance.md of it: ``python -m benchmarks.report``.

It takes about ten minutes on two cores with nothing else to do, and some more the first time, when
the environments of the peers are made. ``--page`` makes page and pictures anew from
docs/performance.json and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.building import build
from benchmarks.compressed import compressed
from benchmarks.harness import QUICK, Result, Sizes, Workload, measure
from benchmarks.output import lines, machine, to_json
from benchmarks.peers.bench import Bench
from benchmarks.peers.process import Peers
from benchmarks.peers.workloads import WORKLOADS as BESIDE
from benchmarks.report.growth import GROWTH
from benchmarks.report.page import write_page
from benchmarks.tables import wide
from daskbroker.testing.mongod import mongod

DOCS = Path(__file__).parents[2] / "docs"
REPEAT = 5
PATIENCE = 20.0
"""Seconds for the samples of one case: of what takes long, there are fewer."""
LATE = 480.0
"""Seconds after which each case that is left has one sample, so that twelve minutes are enough."""
SIZES = replace(
    Sizes(), runs=2_000, single_events=5_000, compressed_frames=32, wide_events=500_000
)  # fmt: skip
"""Some smaller than those of ``python -m benchmarks``, so that all is done in ten minutes."""
ALONE: dict[str, Callable[[Sizes, Path], Workload]] = {
    "wide": wide,
    "build": build,
    "compressed": compressed,
    **{name: growth.workload for name, growth in GROWTH.items()},
}
PEERS = ("long", "embedded", "frames", "short", "insert")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write JSON, page and pictures."""
    options = _parser().parse_args(arguments)
    numbers = options.docs / "performance.json"
    if not options.page:
        found = _measured(QUICK if options.quick else SIZES, options.only, options.repeat)
        numbers.write_text(found + "\n", encoding="utf8")
    write_page(json.loads(numbers.read_text(encoding="utf8")), options.docs)
    return 0


def _measured(sizes: Sizes, only: Sequence[str] | None, repeat: int) -> str:
    """The JSON of all workloads."""
    began, before = time.monotonic(), machine()
    results: list[Result] = []
    with mongod() as server, Peers() as peers:
        for name, make in _workloads(server.uri, peers):
            if not only or name in only:
                late = time.monotonic() - began > LATE
                results += _results(name, make, sizes, 1 if late else repeat)
        versions = peers.versions()
    print("\n".join(lines(results)))
    seconds = round(time.monotonic() - began)
    return to_json(
        results, sizes, repeat, machine=before, peers=versions, seconds=seconds, quick=sizes.quick
    )


def _workloads(
    server: str, peers: Peers
) -> Iterator[tuple[str, Callable[[Sizes, Path], Workload]]]:
    for name in PEERS:
        yield (
            name,
            lambda sizes, folder, name=name: BESIDE[name](Bench(sizes, folder, server, peers)),
        )
    yield from ALONE.items()


def _results(
    name: str, make: Callable[[Sizes, Path], Workload], sizes: Sizes, repeat: int
) -> list[Result]:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="daskbroker-report-") as folder:
        workload = make(sizes, Path(folder))
        try:
            return measure(name, workload, repeat, quick=sizes.quick, patience=PATIENCE)
        finally:
            workload.close()
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see whether it works")
    parser.add_argument("--page", action="store_true", help="measure nothing, make the page anew")
    parser.add_argument("--repeat", type=int, default=REPEAT, help=f"samples, at most ({REPEAT})")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=[*PEERS, *ALONE],
        help=f"only these workloads: {', '.join([*PEERS, *ALONE])}",
    )  # fmt: skip
    parser.add_argument("--docs", type=Path, default=DOCS, metavar="FOLDER", help="(docs)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
