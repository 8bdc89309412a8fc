"""Rules for all tests of this suite, including the public conformance suite."""

from __future__ import annotations

import ast
import logging
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*ROOT.glob("tests/**/*.py"), *ROOT.glob("daskbroker/testing/**/*.py")])
SILENT = ("SystemExit", "KeyboardInterrupt")
CHECKS = ("pytest.raises", "pytest.warns", "pytest.fail")


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in FILES:
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf8"))


def test_every_error_is_expected_by_what_the_user_sees():
    """Any error of a class would do otherwise. What is in ``SILENT`` has no text."""
    bare = [
        f"{name}:{node.lineno}: {ast.unparse(node)}"
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "pytest.raises"
        and ast.unparse(node.args[0]) not in SILENT
        and not _says_what(node)
    ]
    assert bare == []


def _says_what(call: ast.Call) -> bool:
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    return "check" in given or given.get("match", "''") not in ("''", "'.*'", "'.'")


def test_every_test_checks_something():
    """By itself, or by a function that it calls: in its file, or of the tools for testing."""
    parsed = dict(trees())
    functions = {
        node.name: node
        for tree in parsed.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    unchecked = [
        f"{name}:{node.lineno}: {node.name}"
        for name, tree in parsed.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and not _checks(node, functions, set())
    ]
    assert unchecked == []


def _checks(node: ast.AST, functions: dict[str, ast.FunctionDef], seen: set[str]) -> bool:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Assert):
            return True
        if not isinstance(inner, ast.Call):
            continue
        called = ast.unparse(inner.func)
        last = called.rpartition(".")[2]
        if called in CHECKS or last.startswith("assert_"):
            return True
        if last in functions and last not in seen:
            seen.add(last)
            if _checks(functions[last], functions, seen):
                return True
    return False


def test_ids_are_the_same_in_each_process(request):
    """Else a test cannot be named, nor the suite be shared by processes (``pytest -n 2``)."""
    ids = [item.nodeid for item in request.session.items]
    assert [one for one in ids if re.search(r"0x[0-9a-f]{6}", one)] == []
    assert [one for one, count in Counter(ids).items() if count > 1] == []


def test_the_cluster_leaves_the_logs_of_others_alone(cluster, caplog):
    """Tests look at what daskbroker logs, before and after those on a cluster."""
    logging.getLogger("daskbroker.stores").error("no space left")
    assert "no space left" in caplog.text
    assert {handler.level for handler in logging.getLogger().handlers} == {logging.NOTSET}


def test_each_module_has_a_test_of_its_name_or_a_line_that_says_which():
    """Of ``modules.toml``, where the first pattern counts; what no module needs is not in it."""
    lines = tomllib.loads((ROOT / "tests/modules.toml").read_text(encoding="utf8"))["modules"]
    modules = [
        path.relative_to(ROOT / "daskbroker").with_suffix("")
        for path in ROOT.glob("daskbroker/**/*.py")
        if path.name != "__init__.py" and "testing" not in path.relative_to(ROOT).parts
    ]
    without = [m for m in modules if not (ROOT / "tests" / m.parent / f"test_{m.name}.py").exists()]
    lacking, used = [], set()
    for module in map(Path.as_posix, without):
        pattern = next((line for line in lines if fnmatchcase(module, line)), None)
        used.add(pattern)
        if pattern is None:
            lacking.append(module)
    assert lacking == []
    assert set(lines) - used == set()
    folders = {"testing": ROOT / "daskbroker"}
    files = [file for files in lines.values() for file in files]
    assert [
        file for file in files
        if not (folders.get(file.partition("/")[0], ROOT / "tests") / file).exists()
    ] == []  # fmt: skip
