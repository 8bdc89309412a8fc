"""A search for runs: everything ``db(...)`` takes, checked and in one value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .clock import seconds_of, show_time
from .errors import BadQuery
from .query import Query, compile_query
from .text import TextQuery
from .timespan import timespan

__all__ = ["Search", "compile_search"]


@dataclass(frozen=True)
class Search:
    """What a run has to satisfy; empty: every run.

    Attributes
    ----------
    queries
        On the start document, all of them.
    stop
        On the stop document; a run without one does not match.
    descriptors
        On descriptors; each must match some descriptor of the run. The header source leaves
        these to the broker.
    texts
        Over the values of start and stop.
    since, until
        Inclusive, POSIX seconds, of the start document's ``time``.
    """

    queries: tuple[Query, ...] = ()
    stop: tuple[Query, ...] = ()
    descriptors: tuple[Query, ...] = ()
    texts: tuple[TextQuery, ...] = ()
    since: float | None = None
    until: float | None = None
    shown: tuple[str, ...] = field(default=(), compare=False)

    def matches(self, start: Mapping[str, Any], stop: Mapping[str, Any] | None) -> bool:
        """Whether a run matches, its descriptors aside."""
        time = seconds_of(start, math.nan)  # NaN is neither before nor after
        if self.since is not None and not time >= self.since:
            return False
        if self.until is not None and not time <= self.until:
            return False
        if self.stop and (stop is None or not all(q.matches(stop) for q in self.stop)):
            return False
        return all(q.matches(start) for q in self.queries) and all(
            text.matches(start, stop) for text in self.texts
        )

    def matches_descriptors(self, descriptors: list[Any]) -> bool:
        """Whether the descriptors of a run match."""
        return all(any(q.matches(d) for d in descriptors) for q in self.descriptors)

    def __and__(self, other: Search) -> Search:
        def latest(a: float | None, b: float | None, pick: Any) -> float | None:
            ends = [end for end in (a, b) if end is not None]
            return pick(ends) if ends else None

        return Search(
            self.queries + other.queries,
            self.stop + other.stop,
            self.descriptors + other.descriptors,
            self.texts + other.texts,
            latest(self.since, other.since, max),
            latest(self.until, other.until, min),
            self.shown + other.shown,
        )


def compile_search(
    full: str | None = None,
    search: str = "text",
    since: Any = None,
    until: Any = None,
    query: Mapping[str, Any] | None = None,
    timezone: str = "UTC",
) -> Search:
    """Check what a user asks for.

    Parameters
    ----------
    full, search
        See :class:`daskbroker.core.text.TextQuery`.
    since, until
        See :func:`daskbroker.core.timespan.timestamp`.
    query
        Keys of the start document; ``stop`` and ``descriptor`` hold queries on those.

    Raises
    ------
    BadQuery
    """
    query = dict(query or {})
    parts: dict[str, tuple[Query, ...]] = {"stop": (), "descriptor": ()}
    for name in parts:
        if name in query:
            value = query.pop(name)
            if not isinstance(value, Mapping):
                raise BadQuery(f"{name}: needs a query on {name} documents, not {value!r}")
            parts[name] = (compile_query(value, name),)
    begin, end = timespan(since, until, timezone)
    shown = [f"{key}={value!r}" for key, value in query.items()]
    if full is not None:
        shown.insert(0, repr(full))
    ends = {"since": begin, "until": end}
    shown += [f"{k}='{show_time(t, timezone)}'" for k, t in ends.items() if t is not None]
    shown += [f"{name}={queries[0].source!r}" for name, queries in parts.items() if queries]
    return Search(
        queries=(compile_query(query),) if query else (),
        stop=parts["stop"],
        descriptors=parts["descriptor"],
        texts=() if full is None else (TextQuery(full, search),),
        since=begin,
        until=end,
        shown=tuple(shown),
    )
