"""The page of performance is made of its numbers, and long cases get fewer samples."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.harness import LONG, Case, Timed, Workload, measure
from benchmarks.report.page import write_page

DOCS = Path(__file__).parents[1] / "docs"


def test_page_and_pictures_are_made_of_the_numbers(tmp_path):
    numbers = json.loads((DOCS / "performance.json").read_text(encoding="utf8"))
    write_page(numbers, tmp_path)
    page = (tmp_path / "performance.md").read_text(encoding="utf8")
    assert page == (DOCS / "performance.md").read_text(encoding="utf8")
    pictures = {path.name for path in (tmp_path / "images/performance").iterdir()}
    assert pictures == {path.name for path in (DOCS / "images/performance").iterdir()}
    assert pictures == {line.split("/")[-1][:-1] for line in page.splitlines() if ".svg)" in line}
    for fact in (numbers["date"][:10], numbers["machine"]["cpu"], numbers["peers"]["tiled"]):
        assert fact in page


def test_the_page_warns_of_tiny_sizes_and_of_a_busy_machine(tmp_path):
    numbers = json.loads((DOCS / "performance.json").read_text(encoding="utf8"))
    for quick, load, warned in ((True, 0.1, "tiny"), (False, 9.0, "busy with other work")):
        machine = numbers["machine"] | {"load": [load] * 3, "cores": 2}
        facts = {"quick": quick, "machine": machine, "results": []}
        write_page(numbers | facts, tmp_path)
        page = (tmp_path / "performance.md").read_text(encoding="utf8")
        assert [w for w in ("tiny", "busy with other work") if w in page] == [warned]


def test_what_takes_long_gets_fewer_samples():
    ran: list[str] = []

    def case(name: str, seconds: float) -> Case:
        def run() -> Timed:
            ran.append(name)
            return Timed(seconds, None)

        return Case(name, run)

    cases = [case("short", 0.1), case("long", LONG + 1)]
    short, long = measure("w", Workload(cases), 5, patience=2 * LONG)
    assert (len(short.samples), ran.count("short")) == (5, 10)
    assert (len(long.samples), ran.count("long")) == (2, 2)
