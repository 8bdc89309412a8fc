"""GitHub's workflows call scripts of ci/ that are there, with Pythons that are supported."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PREPARING = ("git config",)
"""Beginnings of steps that prepare a container, and check nothing."""


def jobs():
    for path in WORKFLOWS:
        yield from yaml.safe_load(path.read_text())["jobs"].values()


def test_every_step_calls_a_script_that_is_there():
    steps = [step["run"] for job in jobs() for step in job["steps"] if "run" in step]
    calls = [step.split() for step in steps if not step.startswith(PREPARING)]
    listed = subprocess.run(
        ["bash", "ci/long.sh", "--list"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for bash, script, *arguments in calls:
        assert bash == "bash"
        assert (ROOT / script).is_file()
        if script == "ci/long.sh":
            assert set(arguments) <= set(listed.stdout.split())
    assert {script for _, script, *_ in calls} == {
        "ci/check.sh", "ci/docs.sh", "ci/long.sh", "ci/release.sh"
    }  # fmt: skip


def test_every_python_is_supported_and_the_lowest_is_among_them():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lowest = project["requires-python"].removeprefix(">=")
    matrix = next(job["strategy"]["matrix"] for job in jobs() if "strategy" in job)["python"]
    given = [
        step["with"]["python-version"].split()
        for job in jobs()
        for step in job["steps"]
        if "setup-python" in step.get("uses", "")
    ]
    assert lowest == matrix[0]
    assert all(minor(version) >= minor(lowest) for some in [matrix, *given] for version in some)
    assert matrix in given, "wheels are tried with the Pythons that the tests run with"


def minor(version):
    return tuple(map(int, version.split(".")))
