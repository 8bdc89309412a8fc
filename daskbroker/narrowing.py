"""Intersect results, and look up one run among results by its uid."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from .core.errors import AmbiguousUID, BadQuery, RunNotFound
from .core.name_lists import listed
from .core.query import Query
from .core.search import LEAST_PREFIX, Search
from .core.user_warnings import quiet_thread
from .header import Header

if TYPE_CHECKING:
    from .found_runs import FoundRuns

MOST_SHOWN = 10
"""Maximum number of matching uids in the message of AmbiguousUID."""


def both(first: FoundRuns, second: FoundRuns) -> Search:
    """Return a search for the runs that are in both of two results.

    Raises
    ------
    BadQuery
        If the results are of two brokers.
    """
    if first.db is not second.db:
        raise BadQuery(f"the results are of two brokers, {first.db!r} and {second.db!r}")
    return first.as_search() & second.as_search()


def named_run(results: FoundRuns, uid: str) -> Header:
    """Return the run of a uid, or of a prefix of it of five characters or more, among results.

    Raises
    ------
    RunNotFound
        If none of the runs has this uid.
    AmbiguousUID
        If several uids begin with the prefix; the message lists them.
    """
    # A whole uid wins, even if other uids begin with it.
    for header in _of_uid(results, {"$eq": uid}):
        return header
    beginning = {"$gte": uid, "$lt": uid + "\U0010ffff"}
    found = _of_uid(results, beginning) if len(uid) >= LEAST_PREFIX else []
    if not found:
        raise RunNotFound(f"none of these runs has the uid {uid!r:.200}")
    if len(found) > 1:
        uids = [header.uid for header in found]
        raise AmbiguousUID(
            f"several of these runs have uids that begin with {uid!r}: {listed(uids)}"
        )
    return found[0]


def has_run(results: FoundRuns, run: object) -> bool:
    """Whether a run, given as a Header, uid or prefix of a uid, is among results.

    Raises
    ------
    TypeError
        If the run is given as anything else.
    """
    if isinstance(run, Header):
        return bool(_of_uid(results, {"$eq": run.uid}))
    if not isinstance(run, str):
        raise TypeError(f"runs are looked up among results by Header or uid, not by {run!r:.200}")
    try:
        named_run(results, run)
    except RunNotFound:
        return False
    return True


def _of_uid(results: FoundRuns, condition: dict[str, str]) -> list[Header]:
    found = results.narrowed(Search(queries=(Query({"uid": condition}),)))
    with quiet_thread():  # nobody has searched for this: there is nothing to hint at
        return list(islice(found, MOST_SHOWN))
