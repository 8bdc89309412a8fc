"""The Python blocks of README and docs, and running them as they are written."""

from __future__ import annotations

import contextlib
import io
import linecache
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"^```python\n(.*?)^```(?:\n\n```text\n(.*?)^```)?", re.DOTALL | re.MULTILINE)
"""A block ```` ```text ```` after one of Python is what it prints."""


def blocks(page: Path) -> Iterator[tuple[int, str, str | None]]:
    """Each block of a page: its first line, its code, and what it prints, if that is said."""
    text = page.read_text(encoding="utf8")
    for found in BLOCK.finditer(text):
        yield text.count("\n", 0, found.start()) + 2, found[1], found[2]


def run_block(page: object, line: int, code: str, namespace: dict[str, Any]) -> str:
    """Run a block; what it prints."""
    name = f"{page}:{line}"  # for tracebacks, and `reprocess` looks at sources
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, name, "exec"), namespace)
    return printed.getvalue()
