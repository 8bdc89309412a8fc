"""Write, or check, README's output and picture of the demo.

    python ci/readme.py                    # `make -C docs readme`: writes README.md, docs/demo.png
    python ci/readme.py --check            # writes nothing; exit status 1 if something differs
    python ci/readme.py --check --demo OUT # checks a demo run in OUT, its output in OUT/output.txt

A block after ``<!-- daskbroker demo: 3 5 -->`` has the output of these steps of the demo. README's
Python blocks are run in the folder of the demo, on the store that it made, and each is followed by
its output. Times, rates and uids may differ. Needs the extra ``[test]``.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))

from ci.pages import BLOCK, blocks, run_block

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PICTURE = ROOT / "docs/demo.png"
STEPS = re.compile(r"(<!-- daskbroker demo: ([\d ]+) -->\n\n```text\n).*?(^```)", re.DOTALL | re.M)
DIFFERS = [
    (re.compile(r"\d{4}-\d\d-\d\d[ T][\d:.]+(\+00:00)?"), "TIME"),
    (re.compile(r"[\d.,]+(?= (s|times|MB|rows/s|MB/s)\b)"), "N"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "UID"),
    (re.compile(r"\s+"), " "),
]
"""Texts that may differ from demo to demo, and their replacements for the comparison."""
ALIKE = 0.02
"""Maximum of the mean difference of pixels: fonts are not the same everywhere."""


def comparable(text: str) -> list[str]:
    """Return the lines of a text without the parts that may differ."""
    lines = text.splitlines()
    for pattern, instead in DIFFERS:
        lines = [pattern.sub(instead, line) for line in lines]
    return [line.rstrip() for line in lines]


def run_demo(folder: Path) -> str:
    """Run the demo in a folder, as a user does, and return what it prints on stderr."""
    environment = os.environ | {"COLUMNS": "80", "TMPDIR": str(folder)}  # frames go with it
    command = [sys.executable, "-m", "daskbroker", "demo"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"the demo failed:\n{done.stdout}{done.stderr}")
    (folder / "output.txt").write_text(done.stdout, encoding="utf8")
    return done.stderr


def made(text: str, folder: Path) -> str:
    """Return README's text with the output of the demo and of the blocks."""
    steps = re.split(r"^(?=\d+\. )", (folder / "output.txt").read_text(encoding="utf8"), flags=re.M)

    def chosen(found: re.Match[str]) -> str:
        shown = "".join(steps[int(number)] for number in found[2].split())
        return f"{found[1]}{shown.rstrip()}\n{found[3]}"

    printed = iter(_run_blocks(folder))

    def ran(found: re.Match[str]) -> str:
        output = next(printed)
        if found[2] is None:
            return found[0]
        lines = "".join(f"{line.rstrip()}\n" for line in output.splitlines())
        return f"```python\n{found[1]}```\n\n```text\n{lines}```"

    return BLOCK.sub(ran, STEPS.sub(chosen, text))


def _run_blocks(folder: Path) -> list[str]:
    """Return the output of each Python block."""
    from bluesky import RunEngine

    os.chdir(folder)
    namespace: dict[str, Any] = {"__name__": "__main__", "RE": RunEngine({})}
    return [run_block(README, line, code, namespace) for line, code, _ in blocks(README)]


def alike(one: Path, other: Path) -> bool:
    """Return whether two pictures show the same."""
    from matplotlib.image import imread

    pixels = [imread(path) for path in (one, other)]
    return pixels[0].shape == pixels[1].shape and np.abs(pixels[0] - pixels[1]).mean() < ALIKE


def differences(folder: Path) -> list[str]:
    """Return the differences of README and its picture from those that a demo makes."""
    text = README.read_text(encoding="utf8")
    now, then = comparable(made(text, folder)), comparable(text)
    found = list(difflib.unified_diff(then, now, "README.md", "the demo", lineterm=""))
    if not alike(PICTURE, folder / "daskbroker-demo/demo.png"):
        found.append(f"{PICTURE} is not as the demo draws it")
    return found


def main() -> None:
    """Run the demo, unless one is given; write or check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--demo", type=Path, help="a folder in which the demo was run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (given.demo or Path(scratch)).absolute()
        if given.demo is None:
            run_demo(folder)
        if given.check:
            found = differences(folder)
            sys.exit("\n".join([*found, "to make it again: make -C docs readme"]) if found else 0)
        README.write_text(made(README.read_text(encoding="utf8"), folder), encoding="utf8")
        shutil.copyfile(folder / "daskbroker-demo/demo.png", PICTURE)


if __name__ == "__main__":
    main()
