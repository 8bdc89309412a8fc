"""Queries that a catalog's ``search`` takes, beside plain mappings: ``databroker.queries``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from ..core.clock import resolved_zone
from ..core.errors import BadQuery
from ..core.search import Search, compile_search
from .human_time import seconds

__all__ = ["Query", "TextQuery", "TimeRange", "compiled"]


class Query(Mapping[str, Any]):
    """A Mongo-style query that is made of arguments; a mapping.

    Attributes
    ----------
    kwargs
        The arguments.
    query
        The mapping.
    """

    def __init__(self, kwargs: dict[str, Any], query: dict[str, Any]) -> None:
        self.kwargs = kwargs
        self.query = query

    def __getitem__(self, key: str) -> Any:
        return self.query[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.query)

    def __len__(self) -> int:
        return len(self.query)

    def replace(self, **kwargs: Any) -> Self:
        """The same query with other arguments."""
        return type(self)(**{**self.kwargs, **kwargs})

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.kwargs.items())
        return f"{type(self).__name__}({shown})"


class TimeRange(Query):
    """Runs that began in a span of time: from ``since`` on, before ``until``.

    Parameters
    ----------
    since, until
        POSIX seconds, datetimes, or text such as ``2026-11`` or ``2026-11-26 14:30``, which means
        its first instant.
    timezone
        Of times without one; that of this machine by default.

    Raises
    ------
    BadQuery
        For text that is no time, and a span that ends before it begins; a ValueError.
    """

    def __init__(self, since: Any = None, until: Any = None, timezone: str | None = None) -> None:
        self.timezone = resolved_zone(timezone or "local")
        begin, end = seconds(since, self.timezone), seconds(until, self.timezone)
        if begin is not None and end is not None and begin > end:
            raise BadQuery(f"since={since!r} is later than until={until!r}")
        ends = {"$gte": begin, "$lt": end}
        span = {operator: value for operator, value in ends.items() if value is not None}
        kwargs = {"since": since, "until": until, "timezone": self.timezone}
        super().__init__(kwargs, {"time": span} if span else {})


class TextQuery(Query):
    """Runs with these words in the values of start or stop.

    Parameters
    ----------
    text_search
        The words.
    """

    def __init__(self, text_search: str) -> None:
        super().__init__({"text_search": text_search}, {"$text": {"$search": text_search}})


def compiled(query: Mapping[str, Any]) -> Search:
    """What a Mongo-style query on start documents asks for; ``$text`` is on start and stop.

    Raises
    ------
    BadQuery
    """
    rest = dict(query)
    text = rest.pop("$text", None)
    words = {"start": rest} if rest else {}
    return compile_search(None if text is None else text["$search"], query=words)
