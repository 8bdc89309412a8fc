"""Search runs by their descriptors, which are looked up for many runs at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, repeat

from .core.bad_runs import BadRun
from .core.documents import Document
from .core.search import Search
from .stores.checking import CheckedHeader
from .stores.contract import EventStore, FoundHeader

BATCHES = (8, 200)
"""Number of runs in the first batch, and in each later one.

The first is small, so that a search of which only the newest run is wanted is quick.
"""

Described = list[Document | BadRun]


def having_descriptors(
    headers: Iterable[FoundHeader], search: Search, stores: Sequence[EventStore]
) -> Iterator[FoundHeader]:
    """Yield the runs whose descriptors match; runs that cannot be read are passed on as BadRun.

    A run of which a descriptor cannot be read becomes the BadRun of that descriptor.
    """
    coming = iter(headers)
    for size in chain(BATCHES, repeat(BATCHES[-1])):
        some = list(islice(coming, size))
        if not some:
            return
        uids = [one[0]["uid"] for one in some if not isinstance(one, BadRun)]
        descriptors = _descriptors_of(uids, stores)
        for one in some:
            if isinstance(one, BadRun):
                yield one
                continue
            own = descriptors[one[0]["uid"]]
            bad = [d for d in own if isinstance(d, BadRun)]
            if bad:
                yield bad[0]
            elif search.matches_descriptors(own):
                yield one


def may_have_descriptors(
    checked: CheckedHeader, search: Search, stores: Sequence[EventStore]
) -> bool:
    """Whether a run, which may be damaged, matches as far as its descriptors can be read."""
    if checked.damages or checked.start is None:
        return True
    uid = str(checked.start["uid"])
    own = _descriptors_of([uid], stores)[uid]
    return any(isinstance(one, BadRun) for one in own) or search.matches_descriptors(own)


def _descriptors_of(runs: Sequence[str], stores: Sequence[EventStore]) -> dict[str, Described]:
    found: dict[str, Described] = {run: [] for run in runs}
    for store in stores:
        for one in store.list_descriptors(runs):
            run = one.uid if isinstance(one, BadRun) else one["run_start"]
            found[str(run)].append(one)
    return found
