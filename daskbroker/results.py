"""Results: the runs that a search finds. Lazy."""

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
from .core.printable import printable
from .core.query import compile_query
from .core.run_plan import RunPlan
from .core.search import Search, compile_search
from .core.stored_streams import from_store
from .described import having_descriptors, may_have_descriptors
from .display.header_list import HeaderList
from .display.listing import FOLDED, SHOWN, Listing, shown_or
from .display.markup import escaped
from .display.plots import Y, plot_runs
from .display.runs_frame import runs_frame
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
from .views.table import lazy_table

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from .broker import DataBroker

__all__ = ["Results"]


Planned = list[tuple[RunPlan, FileAccess]]
"""For each event source: its plan of some runs, and the access to its detector files."""


class Results:
    """The runs that a search finds, newest first.

    Iterating, slicing and mapping go from the newest run to the oldest. Tables, Datasets and
    documents have the oldest run first.

    Lazy: the store is queried when the results are iterated, counted or indexed, and each
    iteration queries it anew. A slice is another Results. Headers are fetched in batches, so a
    million of them need not fit in memory.

    Runs that cannot be read (a damaged row, an invalid document of another writer) are left out
    with a :class:`daskbroker.BadRunWarning` and are listed in :attr:`bad`. They are not counted by
    ``len`` or by positions: ``results[0]`` is the newest run that can be read.
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

    def __and__(self, other: object) -> Results:
        """Return the runs that are in both results of one broker, newest first.

        Raises
        ------
        BadQuery
            If the results are of two brokers.
        """
        if not isinstance(other, Results):
            return NotImplemented
        return Results(self._db, both(self, other))

    def narrowed(self, search: Search) -> Results:
        """Return those of these runs that a search finds."""
        return Results(self._db, self.as_search() & search)

    def as_search(self) -> Search:
        """Return a search that finds these runs; for a slice, the runs that it has now."""
        if not self._is_slice:
            return self._search
        uids = [header.uid for header in self]
        return Search((compile_query({"uid": {"$in": uids}}),), shown=(f"{len(uids)} runs",))

    @property
    def _is_slice(self) -> bool:
        return (self._start, self._stop) != (0, None)

    def __contains__(self, run: object) -> bool:
        """Whether a run, given as a Header, uid or prefix of a uid, is one of these."""
        return has_run(self, run)

    # -- finding -----------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Header]:
        found = self._found()
        if not self._search.descriptors:
            return self._headers(found(self._start, self._stop))
        # The header store cannot search descriptors, so positions are counted after that filter.
        return self._headers(take_sound(self._described(found()), self._start, self._stop))

    def __reversed__(self) -> Iterator[Header]:
        """Iterate over the same runs, oldest first. Lazy, unless this is a slice."""
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
    def __getitem__(self, key: slice) -> Results | list[Header]: ...  # type: ignore[overload-overlap]
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
        place = operator.index(key)
        if place < 0:
            place += len(self)
        if place >= 0:
            for header in self[place : place + 1]:
                return header
        raise OffsetOutOfRange(f"there are {len(self)} runs; there is no run number {key}")

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
        """Open one stream of all these runs as one lazy table, the oldest run first.

        The first column, ``run``, is the uid of the run. Runs are ordered by ``start.time``, and
        rows within a run by ``seq_num``: ``table.loc[5:7]`` has the events 5 to 7 of each run.
        Small runs share partitions. Runs without this stream have no rows. The search is carried
        out when this is called. Runs of which a document cannot be read are left out with a
        :class:`daskbroker.BadRunWarning`.

        Parameters
        ----------
        stream_name, fields, fill, timestamps, duplicates, timezone
            As for :meth:`daskbroker.Header.table`.
        errors
            What to do with a chunk that turns out to be damaged when it is computed: ``"raise"``
            :class:`StoreDamaged`, which names the run, or ``"skip"`` its rows with a
            :class:`daskbroker.BadRunWarning` in the process that reads it. With ``"skip"``, the
            ``len`` of the table has to read the chunks.
        handler_registry, handler_overrides, peek, missing, fill_value
            As for :meth:`daskbroker.Header.table`.

        Returns
        -------
        dask.dataframe.DataFrame

        Raises
        ------
        StreamNotFound
            If none of the runs has the stream.
        FieldNotFound
            If none of the runs has a field.
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
            lazy_table.table(plan, stream_name, runs, options, files, with_run=True)
            for plan, files in _in_order_of(runs, planned)
        ]
        return lazy_table.concat(tables)

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
        """Open one stream of all these runs as one lazy Dataset, or as a tree of Datasets.

        Runs without this stream are left out. The search is carried out when this is called. Runs
        of which a document cannot be read are left out with a :class:`daskbroker.BadRunWarning`.

        Parameters
        ----------
        stream_name, fields, fill, chunks, timestamps, duplicates, dtypes, roi
            As for :meth:`daskbroker.Header.dataset`.
        handler_registry, handler_overrides, peek, missing, fill_value
            As for :meth:`daskbroker.Header.dataset`.
        combine
            ``"time"``: one Dataset along ``time``, the oldest run first, with the uid as
            coordinate ``run``. A variable whose cells differ in shape between runs has dtype
            object. ``"tree"``: a DataTree with one Dataset per run, named by its uid (``/`` as
            ``%2F``), the oldest run first.
        errors
            What to do with a damaged chunk: ``"raise"`` :class:`StoreDamaged`, which names the
            run, when it is read; or ``"skip"`` the whole run, because rows cannot be missing from
            only some variables of a Dataset. For ``"skip"``, all chosen stored columns and the
            references are read when the Dataset is made, but no detector files; ``fields`` reduces
            what is read.

        Returns
        -------
        xarray.Dataset or xarray.DataTree

        Raises
        ------
        StreamNotFound
            If none of the runs has the stream.
        BadQuery
            If ``combine`` is another value, or if ``combine="time"`` and the stream is in several
            event sources.
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
                "which cannot be one Dataset; use combine='tree'"
            )
        return dataset_view.dataset(
            plan, stream_name, runs, options, files, chunks=chunks, with_run=True
        )

    def _runs_oldest_first(self) -> dict[str, HeaderPair]:
        """Return start and stop of the runs found now, by uid, the oldest first."""
        return {header.uid: (header.start, header.known_stop) for header in reversed(list(self))}

    def _planned(
        self,
        stream_name: str,
        runs: Sequence[str],
        options: ViewOptions,
        *,
        rows_needed: bool = False,
    ) -> list[tuple[RunPlan, FileAccess]]:
        """Return the plan of the stream in each event source that has it.

        With ``rows_needed`` and ``errors="skip"``, a run of which any chunk is damaged is left out
        as a whole; see ``errors`` of :meth:`dataset`.

        Raises
        ------
        StreamNotFound
            If no event source has the stream.
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
        """Return the runs, by uid, of which a chunk needed by a view is damaged; reads them all."""
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
        """Iterate over the documents of all runs, one run after the other. Lazy.

        The oldest run comes first, so that runs inserted elsewhere have the same order there. The
        documents of each run are those of :meth:`Header.documents`. With an active Client the next
        runs are read and filled ahead on the workers, within the bounds of
        :mod:`daskbroker.views.documents.prefetch`; closing the generator cancels that.

        Parameters
        ----------
        fill, fields, handler_registry, handler_overrides, peek, missing, fill_value
            As for :meth:`Header.documents`. A run that has none of the fields is left out.
        errors
            What to do with a chunk that turns out to be damaged: ``"raise"``
            :class:`StoreDamaged`, which names the run; or ``"skip"`` its events with a
            :class:`daskbroker.BadRunWarning`. If references are damaged, ``"skip"`` leaves out the
            whole run, because its events mean nothing without them.

        Yields
        ------
        tuple
            Name and document.

        Raises
        ------
        FieldNotFound
            If none of the runs has a field; raised after the last run.
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
        """Yield an iterator over the documents of each run; reading has begun when it is given."""
        for (header, plans), chunks in ahead.runs(
            (pair, [chunks for plan in pair[1] for chunks in plan.plans])
            for pair in self._planned_one_by_one()
        ):
            # The prefetcher gives the chunks of all sources in one list: share them out again.
            coming = iter(chunks)
            read = [plan.with_plans(islice(coming, len(plan.plans))) for plan in plans]
            if options.errors == "skip" and self._lacks_references(read):
                continue
            there = selection.there([d for plan in read for d in plan.descriptors])
            if there is not None:
                yield header.documents_of(read, replace(options, fields=there), ahead)

    def _lacks_references(self, plans: Sequence[RunPlan]) -> bool:
        """Return whether references of a run are damaged; if so, note it as left out."""
        bad = {run: one for plan in plans for run, one in plan.unreadable_references().items()}
        self._leave_out(bad)
        return bool(bad)

    def _planned_one_by_one(self) -> Iterator[tuple[Header, list[RunPlan]]]:
        """Yield each run with its plan in each event source, the oldest run first.

        Runs that cannot be read are left out.
        """
        for found in reversed(self):
            header = found.as_now()
            try:
                yield header, header.plans()
            except StoreDamaged as error:
                self._leave_out({header.uid: BadRun(header.uid, str(error))})

    def to_dataframe(self, fields: Any = None) -> pd.DataFrame:
        """Return a pandas DataFrame with one row per run: the listed columns, or any metadata.

        The runs are read in batches; only the chosen values are kept in memory.

        Parameters
        ----------
        fields
            Columns beside ``uid``: names of the columns below; projections such as
            ``start:sample.name``, ``stop:reason`` or ``config:eiger:exposure_time``; any other
            name is a path in the start document. If None, the columns are ``uid``, ``scan_id``,
            ``time`` (in the broker's zone), ``plan_name``, ``sample``, ``motors``, ``points``,
            ``duration``, ``exit_status`` and ``derived``.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        FieldNotFound
            If none of the runs has a field.
        """
        return runs_frame(self._db, self, fields)

    def plot(self, stream: str | None = None, y: Y = None, *, ax: Any = None) -> Any:
        """Plot all these runs as lines in the same axes, with matplotlib.

        A run with two motors is drawn against the motor that its plan names first. Runs that
        cannot be drawn are left out with a warning.

        Parameters
        ----------
        stream, y, ax
            As for :meth:`daskbroker.Header.plot`. Each data key has its own axes, which all runs
            share.

        Returns
        -------
        matplotlib.axes.Axes or array of Axes
            An array if there are several signals.

        Raises
        ------
        BadQuery
            If none of the runs can be drawn, or if there are more than 50.
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
        """Write these runs to files that other tools read.

        Parameters
        ----------
        folder
            Folder to write to; created if it does not exist.
        format
            ``"jsonl"``, ``"parquet"``, ``"netcdf"``, ``"zarr"``, ``"csv"``, ``"nexus"``,
            ``"references"`` or ``"icechunk"``.
        progress
            Whether to show a progress bar; by default in a terminal and in a notebook.
        **options
            ``stream``, ``fill``, ``files``, ``arrays``, ``partition``, ``to``, ``verify``,
            ``resume``, as for :func:`daskbroker.exporting.runs.export`, which also describes the
            files and the exceptions. ``partition="run"`` makes a folder of Parquet files for each
            stream; a later call adds new runs to it.

        Returns
        -------
        list of Path
            Files that were written.
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
        """Call a function for each run, on the workers; yield outcomes as the calls end.

        An exception of the function is kept in the outcome of its run and does not stop the
        others; so is the loss of a run whose worker died more often than the scheduler allows.
        Lazy: calls are started while this is iterated, and closing the iterator early cancels
        those that have not run.

        Parameters
        ----------
        func
            Function called as ``func(header, *args, **kwargs)``. What it computes with dask goes
            to the same cluster, as in any task; ``.compute(scheduler="threads")`` stays on the
            worker.
        *args, **kwargs
            Further arguments of the function.
        client
            ``distributed.Client`` to use; by default the active one, else dask's local scheduler
            (threads, unless ``dask.config.set(scheduler="processes")`` or the like).
        in_flight
            Maximum number of calls that are submitted and not yet yielded, however many runs there
            are. The default on a cluster is 64, or twice the number of threads if that is more;
            on a local scheduler it is twice the number of threads.
        progress
            Whether to show a progress bar; by default in a terminal and in a notebook.

        Yields
        ------
        Outcome
            Has ``header``, ``uid``, ``error`` (None on success) and ``result()``, which fetches
            what the function returned or raises what it raised.
        """
        return map_runs(
            self, func, args, kwargs, client=client, in_flight=in_flight, progress=progress
        )

    # -- pickling, looks ---------------------------------------------------------------------

    if not TYPE_CHECKING:  # a type checker should report unknown attributes
        __getattr__ = missing

    def __reduce__(self) -> tuple[Any, ...]:
        return (Results, (self._db, self._search, self._start, self._stop))

    def __repr__(self) -> str:
        title = f"<Results of {printable(self._asked)}>"
        return shown_or(title, lambda: self._listing(SHOWN).text())

    def _repr_html_(self) -> str:
        title = escaped(f"<Results of {printable(self._asked)}>")
        return shown_or(title, lambda: self._listing().markup())

    @property
    def _asked(self) -> str:
        return ", ".join(self._search.shown) or "all runs"

    def _listing(self, most: int = SHOWN + FOLDED) -> Listing:
        return self.listing(f"<Results of {self._asked}: {len(self):,} runs>", most)

    def listing(self, title: str, most: int = SHOWN + FOLDED) -> Listing:
        """Return a listing of the first runs, with notes on runs that cannot be read."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", BadRunWarning)
            listing = Listing.of(title, self, len(self), most=most)
            return listing.noting(str(one.message) for one in caught)


def _in_order_of(runs: Iterable[str], planned: Planned) -> Planned:
    """Split plans wherever consecutive runs are in different event sources.

    Concatenated, the pieces then have the runs in their order.
    """
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
