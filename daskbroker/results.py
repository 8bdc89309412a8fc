"""Results: the runs that a search finds, lazily."""

from __future__ import annotations

import html
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, overload

from .assets.access import FileAccess
from .assets.peek.peeking import PeekMode
from .core.bad_runs import BadRun, leave_out_bad, take_sound
from .core.clock import seconds_of
from .core.documents import Document
from .core.errors import (
    BadQuery,
    BadRunWarning,
    OffsetOutOfRange,
    StoreDamaged,
    StreamNotFound,
)
from .core.fields import FieldsOfRuns
from .core.old_names import missing
from .core.printable import printable
from .core.query import compile_query
from .core.run_plan import RunPlan
from .core.search import Search, compile_search, is_derived
from .described import having_descriptors, may_have_descriptors
from .event_source import meant_fields
from .header import Header
from .mapping import Outcome, map_runs
from .narrowing import both, has_run, named_run
from .stores.checking import CheckedHeader
from .stores.contract import FARTHEST, EventStore, FoundHeader
from .views import dataframe as dataframe_view
from .views import dataset as dataset_view
from .views.options import Errors, ViewOptions
from .views.prefetch import Prefetcher
from .views.rows import Duplicates

if TYPE_CHECKING:
    import xarray as xr

    from .broker import DataBroker

__all__ = ["Results"]

MOST_MARKED = 200
"""So many runs are looked at to tell whether there are derived ones."""


