"""Queries that a catalog's ``search`` takes beside plain mappings: ``databroker.queries``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any, Self

from ..core.clock import resolved_zone
from ..core.errors import BadQuery
from ..core.search import Search, compile_search
from .human_time import seconds


class Query(Mapping[str, Any]):
    """A mapping that is a Mongo-style query made from arguments.

    Attributes
    ----------
    kwargs
        Arguments that the query was made from.
    query
        Mongo-style query.
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
        """Return the same kind of query with some arguments replaced."""
        return type(self)(**{**self.kwargs, **kwargs})

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.kwargs.items())
        return f"{type(self).__name__}({shown})"


class TimeRange(Query):
    """Query for runs that began at ``since`` or later, and before ``until``.

    Parameters
    ----------
    since, until
        POSIX seconds, datetimes, or text such as ``2026-11`` or ``2026-11-26 14:30``, which means
        its first instant.
    timezone
        Zone of times that have none; by default that of this machine.

    Raises
    ------
    BadQuery
        If a text is not a valid time, or ``since`` is later than ``until``. It is a ValueError.
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
    """Query for runs with some words in the values of their start or stop.

    Parameters
    ----------
    text_search
        Words to look for.
    """

    def __init__(self, text_search: str) -> None:
        super().__init__({"text_search": text_search}, {"$text": {"$search": text_search}})


def compiled(query: Mapping[str, Any]) -> Search:
    """Compile a Mongo-style query on start documents; ``$text`` looks into start and stop.

    Raises
    ------
    BadQuery
        If the query is not valid.
    """
    if not isinstance(query, Mapping):
        raise BadQuery(
            "a query is a mapping, such as {'plan_name': 'scan'}, a TimeRange or a TextQuery, not "
            f"{query!r:.200}"
        )
    rest = dict(query)
    text = rest.pop("$text", None)
    if isinstance(text, Mapping):
        text = text.get("$search")
    if not isinstance(text, (str, NoneType)):
        raise BadQuery(
            f"$text is the words to look for, or {{'$search': words}}, not {text!r:.200}"
        )
    words = {"start": rest} if rest else {}
    # Clients ask with an empty text whether there is a search for words at all.
    return compile_search(text or None, query=words)
