"""Results: the runs that a search finds, lazily."""

from __future__ import annotations

import html
import operator
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, overload

from .core.documents import Document
from .core.errors import OffsetOutOfRange, StreamNotFound
from .core.search import Search
from .header import Header
from .views import dataframe as dataframe_view
from .views.rows import Duplicates

if TYPE_CHECKING:
    from .broker import DataBroker

__all__ = ["Results"]


class Results:
    """The runs that a search finds, newest first.

    Lazy: nothing is looked up before it is iterated, counted or indexed; each iteration looks
    anew. A slice is a Results of its own. Headers come in batches, so a million of them
    do not have to fit in memory.
    """

    def __init__(
        self, db: DataBroker, search: Search, start: int = 0, stop: int | None = None
    ) -> None:
        self._db = db
        self._search = search
        self._start = start
        self._stop = stop

    def __iter__(self) -> Iterator[Header]:
        source = self._db.header_source
        if not self._search.descriptors:
            pairs = source.find(self._search, self._start, self._stop)
            return (Header(self._db, *pair) for pair in pairs)
        headers = (Header(self._db, *pair) for pair in source.find(self._search))
        return islice(filter(self._has_descriptors, headers), self._start, self._stop)

    def __reversed__(self) -> Iterator[Header]:
        """The same runs oldest first; lazily, unless this is a slice."""
        if self._start or self._stop is not None:
            return reversed(list(self))
        pairs = self._db.header_source.find(self._search, oldest_first=True)
        headers = (Header(self._db, *pair) for pair in pairs)
        return filter(self._has_descriptors, headers) if self._search.descriptors else headers

    def _has_descriptors(self, header: Header) -> bool:
        found = [d for descriptors in header.descriptors.values() for d in descriptors]
        return self._search.matches_descriptors(found)

    def __len__(self) -> int:
        if self._search.descriptors:
            return sum(1 for _ in self)
        count = self._db.header_source.count(self._search)
        end = count if self._stop is None else min(count, self._stop)
        return max(0, end - self._start)

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None

    @overload
    def __getitem__(self, key: slice) -> Results | list[Header]: ...  # type: ignore[overload-overlap]
    @overload
    def __getitem__(self, key: int) -> Header: ...
    def __getitem__(self, key: Any) -> Any:
        """``results[3]`` is a Header; ``results[:10]`` is a Results (a list with a step or
        negative ends).
        """
        if isinstance(key, slice):
            return self._slice(key)
        place = operator.index(key)
        if place < 0:
            place += len(self)
        if place >= 0:
            for header in self[place : place + 1]:
                return header
        raise OffsetOutOfRange(f"there are {len(self)} runs; number {key} is not among them")

    def _slice(self, key: slice) -> Results | list[Header]:
        ends = [end for end in (key.start, key.stop) if end is not None]
        if key.step not in (None, 1) or any(operator.index(end) < 0 for end in ends):
            return list(self)[key]
        start = self._start + (0 if key.start is None else operator.index(key.start))
        stop = None if key.stop is None else self._start + operator.index(key.stop)
        if self._stop is not None:
            stop = self._stop if stop is None else min(stop, self._stop)
        return Results(self._db, self._search, start, stop)

    # -- views -------------------------------------------------------------------------------

    def table(
        self,
        stream_name: str = "primary",
        fields: Any = None,
        fill: bool = True,
        *,
        timestamps: bool = False,
        duplicates: Duplicates = "last",
        timezone: str | None = None,
    ) -> Any:
        """One stream of all these runs as one lazy table.

        The first column, ``run``, is the uid of the run. Small runs share partitions.
        Runs without such a stream have no rows. The runs are those found now.

        Parameters
        ----------
        stream_name, fields, fill, timestamps, duplicates, timezone
            As for :meth:`daskbroker.Header.table`.

        Raises
        ------
        StreamNotFound
            If none of the runs has the stream.
        """
        runs: dict[str, tuple[Document, Document | None]] = {
            header.uid: (header.start, header.stop) for header in self
        }
        for source in self._db.event_sources.values():
            descriptors = source.list_descriptors(list(runs), stream_name)
            if descriptors:
                return dataframe_view.table(
                    source.plan(descriptors),
                    stream_name,
                    runs,
                    fields=fields,
                    fill=fill,
                    timestamps=timestamps,
                    duplicates=duplicates,
                    timezone=timezone or self._db.timezone,
                    with_run=True,
                )
        raise StreamNotFound(f"none of these {len(runs)} runs has a stream {stream_name!r}")

    def documents(self, fill: bool = True, fields: Any = None) -> Iterator[tuple[str, Document]]:
        """The documents of all runs, run after run. Lazy."""
        for header in self:
            yield from header.documents(fill, fields)

    # -- pickling, looks ---------------------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        return (Results, (self._db, self._search, self._start, self._stop))

    def __repr__(self) -> str:
        return f"<Results of {', '.join(self._search.shown) or 'all runs'}: {len(self)} runs>"

    def _repr_html_(self) -> str:
        heads = ("scan_id", "plan_name", "uid", "exit_status")
        shown = list(islice(self, 20))
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(h._facts[k]))}</td>" for k in heads) + "</tr>"
            for h in shown
        )
        title = html.escape(f"{len(self)} runs, the newest {len(shown)} shown")
        head = "".join(f"<th>{name}</th>" for name in heads)
        return f"<table><caption>{title}</caption><tr>{head}</tr>{rows}</table>"
