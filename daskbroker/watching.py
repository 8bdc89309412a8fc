"""Wait for new runs: runs that a search finds now and did not find before.

Each look reads the newest runs of the broker, whatever is searched for, and matches them here. So
it costs the same for every search, also for one that a store can only answer by reading all runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from .core.clock import seconds_of
from .core.query import Query
from .core.search import Search
from .described import having_descriptors

if TYPE_CHECKING:
    from .header import Header
    from .results import Results

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
    return _coming(_Looks(results), interval, timeout)


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
        Results of a search, not a slice of them.
    """

    def __init__(self, results: Results) -> None:
        self._search = results.as_search()
        self._stores = [source.store for source in results.db.event_sources]
        self._runs = type(results)(results.db, Search())
        known = list(islice(self._runs, KNOWN_RUNS))
        oldest = seconds_of(known[-1].start) if len(known) == KNOWN_RUNS else -math.inf
        if oldest > -math.inf:  # of older runs it is not known which are new
            self._runs = self._runs.narrowed(Search(since=oldest))
        self._known = {header.uid for header in known}
        self._count = len(self._runs)
        self._open: dict[str, Header] = {}
        if not self._matching(known):
            next(iter(results), None)  # which warns if the search cannot find anything

    def new(self) -> list[Header]:
        """Return the runs that were not given and match, newest first; they are given then."""
        new = self._unknown(self._newest())
        count = len(self._runs)  # after the look: what came meanwhile is looked for at once
        if count > self._count + len(new):
            new += self._unknown(self._runs)
        self._count = count
        found = self._matching([*self._opened_before(), *new])
        return sorted(found, key=lambda header: seconds_of(header.start), reverse=True)

    def _newest(self) -> Iterator[Header]:
        """Yield the newest runs, up to many known ones in a row."""
        passed = 0
        for header in self._runs:
            passed = passed + 1 if header.uid in self._known else 0
            yield header
            if passed == LATE_RUNS:
                return

    def _unknown(self, headers: Iterable[Header]) -> list[Header]:
        new = [header for header in headers if header.uid not in self._known]
        self._known.update(header.uid for header in new)
        return new

    def _opened_before(self) -> list[Header]:
        """Return the runs that were in progress and did not match, as they are now."""
        if not self._open:
            return []
        these = Query({"uid": {"$in": list(self._open)}})
        return list(self._runs.narrowed(Search((these,))))

    def _matching(self, headers: list[Header]) -> list[Header]:
        """Return those of some runs that match, and note which others may match later."""
        pairs = {h.uid: (h.start, h.known_stop) for h in headers}
        by_documents = (pair for pair in pairs.values() if self._search.matches(*pair))
        found = having_descriptors(by_documents, self._search, self._stores)
        matching = {one[0]["uid"] for one in found if isinstance(one, tuple)}
        search = self._search
        # A start document never changes, so only by these can a run match later.
        grows = bool(search.stop or search.texts or search.descriptors)
        for header in headers:
            if grows and header.uid not in matching and header.known_stop is None:
                self._open[header.uid] = header
            else:
                self._open.pop(header.uid, None)
        for uid in list(self._open)[:-KNOWN_RUNS]:
            del self._open[uid]
        return [header for header in headers if header.uid in matching]
