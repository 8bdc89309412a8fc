"""The page of performance is made of its numbers, and long cases get fewer samples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.harness import LONG, Against, Case, Sizes, Timed, Workload, measure
from benchmarks.peers.bench import Bench
from benchmarks.peers.environment import DATABROKER, DATABROKER_2, PEERS, PeerError
from benchmarks.peers.process import Peers
from benchmarks.report.page import write_page
from benchmarks.report.quote import quote, write_quote

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


def test_the_readme_quotes_the_numbers(tmp_path):
    numbers = json.loads((DOCS / "performance.json").read_text(encoding="utf8"))
    readme = DOCS.parent / "README.md"
    copy = tmp_path / "README.md"
    copy.write_text(readme.read_text(encoding="utf8"), encoding="utf8")
    write_quote(numbers, copy)
    assert copy.read_text(encoding="utf8") == readme.read_text(encoding="utf8")
    assert f"databroker {numbers['peers']['databroker']}" in quote(numbers)


def test_a_case_that_fails_costs_only_itself():
    def broken() -> None:
        raise ValueError("no | disk")

    cases = [Case("a", lambda: None, None, (Against("b", at_most=1.0),)), Case("b", broken)]
    failures: dict[str, str] = {}
    (left,) = measure("w", Workload(cases), 3, failures=failures)
    assert (left.case.name, len(left.samples)) == ("a", 3)
    assert left.comparisons[0]["ratio"] is None
    assert failures == {"b": "ValueError: no | disk"}


def test_the_page_names_what_is_missing(tmp_path):
    numbers = json.loads((DOCS / "performance.json").read_text(encoding="utf8"))
    kept = [result for result in numbers["results"] if "tiled" not in result["case"]]
    facts = {"missing": {"tiled": "no | wheel"}, "failures": {"long: a": "broken"}}
    write_page(numbers | facts | {"results": kept}, tmp_path)
    page = (tmp_path / "performance.md").read_text(encoding="utf8")
    assert "| tiled | `no wheel` |" in page
    assert "| long: a | `broken` |" in page


def test_a_peer_that_cannot_be_had_is_named_and_costs_only_its_cases(tmp_path, monkeypatch):
    monkeypatch.setenv(PEERS[DATABROKER_2].variable, str(tmp_path / "no-python"))
    monkeypatch.setenv(PEERS[DATABROKER].variable, "/bin/false")
    with Peers() as peers:
        bench = Bench(Sizes(), tmp_path, "mongodb://nowhere", peers)
        for name in (DATABROKER, DATABROKER_2):
            assert bench.beside(name, lambda peer: [Case("a", lambda: None)]) == []
            with pytest.raises(PeerError, match=r"no-python|ended|died"):
                peers[name]
        assert set(peers.missing) == {DATABROKER, DATABROKER_2}
