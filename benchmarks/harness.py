"""Timing cases side by side: what a case is, how it is repeated, how it is judged."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.reference import REFERENCE

__all__ = ["Against", "Case", "Result", "Sizes", "Workload", "measure"]


@dataclass(frozen=True)
class Sizes:
    """How large the workloads are."""

    events: int = 100_000
    single_events: int = 20_000
    wide_events: int = 1_000_000
    runs: int = 5_000
    runs_in_table: int = 200
    spectra: int = 20_000
    spectrum_length: int = 1_024
    chunks: int = 10_000
    small_page: int = 1_000
    quick: bool = False


QUICK = Sizes(
    events=2_000,
    single_events=200,
    wide_events=4_000,
    runs=30,
    runs_in_table=10,
    spectra=1_000,
    spectrum_length=16,
    chunks=40,
    quick=True,
)
"""Sizes to try the benchmarks with; the goals say nothing about them."""


@dataclass(frozen=True)
class Against:
    """Something to compare a case with.

    Attributes
    ----------
    name
        Another case of the workload, an entry of REFERENCE, or "" for a bare limit.
    at_most
        The ratio case / other that is the goal (of a bare limit: the value).
    times_faster
        The ratio other / case that is the goal.
    """

    name: str = ""
    at_most: float | None = None
    times_faster: float | None = None


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes
    ----------
    name
        Unique in its workload.
    run
        What is timed; makes its lazy objects anew, so nothing is cached. Where ``unit`` is not
        ``"s"``, what it returns is the measurement, and nothing is timed.
    check
        Given what ``run`` returned, raises if it is wrong; not timed.
    amount
        Number of things that one run handles, for a rate.
    things
        What they are.
    """

    name: str
    run: Callable[[], Any]
    check: Callable[[Any], None] | None = None
    against: tuple[Against, ...] = ()
    amount: int | None = None
    things: str = ""
    unit: str = "s"


@dataclass(frozen=True)
class Workload:
    """Cases that are compared with each other, and a hook to let go of their stores."""

    cases: Sequence[Case]
    close: Callable[[], None] = lambda: None


@dataclass
class Result:
    """The samples of one case, and how they compare."""

    workload: str
    case: Case
    samples: list[float]
    comparisons: list[dict[str, Any]] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Of the samples."""
        return statistics.median(self.samples)

    @property
    def rate(self) -> float | None:
        """Things per second, by the median."""
        return None if self.case.amount is None else self.case.amount / self.median

    def to_dict(self) -> dict[str, Any]:
        """For the JSON file."""
        return {
            "workload": self.workload,
            "case": self.case.name,
            "unit": self.case.unit,
            "median": self.median,
            "min": min(self.samples),
            "samples": self.samples,
            "amount": self.case.amount,
            "things": self.case.things,
            "per_second": self.rate,
            "comparisons": self.comparisons,
        }


def measure(name: str, workload: Workload, repeat: int, *, quick: bool = False) -> list[Result]:
    """Time the cases of a workload, one repetition of each after the other.

    A first round warms imports and the file cache and is not counted. Rounds begin with a
    different case each, so that none always follows the same other one.
    """
    cases = list(workload.cases)
    samples: dict[str, list[float]] = {case.name: [] for case in cases}
    for number in range(-1, repeat):
        begin = max(number, 0) % len(cases)
        for case in cases[begin:] + cases[:begin]:
            sample = _once(case)
            if number >= 0:
                samples[case.name].append(sample)
    results = [Result(name, case, samples[case.name]) for case in cases]
    by_name = {result.case.name: result for result in results}
    for result in results:
        result.comparisons = _comparisons(result, by_name, quick)
    return results


def _once(case: Case) -> float:
    gc.collect()
    begin = time.perf_counter()
    value = case.run()
    seconds = time.perf_counter() - begin
    if case.check is not None:
        case.check(value)
    return seconds if case.unit == "s" else float(value)


def _comparisons(result: Result, others: Mapping[str, Result], quick: bool) -> list[dict[str, Any]]:
    """Ratios and whether goals are met; of tiny sizes nothing is judged."""
    found = []
    for against in result.case.against:
        other = _value_of(against.name, result, others, quick)
        ratio = None if other is None else result.median / other
        faster = None if not ratio else 1 / ratio
        met: bool | None = None
        if not quick and against.at_most is not None and ratio is not None:
            met = ratio <= against.at_most
        if not quick and against.times_faster is not None and faster is not None:
            met = faster >= against.times_faster
        found.append(
            {
                "with": against.name,
                "ratio": ratio,
                "times_faster": faster,
                "goal_at_most": against.at_most,
                "goal_times_faster": against.times_faster,
                "met": met,
            }
        )
    return found


def _value_of(name: str, result: Result, others: Mapping[str, Result], quick: bool) -> float | None:
    """What to divide by; None for a reference while sizes are not those it was taken at."""
    if not name:
        return 1.0
    if name in others:
        return others[name].median
    reference = REFERENCE[name]
    if quick:
        return None
    return reference.value if reference.unit == "s" else (result.case.amount or 0) / reference.value
