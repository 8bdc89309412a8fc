"""Mutation testing: change one place of the code at a time, and run the tests of its module.

    python ci/mutations.py                 # the fixed sample
    python ci/mutations.py --each 20       # a larger sample; --each 0: all mutations
    python ci/mutations.py --list          # print the sample, and run nothing
    python ci/mutations.py core/rows core/query    # only these modules

Mutations are made from the syntax tree: comparisons, conditions, numbers, signs, and calls whose
result is not used. The sample is chosen by the text of the mutations alone, so it stays the same
while other code changes. Each mutation is tested in a copy of this checkout, by the tests that
TESTS names for its module. The exit status is 1 if one survives that is not in
ci/known_survivors.txt, where each line says why no test can, or needs to, detect it.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import multiprocessing
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KNOWN = ROOT / "ci" / "known_survivors.txt"
COPIED = ("daskbroker", "tests", "examples", "benchmarks", "docs", "pyproject.toml", "README.md")

MONGO = "tests/stores/test_mongo_conformance.py"
TESTS = {
    "core/operators": ["tests/core/test_query.py"],
    "core/patterns": ["tests/core/test_patterns.py"],
    "core/query": ["tests/core/test_query.py"],
    "core/codec": ["tests/core/test_codec.py"],
    "core/column_kinds": ["tests/core/test_codec.py"],
    "core/chunk_statistics": ["tests/core/test_chunks.py", "tests/core/test_plan_builder.py"],
    "core/chunks": ["tests/core/test_chunks.py", "tests/core/test_plan_builder.py"],
    "core/documents": ["tests/core/test_documents.py"],
    "core/normalizing": ["tests/core/test_normalizing.py", "tests/core/test_documents.py"],
    "core/packed": ["tests/core/test_documents.py"],
    "core/plain_values": ["tests/core/test_documents.py"],
    "core/validate": ["tests/core/test_validate.py"],
    "assets/files/resolving": ["tests/assets/files/test_resolving.py"],
    "assets/regions": ["tests/assets/test_regions.py", "tests/assets/test_shapes.py"],
    "assets/shapes": ["tests/assets/test_shapes.py"],
    "assets/transfer": ["tests/assets/test_transfer.py"],
    "views/row_order": ["tests/views/test_row_order.py", "tests/views/dataset/test_cutting.py"],
    "views/documents/prefetch": [
        "tests/views/documents/test_prefetch.py", "tests/cluster/test_documents.py",
        "tests/test_forking.py",
        "-k", "test_prefetch or cancels or client_is_closed or client_of_the_parent",
    ],
    "views/table/expression": [
        "tests/views/table/test_expression.py",
        "-k", "column or columns or projection or read or reads or lengths or filter or filters",
    ],
    "stores/embedded/document_keys": [
        "tests/stores/embedded/test_journal.py", "tests/stores/embedded/test_uid_keys.py",
        "tests/stores/embedded/test_transactions.py",
    ],
    "stores/embedded/journal": [
        "tests/stores/embedded/test_journal.py", "tests/stores/embedded/test_misplaced.py",
    ],
    "stores/embedded/sealing": [
        "tests/stores/embedded/test_sealing.py", "tests/stores/embedded/test_moved.py",
        "tests/stores/embedded/test_misplaced.py",
    ],
    "stores/embedded/packing": [
        "tests/stores/embedded/test_packing.py", "tests/stores/embedded/test_moved.py",
        "-k", "test_packing or other_store",
    ],
    "stores/embedded/log_sync": ["tests/stores/embedded/test_log_sync.py"],
    "stores/embedded/database": [
        "tests/stores/embedded/test_database.py", "tests/stores/embedded/test_opening.py",
        "tests/stores/embedded/test_log_sync.py",
    ],
    "stores/mongodb/acknowledgement": ["tests/stores/mongodb/test_replica_set.py", "-k",
                                       "wait_for_a_majority or given_up or how_long or in_time"],
    "stores/mongodb/bad_headers": [
        "tests/stores/mongodb/test_foreign_documents.py",
        "-k", "start_costs or stop_costs or right or first_look or many_bad or ls_and_info",
    ],
    "stores/mongodb/bson_documents": [
        "tests/stores/mongodb/test_database.py", "tests/stores/mongodb/test_long_journal.py",
    ],
    "stores/mongodb/chunk_store": [
        "tests/stores/mongodb/test_sealing.py", "tests/stores/mongodb/test_bits.py",
        "-k", "not worker_processes",
    ],
    "stores/mongodb/database": [
        "tests/stores/mongodb/test_database.py", "tests/stores/mongodb/test_access.py",
        "tests/stores/mongodb/test_replica_set.py",
        "-k", "test_database or users or threads or wait or given_up",
    ],
    "stores/mongodb/events": [
        "tests/stores/mongodb/test_events.py", "tests/stores/mongodb/test_sealing.py",
        "tests/stores/mongodb/test_suitcase_database.py",
    ],
    "stores/mongodb/foreign_pages": ["tests/stores/mongodb/test_foreign_pages.py"],
    "stores/mongodb/headers": [
        "tests/stores/mongodb/test_headers.py", MONGO, "-k", "test_headers or Search",
    ],
    "stores/mongodb/indexes": ["tests/stores/mongodb/test_suitcase_database.py"],
    "stores/mongodb/journal": [
        "tests/stores/mongodb/test_reader.py", "tests/stores/mongodb/test_long_journal.py",
        "tests/stores/mongodb/test_sealing.py",
    ],
    "stores/mongodb/journal_ranges": [
        "tests/stores/mongodb/test_long_journal.py",
        "tests/stores/mongodb/test_suitcase_database.py",
    ],
    "stores/mongodb/planning": [
        "tests/stores/mongodb/test_planning.py", "tests/stores/mongodb/test_long_journal.py",
        "tests/stores/mongodb/test_suitcase_database.py",
    ],
    "stores/mongodb/reader": [
        "tests/stores/mongodb/test_reader.py", "tests/stores/mongodb/test_suitcase_database.py",
    ],
    "stores/mongodb/reference_planning": ["tests/stores/mongodb/test_suitcase_database.py"],
    "stores/mongodb/references": [
        "tests/stores/mongodb/test_references.py", "tests/stores/mongodb/test_suitcase_database.py",
    ],
    "stores/mongodb/sealed_rows": ["tests/stores/mongodb/test_sealed_rows.py"],
    "stores/mongodb/sealing": ["tests/stores/mongodb/test_sealing.py"],
    "stores/mongodb/server_errors": ["tests/stores/mongodb/test_server_errors.py"],
    "stores/mongodb/value_types": [
        "tests/stores/mongodb/test_foreign_documents.py",
        "tests/stores/mongodb/test_long_journal.py", "-k", "values or lists or arrays or dtype",
    ],
    "stores/mongodb/event_writer": [
        "tests/stores/mongodb/test_sealing.py", "tests/stores/mongodb/test_sealed_rows.py",
    ],
    "stores/mongodb/filters": ["tests/stores/mongodb/test_database.py", MONGO, "-k",
                               "filters or queries"],
    **{
        f"stores/spool/{name}": [
            "tests/stores/test_spool_faults.py", "tests/stores/mongodb/test_spool.py",
            "-k", "not lose_nothing and not both_die and not interrupted",
        ]
        for name in ("entries", "recovery", "sender")
    },
}  # fmt: skip
"""Arguments of pytest, by the module whose mutations it is to detect."""
OPTIONS = (
    "-q", "-x", "-p", "no:cacheprovider", "-p", "xdist.plugin", "-p", "pytest_timeout",
    "-p", "_hypothesis_pytestplugin", "--hypothesis-seed=0", "--timeout=120",
)  # fmt: skip
"""Options of each run: plugins by name, as the search for them imports for seconds; and a fixed
seed, so that the same mutations survive."""

OTHER: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.And: ast.Or, ast.Or: ast.And, ast.BitOr: ast.BitAnd,
}  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """A change of one place in a module.

    Attributes
    ----------
    module, function
        Module, and function in it.
    before, after
        Text of the place before and after the change.
    number
        Index among the places of the function that have the same text.
    begin, end
        Offsets of the place in the file, in bytes.
    """

    module: str
    function: str
    before: str
    after: str
    number: int
    begin: int
    end: int

    @property
    def place(self) -> str:
        """Return the file and the line."""
        before = (ROOT / "daskbroker" / f"{self.module}.py").read_bytes()[: self.begin]
        return f"daskbroker/{self.module}.py:{len(before.splitlines())}"

    def __str__(self) -> str:
        again = f" [{self.number}]" if self.number else ""
        return f"{self.module}: {self.function}: {self.before} -> {self.after}{again}"


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the forms that a mistake might give a node."""
    new = copy.deepcopy(node)
    if isinstance(new, ast.Compare) and type(new.ops[0]) in OTHER:
        new.ops[0] = OTHER[type(new.ops[0])]()
        yield new
    elif isinstance(new, (ast.BoolOp, ast.BinOp)) and type(new.op) in OTHER:
        new.op = OTHER[type(new.op)]()
        yield new
    elif isinstance(new, ast.UnaryOp) and isinstance(new.op, ast.Not):
        yield new.operand
    elif isinstance(new, ast.Constant) and type(new.value) in (bool, int):
        new.value = not new.value if type(new.value) is bool else new.value + 1
        yield new
    elif isinstance(new, ast.IfExp):
        new.body, new.orelse = new.orelse, new.body
        yield new
    elif isinstance(new, (ast.Break, ast.Continue)):
        yield ast.Continue() if isinstance(new, ast.Break) else ast.Break()
    elif isinstance(new, ast.Expr) and isinstance(new.value, ast.Call):
        yield ast.Pass()


