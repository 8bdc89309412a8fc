"""The benchmarks run, print their table, and write their JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks.__main__
from benchmarks.before import compare, delays
from benchmarks.harness import Against, Case, Timed, Workload, measure
from benchmarks.short_inserts import short_documents

ROOT = Path(__file__).resolve().parent.parent
NAMES = (
    "table", "insert", "wide", "runs", "spectra", "build",
    "cluster", "long-run", "headers", "fill", "references", "upkeep",
    "columns", "tree", "legacy", "compressed", "short-inserts", "claims", "claimed-runs",
    "image-runs",
)  # fmt: skip


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict]:
    """What is printed, and what is in the JSON file, after one quick run of everything, as people
    call it.
    """
    path = tmp_path_factory.mktemp("benchmarks") / "numbers.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--repeat", "1", "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(path.read_text())


def test_every_workload_is_in_table_and_json(quick):
    printed, numbers = quick
    assert {result["workload"] for result in numbers["results"]} == set(NAMES)
    for result in numbers["results"]:
        assert any(
            line.startswith(result["workload"]) and result["case"] in line
            for line in printed.splitlines()
        )


def test_table_has_its_columns(quick):
    head = quick[0].splitlines()[0].split()
    assert [w for w in head if w in ("median", "min", "ratio", "goal", "met")] == [
        "median", "min", "ratio", "goal", "met",
    ]  # fmt: skip


def test_json_has_the_samples_of_each_case(quick):
    for result in quick[1]["results"]:
        (value,) = result["samples"]
        # What a run costs more on disk than in memory is a difference of times.
        assert value > 0 or result["case"] == "a run's part in a sync"
        assert result["min"] == result["median"] == value


def test_json_says_where_it_was_measured(quick):
    machine = quick[1]["machine"]
    assert machine["cpu"]
    assert machine["cores"] >= 1
    assert machine["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"dask", "pandas", "pyarrow"} <= {k for k, v in machine["packages"].items() if v}
    assert quick[1]["date"][:2] == "20"
    assert quick[1]["repeat"] == 1
    assert "revision" in quick[1]


def test_references_carry_their_note(quick):
    printed, numbers = quick
    assert "measured once on one machine of this kind" in printed
    assert numbers["reference"]["note"] == "measured once on one machine of this kind"
    assert numbers["reference"]["values"]["databroker table"]["value"] == 11.3


def test_no_goal_is_judged_by_tiny_sizes(quick):
    comparisons = [c for result in quick[1]["results"] for c in result["comparisons"]]
    assert comparisons
    assert all(comparison["met"] is None for comparison in comparisons)


def test_ratio_is_of_the_medians_of_one_run(quick):
    by_case = {r["case"]: r for r in quick[1]["results"] if r["workload"] == "table"}
    comparison = by_case["table"]["comparisons"][0]
    assert comparison["with"] == "floor"
    expected = by_case["table"]["median"] / by_case["floor"]["median"]
    assert comparison["ratio"] == pytest.approx(expected)


def test_only_the_named_workloads_run(capsys):
    assert benchmarks.__main__.main(["--quick", "--repeat", "1", "--only", "runs"]) == 0
    printed = capsys.readouterr().out
    assert "by scan_id" in printed
    assert "floor, one column" not in printed


def test_unknown_workload_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        benchmarks.__main__.main(["--only", "nonsense"])
    assert ended.value.code == 2
    assert "nonsense" in capsys.readouterr().err


def numbers_case(name: str, values: list[float], *against: Against) -> Case:
    """A case that measures given numbers, each first in a run that is not counted."""
    coming = iter([value for value in values for _ in range(2)])
    return Case(name, lambda: next(coming), None, against, unit="B")


def test_samples_have_their_median():
    (found,) = measure("w", Workload([numbers_case("a", [5.0, 1.0, 2.0, 4.0])]), 4)
    assert found.samples == [5.0, 1.0, 2.0, 4.0]
    assert found.median == 3.0


def test_each_sample_comes_right_after_a_run_of_the_same_case():
    ran: list[str] = []
    cases = [Case(name, lambda name=name: ran.append(name)) for name in "abcd"]
    measure("w", Workload(cases), 6)
    assert ran[::2] == ran[1::2]
    rounds = [tuple(ran[start : start + 8 : 2]) for start in range(0, len(ran), 8)]
    assert all(sorted(order) == list("abcd") for order in rounds)
    assert len({order[order.index("a") - 1] for order in rounds}) > 1


def test_preparing_and_checking_surround_every_run():
    ran: list[str] = []
    case = Case(
        "a",
        lambda: ran.append("run"),
        lambda _: ran.append("check"),
        prepare=lambda: ran.append("prepare"),
    )
    measure("w", Workload([case]), 2)
    assert ran == ["prepare", "run", "check"] * 4


def test_what_was_timed_elsewhere_tells_its_own_time():
    checked: list[str] = []
    case = Case("a", lambda: Timed(12.5, "value"), checked.append)
    assert measure("w", Workload([case]), 2)[0].samples == [12.5, 12.5]
    assert checked == ["value"] * 4


def test_a_wrong_result_stops_the_benchmark():
    def check(found: int) -> None:
        raise AssertionError(f"{found} is wrong")

    with pytest.raises(AssertionError, match="7 is wrong"):
        measure("w", Workload([Case("a", lambda: 7, check)]), 1)


@pytest.mark.parametrize(
    ("values", "met", "clear"),
    [
        ([10.0, 10.0, 10.0, 10.0], True, True),
        ([20.0, 20.0, 20.0, 20.0], False, True),
        ([10.0, 14.0, 16.0, 17.0], True, False),
    ],
)
def test_a_verdict_that_the_rounds_do_not_agree_on_is_not_clear(values, met, clear):
    floor = numbers_case("floor", [10.0] * 4)
    case = numbers_case("case", values, Against("floor", at_most=1.5))
    comparison = measure("w", Workload([floor, case]), 4)[1].comparisons[0]
    assert (comparison["met"], comparison["clear"]) == (met, clear)


def test_inserts_are_compared_with_those_of_another_checkout(tmp_path, capsys):
    compare(ROOT, tmp_path, 1, {"short runs": short_documents(0)})
    delays(tmp_path, 1.0)
    head, row, *delayed = capsys.readouterr().out.splitlines()
    assert head.split()[-3:] == ["before", "now", "now/before"]
    name, old, new, ratio = row.rsplit(maxsplit=3)
    assert name == "short runs"
    assert min(float(old), float(new), float(ratio)) > 0
    assert "all inserts: " in delayed[0]
    assert "p99" in delayed[0]
