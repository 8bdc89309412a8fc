"""Results that are narrowed further, and one run among them by its uid."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from .core.errors import AmbiguousUID, BadQuery, RunNotFound
from .core.listing import listed
from .core.query import compile_query
from .core.search import Search
from .header import Header
from .header_source import LEAST_PREFIX

if TYPE_CHECKING:
    from .results import Results

__all__ = ["both", "has_run", "named_run"]

MOST_SHOWN = 10


def both(first: Results, second: Results) -> Search:
    """What a run satisfies that is in two results of a broker.

    Raises
    ------
    BadQuery
        For results of two brokers.
    """
    if first.db is not second.db:
        raise BadQuery(f"these are results of two brokers, {first.db!r} and {second.db!r}")
    return first.as_search() & second.as_search()


def named_run(results: Results, uid: str) -> Header:
    """The run of a uid, or of a prefix of five characters or more, among results.

    Raises
    ------
    RunNotFound
    AmbiguousUID
        Naming the matches.
    """
    for header in _of_uid(results, {"$eq": uid}):
        return header
    beginning = {"$gte": uid, "$lt": uid + "\U0010ffff"}
    found = []
    if len(uid) >= LEAST_PREFIX:
        found = list(islice(_of_uid(results, beginning), MOST_SHOWN))
    if not found:
        raise RunNotFound(f"none of these runs has the uid {uid!r:.200}")
    if len(found) > 1:
        uids = [header.uid for header in found]
        raise AmbiguousUID(
            f"several of these runs have uids that begin with {uid!r}: {listed(uids)}"
        )
    return found[0]


def has_run(results: Results, run: object) -> bool:
    """Whether a run, given as a Header or by its uid, is among results."""
    if isinstance(run, Header):
        return any(True for _ in _of_uid(results, {"$eq": run.uid}))
    if not isinstance(run, str):
        raise TypeError(f"results are asked for a run by its Header or uid, not by {run!r:.200}")
    try:
        return bool(named_run(results, run).uid)
    except RunNotFound:
        return False


def _of_uid(results: Results, condition: dict[str, str]) -> Results:
    return results.narrowed(Search(queries=(compile_query({"uid": condition}),)))
