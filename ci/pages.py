"""Find and run the Python blocks of README and docs."""

from __future__ import annotations

import contextlib
import io
import linecache
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"^```python\n(.*?)^```(?:\n\n```text\n(.*?)^```)?", re.DOTALL | re.MULTILINE)
"""A Python block, and the block ```` ```text ```` after it, if any, which has its output."""


def blocks(page: Path) -> Iterator[tuple[int, str, str | None]]:
    """Yield the first line, the code, and the output (if given) of each block of a page."""
    text = page.read_text(encoding="utf8")
    for found in BLOCK.finditer(text):
        yield text.count("\n", 0, found.start()) + 2, found[1], found[2]


def run_block(page: object, line: int, code: str, namespace: dict[str, Any]) -> str:
    """Run a block, and return what it prints."""
    name = f"{page}:{line}"  # for tracebacks, and `reprocess` looks at sources
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, name, "exec"), namespace)
    return printed.getvalue()
