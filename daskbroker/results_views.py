"""The lazy views of many runs: one table, Dataset or tree of all, and their documents in turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from .assets.access import FileAccess, Handlers, Overrides
from .assets.filling.missing import MissingMode
from .assets.peek.peeking import PeekMode
from .core.absent_streams import meant_fields
from .core.arguments import accepts
from .core.bad_runs import BadRun, leave_out_bad
from .core.documents import Document
from .core.errors import BadQuery, StoreDamaged, StreamNotFound
from .core.fields import FieldsOfRuns
from .core.run_plan import RunPlan
from .core.stored_streams import from_store
from .found_runs import FoundRuns
from .header import Header
from .stores.contract import HeaderPair
from .views.documents.prefetch import Prefetcher
from .views.row_order import Duplicates
from .views.view_options import Errors, FillOptions, View, ViewOptions

if TYPE_CHECKING:
    import xarray as xr

Planned = list[tuple[RunPlan, FileAccess]]
"""For each event source: its plan of some runs, and the access to its detector files."""


class ResultsViews(FoundRuns):
    """Methods of :class:`daskbroker.Results` that return tables, Datasets, trees and documents."""

    @accepts()
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
        handler_registry: Handlers = None,
        handler_overrides: Overrides = None,
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
        external = FillOptions(handler_registry, handler_overrides, peek, missing, fill_value)
        options = ViewOptions(
            fields, fill, timestamps, duplicates, timezone, errors=errors, external=external
        )
        from .views.table import collection, lazy_table  # see `header_views` on late imports

        runs = self._runs_oldest_first()
        planned = self._planned(stream_name, list(runs), options)
        tables = [
            lazy_table.table(View(plan, stream_name, runs, options, files), with_run=True)
            for plan, files in _in_order_of(runs, planned)
        ]
        return collection.concat(tables)

    @accepts()
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
        handler_registry: Handlers = None,
        handler_overrides: Overrides = None,
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
        external = FillOptions(handler_registry, handler_overrides, peek, missing, fill_value)
        options = ViewOptions(
            fields,
            fill,
            timestamps,
            duplicates,
            dtypes=dtypes,
            roi=roi,
            errors=errors,
            external=external,
        )
        if combine not in ("time", "tree"):
            raise BadQuery(f"combine must be 'time' or 'tree', not {combine!r}")
        from .views.dataset import lazy_dataset, trees

        runs = self._runs_oldest_first()
        planned = self._planned(stream_name, list(runs), options, rows_needed=True)
        views = [View(plan, stream_name, runs, options, files) for plan, files in planned]
        if combine == "tree":
            return trees.tree_of_runs(views, stream_name, chunks)
        view, *others = views
        if others:
            raise BadQuery(
                f"these runs have the stream {stream_name!r} in {len(others) + 1} event sources, "
                "which cannot be one Dataset; use combine='tree'"
            )
        return lazy_dataset.dataset(view, chunks=chunks, with_run=True)

    def _runs_oldest_first(self) -> dict[str, HeaderPair]:
        """Return start and stop of the runs found now, by uid, the oldest first."""
        # Of `list(self)`, Python asks the length first, which the store counts for nothing.
        found = list(iter(self))
        return {header.uid: (header.start, header.known_stop) for header in reversed(found)}

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
            (
                source.store.plan_runs(runs, stream_name, references=options.runs_to_fill),
                source.reach,
            )
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
            if not runs:
                raise StreamNotFound(f"there is no stream {stream_name!r:.200}: {self.nothing}")
            several = f"none of these {len(runs):,} runs has a stream"
            which = several if len(runs) > 1 else f"run {runs[0]!r} has no stream"
            left_out = f" that can be read; {len(bad)} cannot, see their `bad`" if bad else ""
            raise StreamNotFound(
                f"{which} {stream_name!r:.200}{left_out}{meant_fields(stream_name)}"
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

    @accepts()
    def documents(
        self,
        fill: bool = True,
        fields: Any = None,
        *,
        errors: Errors = "raise",
        handler_registry: Handlers = None,
        handler_overrides: Overrides = None,
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
        external = FillOptions(handler_registry, handler_overrides, peek, missing, fill_value)
        options = ViewOptions(fields, fill, errors=errors, external=external)
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
            descriptors = [d for plan in read for d in plan.descriptors]
            there = selection.there(descriptors, header.start, header.known_stop)
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


def _in_order_of(runs: Iterable[str], planned: Planned) -> Planned:
    """Split plans wherever consecutive runs are in different event sources.

    Concatenated, the pieces then have the runs in their order.
    """
    if len(planned) == 1:
        return planned
    having = [{d["run_start"] for d in plan.descriptors} for plan, _ in planned]
    pieces: list[tuple[int, set[str]]] = []
    for run in runs:
        for position in (position for position, uids in enumerate(having) if run in uids):
            if not pieces or pieces[-1][0] != position:
                pieces.append((position, set()))
            pieces[-1][1].add(run)
    return [
        (planned[position][0].without(having[position] - some), planned[position][1])
        for position, some in pieces
    ]
