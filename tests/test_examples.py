"""Every example runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from daskbroker.testing.processes import Program

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = [path for path in sorted(FOLDER.glob("*.py")) if path.stem != "log_store"]
"""What one folder or file shows; the store has tests of its own, in test_log_store.py."""
WORKED = [FOLDER / name / f"{name}.py" for name in ("azimuthal", "xas")]
"""Real work from end to end, of which CI runs a short form."""
CLUSTERS = {"azimuthal"}
"""Examples whose workers import the file again, so it must be the main module of its process."""


RUN = """
import runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def printed_by(folder, script, *options):
    """What an example prints that starts processes of its own."""
    command = [sys.executable, str(script), *options]
    # pyFAI's threads wait by spinning, which takes long where there are other tests beside it.
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, env=env)
    return checked(done.returncode, done.stdout, done.stderr)


def printed_by_fork(script, *options):
    """What an example prints, in a process that does not import daskbroker again."""
    program = Program(RUN, script, *options)
    said, errors = program.communicate()
    return checked(program.returncode, said, errors)


def checked(status, said, errors):
    """What was printed, of a process that ended well."""
    assert status == 0, errors
    assert said
    assert not errors
    return said


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed_by_fork(example)


def test_example_of_several_processes(tmp_path):
    printed_by(tmp_path, FOLDER / "beamline" / "beamline.py")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("example", WORKED, ids=lambda path: path.stem)
def test_worked_example(example, tmp_path, monkeypatch):
    if example.stem in CLUSTERS:
        said = printed_by(tmp_path, example, "--short")
    else:
        monkeypatch.chdir(tmp_path)
        said = printed_by_fork(example, "--short")
    assert " runs done" in said
    assert "0 skipped, 0 failed" in said
    pictures = list(tmp_path.rglob("*.png"))
    assert [path.stat().st_size > 10_000 for path in pictures] == [True]
