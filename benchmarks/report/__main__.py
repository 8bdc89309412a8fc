"""Measure all in one run, and make docs/performance.md of it: ``python -m benchmarks.report``.

It takes about twenty minutes on two cores with nothing else to do, and some more the first time,
when the environments of the peers are made. A case, a workload or a peer that fails is named on the
page, and costs no other. ``--page`` makes page, pictures and what the README quotes anew from
docs/performance.json and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from benchmarks.building import build
from benchmarks.claims import claims
from benchmarks.compressed import compressed
from benchmarks.datasets import columns
from benchmarks.harness import QUICK, Result, Sizes, Workload, measure
from benchmarks.image_runs import image_runs
from benchmarks.output import lines, machine, to_json
from benchmarks.peers.bench import Bench
from benchmarks.peers.process import Peers
from benchmarks.peers.workloads import WORKLOADS as BESIDE
from benchmarks.report.growth import GROWTH
from benchmarks.report.page import write_page
from benchmarks.report.quote import write_quote
from benchmarks.tables import wide
from daskbroker.testing.mongod import mongod

ROOT = Path(__file__).parents[2]
REPEAT = 5
PATIENCE = 4.0
"""Seconds for the samples of one case: of what takes long, there are fewer."""
LATE = 400.0
"""Seconds after which each workload that is left has its ROUNDS, and no more."""
ROUNDS = 45.0
"""Seconds for which a workload has all its samples, however late it is. One sample each would
compare a case with what happened to the machine while the other one ran: the sample of one thread
once showed three times what it takes."""
SIZES = replace(
    Sizes(), runs=2_000, single_events=5_000, compressed_frames=32, wide_events=1_000_000
)  # fmt: skip
"""Some smaller than those of ``python -m benchmarks``, so that all is done in twenty minutes."""
Make = Callable[[Sizes, Path], Workload]
ALONE: dict[str, Make] = {
    "wide": wide,
    "build": build,
    "image-runs": image_runs,
    "columns": columns,
    "claims": partial(claims, names=("no dtype", "nothing")),
    "compressed": compressed,
    **{name: growth.workload for name, growth in GROWTH.items()},
}
PEERS = ("long", "frames", "short", "insert", "short-insert")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write JSON, page, pictures and what the README quotes.

    1 if a workload failed or a peer is missing: the page, which is written all the same, and the
    end of what is printed name it.
    """
    options = _parser().parse_args(arguments)
    numbers = options.docs / "performance.json"
    if not options.page:
        found = _measured(QUICK if options.quick else SIZES, options.only, options.repeat)
        numbers.write_text(found + "\n", encoding="utf8")
    facts = json.loads(numbers.read_text(encoding="utf8"))
    write_page(facts, options.docs)
    readme = options.docs.parent / "README.md"
    if readme.exists():
        write_quote(facts, readme)
    for name, reason in (facts["failures"] | facts["missing"]).items():
        print(f"NOT MEASURED: {name}: {reason}", file=sys.stderr)
    return 1 if facts["failures"] or facts["missing"] else 0


def _measured(sizes: Sizes, only: Sequence[str] | None, repeat: int) -> str:
    """The JSON of all workloads."""
    began, before = time.monotonic(), machine()
    results: list[Result] = []
    failures: dict[str, str] = {}
    with ExitStack() as stack, Peers() as peers:

        @cache
        def server() -> str:
            return stack.enter_context(mongod()).uri

        chosen = {
            name: make
            for name, make in (_beside(server, peers) | ALONE).items()
            if not only or name in only
        }
        for place, (name, make) in enumerate(chosen.items(), start=1):
            _say(f"[{place}/{len(chosen)}] {name} …")
            results += _results(name, make, sizes, repeat, began + LATE, failures)
        versions, missing = peers.versions(), peers.missing
    print("\n".join(lines(results)))
    seconds = round(time.monotonic() - began)
    return to_json(
        results, sizes, repeat, machine=before, peers=versions, missing=missing,
        failures=failures, seconds=seconds, quick=sizes.quick,
    )  # fmt: skip


def _beside(server: Callable[[], str], peers: Peers) -> dict[str, Make]:
    """The workloads on a server, which starts with the first of them."""

    def make(name: str) -> Make:
        return lambda sizes, folder: BESIDE[name](Bench(sizes, folder, server(), peers))

    return {name: make(name) for name in PEERS}


def _results(
    name: str, make: Make, sizes: Sizes, repeat: int, late: float, failures: dict[str, str]
) -> list[Result]:
    """The results of one workload; what fails costs only itself, and joins ``failures``."""
    began = time.monotonic()
    failed: dict[str, str] = {}
    results: list[Result] = []
    with tempfile.TemporaryDirectory(
        prefix="daskbroker-report-", ignore_cleanup_errors=True
    ) as folder:
        try:
            workload = make(sizes, Path(folder))
            ready = time.monotonic()
            results = measure(
                name, workload, repeat,
                quick=sizes.quick, patience=PATIENCE, until=max(late, ready + ROUNDS),
                failures=failed,
            )  # fmt: skip
            workload.close()
        except Exception as error:
            traceback.print_exc()
            failures[name] = f"{type(error).__name__}: {error}"
        else:
            ended = time.monotonic()
            _say(f"    {ready - began:.0f} s to prepare, {ended - ready:.0f} s to measure")
    failures.update({f"{name}: {case}": reason for case, reason in failed.items()})
    return results


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


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
    parser.add_argument(
        "--docs",
        type=Path,
        default=ROOT / "docs",
        metavar="FOLDER",
        help="where page and numbers go (docs); a README.md beside it quotes them",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
