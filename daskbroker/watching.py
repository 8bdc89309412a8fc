"""Wait for new runs: runs that a search finds now and did not find before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .header import Header
    from .results import Results

__all__ = ["watch"]

KNOWN_RUNS = 1000
"""Number of newest runs that are known from the beginning, and so are not given."""
LATE_RUNS = 50
"""Number of known runs in a row after which a query stops looking for new ones.

A new run is among the newest, even if the clocks of two machines differ, or if several runs are in
progress.
"""


def watch(results: Results, interval: float, timeout: float | None) -> Iterator[Header]:
    """Iterate over the runs that some results gain; see :meth:`daskbroker.DataBroker.watch`."""
    # Not in the generator: the runs are those known when this is called, not at the first `next`.
    known = {header.uid for header in islice(results, KNOWN_RUNS)}
    return _coming(results, known, interval, timeout)


def _coming(
    results: Results, known: set[str], interval: float, timeout: float | None
) -> Iterator[Header]:
    latest = time.monotonic()
    while True:
        for header in reversed(_new(results, known)):
            yield header
            latest = time.monotonic()
        if timeout is not None and time.monotonic() - latest > timeout:
            return
        time.sleep(interval)


def _new(results: Results, known: set[str]) -> list[Header]:
    """Return the runs that are not known, newest first, and add them to the known ones."""
    new: list[Header] = []
    passed = 0
    for header in results:
        if header.uid in known:
            passed += 1
            if passed == LATE_RUNS:
                break
        else:
            known.add(header.uid)
            new.append(header)
            passed = 0
    return new
