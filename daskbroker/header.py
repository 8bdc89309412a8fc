"""Header: one run, with its documents and the views of its data."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .assets.access import FileAccess
from .assets.filling.missing import MissingMode
from .assets.peek.peeking import PeekMode
from .core.clock import seconds_of
from .core.documents import ALL, Document
from .core.errors import BadQuery, FieldNotFound
from .core.fields import data_keys_of
from .core.group_names import group_name
from .core.name_lists import listed
from .core.old_names import missing
from .core.run_plan import RunPlan, stream_of
from .core.stored_streams import from_store
from .display.page import header_line, header_markup, header_text
from .display.plots import Frame, Y, plot_run
from .event_source import EventSource, no_stream
from .exporting.references.kerchunk import references as run_references
from .exporting.runs import export_run
from .views import dataset as dataset_view
from .views.dataset.attributes import root_attrs
from .views.dataset.frames import DatasetFrames, dataset_frames
from .views.documents import streaming as documents_view
from .views.documents.following import Follower
from .views.documents.prefetch import Prefetcher
from .views.missing import check_fill_names, for_keys
from .views.options import ViewOptions
from .views.rows import Duplicates
from .views.table import lazy_table

if TYPE_CHECKING:
    import dask.dataframe as dd
    import xarray as xr

    from .broker import DataBroker

__all__ = ["Header"]

FORMATS = ("dataframe", "dataset")
FOLLOWED = ("documents", "dataframe")

LOOK_AGAIN_SECONDS = 0.2
"""Minimum seconds between two lookups of a missing stop by the attribute ``stop``."""


class Header:
    """A run: its start and stop documents, and views of its data.

    Headers are made by searching a broker. A Header pickles as its two documents and the broker's
    configuration; unpickled, it uses the one broker of that configuration in the process.

    A run in progress gets its stop document later: :attr:`stop` looks for it. Each view (table,
    dataset, tree, documents) looks for it once, before it lists the chunks to read, and shows the
    run as of that moment. A view therefore never has a stop that is later than its events.

    Parameters
    ----------
    db
        Broker that the run comes from.
    start, stop
        Start and stop documents; ``stop`` is None while the run has none.
    live
        Whether a missing stop is looked up again; see :meth:`as_now`.

    Attributes
    ----------
    start
        Start document.
    known_stop
        Stop document as far as it is known, without a lookup in the store; None if there is none.
    db
        Broker that the run comes from.
    """

    def __init__(
        self, db: DataBroker, start: Document, stop: Document | None, *, live: bool = True
    ) -> None:
        self.db = db
        self.start = start
        self.known_stop = stop
        self._live = live
        self._looked = time.monotonic()

    @property
    def uid(self) -> str:
        """Uid of the run."""
        return str(self.start["uid"])

    # -- a run in progress -------------------------------------------------------------------

    @property
    def stop(self) -> Document | None:
        """Stop document; None while the run has none.

        If no stop is known, the store is queried again, at most once in 0.2 seconds. Only this
        attribute does so: lists, reprs and pickles use :attr:`known_stop`.
        """
        if self._live and time.monotonic() - self._looked >= LOOK_AGAIN_SECONDS:
            self.refresh()
        return self.known_stop

    def refresh(self) -> Header:
        """Look up the stop document now, if none is known.

        Returns
        -------
        Header
            This Header, so that calls can be chained.

        Raises
        ------
        StoreDamaged
            If the run cannot be read.
        StoreUnavailable
            If the store does not answer.
        """
        if self.known_stop is None:
            pair = self.db.header_source.store.find_uid(self.uid)
            self._looked = time.monotonic()
            if pair is not None:
                self.known_stop = pair[1]
        return self

    def as_now(self) -> Header:
        """Return the run as of now: a Header that looks up a missing stop once, and never again.

        Views, copies, exports and :func:`daskbroker.reprocess` begin with it. If the run ends
        while they work, what they make has no stop that is later than its events.
        """
        if not self._live:
            return self
        return Header(self.db, self.start, self.refresh().known_stop, live=False)

    # -- streams -----------------------------------------------------------------------------

    @property
    def streams(self) -> list[str]:
        """Names of the streams in all event sources, in the order in which they began."""
        return list(self.descriptors)

    @property
    def descriptors(self) -> dict[str, list[Document]]:
        """``{stream: [descriptor, ...]}``, ordered by the times of the descriptors."""
        found = sorted(
            (d for es in self._sources for d in es.descriptors_given_header(self.uid)),
            key=seconds_of,
        )
        by_stream: dict[str, list[Document]] = {}
        for descriptor in found:
            by_stream.setdefault(stream_of(descriptor), []).append(descriptor)
        return by_stream

    @property
    def _sources(self) -> list[EventSource]:
        return list(self.db.event_sources)

    def es_given_stream(self, stream_name: str) -> EventSource:
        """Return the event source that has a stream.

        Raises
        ------
        StreamNotFound
            If none has it; the message lists the streams of the run.
        """
        for source in self._sources:
            if stream_name in list(source.stream_names_given_header(self.uid)):
                return source
        raise no_stream(self.uid, stream_name, self.streams, self.fields())

    def fields(self, stream_name: Any = ALL) -> set[str]:
        """Return the names of the data keys of one stream, or of all streams."""
        return set(data_keys_of(self._descriptors_of(stream_name)))

    def devices(self, stream_name: Any = ALL) -> set[str]:
        """Return the names of the devices of one stream, or of all streams."""
        return {
            device
            for descriptor in self._descriptors_of(stream_name)
            for part in ("object_keys", "configuration")
            for device in descriptor.get(part, {})
        }

    def config_data(self, device_name: str) -> dict[str, list[dict[str, Any]]]:
        """Return the configuration of a device: by stream, one mapping per descriptor that has it.

        Raises
        ------
        FieldNotFound
            If no descriptor has the device.
        """
        found: dict[str, list[dict[str, Any]]] = {}
        for stream, descriptors in self.descriptors.items():
            for descriptor in descriptors:
                configuration = descriptor.get("configuration", {})
                if device_name in list(configuration):
                    data = configuration[device_name].get("data", {})
                    found.setdefault(stream, []).append(dict(data))
        if not found and device_name not in list(self.devices()):
            raise FieldNotFound(
                f"run {self.uid!r} has no device {device_name!r}; it has: "
                f"{listed(sorted(self.devices()), device_name)}"
            )
        return found

    def _descriptors_of(self, stream_name: Any) -> list[Document]:
        if stream_name is not ALL:
            return self.es_given_stream(stream_name).descriptors_given_header(self.uid, stream_name)
        return [d for descriptors in self.descriptors.values() for d in descriptors]

    # -- views -------------------------------------------------------------------------------

    @property
    def _runs(self) -> dict[str, tuple[Document, Document | None]]:
        return {self.uid: (self.start, self.known_stop)}

    def _planned(self, stream_name: str, wanted: ViewOptions | bool) -> tuple[RunPlan, FileAccess]:
        """Return the plan of a stream, and the access to its detector files."""
        references = wanted if isinstance(wanted, bool) else wanted.runs_to_fill
        for source in self._sources:
            plan = source.store.plan_runs([self.uid], stream_name, references).checked()
            if plan.descriptors:
                return plan, source.reach
        raise no_stream(self.uid, stream_name, self.streams, self.fields())

    def table(
        self,
        stream_name: str = "primary",
        fields: Any = None,
        fill: bool = True,
        format: str = "dataframe",
        *,
        timestamps: bool = False,
        duplicates: Duplicates = "last",
        timezone: str | None = None,
        handler_registry: Any = None,
        handler_overrides: Any = None,
        peek: PeekMode = None,
        missing: MissingMode | None = None,
        fill_value: Any = None,
    ) -> Any:
        """Open one stream as a lazy table, in which a partition is one or more chunks.

        Parameters
        ----------
        stream_name
            Name of the stream.
        fields
            Data keys, regular expressions, or projections such as ``start:sample.name``,
            ``stop:exit_status``, ``config:eiger:exposure_time``; also ``uid``, ``descriptor``,
            ``run``. All data keys if None.
        fill
            Whether to fill external data when its column is computed; False keeps the references.
        format
            ``"dataframe"`` or ``"dataset"``.
        timestamps
            Whether to add the columns ``ts_<key>``, in POSIX seconds.
        duplicates
            Which events to keep of those that were taken again after a rewind: ``"last"`` or
            ``"all"``.
        timezone
            Zone of the column ``time``. Only UTC is possible, because Dask loses rows in other
            zones. A computed table is converted to the broker's zone by
            :meth:`daskbroker.DataBroker.tz_convert`, or to any zone by ``.dt.tz_convert``.
        handler_registry, handler_overrides
            Handlers by spec, and by data key, for this call; see
            :meth:`daskbroker.DataBroker.register_handler`.
        peek
            Whether to read shape and dtype from detector files, if they were not read before:
            only for keys whose descriptor leaves them open if None, for every key if True, never
            if False. ``"each"`` reads the files of each run when several runs are opened, which
            otherwise share what the files of some of them hold.
        missing
            How to treat missing cells of external data: gaps (events without a reference) and lost
            frames (not on disk). With None, a gap is NaN and a lost frame raises. With ``"nan"``
            both are NaN, or None in tables and documents. With ``"drop"`` events with a missing
            cell are left out. With ``"raise"`` both raise.
        fill_value
            Value of missing cells, whose arrays keep their dtype: one value, or ``{key: value}``;
            ``missing`` applies to keys without a value.

        Returns
        -------
        dask.dataframe.DataFrame or xarray.Dataset
            A table has the index ``seq_num`` with known divisions, and ``time``
            (``datetime64[us, UTC]``) as its first column. Nothing is read before ``compute``,
            which then reads only the selected columns.

        Raises
        ------
        StreamNotFound
            If the run has no such stream.
        FieldNotFound
            If the stream has no such field.
        BadQuery
            If ``format`` is unknown, ``timezone`` is not UTC, or ``missing`` or ``fill_value`` is
            not valid.
        """
        if format not in FORMATS:
            raise BadQuery(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
        options = ViewOptions(
            fields,
            fill,
            timestamps,
            duplicates,
            timezone,
            handler_registry=handler_registry,
            handler_overrides=handler_overrides,
            peek=peek,
            missing=missing,
            fill_value=fill_value,
        )
        runs = self.as_now()._runs
        plan, files = self._planned(stream_name, options)
        if format == "dataset":
            return dataset_view.dataset(plan, stream_name, runs, options, files)
        return lazy_table.table(plan, stream_name, runs, options, files)

    def dataset(
        self,
        stream_name: str = "primary",
        fields: Any = None,
        fill: bool = True,
        *,
        chunks: Any = "auto",
        timestamps: bool = False,
        duplicates: Duplicates = "last",
        dtypes: Mapping[str, Any] | None = None,
        roi: Mapping[str, Any] | None = None,
        grid: bool = False,
        index: str | None = None,
        handler_registry: Any = None,
        handler_overrides: Any = None,
        peek: PeekMode = None,
        missing: MissingMode | None = None,
        fill_value: Any = None,
    ) -> xr.Dataset:
        """Open one stream as a lazy Dataset along ``time``.

        See :func:`daskbroker.views.dataset.dataset` for its variables and coordinates.

        Parameters
        ----------
        stream_name, fields, fill, timestamps, duplicates
            As for :meth:`table`.
        handler_registry, handler_overrides, peek, missing, fill_value
            As for :meth:`table`.
        chunks
            With ``"auto"``, variables that are not in memory are dask arrays, all with the same
            blocks of about the partition size along ``time``. With None, they are xarray's own
            lazy arrays. ``{"time": n}`` or ``{name: n}`` gives the number of events per block for
            all variables or for one. A size such as ``"8 MiB"``, alone or in place of ``n``, gives
            the approximate size of blocks. Any other value is passed to
            :meth:`xarray.Dataset.chunk`.
        dtypes
            Dtypes of variables, such as ``{"img": "uint16"}``. They replace the dtype that
            descriptors declare and files hold for external variables, and the common dtype of the
            values for others.
        roi
            Region of each cell, by external variable: ``{"img": np.s_[..., 10:20, :]}``. Nothing
            outside it is read from the file, whatever is computed from the variable; a slice taken
            after other steps may not reach the file.
        grid
            Whether to replace ``time`` by a dimension for each axis of a grid scan, as described
            by :func:`daskbroker.views.dataset.grids.gridded`. The start document names the axes,
            the motors' setpoints are their coordinates, and points that were not taken are NaN.
            ``chunks`` then applies to the grid: ``{axis: n}``.
        index
            Name of a motor, or of another variable with one number per event, that replaces
            ``time`` as dimension; the Dataset is sorted by it: ``h.dataset(index="motor").sel(
            motor=1.2, method="nearest")``.

        Returns
        -------
        xarray.Dataset

        Raises
        ------
        StreamNotFound
            If the run has no such stream.
        FieldNotFound
            If the stream has no such field.
        BadQuery
            If an option is not valid, or if ``grid`` is True and the run is no grid scan; the
            message says what is missing.
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
            missing=missing,
            fill_value=fill_value,
            grid=grid,
            index=index,
        )
        runs = self.as_now()._runs
        plan, files = self._planned(stream_name, options)
        return dataset_view.dataset(plan, stream_name, runs, options, files, chunks=chunks)

    def tree(
        self,
        fill: bool = True,
        *,
        chunks: Any = "auto",
        peek: PeekMode = None,
        missing: MissingMode | None = None,
        fill_value: Any = None,
    ) -> xr.DataTree:
        """Open all streams as an ``xarray.DataTree`` with one lazy Dataset per stream.

        Streams are in the order in which they began; a ``/`` in a name is ``%2F`` in the tree.
        Parameters are as for :meth:`dataset`.
        """
        options = ViewOptions(fill=fill, peek=peek, missing=missing, fill_value=fill_value)
        run = self.as_now()
        found: dict[str, tuple[RunPlan, FileAccess]] = {}
        for source in self._sources:
            plan = source.store.plan_runs([self.uid], ALL, options.runs_to_fill).checked()
            for name in plan.streams:
                found.setdefault(name, (plan.of_stream(name), source.reach))
        check_fill_names(fill_value, [d for plan, _ in found.values() for d in plan.descriptors])
        began = sorted(found, key=lambda name: found[name][0].descriptors[0]["time"])
        nodes = {}
        for name in began:
            plan, files = found[name]
            own = replace(options, fill_value=for_keys(fill_value, plan.descriptors))
            nodes[group_name(name)] = dataset_view.dataset(
                plan, name, run._runs, own, files, chunks=chunks
            )
        return dataset_view.tree(nodes, root_attrs(run.start, run.known_stop), self.uid)

    def documents(
        self,
        fill: bool = True,
        fields: Any = None,
        *,
        handler_registry: Any = None,
        handler_overrides: Any = None,
        peek: PeekMode = None,
        missing: MissingMode | None = None,
        fill_value: Any = None,
    ) -> Iterator[tuple[str, Document]]:
        """Iterate over all documents of the run as ``(name, doc)``: start first, stop last.

        References come before the documents that use them; events of all streams are ordered by
        time. Lazy: only a few chunks are in memory at a time.

        Parameters
        ----------
        fill
            Whether to replace references by external data, many at a time; see
            :func:`daskbroker.assets.filling.events.fill_events` for the content of filled events.
        fields
            Data keys to keep, or projections to add; descriptors then have a new uid. A stream
            that has none of these data keys and configuration fields is left out. All data keys
            if None.
        handler_registry, handler_overrides, peek
            As for :meth:`table`.
        missing, fill_value
            As for :meth:`table`, for the external keys of an event's descriptor. By default events
            with a gap are given as recorded, and a lost frame raises after all events before it
            were given.

        Yields
        ------
        tuple
            Name and :class:`daskbroker.Document`.

        Raises
        ------
        FieldNotFound
            If no stream of the run has a field.
        FillError
            If external data cannot be read.
        """
        options = ViewOptions(
            fields,
            fill,
            handler_registry=handler_registry,
            handler_overrides=handler_overrides,
            peek=peek,
            missing=missing,
            fill_value=fill_value,
        )
        return from_store(self._documents(options))

    def _documents(self, options: ViewOptions) -> Iterator[tuple[str, Document]]:
        run = self.as_now()
        yield from run.documents_of(run.plans(), options)

    def plans(self) -> list[RunPlan]:
        """Return the plan of the run in each event source: descriptors, chunks, references.

        Raises
        ------
        StoreDamaged
            If a document or the list of chunks cannot be read.
        """
        return [
            source.store.plan_runs([self.uid], references=True).checked()
            for source in self._sources
        ]

    def documents_of(
        self, plans: Iterable[RunPlan], options: ViewOptions, ahead: Prefetcher | None = None
    ) -> Iterator[tuple[str, Document]]:
        """Iterate over the documents of given plans, as :meth:`documents` does.

        The stop is :attr:`known_stop`, so :meth:`as_now` must be called before the plans are made.
        With ``ahead``, reading begins at once.
        """
        files = [source.reach for source in self._sources]
        sources = list(zip(plans, files, strict=True))
        return self._with_start_and_stop(
            documents_view.stream_documents(
                sources, self.start, self.known_stop, options, ahead=ahead
            )
        )

    def events(
        self, fill: bool = True, fields: Any = None, **handlers: Any
    ) -> Iterator[tuple[str, Document]]:
        """Iterate over all documents; the manifesto's name for :meth:`documents`."""
        return self.documents(fill, fields, **handlers)

    def stream(
        self,
        stream_name: Any = ALL,
        fill: bool = True,
        fields: Any = None,
        *,
        handler_registry: Any = None,
        handler_overrides: Any = None,
        peek: PeekMode = None,
        missing: MissingMode | None = None,
        fill_value: Any = None,
    ) -> Iterator[tuple[str, Document]]:
        """Iterate over the documents of one stream between the run's start and stop. Lazy.

        Without a name it gives all streams, as :meth:`documents` does, whose other parameters it
        shares.

        Raises
        ------
        StreamNotFound
            If the run has no such stream.
        """
        options = ViewOptions(
            fields,
            fill,
            handler_registry=handler_registry,
            handler_overrides=handler_overrides,
            peek=peek,
            missing=missing,
            fill_value=fill_value,
        )
        run = self.as_now()
        if stream_name is ALL:
            return from_store(run.documents_of(run.plans(), options))
        sources = [run._planned(stream_name, True)]
        return from_store(
            run._with_start_and_stop(
                documents_view.stream_documents(
                    sources, run.start, run.known_stop, options, all_streams=False
                )
            )
        )

    def follow(
        self,
        stream_name: Any = ALL,
        fill: bool = False,
        fields: Any = None,
        *,
        format: str = "documents",
        interval: float = 0.2,
        timeout: float | None = None,
        handler_registry: Any = None,
        handler_overrides: Any = None,
        peek: PeekMode = None,
    ) -> Iterator[Any]:
        """Iterate over the data of the run, waiting for new data until its stop comes.

        The run may be written by any process. The store is queried every ``interval`` seconds. If
        the run has ended, everything is given at once.

        Parameters
        ----------
        stream_name
            Name of one stream, or all streams. The stream need not have begun.
        fill
            Whether to replace references by external data. The default is False, because the data
            of a new event is often not on disk yet.
        fields
            As for :meth:`documents`; projections of the stop are empty.
        format
            ``"documents"``: ``(name, doc)`` as of :meth:`stream`, start first and stop last, each
            once; the documents found by one query are ordered by time. ``"dataframe"``: the new
            rows of one stream at each query, as a computed table. Its dtypes are those of these
            rows; rows that were taken again after a rewind are given again.
        interval
            Seconds between two queries of the store.
        timeout
            Seconds without anything new after which TimeoutError is raised; never if None.
        handler_registry, handler_overrides, peek
            As for :meth:`table`.

        Yields
        ------
        tuple or pandas.DataFrame

        Raises
        ------
        TimeoutError
            If nothing new came for ``timeout`` seconds.
        StreamNotFound, FieldNotFound
            If the run ended without this stream or these fields.
        BadQuery
            If ``format`` is unknown, or ``"dataframe"`` without the name of a stream.
        """
        if format not in FOLLOWED or (format == "dataframe" and stream_name is ALL):
            raise BadQuery(
                f"follow gives {' or '.join(FOLLOWED)}, the latter of a stream that is named; not "
                f"{format!r} of {stream_name!r}"
            )
        options = ViewOptions(
            fields,
            fill,
            handler_registry=handler_registry,
            handler_overrides=handler_overrides,
            peek=peek,
        )
        references = True if format == "documents" else options.runs_to_fill
        sources = [
            (partial(source.store.plan_runs, [self.uid], stream_name, references), source.reach)
            for source in self._sources
        ]
        follower = Follower(sources, self.start, stream_name, options)
        take: Any = follower.documents if format == "documents" else follower.tables
        coming: Iterator[Any] = follower.follow(take, self._has_ended, interval, timeout)
        return self._with_start_and_stop(coming) if format == "documents" else coming

    def _has_ended(self) -> bool:
        """Whether the run has a stop, or this Header shows a past moment and never gets one."""
        return not self._live or self.refresh().known_stop is not None

    def _with_start_and_stop(
        self, stream: Iterator[tuple[str, Document]]
    ) -> Iterator[tuple[str, Document]]:
        yield "start", self.start
        yield from stream
        if self.known_stop is not None:
            yield "stop", self.known_stop

    def plot(
        self, stream: str | None = None, y: Y = None, frame: Frame = None, *, ax: Any = None
    ) -> Any:
        """Plot the run with matplotlib, as described by the hints of its plan and devices.

        With one scanned motor, or over time, each signal is a line. With two motors it is a map,
        or scattered points if the plan describes no regular grid. Needs ``daskbroker[plot]``.

        Parameters
        ----------
        stream
            Name of the stream; by default the one with the scanned motors.
        y
            Data keys to plot in place of the hinted signals. A key whose cells are images is shown
            as an image.
        frame
            Number of the event whose cell is shown, as an image or as a line; negative numbers
            count from the last. ``(event, image)`` chooses among the images of a cell, of which
            the first is the default.
        ax
            Axes to draw on, as many as there are signals, or a matplotlib Figure for new ones; by
            default pyplot makes a figure.

        Returns
        -------
        matplotlib.axes.Axes or array of Axes
            An array if there are several signals.

        Raises
        ------
        StreamNotFound, FieldNotFound
            If the run has no such stream or data key.
        BadQuery
            If there is nothing to plot, or no such frame.
        ConfigError
            If matplotlib is not installed.
        """
        return plot_run(self, stream, y, frame, ax)

    def export(
        self, path: str | os.PathLike[str], format: str | None = None, **options: Any
    ) -> list[Path]:
        """Write the run to files that other tools read.

        Parameters
        ----------
        path
            Folder, or the file itself if it ends with a suffix of the format: ``.jsonl``,
            ``.parquet``, ``.nc``, ``.zarr``, ``.csv``, ``.nxs``, ``.json`` or ``.parq`` for
            references, ``.icechunk``.
        format
            ``"jsonl"``, ``"parquet"``, ``"netcdf"``, ``"zarr"``, ``"csv"``, ``"nexus"``,
            ``"references"`` or ``"icechunk"``; by default the format of the suffix, or ``"jsonl"``
            if it has none.
        **options
            ``stream``, ``fill``, ``files``, ``arrays``, ``partition``, ``to``, ``verify``, as for
            :func:`daskbroker.exporting.runs.export`. For example, ``fill=True`` writes frames in
            place of references, and ``arrays="drop"`` leaves columns with arrays out of CSV.

        Returns
        -------
        list of Path
            Files that were written, each complete and synced.

        Raises
        ------
        StreamNotFound
            If the run has no such stream.
        BadQuery
            If the format is unknown or does not have an option, if ``path`` is one file for
            several streams, or if CSV would have arrays.
        StoreFull, StoreReadOnly, StoreError
            If a file cannot be written.
        """
        return export_run(self, path, format, **options)

    def references(
        self,
        stream_name: Any = ALL,
        *,
        to: Mapping[str, str] | None = None,
        arrays: str = "raise",
    ) -> dict[str, Any]:
        """Return streams as references: external frames are byte ranges of the detectors' files.

        The format is kerchunk's. xarray opens it through fsspec's file system ``reference``,
        without daskbroker and without a copy of any frame. ``export(path, "references")`` writes
        it to a file, ``export(path, "icechunk")`` does the same for Icechunk.

        Parameters
        ----------
        stream_name
            Name of one stream, whose variables are then in the root group; with all streams, each
            has a group.
        to
            Locations that references give to folders, ``{"/gpfs/x": "s3://x"}``; all files must be
            below one of these folders. By default references have the paths on this machine, with
            ``root_map`` applied.
        arrays
            What to do with frames that references cannot describe: ``"raise"``, or ``"drop"`` to
            leave them out with an :class:`daskbroker.ExportWarning`.

        Returns
        -------
        dict
            ``version`` and ``refs``; under ``daskbroker`` the size and time of each file. Readers
            do not notice that a file was replaced later: :func:`daskbroker.verify_references` does.

        Raises
        ------
        StreamNotFound
            If the run has no such stream.
        BadQuery
            If frames cannot be described by one grid of chunks with one chain of codecs; the
            message names them.
        FillError
            If a file is missing or cannot be read.
        """
        if stream_name is not ALL:
            self.es_given_stream(stream_name)
        return run_references(self.as_now(), stream_name, to, arrays)

    def table_and_datasets(self, stream_name: str) -> tuple[dd.DataFrame, xr.Dataset, xr.Dataset]:
        """Return the views of a stream that a server needs, which have the same rows.

        They are made of one plan, so that this holds for a run in progress, too.

        Returns
        -------
        table
            As ``table(stream_name, timestamps=True)``.
        blocks
            As ``dataset(stream_name)``.
        whole
            As ``dataset(stream_name, chunks=None)``.
        """
        options = ViewOptions()
        runs = self.as_now()._runs
        plan, files = self._planned(stream_name, options)
        cuts = ("auto", None)
        blocks, whole = dataset_view.datasets(plan, stream_name, runs, options, files, cuts)
        stamped = replace(options, timestamps=True)
        table = lazy_table.table(plan, stream_name, runs, stamped, files)
        return table, blocks, whole

    def dataset_frames(self, stream_name: str) -> DatasetFrames:
        """Return the Dataset of a stream, and the byte ranges of its external cells in their files.

        References are made from it; see :mod:`daskbroker.views.dataset.frames`.
        """
        options = ViewOptions()
        plan, files = self._planned(stream_name, options)
        return dataset_frames(plan, stream_name, self.as_now()._runs, options, files)

    def portable(self) -> Header:
        """Return a Header that a worker can use without opening the store.

        A Header normally pickles as its documents and the broker's configuration, by which the
        worker opens the store. An embedded store must not be opened over a network file system.
        For such a store this returns a read-only Header of the run as of now, which carries its
        descriptors and the list of its chunks (no data except the unsealed tail). For other stores
        it returns this Header. :meth:`daskbroker.Results.map` calls this by itself.
        """
        if all(source.store.opens_on_workers for source in self._sources):
            return self
        return Header(self.db.portable_broker(self), self.start, self.known_stop, live=False)

    # -- mapping, equality, pickling, looks --------------------------------------------------

    def keys(self) -> tuple[str, ...]:
        """Return the keys of ``h[...]``: ``start``, ``stop`` and ``descriptors``."""
        return ("start", "stop", "descriptors")

    def __getitem__(self, key: str) -> Any:
        if key not in self.keys():
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Header) and self.uid == other.uid

    def __hash__(self) -> int:
        return hash(self.uid)

    if not TYPE_CHECKING:  # a type checker should report unknown attributes
        __getattr__ = missing

    def __reduce__(self) -> tuple[Any, ...]:
        stop = self.known_stop
        return (_unpickle, (self.db, dict(self.start), stop and dict(stop), self._live))

    def __repr__(self) -> str:
        return header_line(self)

    def __str__(self) -> str:
        return header_text(self)

    def _repr_html_(self) -> str:
        return header_markup(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(header_text(self))


def _unpickle(
    db: DataBroker, start: dict[str, Any], stop: dict[str, Any] | None, live: bool = True
) -> Header:
    return Header(db, Document(start), None if stop is None else Document(stop), live=live)