class Results:
    """The runs that a search finds, newest first.

    Lazy: nothing is looked up before it is iterated, counted or indexed; each iteration looks
    anew. A slice is a Results of its own. Headers come in batches, so a million of them
    do not have to fit in memory.

    Runs that cannot be read (a damaged row, a document of another writer that makes no sense) are
    left out with a :class:`daskbroker.BadRunWarning`, of which :attr:`bad` keeps what it says.
    They do not count, neither in ``len`` nor in places: ``results[0]`` is the newest run that can
    be read.
    """

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
    ) -> Results:
        """Those of these runs that satisfy this, too: ``db(sample="Ag")(plan_name="scan")``.

        The parameters are as for :meth:`daskbroker.DataBroker.__call__`. Of a slice, the runs that
        it has now are narrowed.
        """
        zone = self._db.timezone
        return self.narrowed(compile_search(full, search, since, until, query, zone))

    def __and__(self, other: object) -> Results:
        """The runs that are in both, newest first."""
        if not isinstance(other, Results):
            return NotImplemented
        return Results(self._db, both(self, other))

    def narrowed(self, search: Search) -> Results:
        """Those of these runs that a search finds."""
        return Results(self._db, self.as_search() & search)

    def as_search(self) -> Search:
        """What a run satisfies that is one of these; of a slice, to be one of those it has now."""
        if not self._is_slice:
            return self._search
        uids = [header.uid for header in self]
        return Search((compile_query({"uid": {"$in": uids}}),), shown=(f"{len(uids)} runs",))

    @property
    def _is_slice(self) -> bool:
        return (self._start, self._stop) != (0, None)

    def __contains__(self, run: object) -> bool:
        """Whether a run, given as a Header or by its uid, is one of these."""
        return has_run(self, run)

    # -- finding -----------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Header]:
        found = self._found()
        if not self._search.descriptors:
            return self._headers(found(self._start, self._stop))
        return self._headers(take_sound(self._described(found()), self._start, self._stop))

    def __reversed__(self) -> Iterator[Header]:
        """The same runs oldest first; lazily, unless this is a slice."""
        if self._is_slice:
            return reversed(list(self))
        found = self._found(oldest_first=True)()
        return self._headers(self._described(found) if self._search.descriptors else found)

    def _described(self, found: Iterator[FoundHeader]) -> Iterator[FoundHeader]:
        return having_descriptors(found, self._search, self._stores)

    @property
    def _stores(self) -> list[EventStore]:
        return [source.store for source in self._db.event_sources]

    def _found(self, **order: bool) -> Callable[..., Iterator[FoundHeader]]:
        return partial(self._db.header_source.store.find, self._search, **order)

    def _headers(self, found: Iterator[FoundHeader]) -> Iterator[Header]:
        self._db.hints.on_words(self._search)
        bad: list[BadRun] = []
        nothing = True
        for pair in leave_out_bad(found, bad):
            nothing = False
            yield Header(self._db, *pair)
        self._bad_headers = bad
        if nothing:
            self._hint_at_nothing()

    def _hint_at_nothing(self) -> None:
        if not self._is_slice or (self._start == 0 and self._stop):
            self._db.hints.on_nothing(self._search)

    @property
    def bad(self) -> list[BadRun]:
        """The runs that are left out: uid (None where there is none), reason, and where they are.

        Those that lists leave out are known when all have been iterated, which is done here if
        nobody has; those of which other documents cannot be read, when a table or Dataset was
        made of these results.
        """
        if self._bad_headers is None:
            for _ in self:
                pass
        return [*(self._bad_headers or ()), *self._bad_of_tables.values()]

    def checked(self) -> Iterator[CheckedHeader]:
        """Each run with what is damaged of its start and stop documents, for a check.

        Runs whose documents cannot be read are among them, where a search cannot rule them out.
        """
        found = self._db.header_source.store.check(self._search)
        if self._search.descriptors:
            may = partial(may_have_descriptors, search=self._search, stores=self._stores)
            found = filter(may, found)
        return islice(found, self._start, self._stop)

    def is_all_of(self, db: DataBroker) -> bool:
        """Whether these are all runs of a broker."""
        return self._db is db and not self._is_slice and self._search == Search()

    @property
    def db(self) -> DataBroker:
        """The broker that is searched."""
        return self._db

    def __len__(self) -> int:
        if self._search.descriptors:
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
    def __getitem__(self, key: slice) -> Results | list[Header]: ...  # type: ignore[overload-overlap]
    @overload
    def __getitem__(self, key: int | str) -> Header: ...
    def __getitem__(self, key: Any) -> Any:
        """``results[3]`` is a Header, by its place; so is ``results["3a8f1"]``, by uid or prefix.

        ``results[:10]`` is a Results (a list with a step or negative ends).

        Raises
        ------
        OffsetOutOfRange, RunNotFound, AmbiguousUID
        """
        if isinstance(key, slice):
            return self._slice(key)
        if isinstance(key, str):
            return named_run(self, key)
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
        errors: Errors = "raise",
        handler_registry: Any = None,
        handler_overrides: Any = None,
        peek: PeekMode = None,
    ) -> Any:
        """One stream of all these runs as one lazy table.

        The first column, ``run``, is the uid of the run. Small runs share partitions. Where runs
        have the stream in different event sources, the sources follow one another.
        Runs without such a stream have no rows. The runs are those found now. Runs of which a
        document cannot be read are left out with a :class:`daskbroker.BadRunWarning`.

        Parameters
        ----------
        stream_name, fields, fill, timestamps, duplicates, timezone
            As for :meth:`daskbroker.Header.table`.
        errors
            Of a chunk that turns out to be damaged when it is computed: ``"raise"``
            :class:`StoreDamaged`, which names the run, or ``"skip"`` its rows, with a
            :class:`daskbroker.BadRunWarning` in the process that reads it. ``len`` then reads.
        handler_registry, handler_overrides, peek
            As for :meth:`daskbroker.Header.table`.

        Raises
        ------
        StreamNotFound
            If none of the runs has the stream.
        """
        options = ViewOptions(
            fields,
            fill,
            timestamps,
            duplicates,
            timezone,
            handler_registry=handler_registry,
            handler_overrides=handler_overrides,
            peek=peek,
            errors=errors,
        )
        runs = {header.uid: (header.start, header.stop) for header in self}
        tables = [
            dataframe_view.table(plan, stream_name, runs, options, files, with_run=True)
            for plan, files in self._planned(stream_name, list(runs), options)
        ]
        return dataframe_view.concat(tables)

    def dataset(
        self,
        stream_name: str = "primary",
        fields: Any = None,
        fill: bool = True,
        *,
        combine: str = "time",
        chunks: Any = "auto",
        timestamps: bool = False,
        duplicates: Duplicates = "last",
        dtypes: Mapping[str, Any] | None = None,
        errors: Errors = "raise",
        roi: Mapping[str, Any] | None = None,
        handler_registry: Any = None,
        handler_overrides: Any = None,
        peek: PeekMode = None,
    ) -> xr.Dataset | xr.DataTree:
        """One stream of all these runs as one lazy Dataset, or as a tree of Datasets.

        Runs without such a stream are left out. The runs are those found now. Runs of which a
        document cannot be read are left out with a :class:`daskbroker.BadRunWarning`.

        Parameters
        ----------
        stream_name, fields, fill, chunks, timestamps, duplicates, dtypes, roi
            As for :meth:`daskbroker.Header.dataset`.
        handler_registry, handler_overrides, peek
            As for :meth:`daskbroker.Header.dataset`.
        combine
            ``"time"``: one Dataset along ``time``, the oldest run first, with the coordinate
            ``run``, the uid. Cells that differ in shape from run to run make a variable of
            objects. ``"tree"``: a DataTree with a Dataset per run, named by its uid (``/`` as
            ``%2F``), in the order of the results.
        errors
            ``"skip"``: leave out runs, too, of which ``time`` or ``seq_num`` is in a damaged chunk.
            These are read for that; a chunk of which other columns are damaged is an error when
            these are computed.

        Raises
        ------
        StreamNotFound
            If none of the runs has the stream.
        BadQuery
            For another ``combine``, or if the stream is in several event sources.
        """
        options = ViewOptions(
            fields,
            fill,
            timestamps,
            duplicates,
            dtypes=dtypes,
            roi=roi,
            handler_registry=handler_registry,
            handler_overrides=handler_overrides,
            peek=peek,
            errors=errors,
        )
        if combine == "tree":
            pairs = {header.uid: (header.start, header.stop) for header in self}
            planned = self._planned(stream_name, list(pairs), options, rows_needed=True)
            return dataset_view.tree_of_runs(planned, stream_name, pairs, options, chunks)
        if combine != "time":
            raise BadQuery(f"combine must be 'time' or 'tree', not {combine!r}")
        headers = sorted(self, key=lambda header: seconds_of(header.start))
        runs = {header.uid: (header.start, header.stop) for header in headers}
        (plan, files), *others = self._planned(stream_name, list(runs), options, rows_needed=True)
        if others:
            raise BadQuery(
                f"these runs have the stream {stream_name!r} in {len(others) + 1} event sources, "
                "which make no one Dataset; combine='tree' shows them all"
            )
        return dataset_view.dataset(
            plan, stream_name, runs, options, files, chunks=chunks, with_run=True
        )

    def _planned(
        self,
        stream_name: str,
        runs: Sequence[str],
        options: ViewOptions,
        *,
        rows_needed: bool = False,
    ) -> list[tuple[RunPlan, FileAccess]]:
        """What each event source that has some of the stream has of it.

        With ``rows_needed`` all rows that it has can be counted; see ``errors`` of :meth:`dataset`.
        """
        planned = [
            (source.store.plan_runs(runs, stream_name, options.runs_to_fill), source.reach)
            for source in self._db.event_sources
        ]
        bad = {run: one for plan, _ in planned for run, one in plan.bad.items()}
        if rows_needed and options.errors == "skip":
            for plan, _ in planned:
                bad |= plan.without(bad).unreadable(["seq_num", "time"])
        self._leave_out(bad)
        sound = [(plan.without(bad), files) for plan, files in planned]
        found = [(plan, files) for plan, files in sound if plan.descriptors]
        if not found:
            left_out = f" that can be read; {len(bad)} cannot, see their `bad`" if bad else ""
            raise StreamNotFound(
                f"none of these {len(runs)} runs has a stream {stream_name!r:.200}{left_out}"
                f"{meant_fields(stream_name)}"
            )
        return found

    def _leave_out(self, bad: Mapping[str, BadRun]) -> None:
        for _ in leave_out_bad(bad.values()):
            pass
        self._bad_of_tables.update(bad)

    def documents(
        self,
        fill: bool = True,
        fields: Any = None,
        *,
        handler_registry: Any = None,
        handler_overrides: Any = None,
        peek: PeekMode = None,
    ) -> Iterator[tuple[str, Document]]:
        """The documents of all runs, run after run, as :meth:`Header.documents` gives them. Lazy.

        With an active Client the next runs are read ahead on the workers, within the bounds
        that :mod:`daskbroker.views.prefetch` names; closing the generator cancels that.

        Parameters
        ----------
        fill, fields, handler_registry, handler_overrides
            As for :meth:`Header.documents`. A run that has none of the fields is left out.

        Raises
        ------
        FieldNotFound
            For a field that none of the runs has, after the last of them.
        """
        options = ViewOptions(
            fields,
            fill,
            handler_registry=handler_registry,
            handler_overrides=handler_overrides,
            peek=peek,
        )
        selection = FieldsOfRuns(fields)
        with Prefetcher() as ahead:
            for (header, plans), chunks in ahead.runs(
                (pair, [chunks for plan in pair[1] for chunks in plan.plans])
                for pair in self._planned_one_by_one()
            ):
                coming = iter(chunks)
                read = [plan.with_plans(islice(coming, len(plan.plans))) for plan in plans]
                there = selection.there([d for plan in read for d in plan.descriptors])
                if there is not None:
                    yield from header.documents_of(read, replace(options, fields=there))
        selection.check()

    def _planned_one_by_one(self) -> Iterator[tuple[Header, list[RunPlan]]]:
        """The runs, with what each event source has of them; those that cannot be read left out."""
        for header in self:
            try:
                yield header, header.plans()
            except StoreDamaged as error:
                self._leave_out({header.uid: BadRun(header.uid, str(error))})

    # -- work --------------------------------------------------------------------------------

    def map(
        self,
        func: Callable[..., Any],
        *args: Any,
        client: Any = None,
        in_flight: int | None = None,
        progress: bool | None = None,
        **kwargs: Any,
    ) -> Iterator[Outcome]:
        """Call a function for each run, on the workers; outcomes in the order they come.

        An error is kept beside its run and stops nothing; so is a run whose worker died more
        often than the scheduler allows. Lazy: calls are started while this is iterated, and
        closing the iterator early cancels those that have not run.

        Parameters
        ----------
        func
            Called as ``func(header, *args, **kwargs)``. What it computes with dask goes to the
            same cluster, as in any task; ``.compute(scheduler="threads")`` stays on the worker.
        client
            A ``distributed.Client``; by default the active one, else dask's local scheduler
            (threads, unless ``dask.config.set(scheduler="processes")`` or the like).
        in_flight
            So many calls are submitted and not yet given at a time, however many runs there
            are; by default 64, or twice the number of threads.
        progress
            Show a bar; by default in a terminal and in a notebook.

        Yields
        ------
        Outcome
            With ``header``, ``uid``, ``error`` (None if all went well) and ``result()``, which
            fetches what the function returned, or raises what it raised.
        """
        return map_runs(
            self, func, args, kwargs, client=client, in_flight=in_flight, progress=progress
        )

    # -- pickling, looks ---------------------------------------------------------------------

    if not TYPE_CHECKING:  # which shall find that an attribute is not there
        __getattr__ = missing

    def __reduce__(self) -> tuple[Any, ...]:
        return (Results, (self._db, self._search, self._start, self._stop))

    def __repr__(self) -> str:
        asked = printable(", ".join(self._search.shown) or "all runs")
        return f"<Results of {asked}: {len(self)} runs{self._derived_among}>"

    @property
    def _derived_among(self) -> str:
        """A mark for runs that were made of others, if some of the newest are."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BadRunWarning)
            newest = list(islice(self, MOST_MARKED))
        derived = sum(is_derived(header.start) for header in newest)
        of = f" of the newest {MOST_MARKED}" if len(newest) == MOST_MARKED else ""
        return f", {derived}{of} derived" if derived else ""

    def _repr_html_(self) -> str:
        heads = ["scan_id", "plan_name", "time", "uid", "exit_status"]
        shown = list(islice(self, 20))
        heads += ["derived_from"] if any(is_derived(h.start) for h in shown) else []
        rows = "".join(
            "<tr>"
            + "".join(f"<td>{html.escape(printable(h._facts.get(k, '')))}</td>" for k in heads)
            + "</tr>"
            for h in shown
        )
        title = html.escape(f"{len(self)} runs, the newest {len(shown)} shown")
        head = "".join(f"<th>{name}</th>" for name in heads)
        return f"<table><caption>{title}</caption><tr>{head}</tr>{rows}</table>"
