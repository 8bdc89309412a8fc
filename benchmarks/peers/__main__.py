"""Benchmarks beside databroker, Tiled and VirtualiZarr: ``python -m benchmarks.peers``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

from benchmarks.command_line import parser_of, positive, results_of
from benchmarks.harness import QUICK, Result, Sizes, Workload
from benchmarks.output import lines, to_json
from benchmarks.peers.bench import Bench
from benchmarks.peers.environment import ENVIRONMENT
from benchmarks.peers.process import Peers
from benchmarks.peers.workloads import WORKLOADS
from daskbroker.testing.mongod import mongod

SIZES = ("events", "single_events", "wide_events", "runs", "runs_in_table")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run workloads, print the table and write the JSON.

    Return 0 whether goals are met or not, or 1 if a peer is missing, which is printed last.
    """
    options = _parser().parse_args(arguments)
    given = {name: getattr(options, name) for name in SIZES if getattr(options, name) is not None}
    sizes = replace(QUICK if options.quick else Sizes(), **given)
    results: list[Result] = []
    with _server(options.mongo) as server, Peers(options.peer_python) as peers:
        for name in options.only or WORKLOADS:

            def make(folder: Path, name: str = name) -> Workload:
                return WORKLOADS[name](Bench(sizes, folder, server, peers))

            results += results_of(name, make, sizes, options.repeat)
        versions = peers.versions()
    print("\n".join(lines(results)))
    for name, reason in peers.missing.items():
        print(f"not beside {name}: {reason}", file=sys.stderr)
    print("beside " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    if options.json is not None:
        options.json.write_text(to_json(results, sizes, options.repeat, peer=versions) + "\n")
    return 1 if peers.missing else 0


@contextmanager
def _server(given: str | None) -> Iterator[str]:
    if given is not None:
        yield given.rstrip("/")
    else:
        with mongod() as server:
            yield server.uri


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("python -m benchmarks.peers", __doc__ or "", WORKLOADS)
    parser.add_argument(
        "--peer-python", metavar="PATH",
        help=f"Python with databroker 1.2.5 (default: ${ENVIRONMENT}, or a new environment)",
    )  # fmt: skip
    parser.add_argument("--mongo", metavar="URI", help="a MongoDB server (default: start one)")
    defaults = {field.name: field.default for field in fields(Sizes)}
    for name in SIZES:
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=positive, metavar="N", help=f"({defaults[name]:,})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
