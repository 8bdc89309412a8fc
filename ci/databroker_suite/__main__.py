"""Run databroker 1.2.5's own tests with daskbroker in the place of databroker's objects.

    python ci/databroker_suite                  # a DataBroker itself
    python ci/databroker_suite --face v1        # its attribute v1: databroker's Broker
    python ci/databroker_suite --face v2        # its attribute v2: databroker's catalog

The tests run in a new environment with a wheel of this checkout and an installed databroker, which
includes its tests. ``--python PATH`` names an existing environment instead. Each test that fails
must be listed in ``remaining.toml``: as absent on purpose, as internals of databroker, or as open.
The exit status is 1 if another test fails, or if a listed one passes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as xml
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGES = (
    "databroker==1.2.5",
    "intake==0.6.4",
    "mongomock",
    "setuptools<81",  # intake imports pkg_resources
    "suitcase-jsonl",
    "suitcase-mongo",
    "suitcase-msgpack",
    "ujson",
)
KINDS = ("absent", "internals", "open")
STORES = ("embedded", "mongodb")
MODULES = {"v1": ["test_v1.py"], "v2": ["test_v2.py"]}
"""Modules of tests for the faces that are one of databroker's versions; other faces run all."""


def main() -> None:
    """Run the suite, print the table, and return 1 if the outcome is not as written down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--face",
        action="append",
        help="'itself', or the attribute of a DataBroker; may be repeated",
    )
    parser.add_argument("--python", help="with daskbroker's test extra and databroker's packages")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        python = given.python or make_environment(Path(scratch, "environment"))
        faces = given.face or ["itself"]
        found = {face: run(python, face, Path(scratch, "outcomes.xml")) for face in faces}
    remaining = tomllib.loads((HERE / "remaining.toml").read_text())
    sys.exit(max([report(face, found[face], remaining.get(face, {})) for face in faces]))


def make_environment(folder: Path) -> str:
    """Make the environment, which takes some minutes."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, f"{ROOT}[test]", *PACKAGES], check=True)
    return python


def run(python: str, face: str, outcomes: Path) -> dict[str, str]:
    """Return ``{test: outcome}``. A test passes if it passes on each store."""
    # pytest's own tracebacks parse sources, which Python 3.11 cannot after a RecursionError.
    command = [python, "-m", "pytest", "--quiet", "--no-header", "--tb=native", "--timeout=120"]
    command += ["-p", "no:cacheprovider", "-W", "ignore", f"--junitxml={outcomes}"]
    command += ["--rootdir", str(HERE), "-c", os.devnull]
    command += [str(HERE / module) for module in MODULES.get(face, ["."])]
    environment = {**os.environ, "DASKBROKER_FACE": face.replace("itself", "")}
    done = subprocess.run(command, env=environment, cwd=HERE, check=False)
    if done.returncode not in (0, 1):  # 1: some tests fail
        sys.exit(f"pytest ended with status {done.returncode}, so not every test was run")
    found: dict[str, list[str]] = {}
    for case in xml.parse(outcomes).getroot().iter("testcase"):
        parts = {child.tag for child in case}
        outcome = "failed" if parts & {"failure", "error"} else "passed"
        outcome = "skipped" if "skipped" in parts else outcome
        found.setdefault(name_of(case), []).append(outcome)
    cases = Counter(outcome for several in found.values() for outcome in several)
    print(f"\n{sum(cases.values())} cases: {', '.join(f'{n} {how}' for how, n in cases.items())}")
    return {
        name: max(several) if "failed" not in several else "failed"
        for name, several in found.items()
    }


def name_of(case: xml.Element) -> str:
    """Return the name of a test without the store and, in version 2, without the detector."""
    module = str(case.get("classname")).rpartition(".")[2]
    test, _, parameters = str(case.get("name")).partition("[")
    left = [one for one in parameters.removesuffix("]").split("-") if one and one not in STORES]
    return f"{module}::{test}" + (f"[{'-'.join(left)}]" if left and module == "test_v1" else "")


def report(face: str, outcomes: dict[str, str], remaining: dict[str, list[str]]) -> int:
    """Print which tests fail and why; return 1 if that is not as written down."""
    print(f"\nface {face}:")
    failed = {name for name, outcome in outcomes.items() if outcome == "failed"}
    kinds = {name: kind for name, (kind, _) in remaining.items()}
    for name in sorted(failed):
        kind, why = remaining.get(name, ["UNKNOWN", "is not in remaining.toml"])
        print(f"{kind:<10} {name:<60} {why}")
    passed = sorted(name for name in kinds if outcomes.get(name) == "passed")
    for name in passed:
        print(f"PASSES     {name:<60} is in remaining.toml")
    counted = Counter(outcomes.values())
    by_kind = ", ".join(f"{sum(kinds.get(name) == k for name in failed)} {k}" for k in KINDS)
    print(
        f"{counted['passed']} of {len(outcomes)} tests pass on every store, "
        f"{counted['skipped']} are skipped, {len(failed)} fail: {by_kind}"
    )
    return int(bool(passed or failed - kinds.keys()))


if __name__ == "__main__":
    main()
