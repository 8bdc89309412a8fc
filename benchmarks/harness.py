"""Cases that are timed side by side: their definition, repetition, and comparison with goals."""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmarks.reference import REFERENCE

__all__ = ["Against", "Case", "Result", "Sizes", "Timed", "Workload", "measure"]


@dataclass(frozen=True)
class Sizes:
    """Sizes of the workloads."""

    events: int = 100_000
    single_events: int = 20_000
    wide_events: int = 1_000_000
    runs: int = 5_000
    runs_in_table: int = 200
    spectra: int = 20_000
    spectrum_length: int = 1_024
    chunks: int = 10_000
    small_page: int = 1_000
    file_frames: int = 1_000
    frame_side: int = 512
    datums: int = 100_000
    files: int = 1_000
    workers: tuple[int, ...] = (1, 2, 4)
    image_runs: int = 20
    compressed_frames: int = 64
    compressed_side: int = 1_024
    frames: int = 200
    frame: tuple[int, int] = (256, 256)
    rows_in_chunk: int = 10_000
    headers: int = 50_000
    baseline_keys: int = 2_000
    columns: int = 300
    column_events: int = 200_000
    stored_bytes: int = 300_000_000
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
    file_frames=20,
    frame_side=32,
    datums=400,
    files=4,
    workers=(1, 2),
    image_runs=2,
    compressed_frames=4,
    compressed_side=64,
    frames=4,
    frame=(8, 8),
    rows_in_chunk=100,
    headers=300,
    baseline_keys=50,
    columns=12,
    column_events=2_000,
    stored_bytes=1_000_000,
    quick=True,
)
"""Tiny sizes, to try the benchmarks. No goal is checked with them."""


class Timed(NamedTuple):
    """Result of a case that was timed in another process."""

    seconds: float
    value: Any


@dataclass(frozen=True)
class Against:
    """Something to compare a case with.

    Attributes
    ----------
    name
        Another case of the workload, an entry of REFERENCE, or "" for a bare limit.
    at_most
        Goal: the maximum of the ratio case / other (for a bare limit, of the value itself).
    times_faster
        Goal: the minimum of the ratio other / case.
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
        ``"s"``, what it returns is the measurement, and nothing is timed. A :class:`Timed` tells
        its own time.
    check
        Given what ``run`` returned, raises if it is wrong; not timed.
    prepare
        Called before each run; not timed.
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
    prepare: Callable[[], None] = lambda: None


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
        """Median of the samples, in seconds."""
        return statistics.median(self.samples)

    @property
    def rate(self) -> float | None:
        """Things per second, by the median."""
        return None if self.case.amount is None else self.case.amount / self.median

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain values for the JSON file."""
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


LONG = 2.0
"""Seconds from which on the first run of a case counts as a sample."""

QUICK_ENOUGH = 0.25
"""Seconds below which a case is measured again even if time is short."""


def measure(
    name: str,
    workload: Workload,
    repeat: int,
    *,
    quick: bool = False,
    patience: float = math.inf,
    until: float = math.inf,
    failures: dict[str, str] | None = None,
) -> list[Result]:
    """Time the cases of a workload, in rounds of one sample per case.

    Each sample comes right after a run of the same case that is not counted, so that it does not
    pay for what another case left behind in the process: after millions of Python objects were
    freed, the next large read took four times as long, no matter which case it belonged to. The
    order is shuffled in each round, in the same way each time the benchmark is run.

    Parameters
    ----------
    patience
        Seconds after which a case gets no more samples, counted over its samples.
    until
        Value of ``time.monotonic`` after which only cases shorter than ``QUICK_ENOUGH`` get more
        than one sample.
    failures
        Mapping that receives the error of each case that raises, by its name. Such a case has no
        result, and the others go on. If None, the error is raised.
    """
    cases = list(workload.cases)
    samples: dict[str, list[float]] = {case.name: [] for case in cases}
    order = random.Random(0)
    for _ in range(repeat):
        for case in order.sample(cases, len(cases)):
            if _has_enough(case, samples[case.name], patience, until):
                continue
            try:
                samples[case.name].append(_sample(case, patience))
            except Exception as error:
                if failures is None:
                    raise
                failures[case.name] = f"{type(error).__name__}: {error}"
                cases.remove(case)
    results = [Result(name, case, samples[case.name]) for case in cases]
    by_name = {result.case.name: result for result in results}
    for result in results:
        result.comparisons = [_compare(a, result, by_name, quick) for a in result.case.against]
    return results


def _has_enough(case: Case, samples: Sequence[float], patience: float, until: float) -> bool:
    """Return whether a case has samples and gets no more because time is short."""
    if not samples:
        return False
    if case.unit == "s" and sum(samples) > patience:
        return True
    return time.monotonic() > until and (case.unit != "s" or samples[-1] > QUICK_ENOUGH)


def _sample(case: Case, patience: float) -> float:
    """Return one sample: the second run, or a long first run if the time is limited."""
    first = _once(case)
    alone = patience < math.inf and case.unit == "s" and first > LONG
    return first if alone else _once(case)


def _once(case: Case) -> float:
    case.prepare()
    gc.collect()
    begin = time.perf_counter()
    value = case.run()
    seconds = time.perf_counter() - begin
    if isinstance(value, Timed):
        seconds, value = value
    if case.check is not None:
        case.check(value)
    return seconds if case.unit == "s" else float(value)


def _compare(
    against: Against, result: Result, others: Mapping[str, Result], quick: bool
) -> dict[str, Any]:
    """Return the ratio of medians and, unless the sizes are tiny, whether the goal is met.

    The outcome is clear if at least three quarters of the single rounds agree with it.
    """
    other = _values_of(against.name, result, others, quick)
    ratio = None if other is None else result.median / statistics.median(other)
    limit = against.at_most
    if against.times_faster is not None:
        limit = 1 / against.times_faster
    met = clear = None
    if not quick and limit is not None and ratio is not None and other is not None:
        met = ratio <= limit
        rounds = [(m / o <= limit) == met for m, o in zip(result.samples, other)]
        clear = sum(rounds) >= 0.75 * len(rounds)
    return {
        "with": against.name,
        "ratio": ratio,
        "times_faster": None if ratio is None else 1 / ratio,
        "goal_at_most": against.at_most,
        "goal_times_faster": against.times_faster,
        "met": met,
        "clear": clear,
    }


def _values_of(
    name: str, result: Result, others: Mapping[str, Result], quick: bool
) -> list[float] | None:
    """Return the values to divide by, one per round.

    Return None for a reference that was measured with other sizes, and for a case that failed or
    whose program is missing.
    """
    if name in others:
        return others[name].samples
    value = 1.0
    if name:
        if quick or name not in REFERENCE:
            return None
        reference = REFERENCE[name]
        value = reference.value
        if reference.unit != "s":
            value = (result.case.amount or 0) / reference.value
    return [value] * len(result.samples)
