"""The journeys of docs/architecture.md name files and functions that are there."""

from __future__ import annotations

import importlib
import operator
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs/architecture.md").read_text(encoding="utf8")
STEPS = [
    (file, name)
    for file, names in re.findall(r"^\| `([\w/]+\.py)` \| ([^|]+) \|", TEXT, re.MULTILINE)
    for name in re.findall(r"`([\w.]+)`", names)
]


@pytest.mark.parametrize(("file", "name"), STEPS)
def test_step_is_there(file, name):
    module = "daskbroker." + file.removesuffix(".py").replace("/", ".")
    found = operator.attrgetter(name)(importlib.import_module(module))
    owner = getattr(found, "__module__", module)
    assert owner == module


def test_journeys_are_found():
    assert len(STEPS) > 40
