"""The journeys of docs/architecture.md name files and functions that are there; rooms and names."""

from __future__ import annotations

import importlib
import operator
import re
import tomllib
from collections import defaultdict
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
    steps = {"__main__", "dask_cli", "finding", "broker_key", "broker_opening", "broker_filters",
             "broker_files", "broker_upkeep", "watching", "narrowing", "search_hints", "described",
             "event_sources", "inserting", "results_views", "found_runs", "header_views",
             "header_documents", "stored_run", "given_run"}  # fmt: skip
    assert not floors - steps - said
    for floor in ("views", "assets"):
        folders = (ROOT / "daskbroker" / floor).glob("*/__init__.py")
        assert not {init.parent.name for init in folders} - said


PACKAGE = ROOT / "daskbroker"
SHARED = {
    "the same part of two stores, and what is built on it": (
        "backup", "checking", "contract", "database", "events", "headers", "journal", "opening",
        "peeks", "planning", "reader", "sealing",
    ),
    "the same noun in another interface: a command, Tiled's tree, a format, databroker's": (
        "arrays", "datasets", "documents", "from_documents", "plots", "queries", "runs", "tables",
    ),
    "the same rule, and the conformance tests of it": (
        "bad_runs", "filling", "frames_again", "interrupts", "missing",
    ),
}  # fmt: skip
"""Names of files that rooms share for one concept."""


def test_a_file_name_of_two_rooms_is_one_concept():
    """A file of another concept has a name of its own, by which it is found."""
    rooms = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        if not path.stem.startswith("__"):
            rooms[path.stem].add(path.parent.relative_to(PACKAGE).as_posix())
    shared = {name for names in SHARED.values() for name in names}
    assert {name: places for name, places in rooms.items() if len(places) > 1} == {
        name: rooms[name] for name in sorted(shared)
    }


def test_no_module_is_longer_than_a_reader_takes_in():
    """Above 500 lines a module is cut in two, each with a question of its own."""
    lines = {
        path.relative_to(PACKAGE).as_posix(): len(path.read_text(encoding="utf8").splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    assert {name: count for name, count in lines.items() if count > 500} == {}
