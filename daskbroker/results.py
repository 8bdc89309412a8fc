"""Results: the runs that a search finds, lazily."""

from __future__ import annotations

import operator
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from .assets.access import FileAccess
from .assets.filling.missing import MissingMode
from .assets.peek.peeking import PeekMode
from .core.bad_runs import BadRun, leave_out_bad, take_sound
from .core.documents import Document
from .core.errors import BadQuery, BadRunWarning, OffsetOutOfRange, StoreDamaged, StreamNotFound
from .core.fields import FieldsOfRuns
from .core.old_names import missing
from .core.query import compile_query
from .core.run_plan import RunPlan
from .core.search import Search, compile_search
from .core.stored_streams import from_store
from .described import having_descriptors, may_have_descriptors
from .display.frames import runs_frame
from .display.header_list import HeaderList
from .display.listing import FOLDED, SHOWN, Listing
from .display.plots import Y, plot_runs
from .event_source import meant_fields
from .exporting.runs import export
from .header import Header
from .mapping import Outcome, map_runs
from .narrowing import both, has_run, named_run
from .progress import progress_bar
from .stores.checking import CheckedHeader
from .stores.contract import FARTHEST, EventStore, FoundHeader, HeaderPair
from .views import dataset as dataset_view
from .views.documents.prefetch import Prefetcher
from .views.options import Errors, ViewOptions
from .views.rows import Duplicates
from .views.table import opening as dataframe_view

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from .broker import DataBroker

__all__ = ["Results"]


Planned = list[tuple[RunPlan, FileAccess]]
"""What each event source has of some runs, and how its files are reached."""


