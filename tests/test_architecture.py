"""The journeys of docs/architecture.md name files and functions that are there."""

from __future__ import annotations

import importlib
import operator
import re
import tomllib
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


def test_the_picture_has_the_floors_and_rooms_that_there_are():
    picture = (ROOT / "docs/architecture.svg").read_text(encoding="utf8")
    said = set(re.findall(r"\b[a-z_]+\b", " ".join(re.findall(r">([^<>]+)</text>", picture))))
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
    layers = contracts["tool"]["importlinter"]["contracts"][0]["layers"]
    floors = {name.removeprefix("daskbroker.") for layer in layers for name in layer.split(" : ")}
    # Modules between floors, of one of the nouns.
    steps = {"__main__", "dask_cli", "finding", "broker_key",
             "broker_opening", "broker_filters", "broker_files", "watching", "narrowing",
             "search_hints", "described", "event_sources", "inserting", "results_views",
             "found_runs", "header_views", "header_documents", "stored_run"}  # fmt: skip
    assert not floors - steps - said
    for floor in ("views", "assets"):
        folders = (ROOT / "daskbroker" / floor).glob("*/__init__.py")
        assert not {init.parent.name for init in folders} - said