def evaluated(statement: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes inside a statement, without annotations, which are not evaluated."""
    for node in ast.walk(statement):
        if isinstance(node, ast.AnnAssign):  # before the walk below, which looks ahead
            node.annotation = ast.Name("Any")
    for node in ast.walk(statement):
        if hasattr(node, "lineno"):
            yield node


def functions(tree: ast.AST, name: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield all functions with their dotted names; a nested function belongs to the outer one."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield name + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{name}{node.name}.")


def changes(function: ast.FunctionDef) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Yield the nodes in the body of a function, once with each form of :func:`changed`."""
    for statement in function.body:
        for node in evaluated(statement):
            for new in changed(node):
                yield node, new


def mutations(module: str) -> Iterator[Mutation]:
    """Yield all mutations of a module's functions."""
    source = (ROOT / "daskbroker" / f"{module}.py").read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for name, function in functions(ast.parse(source)):
        seen: Counter[tuple[str, str]] = Counter()
        for node, new in changes(function):
            begin = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            texts = ast.unparse(node), ast.unparse(new)
            yield Mutation(module, name, *texts, seen[texts], begin, end)
            seen[texts] += 1


def sample(module: str, count: int) -> list[Mutation]:
    """Return ``count`` mutations, chosen by their text, or all if ``count`` is 0."""
    found = list(mutations(module))
    found.sort(key=lambda one: hashlib.sha256(str(one).encode()).digest())
    return found[: count or None]


def known_survivors() -> dict[str, str]:
    """Return ``{mutation: why it may survive}``."""
    lines = KNOWN.read_text(encoding="utf8").splitlines()
    entries = [line for line in lines if line.strip() and not line.startswith("#")]
    return dict(line.split("  # ", 1) for line in entries)


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([
    "dask.dataframe", "distributed", "event_model", "h5py", "imagecodecs", "pyarrow.parquet",
    "pymongo", "regex", "tifffile", "typer", "xarray",
])  # fmt: skip
"""Imports that take seconds and are not mutated; the process that forks the tests has them."""


def run_tests(folder: str, arguments: list[str]) -> None:
    """Run tests in a copy of the checkout; the process ends with their exit status."""
    os.setsid()  # so that what they start can be killed with them
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    os.chdir(folder)
    os.environ.update(PYTHONPATH=folder, PYTHONDONTWRITEBYTECODE="1")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.dont_write_bytecode = True
    sys.path.insert(0, folder)
    import pytest

    sys.exit(pytest.main([*OPTIONS, *arguments]))


class Bench:
    """A copy of the checkout in which mutations are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            here, there = ROOT / name, folder / name
            if here.is_dir():
                shutil.copytree(here, there, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(here, there)
        self._seconds: dict[str, float] = {}

    def run(self, module: str, timeout: float | None = None) -> int | None:
        """Return the exit status of the module's tests; None if they take too long."""
        process = FORKS.Process(target=run_tests, args=[str(self.folder), TESTS[module]])
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
            return None
        return process.exitcode

    def outcome(self, mutation: Mutation) -> str:
        """Return "noticed", "survived", or "timed out", which counts as noticed."""
        module = mutation.module
        if module not in self._seconds:
            began = time.monotonic()
            if self.run(module) != 0:
                tests = shlex.join(TESTS[module])
                raise SystemExit(f"{module}: its tests fail without a mutation: pytest {tests}")
            self._seconds[module] = time.monotonic() - began
            print(f"{self._seconds[module]:5.1f} s     {module}: its tests", flush=True)
        path = self.folder / "daskbroker" / f"{module}.py"
        source = path.read_bytes()
        is_statement = mutation.after in ("pass", "break", "continue")
        new = mutation.after if is_statement else f"({mutation.after})"
        path.write_bytes(source[: mutation.begin] + new.encode() + source[mutation.end :])
        try:
            status = self.run(module, 60 + 5 * self._seconds[module])
        finally:
            path.write_bytes(source)
        return {None: "timed out", 0: "survived"}.get(status, "noticed")


def main() -> None:
    """Run the sample, and print which mutations survive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=", ".join(TESTS))
    parser.add_argument("--each", type=int, default=4, help="so many of each module (4)")
    parser.add_argument("--jobs", type=int, default=1, help="so many modules at a time (1)")
    parser.add_argument("--list", action="store_true", help="do not run them")
    options = parser.parse_args()
    unknown = set(options.modules) - TESTS.keys()
    if unknown:
        parser.error(f"no tests are named for {', '.join(sorted(unknown))}")
    chosen = [one for name in options.modules or TESTS for one in sample(name, options.each)]
    if options.list:
        print(*chosen, sep="\n")
        return
    known, survivors, endless = known_survivors(), [], []
    began = time.monotonic()
    modules = list(dict.fromkeys(one.module for one in chosen))
    shares = [modules[number :: options.jobs] for number in range(options.jobs)]

    def run(share: list[str]) -> None:
        with tempfile.TemporaryDirectory(prefix="daskbroker-mutations-") as folder:
            bench = Bench(Path(folder))
            for mutation in (one for one in chosen if one.module in share):
                outcome = bench.outcome(mutation)
                if outcome == "survived":
                    outcome = "known" if str(mutation) in known else "SURVIVED"
                    survivors.append(str(mutation))
                elif outcome == "timed out":
                    endless.append(str(mutation))
                print(f"{outcome:9}  {mutation}  ({mutation.place})", flush=True)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(run, filter(None, shares)):
            pass
    new = [one for one in survivors if one not in known]
    print(
        f"{len(chosen)} mutations: {len(chosen) - len(survivors)} noticed ({len(endless)} of them "
        f"by tests that did not end), {len(survivors) - len(new)} known survivors, {len(new)} new; "
        f"{time.monotonic() - began:.0f} s"
    )
    print("survivors:", *(new or ["none but known"]), sep="\n  " if new else " ")
    raise SystemExit(bool(new))


if __name__ == "__main__":
    main()