class Results:
    """The runs that a search finds, newest first.

    So they are iterated, sliced and mapped; their tables, Datasets and documents have the oldest
    run first.

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
            return HeaderList(self)[key]
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
        missing: MissingMode | None = None,
        fill_value: Any = None,
    ) -> Any:
        """One stream of all these runs as one lazy table, the oldest run first.

        The first column, ``run``, is the uid of the run. The runs come in the order of their
        ``start.time``, rows within a run in that of ``seq_num``: ``table.loc[5:7]`` has the events
        5 to 7 of each run. Small runs share partitions.
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
        handler_registry, handler_overrides, peek, missing, fill_value
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
            missing=missing,
            fill_value=fill_value,
        )
        runs = self._runs_oldest_first()
        planned = self._planned(stream_name, list(runs), options)
        tables = [
            dataframe_view.table(plan, stream_name, runs, options, files, with_run=True)
            for plan, files in _in_order_of(runs, planned)
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
        missing: MissingMode | None = None,
        fill_value: Any = None,
    ) -> xr.Dataset | xr.DataTree:
        """One stream of all these runs as one lazy Dataset, or as a tree of Datasets.

        Runs without such a stream are left out. The runs are those found now. Runs of which a
        document cannot be read are left out with a :class:`daskbroker.BadRunWarning`.

        Parameters
        ----------
        stream_name, fields, fill, chunks, timestamps, duplicates, dtypes, roi
            As for :meth:`daskbroker.Header.dataset`.
        handler_registry, handler_overrides, peek, missing, fill_value
            As for :meth:`daskbroker.Header.dataset`.
        combine
            ``"time"``: one Dataset along ``time``, the oldest run first, with the coordinate
            ``run``, the uid. Cells that differ in shape from run to run make a variable of
            objects. ``"tree"``: a DataTree with a Dataset per run, named by its uid (``/`` as
            ``%2F``), the oldest run first.
        errors
            Of a damaged chunk: ``"raise"`` :class:`StoreDamaged`, which names the run, when it is
            read; ``"skip"``: leave the run out, as rows of a Dataset can't be missing from some
            variables. All chosen stored columns, and references, are read for that when the
            Dataset is made, but no detector files; ``fields`` makes it less.

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
            missing=missing,
            fill_value=fill_value,
        )
        if combine == "tree":
            pairs = self._runs_oldest_first()
            planned = self._planned(stream_name, list(pairs), options, rows_needed=True)
            return dataset_view.tree_of_runs(planned, stream_name, pairs, options, chunks)
        if combine != "time":
            raise BadQuery(f"combine must be 'time' or 'tree', not {combine!r}")
        runs = self._runs_oldest_first()
        (plan, files), *others = self._planned(stream_name, list(runs), options, rows_needed=True)
        if others:
            raise BadQuery(
                f"these runs have the stream {stream_name!r} in {len(others) + 1} event sources, "
                "which make no one Dataset; combine='tree' shows them all"
            )
        return dataset_view.dataset(
            plan, stream_name, runs, options, files, chunks=chunks, with_run=True
        )

    def _runs_oldest_first(self) -> dict[str, HeaderPair]:
        """Start and stop of the runs found now, by uid, in the order of tables and Datasets."""
        return {header.uid: (header.start, header.known_stop) for header in reversed(list(self))}

    def _planned(
        self,
        stream_name: str,
        runs: Sequence[str],
        options: ViewOptions,
        *,
        rows_needed: bool = False,
    ) -> list[tuple[RunPlan, FileAccess]]:
        """What each event source that has some of the stream has of it.

        With ``rows_needed`` none of them may be missing; see ``errors`` of :meth:`dataset`.
        """
        planned = [
            (source.store.plan_runs(runs, stream_name, options.runs_to_fill), source.reach)
            for source in self._db.event_sources
        ]
        bad = {run: one for plan, _ in planned for run, one in plan.bad.items()}
        if rows_needed and options.errors == "skip":
            for plan, _ in planned:
                bad |= self._unreadable(plan.without(bad), options)
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

    @staticmethod
    def _unreadable(plan: RunPlan, options: ViewOptions) -> dict[str, BadRun]:
        """By uid, the runs of which a chunk is damaged that a view needs; they are read for it."""
        events = plan.unreadable_events(options.stored_columns(plan.descriptors))
        return plan.unreadable_references() | events

    def _leave_out(self, bad: Mapping[str, BadRun]) -> None:
        for _ in leave_out_bad(bad.values()):
            pass
        self._bad_of_tables.update(bad)

    def documents(
        self,
        fill: bool = True,
        fields: Any = None,
        *,
        errors: Errors = "raise",
        handler_registry: Any = None,
        handler_overrides: Any = None,
        peek: PeekMode = None,
        missing: MissingMode | None = None,
        fill_value: Any = None,
    ) -> Iterator[tuple[str, Document]]:
        """The documents of all runs, run after run, as :meth:`Header.documents` gives them. Lazy.

        The oldest run comes first: inserted elsewhere, the runs have the same order there.
        With an active Client the next runs are read and filled ahead on the workers, within the
        bounds of :mod:`daskbroker.views.documents.prefetch`; closing the generator cancels that.

        Parameters
        ----------
        fill, fields, handler_registry, handler_overrides, peek, missing, fill_value
            As for :meth:`Header.documents`. A run that has none of the fields is left out.
        errors
            Of a chunk that turns out to be damaged: ``"raise"`` :class:`StoreDamaged`, which names
            the run; ``"skip"``: leave its events out, with a :class:`daskbroker.BadRunWarning`, or
            the whole run where references are damaged, without which its events mean nothing.

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
            missing=missing,
            fill_value=fill_value,
            errors=errors,
        )
        return from_store(self._documents(options, FieldsOfRuns(fields)))

    def _documents(
        self, options: ViewOptions, selection: FieldsOfRuns
    ) -> Iterator[tuple[str, Document]]:
        with Prefetcher(skip_damaged=options.errors == "skip") as ahead:
            yield from ahead.chained(self._begun(ahead, options, selection))
        selection.check()

    def _begun(
        self, ahead: Prefetcher, options: ViewOptions, selection: FieldsOfRuns
    ) -> Iterator[Iterator[tuple[str, Document]]]:
        """The documents of each run; some of them are on their way when it is given."""
        for (header, plans), chunks in ahead.runs(
            (pair, [chunks for plan in pair[1] for chunks in plan.plans])
            for pair in self._planned_one_by_one()
        ):
            coming = iter(chunks)
            read = [plan.with_plans(islice(coming, len(plan.plans))) for plan in plans]
            if options.errors == "skip" and self._lacks_references(read):
                continue
            there = selection.there([d for plan in read for d in plan.descriptors])
            if there is not None:
                yield header.documents_of(read, replace(options, fields=there), ahead)

    def _lacks_references(self, plans: Sequence[RunPlan]) -> bool:
        """Whether references of a run are damaged; it is left out then."""
        bad = {run: one for plan in plans for run, one in plan.unreadable_references().items()}
        self._leave_out(bad)
        return bool(bad)

    def _planned_one_by_one(self) -> Iterator[tuple[Header, list[RunPlan]]]:
        """The runs, oldest first, with what each event source has of them.

        Those that cannot be read are left out.
        """
        for found in reversed(self):
            header = found.as_now()
            try:
                yield header, header.plans()
            except StoreDamaged as error:
                self._leave_out({header.uid: BadRun(header.uid, str(error))})

    def to_dataframe(self, fields: Any = None) -> pd.DataFrame:
        """These runs as a pandas frame: what their list shows, or any metadata.

        The runs are read in batches; only the chosen values are kept.

        Parameters
        ----------
        fields
            None: the columns of the list, ``uid``, ``scan_id``, ``time`` (in the broker's zone),
            ``plan_name``, ``sample``, ``motors``, ``points``, ``duration``, ``exit_status`` and
            ``derived``. Else ``uid`` and those that are named: columns of the list;
            ``start:sample.name``, ``stop:reason``, ``config:eiger:exposure_time``; other names are
            paths in the start document.

        Raises
        ------
        FieldNotFound
            For metadata that none of the runs has.
        """
        return runs_frame(self._db, self, fields)

    def plot(self, stream: str | None = None, y: Y = None, *, ax: Any = None) -> Any:
        """Plot all these runs as lines over one another, with matplotlib.

        A run of two motors is drawn over the one that its plan names first.

        Parameters
        ----------
        stream, y, ax
            As for :meth:`daskbroker.Header.plot`. Axes are shared by what is of one data key.

        Returns
        -------
        matplotlib.axes.Axes
            Or an array of them where there are several signals.

        Raises
        ------
        BadQuery
            If none of the runs can be drawn, or they are more than 50. Those of some runs that
            cannot be drawn are left out with a warning.
        """
        return plot_runs(self, stream, y, ax)

    # -- work --------------------------------------------------------------------------------

    def export(
        self,
        folder: str | os.PathLike[str],
        format: str = "jsonl",
        *,
        progress: bool | None = None,
        **options: Any,
    ) -> list[Path]:
        """Write these runs to files that other tools read; which were written.

        Parameters
        ----------
        folder
            Made if need be.
        format
            ``"jsonl"``, ``"parquet"``, ``"netcdf"``, ``"zarr"``, ``"csv"``, ``"nexus"``,
            ``"references"`` or ``"icechunk"``.
        progress
            Show a bar; by default in a terminal and in a notebook.
        **options
            ``stream``, ``fill``, ``files``, ``arrays``, ``partition``, ``to``, ``verify``,
            ``resume``, as for
            :func:`daskbroker.exporting.runs.export`, which also says what the files are, and
            what is raised. ``partition="run"`` makes a folder of Parquet files for each stream,
            to which a later call adds runs that are new.
        """
        with progress_bar(self, " runs", progress) as bar:
            return list(export(bar, folder, format, **options))

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
        return self._listing(SHOWN).text()

    def _repr_html_(self) -> str:
        return self._listing().markup()

    def _listing(self, most: int = SHOWN + FOLDED) -> Listing:
        asked = ", ".join(self._search.shown) or "all runs"
        return self.listing(f"<Results of {asked}: {len(self):,} runs>", most)

    def listing(self, title: str, most: int = SHOWN + FOLDED) -> Listing:
        """The first of these runs, to be shown; those that cannot be read are named."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", BadRunWarning)
            listing = Listing.of(title, self, len(self), most=most)
            return listing.noting(str(one.message) for one in caught)


def _in_order_of(runs: Iterable[str], planned: Planned) -> Planned:
    """The plans, cut where the runs in their order change from one event source to another."""
    if len(planned) == 1:
        return planned
    having = [{d["run_start"] for d in plan.descriptors} for plan, _ in planned]
    pieces: list[tuple[int, set[str]]] = []
    for run in runs:
        for place in (place for place, uids in enumerate(having) if run in uids):
            if not pieces or pieces[-1][0] != place:
                pieces.append((place, set()))
            pieces[-1][1].add(run)
    return [
        (planned[place][0].without(having[place] - some), planned[place][1])
        for place, some in pieces
    ]
