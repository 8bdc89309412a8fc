"""The filters of a broker, which restrict every search."""

from __future__ import annotations

import copy
from typing import Any

from .core.search import Search, compile_search


class BrokerFilters:
    """Filters of a :class:`daskbroker.DataBroker`.

    Parameters
    ----------
    timezone
        Zone in which ``since`` and ``until`` are read if they have none.
    """

    def __init__(self, timezone: str) -> None:
        self.timezone = timezone
        self._filters: list[tuple[dict[str, Any], Search]] = []

    @property
    def filters(self) -> list[dict[str, Any]]:
        """Copy of the arguments of each :meth:`add_filter` call, in order."""
        return [copy.deepcopy(arguments) for arguments, _ in self._filters]

    def add_filter(self, **query: Any) -> None:
        """Restrict every later search and ``db[-n]``; ``db[uid]`` is not affected.

        Parameters
        ----------
        **query
            Arguments of a search, including ``since``, ``until`` and ``full``.

        Raises
        ------
        BadQuery
            If the query is not valid.
        """
        query = copy.deepcopy(query)
        self._filters.append((query, self._compile(**query)))

    def clear_filters(self) -> None:
        """Remove all filters."""
        self._filters.clear()

    def _compile(
        self,
        full: str | None = None,
        search: str | None = None,
        since: object = None,
        until: object = None,
        **query: Any,
    ) -> Search:
        return compile_search(full, search, since, until, query, self.timezone)

    def _filtered(self, search: Search) -> Search:
        for _, narrower in self._filters:
            search = narrower & search
        return search
