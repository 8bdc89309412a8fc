"""The runs that a search finds: narrowed, iterated, counted and indexed."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator
from functools import partial
from itertools import islice
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self, overload

from .core.arguments import instance
from .core.bad_runs import BadRun, leave_out_bad, take_sound
from .core.errors import BadRunWarning, OffsetOutOfRange
from .core.printable import counted
from .core.query import Query
from .core.search import Search, compile_search
from .described import having_descriptors, may_have_descriptors
from .display.header_list import HeaderList
from .header import Header
from .narrowing import both, has_run, named_run
from .stores.checking import CheckedHeader
from .stores.contract import FARTHEST, EventStore, FoundHeader

if TYPE_CHECKING:
    from .broker import DataBroker

_POSITION = instance("a position, a slice, or a uid", Integral)


class FoundRuns:
    """Runs of a broker, by a search and a slice; :class:`daskbroker.Results` is made on it."""

    def __init__(
        self, db: DataBroker, search: Search, start: int = 0, stop: int | None = None
    ) -> None:
        self._db = db
        self._search = search
        self._start = min(start, FARTHEST)
        self._stop = None if stop is None else min(stop, FARTHEST)
        self._bad_headers: list[BadRun] | None = None
        self._bad_of_tables: dict[str, BadRun] = {}

    # -- narrowing ---------------------------------------------------------------------------

    def __call__(
        self,
        full: str | None = None,
        search: str | None = None,
        since: Any = None,
        until: Any = None,
        **query: Any,
    ) -> Self:
        """Search among these runs: ``db(sample="Ag")(plan_name="scan")``. Lazy.

        Parameters are as for :meth:`daskbroker.DataBroker.__call__`. A slice is looked up at once,
        and the runs that it has now are searched.

        Raises
        ------
        BadQuery
            If the query is not valid.
        """
        zone = self._db.timezone
        return self.narrowed(compile_search(full, search, since, until, query, zone))

    def __and__(self, other: object) -> Self:
        """Return the runs that are in both results of one broker, newest first.

        Raises
        ------
        BadQuery
            If the results are of two brokers.
        """
        if not isinstance(other, FoundRuns):
            return NotImplemented
        return type(self)(self._db, both(self, other))

    def narrowed(self, search: Search) -> Self:
        """Return those of these runs that a search finds."""
        return type(self)(self._db, self.as_search() & search)

    def as_search(self) -> Search:
        """Return a search that finds these runs; for a slice, the runs that it has now."""
        if not self._is_slice:
            return self._search
        uids = [header.uid for header in self]
        return Search((Query({"uid": {"$in": uids}}),), shown=(counted(len(uids), "run"),))

    @property
    def _is_slice(self) -> bool:
        return (self._start, self._stop) != (0, None)

    def __contains__(self, run: object) -> bool:
        """Whether a run, given as a Header, uid or prefix of a uid, is one of these."""
        return has_run(self, run)

    # -- finding -----------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Header]:
        if not self._search.descriptors:
            return self._headers(self._found(self._start, self._stop))
        # The header store cannot search descriptors, so positions are counted after that filter.
        described = self._described(self._found())
        return self._headers(take_sound(described, self._start, self._stop))

    def __reversed__(self) -> Iterator[Header]:
        """Iterate over the same runs, oldest first. Lazy, unless this is a slice."""
        if self._is_slice:
            return reversed(list(iter(self)))  # without asking for the length first
        found = self._found(oldest_first=True)
        return self._headers(self._described(found) if self._search.descriptors else found)

    def _described(self, headers: Iterator[FoundHeader]) -> Iterator[FoundHeader]:
        return having_descriptors(headers, self._search, self._stores)

    @property
    def _stores(self) -> list[EventStore]:
        return [source.store for source in self._db.event_sources]

    def _found(
        self, start: int = 0, stop: int | None = None, *, oldest_first: bool = False
    ) -> Iterator[FoundHeader]:
        store = self._db.header_source.store
        return store.find(self._search, start, stop, oldest_first=oldest_first)

    def _headers(self, pairs: Iterator[FoundHeader]) -> Iterator[Header]:
        self._db.hints.on_words(self._search)
        bad: list[BadRun] = []
        nothing = True
        for pair in leave_out_bad(pairs, bad):
            nothing = False
            yield Header(self._db, *pair)
        self._bad_headers = bad
        if nothing:
            self._hint_at_nothing()

    def _hint_at_nothing(self) -> None:
        # A slice that begins further back may be empty although the search finds runs.
        if not self._is_slice or (self._start == 0 and self._stop):
            self._db.hints.on_nothing(self._search)

    @property
    def bad(self) -> list[BadRun]:
        """Runs that are left out: uid (None if unknown), reason, and where they are stored.

        Runs whose start or stop cannot be read are found by iterating over all runs, which this
        does if it was not done before. Runs of which other documents cannot be read are added when
        a table, a Dataset or documents are made from these results.
        """
        if self._bad_headers is None:
            for _ in self:
                pass
        return [*(self._bad_headers or ()), *self._bad_of_tables.values()]

    def checked(self) -> Iterator[CheckedHeader]:
        """Iterate over the runs with the damages of their start and stop documents.

        Runs whose documents cannot be read are included if the search cannot rule them out.
        """
        found = self._db.header_source.store.check(self._search)
        if self._search.descriptors:
            may = partial(may_have_descriptors, search=self._search, stores=self._stores)
            found = filter(may, found)
        return islice(found, self._start, self._stop)

    def is_all_of(self, db: DataBroker) -> bool:
        """Whether these are all runs of a broker: no slice, no query and no filter."""
        return self._db is db and not self._is_slice and self._search == Search()

    @property
    def db(self) -> DataBroker:
        """The broker that is searched."""
        return self._db

    def __len__(self) -> int:
        if self._search.descriptors:
            # No store counts by descriptors. Counting is quiet, as it is without descriptors.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", BadRunWarning)
                return sum(1 for _ in self)
        self._db.hints.on_words(self._search)
        count = self._db.header_source.store.count(self._search)
        if not count:
            self._hint_at_nothing()
        end = count if self._stop is None else min(count, self._stop)
        return max(0, end - self._start)

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None

    @overload
    def __getitem__(self, key: slice) -> Self | list[Header]: ...
    @overload
    def __getitem__(self, key: int | str) -> Header: ...
    def __getitem__(self, key: Any) -> Any:
        """``results[3]`` is a Header by position, ``results["3a8f1"]`` one by uid or prefix.

        ``results[:10]`` is another Results; with a step or negative ends it is a list of Headers.

        Raises
        ------
        OffsetOutOfRange
            If there is no run at this position.
        RunNotFound
            If none of these runs has this uid.
        AmbiguousUID
            If several uids begin with the prefix.
        """
        if isinstance(key, slice):
            return self._slice(key)
        if isinstance(key, str):
            return named_run(self, key)
        _POSITION.check("the index of Results", key)
        position = operator.index(key)
        if position < 0:
            position += len(self)
        if position >= 0:
            for header in self[position : position + 1]:
                return header
        raise self.out_of_range(f"there is no run number {key}")

    def out_of_range(self, text: str) -> OffsetOutOfRange:
        """Return the error for a position or offset at which there is no run; ``text`` says it."""
        count = len(self)
        there = f"there {'is' if count == 1 else 'are'} only {counted(count, 'run')}"
        return OffsetOutOfRange(f"{there if count else self.nothing}; {text}")

    @property
    def nothing(self) -> str:
        """Text that says that there are no runs, and what was searched."""
        if asked := ", ".join(self._search.shown):
            what = "this slice is empty, of what was" if self._is_slice else "no run was"
            return f"{what} found by {asked:.200}"
        if self._is_slice and len(self._db):
            return "these results are an empty slice"
        return f"the store {self._db.uri or ''}".rstrip() + " has no runs"

    def _slice(self, key: slice) -> Self | list[Header]:
        ends = [end for end in (key.start, key.stop) if end is not None]
        # These need the runs themselves; any other slice stays lazy.
        if key.step not in (None, 1) or any(operator.index(end) < 0 for end in ends):
            return HeaderList(self)[key]
        start = self._start + (0 if key.start is None else operator.index(key.start))
        stop = None if key.stop is None else self._start + operator.index(key.stop)
        if self._stop is not None:
            stop = self._stop if stop is None else min(stop, self._stop)
        return type(self)(self._db, self._search, start, stop)
