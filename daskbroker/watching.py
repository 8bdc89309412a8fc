"""Wait for new runs: runs that a search finds now and did not find before."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from .core.clock import seconds_of

if TYPE_CHECKING:
    from .header import Header
    from .results import Results

__all__ = ["watch"]

KNOWN_RUNS = 1000
"""Number of newest runs that are known from the beginning, and so are not given."""
LATE_RUNS = 50
"""Number of known runs in a row after which a look ends.

A new run is mostly among the newest. If it is not, because the clocks of machines differ, the
number of runs tells, and all of them are looked at.
"""


def watch(results: Results, interval: float, timeout: float | None) -> Iterator[Header]:
    """Iterate over the runs that some results gain; see :meth:`daskbroker.DataBroker.watch`."""
    # Not in the generator: the runs are those known when this is called, not at the first `next`.
    known = list(islice(results, KNOWN_RUNS))
    if len(known) == KNOWN_RUNS:  # of older runs it is not known which are new
        results = results(since=seconds_of(known[-1].start))
    look = _Looks(results, {header.uid for header in known})
    return _coming(look, interval, timeout)


def _coming(looks: _Looks, interval: float, timeout: float | None) -> Iterator[Header]:
    latest = time.monotonic()
    while True:
        for header in reversed(looks.new()):
            yield header
            latest = time.monotonic()
        if timeout is not None and time.monotonic() - latest > timeout:
            return
        time.sleep(interval)


class _Looks:
    """Looks at results that gain runs.

    Parameters
    ----------
    results
        The results.
    known
        Uids of the runs that are not given.
    """

    def __init__(self, results: Results, known: set[str]) -> None:
        self._results = results
        self._known = known
        self._count = len(known)

    def new(self) -> list[Header]:
        """Return the runs that are not known, newest first; they are known then."""
        new = self._unknown(self._newest())
        count = len(self._results)  # after the look: what came meanwhile is looked for at once
        if count > self._count + len(new):
            new += self._unknown(self._results)
            new.sort(key=lambda header: seconds_of(header.start), reverse=True)
        self._count = count
        return new

    def _newest(self) -> Iterator[Header]:
        """Yield the newest runs, up to many known ones in a row."""
        passed = 0
        for header in self._results:
            passed = passed + 1 if header.uid in self._known else 0
            yield header
            if passed == LATE_RUNS:
                return

    def _unknown(self, headers: Iterable[Header]) -> list[Header]:
        new = [header for header in headers if header.uid not in self._known]
        self._known.update(header.uid for header in new)
        return new
