"""A search for runs: all arguments of ``db(...)``, checked and in one value.

Some words have a fixed meaning in every store; see :func:`compile_search`. A key of
start documents that has the same name is searched by ``start={...}``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import and_
from typing import Any

import numpy as np

from . import advice
from .clock import seconds_of, show_time
from .errors import BadQuery
from .full_text import METHODS, TextQuery
from .printable import shown
from .query import Query
from .timespan import timespan

DERIVED = "derived_from"
"""Key of the start document of a run that was made from others."""
OPEN = "open"
"""What lists, and the attributes of a Dataset, say of the exit status of a run without a stop."""
RESERVED = ("data_key", "start_time", "stop_time", "exit_status", "derived")
"""Words of a query that may have been meant as a key of start documents."""
LEAST_PREFIX = 5
"""Minimum characters of a uid by which a run is found."""


def is_derived(start: Mapping[str, Any]) -> bool:
    """Return whether a run was made from others, as :func:`daskbroker.reprocess` makes them."""
    return DERIVED in start


def origin_of(start: Mapping[str, Any]) -> str:
    """Return in a few letters which runs a run was made from; empty for a raw run."""
    if not is_derived(start):
        return ""
    origin = start[DERIVED]
    runs = origin.get("runs") if isinstance(origin, Mapping) else None
    if not isinstance(runs, list) or not runs:
        return "?"
    more = f" and {len(runs) - 1:,} more" if len(runs) > 1 else ""
    return f"{str(runs[0])[:8]}{more}"


@dataclass(frozen=True)
class HasDataKey:
    """Condition on descriptors that they have a data key of this name."""

    name: str

    def matches(self, descriptor: Mapping[str, Any]) -> bool:
        """Return whether a descriptor has the data key."""
        keys = descriptor.get("data_keys")
        return isinstance(keys, Mapping) and self.name in keys


@dataclass(frozen=True)
class Search:
    """Conditions that a run must satisfy; an empty search matches every run.

    Attributes
    ----------
    queries
        Queries that the start document must all match.
    stop
        Queries that the stop document must all match; a run without one does not match.
    descriptors
        Queries each of which must match some descriptor of the run. The header source leaves
        these to the broker.
    texts
        Full-text queries over the values of start and stop document.
    since, until
        Inclusive bounds of the start document's ``time`` in POSIX seconds; None if open.
    shown
        The conditions as text for display.
    reserved
        Those of `RESERVED` that were used.
    is_open
        Whether a run matches only if it has no stop document.
    """

    queries: tuple[Query, ...] = ()
    stop: tuple[Query, ...] = ()
    descriptors: tuple[Query | HasDataKey, ...] = ()
    texts: tuple[TextQuery, ...] = ()
    since: float | None = None
    until: float | None = None
    shown: tuple[str, ...] = field(default=(), compare=False)
    reserved: tuple[str, ...] = field(default=(), compare=False)
    is_open: bool = False

    def matches(self, start: Mapping[str, Any], stop: Mapping[str, Any] | None) -> bool:
        """Return whether a run matches, without regard to its descriptors."""
        time = seconds_of(start, math.nan)  # NaN fails both comparisons below
        if self.since is not None and not time >= self.since:
            return False
        if self.until is not None and not time <= self.until:
            return False
        if self.is_open and stop is not None:
            return False
        if self.stop and (stop is None or not all(q.matches(stop) for q in self.stop)):
            return False
        return all(q.matches(start) for q in self.queries) and all(
            text.matches(start, stop) for text in self.texts
        )

    def matches_descriptors(self, descriptors: list[Any]) -> bool:
        """Return whether the descriptors of a run match."""
        return all(any(q.matches(d) for d in descriptors) for q in self.descriptors)

    def __and__(self, other: Search) -> Search:
        if self is EVERY_RUN or other is EVERY_RUN:
            return other if self is EVERY_RUN else self

        def latest(a: float | None, b: float | None, pick: Any) -> float | None:
            ends = [end for end in (a, b) if end is not None]
            return pick(ends) if ends else None

        def both(name: str) -> tuple[Any, ...]:  # what both have, such as a filter, is kept once
            return tuple(dict.fromkeys(getattr(self, name) + getattr(other, name)))

        return Search(
            both("queries"),
            both("stop"),
            both("descriptors"),
            both("texts"),
            latest(self.since, other.since, max),
            latest(self.until, other.until, min),
            both("shown"),
            both("reserved"),
            self.is_open or other.is_open,
        )


EVERY_RUN = Search()


def compile_search(
    full: str | None = None,
    search: str | None = None,
    since: Any = None,
    until: Any = None,
    query: Mapping[str, Any] | None = None,
    timezone: str = "UTC",
) -> Search:
    """Check the arguments of a search and return them as a :class:`Search`.

    Parameters
    ----------
    full, search
        See :class:`daskbroker.core.full_text.TextQuery`; ``search`` is ``"text"`` by default.
    since, until
        See :func:`daskbroker.core.timespan.timestamp`.
    query
        Keys of the start document, except for the words that have a meaning of their own:
        ``start``, ``stop`` and ``descriptor`` hold queries on those documents; ``data_key`` names
        a data key that some descriptor must have; ``start_time`` and ``stop_time`` are since and
        until; ``exit_status`` is a key of the stop document, or ``"open"`` for runs that have none;
        ``derived`` tells whether the start document must have ``derived_from``. If that is text, it
        is the uid of a run that the run was made from, or its first five or more characters.
    timezone
        Time zone for ``since`` and ``until`` without a zone.

    Raises
    ------
    BadQuery
        If one of the arguments is not valid.
    """
    if full is None and search is not None:
        raise _search_without_text(search)
    if full is None and since is None and until is None and not query:
        return EVERY_RUN
    rest = dict(query or {})
    words = [word for word in rest if word in _WORDS]
    special = [_WORDS[word](rest.pop(word), word, timezone) for word in words]
    parts = [_text(full, search), _of_start(rest), _span(since, until, timezone), *special]
    reserved = tuple(word for word in words if word in RESERVED)
    return replace(reduce(and_, parts), reserved=reserved)


def _search_without_text(search: object) -> BadQuery:
    if isinstance(search, str) and search in METHODS:
        return BadQuery(
            f"search={search!r} is the method for full=, which is missing; write "
            f"{advice.words(full='what to search for', search=search)}"
        )
    text = ""
    if isinstance(search, str):
        text = f"to search for {shown(search)} write {advice.words(full=search):.200}, and "
    return BadQuery(
        f"search= is the method for full= and must be one of {', '.join(METHODS)}; {text}for a key "
        f"'search' of start documents write {advice.words(start={'search': advice.ANY})}"
    )


def _text(full: str | None, search: str | None) -> Search:
    if full is None:
        return EVERY_RUN
    text = TextQuery(full, "text" if search is None else search)
    return Search(texts=(text,), shown=(repr(full),))


def _of_start(query: Mapping[str, Any]) -> Search:
    if not query:
        return EVERY_RUN
    compiled = Query(query)  # it refuses what is nested too deeply to be shown
    told = tuple(f"{key}={value!r}" for key, value in query.items())
    return Search(queries=(compiled,), shown=told)


def _span(since: object, until: object, timezone: str) -> Search:
    if since is None and until is None:
        return EVERY_RUN
    begin, end = timespan(since, until, timezone)
    ends = {"since": begin, "until": end}
    told = [f"{name}={show_time(t, timezone)!r}" for name, t in ends.items() if t is not None]
    return Search(since=begin, until=end, shown=tuple(told))


# -- words that have a meaning of their own ------------------------------------------------------


def _of_documents(value: object, word: str, timezone: str) -> Search:
    if not isinstance(value, Mapping):
        raise BadQuery(f"{word}: needs a query on {word} documents, not {shown(value)}")
    compiled = Query(value, word)
    told = (f"{word}={compiled.source!r}",)
    if word == "start":
        return Search(queries=(compiled,), shown=told)
    if word == "stop":
        return Search(stop=(compiled,), shown=told)
    return Search(descriptors=(compiled,), shown=told)


def _of_data_key(value: object, word: str, timezone: str) -> Search:
    if not isinstance(value, str):
        raise BadQuery(
            f"data_key: is the name of one data key, not {shown(value)}; of several write "
            "db(data_key='a')(data_key='b'), of anything else in descriptors descriptor={…}"
        )
    return Search(descriptors=(HasDataKey(value),), shown=(f"data_key={value!r}",))


def _of_exit_status(value: object, word: str, timezone: str) -> Search:
    if value == OPEN:
        return Search(is_open=True, shown=(f"exit_status={value!r}",))
    compiled = Query({"exit_status": value}, "stop")
    return Search(stop=(compiled,), shown=(f"exit_status={value!r}",))


def _of_derived(value: object, word: str, timezone: str) -> Search:
    if not isinstance(value, (bool, np.bool_)):
        raise BadQuery(
            f"derived: is True (runs made of others) or False (raw runs), not {shown(value)}; "
            "what they were made of is in derived_from"
        )
    compiled = Query({DERIVED: {"$exists": bool(value)}})
    return Search(queries=(compiled,), shown=(f"derived={bool(value)}",))


def _of_origin(value: object, word: str, timezone: str) -> Search:
    if not isinstance(value, str):
        return _of_start({DERIVED: value})
    whole = len(value) < LEAST_PREFIX
    asked: Any = value if whole else {"$regex": f"^{re.escape(value)}"}
    either = [{f"{DERIVED}.runs": asked}, {DERIVED: asked}]
    compiled = Query({DERIVED: {"$exists": True}, "$or": either})
    return Search(queries=(compiled,), shown=(f"{DERIVED}={value!r}",))


_WORDS: dict[str, Callable[[Any, str, str], Search]] = {
    "start": _of_documents,
    "stop": _of_documents,
    "descriptor": _of_documents,
    "data_key": _of_data_key,
    "exit_status": _of_exit_status,
    "derived": _of_derived,
    DERIVED: _of_origin,
    "start_time": lambda value, word, timezone: _span(value, None, timezone),
    "stop_time": lambda value, word, timezone: _span(None, value, timezone),
}
"""Function of each word that makes a search of its value, given value, word and time zone."""
WORDS = ("full", "search", "since", "until", *_WORDS)
"""All arguments of a search that are not keys of start documents."""
