"""Results: the runs that a search finds, lazily."""

from __future__ import annotations

import html
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, overload

from .assets.access import FileAccess
from .assets.peek.peeking import PeekMode
from .core.clock import seconds_of
from .core.documents import Document
from .core.errors import BadQuery, OffsetOutOfRange, StreamNotFound
from .core.fields import FieldsOfRuns
from .core.run_plan import RunPlan
from .core.search import Search
from .header import Header
from .mapping import Outcome, map_runs
from .views import dataframe as dataframe_view
from .views import dataset as dataset_view
from .views.options import ViewOptions
from .views.prefetch import Prefetcher
from .views.rows import Duplicates

if TYPE_CHECKING:
    import xarray as xr

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
        source = self._db.header_source.store
        if not self._search.descriptors:
            pairs = source.find(self._search, self._start, self._stop)
            return (Header(self._db, *pair) for pair in pairs)
        headers = (Header(self._db, *pair) for pair in source.find(self._search))
        return islice(filter(self._has_descriptors, headers), self._start, self._stop)

    def __reversed__(self) -> Iterator[Header]:
        """The same runs oldest first; lazily, unless this is a slice."""
        if self._start or self._stop is not None:
            return reversed(list(self))
        pairs = self._db.header_source.store.find(self._search, oldest_first=True)
        headers = (Header(self._db, *pair) for pair in pairs)
        return filter(self._has_descriptors, headers) if self._search.descriptors else headers

    def _has_descriptors(self, header: Header) -> bool:
        found = [d for descriptors in header.descriptors.values() for d in descriptors]
        return self._search.matches_descriptors(found)

    def __len__(self) -> int:
        if self._search.descriptors:
            return sum(1 for _ in self)
        count = self._db.header_source.store.count(self._search)
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
        handler_registry: Any = None,
        handler_overrides: Any = None,
        peek: PeekMode = None,
    ) -> Any:
        """One stream of all these runs as one lazy table.

        The first column, ``run``, is the uid of the run. Small runs share partitions. Where runs
        have the stream in different event sources, the sources follow one another.
        Runs without such a stream have no rows. The runs are those found now.

        Parameters
        ----------
        stream_name, fields, fill, timestamps, duplicates, timezone
            As for :meth:`daskbroker.Header.table`.
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
        handler_registry: Any = None,
        handler_overrides: Any = None,
        peek: PeekMode = None,
    ) -> xr.Dataset | xr.DataTree:
        """One stream of all these runs as one lazy Dataset, or as a tree of Datasets.

        Runs without such a stream are left out. The runs are those found now.

        Parameters
        ----------
        stream_name, fields, fill, chunks, timestamps, duplicates, dtypes
            As for :meth:`daskbroker.Header.dataset`.
        handler_registry, handler_overrides, peek
            As for :meth:`daskbroker.Header.dataset`.
        combine
            ``"time"``: one Dataset along ``time``, the oldest run first, with the coordinate
            ``run``, the uid. Cells that differ in shape from run to run make a variable of
            objects. ``"tree"``: a DataTree with a Dataset per run, named by its uid (``/`` as
            ``%2F``), in the order of the results.

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
            handler_registry=handler_registry,
            handler_overrides=handler_overrides,
            peek=peek,
        )
        if combine == "tree":
            return self._tree(stream_name, options, chunks)
        if combine != "time":
            raise BadQuery(f"combine must be 'time' or 'tree', not {combine!r}")
        headers = sorted(self, key=lambda header: seconds_of(header.start))
        runs = {header.uid: (header.start, header.stop) for header in headers}
        (plan, files), *others = self._planned(stream_name, list(runs), options)
        if others:
            raise BadQuery(
                f"these runs have the stream {stream_name!r} in {len(others) + 1} event sources, "
                "which make no one Dataset; combine='tree' shows them all"
            )
        return dataset_view.dataset(
            plan, stream_name, runs, options, files, chunks=chunks, with_run=True
        )

    def _tree(self, stream_name: str, options: ViewOptions, chunks: Any) -> xr.DataTree:
        import xarray as xr

        runs = {header.uid: (header.start, header.stop) for header in self}
        found: dict[str, tuple[RunPlan, FileAccess]] = {}
        for plan, files in self._planned(stream_name, list(runs), options):
            files = files.knowing(options.filling(plan, files))  # shared by all of them
            for uid in dict.fromkeys(d["run_start"] for d in plan.descriptors):
                found.setdefault(uid, (plan.of_run(uid), files))
        nodes: dict[str, xr.Dataset] = {}
        for uid, pair in runs.items():
            if uid in found:
                plan, files = found[uid]
                name = uid.replace("%", "%25").replace("/", "%2F")
                nodes[name] = dataset_view.dataset(
                    plan, stream_name, {uid: pair}, options, files, chunks=chunks
                )
        root = xr.Dataset(attrs={"stream": stream_name})
        return xr.DataTree.from_dict({"/": root, **nodes}, name=stream_name)

    def _planned(
        self, stream_name: str, runs: Sequence[str], options: ViewOptions
    ) -> list[tuple[RunPlan, FileAccess]]:
        """What each event source that has some of the stream has of it."""
        planned = [
            (source.store.plan_runs(runs, stream_name, options.runs_to_fill), source.reach)
            for source in self._db.event_sources.values()
        ]
        found = [(plan, files) for plan, files in planned if plan.descriptors]
        if not found:
            raise StreamNotFound(f"none of these {len(runs)} runs has a stream {stream_name!r}")
        return found

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
            planned = ((header, header.plans()) for header in self)
            for (header, plans), chunks in ahead.runs(
                (pair, [chunks for plan in pair[1] for chunks in plan.plans]) for pair in planned
            ):
                coming = iter(chunks)
                read = [plan.with_plans(islice(coming, len(plan.plans))) for plan in plans]
                there = selection.there([d for plan in read for d in plan.descriptors])
                if there is not None:
                    yield from header.documents_of(read, replace(options, fields=there))
        selection.check()

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

    def __reduce__(self) -> tuple[Any, ...]:
        return (Results, (self._db, self._search, self._start, self._stop))

    def __repr__(self) -> str:
        return f"<Results of {', '.join(self._search.shown) or 'all runs'}: {len(self)} runs>"

    def _repr_html_(self) -> str:
        heads = ("scan_id", "plan_name", "time", "uid", "exit_status")
        shown = list(islice(self, 20))
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(h._facts[k]))}</td>" for k in heads) + "</tr>"
            for h in shown
        )
        title = html.escape(f"{len(self)} runs, the newest {len(shown)} shown")
        head = "".join(f"<th>{name}</th>" for name in heads)
        return f"<table><caption>{title}</caption><tr>{head}</tr>{rows}</table>"
