"""Every example runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = [path for path in sorted(FOLDER.glob("*.py")) if path.stem != "log_store"]
EXAMPLES += [FOLDER / "beamline" / "beamline.py"]
"""What one folder or file shows; the store has tests of its own, in test_log_store.py."""
WORKED = [FOLDER / name / f"{name}.py" for name in ("azimuthal", "xas")]
"""Real work from end to end, of which CI runs a short form."""


def printed_by(folder, script, *options):
    """What an example prints."""
    command = [sys.executable, str(script), *options]
    # pyFAI's threads wait by spinning, which takes long where there are other tests beside it.
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example, tmp_path):
    printed_by(tmp_path, example)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("example", WORKED, ids=lambda path: path.stem)
def test_worked_example(example, tmp_path):
    said = printed_by(tmp_path, example, "--short")
    assert " runs done" in said
    assert "0 skipped, 0 failed" in said
    pictures = list(tmp_path.rglob("*.png"))
    assert [path.stat().st_size > 10_000 for path in pictures] == [True]
