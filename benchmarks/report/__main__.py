"""Measure all workloads in one run, and write docs/performance.md: ``python -m benchmarks.report``.

It takes about twenty minutes on two idle cores, and some more the first time, when the environments
of the peers are made. If a case, a workload or a peer fails, the page names it, and the others go
on. ``--page`` measures nothing: it writes the page, the pictures and the quoted figures of the
README again, from docs/performance.json.
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
"""Seconds for the samples of one case; a long case gets fewer samples."""
LATE = 400.0
"""Seconds after which each remaining workload gets the samples of ``ROUNDS``, and no more."""
ROUNDS = 45.0
"""Seconds for which a workload gets all its samples, however late it is. With one sample each, a
case would be compared with what the machine did during another one: such a sample of one thread
was three times too long."""
SIZES = replace(
    Sizes(), runs=2_000, single_events=5_000, compressed_frames=32, wide_events=1_000_000
)  # fmt: skip
"""Sizes, some smaller than those of ``python -m benchmarks``, to finish in twenty minutes."""
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
    """Measure, print the table, write the JSON, the page, the pictures and the README's figures.

    Return 1 if a workload failed or a peer is missing. The page is written in any case; it names
    what failed, and so do the last lines of the output.
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
    """Return the JSON of all workloads."""
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
    """Return the workloads on a server, which is started for the first of them."""

    def make(name: str) -> Make:
        return lambda sizes, folder: BESIDE[name](Bench(sizes, folder, server(), peers))

    return {name: make(name) for name in PEERS}


def _results(
    name: str, make: Make, sizes: Sizes, repeat: int, late: float, failures: dict[str, str]
) -> list[Result]:
    """Return the results of one workload; errors of single cases are added to ``failures``."""
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
