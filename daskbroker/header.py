"""Header: one run, as the user holds it."""

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
from .core.listing import listed
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
from .views.table import opening as dataframe_view

if TYPE_CHECKING:
    import xarray as xr

    from .broker import DataBroker

__all__ = ["Header"]

FORMATS = ("dataframe", "dataset")
FOLLOWED = ("documents", "dataframe")

LOOK_AGAIN_SECONDS = 0.2
"""So long the attribute ``stop`` of an open run says what it said before."""


class Header:
    """A run: its start and stop documents, and views of its data.

    Made by searching a broker, not by hand. Pickles as its two documents and the broker's
    configuration; unpickled, it uses the one broker of that configuration in the process.

    A run that is in progress gets its stop document later: :attr:`stop` looks for it. Each view
    (table, dataset, tree, documents) looks once, before it lists the chunks to read, and is of
    the run as it was then: it never has a stop that is later than its events.

    Parameters
    ----------
    db
        The broker it comes from.
    start, stop
        The documents; ``stop`` is None while there is none.
    live
        Whether a missing stop is looked for again; see :meth:`as_now`.

    Attributes
    ----------
    start
        The start document.
    known_stop
        The stop document as far as it is known, without a look into the store.
    db
        The broker it comes from.
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
        """Of the run."""
        return str(self.start["uid"])

    # -- a run in progress -------------------------------------------------------------------

    @property
    def stop(self) -> Document | None:
        """The stop document, None while there is none.

        Of a run without one, the store is asked again, at most once in 0.2 seconds. Only this
        attribute does so: lists, reprs and pickles have :attr:`known_stop`.
        """
        if self._live and time.monotonic() - self._looked >= LOOK_AGAIN_SECONDS:
            self.refresh()
        return self.known_stop

    def refresh(self) -> Header:
        """Look for the stop document now, if none is known; this Header, for what comes next.

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
        """The run as it is now: a stop is looked for once, and never again by what this gives.

        Views, copies, exports and :func:`daskbroker.reprocess` start with it, so that what they
        make of a run that ends meanwhile has no stop that is later than its events.
        """
        if not self._live:
            return self
        return Header(self.db, self.start, self.refresh().known_stop, live=False)

    # -- streams -----------------------------------------------------------------------------

    @property
    def streams(self) -> list[str]:
        """Names of the streams over all event sources, in the order in which they began."""
        return list(self.descriptors)

    @property
    def descriptors(self) -> dict[str, list[Document]]:
        """``{stream: [descriptor, ...]}``, in the order of time."""
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
        """The event source that has a stream.

        Raises
        ------
        StreamNotFound
            Naming the streams there are.
        """
        for source in self._sources:
            if stream_name in list(source.stream_names_given_header(self.uid)):
                return source
        raise no_stream(self.uid, stream_name, self.streams, self.fields())

    def fields(self, stream_name: Any = ALL) -> set[str]:
        """Names of the data keys of one stream, or of all."""
        return set(data_keys_of(self._descriptors_of(stream_name)))

    def devices(self, stream_name: Any = ALL) -> set[str]:
        """Names of the devices of one stream, or of all."""
        return {
            device
            for descriptor in self._descriptors_of(stream_name)
            for part in ("object_keys", "configuration")
            for device in descriptor.get(part, {})
        }

    def config_data(self, device_name: str) -> dict[str, list[dict[str, Any]]]:
        """Configuration of a device: per stream, one mapping per descriptor that has it.

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
        """What the event source that has a stream has of it, and how its files are reached."""
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
        """One stream as a lazy table: a partition is one or more chunks.

        Parameters
        ----------
        stream_name
            Which stream.
        fields
            Data keys, regular expressions, or projections such as ``start:sample.name``,
            ``stop:exit_status``, ``config:eiger:exposure_time``; also ``uid``, ``descriptor``,
            ``run``. None: all data keys.
        fill
            Fill external data when its column is computed; False leaves the references.
        format
            ``"dataframe"`` or ``"dataset"``.
        timestamps
            Add the columns ``ts_<key>``, POSIX seconds.
        duplicates
            Of events that were taken again after a rewind, ``"last"`` or ``"all"``.
        timezone
            Of the column ``time``: it is in UTC, because Dask loses rows in other zones. What is
            computed is converted by :meth:`daskbroker.DataBroker.tz_convert` to the broker's
            zone, or by ``.dt.tz_convert`` to any.
        handler_registry, handler_overrides
            Handlers by spec, and by data key, for this call; see
            :meth:`daskbroker.DataBroker.register_handler`.
        peek
            Whether detector files are looked into for shape and dtype, if nobody has before: None,
            where the descriptor leaves them open; True, wherever; False, nowhere; ``"each"``, those
            of each run, where several runs are opened and otherwise share what some of them hold.
        missing
            What becomes of a missing cell of external data: of a gap (an event without reference)
            or a lost frame (one that is not on disk). None: a gap is NaN, a lost frame an error.
            ``"nan"``: either is NaN, in tables and documents None. ``"drop"``: events of which one
            is missing are left out. ``"raise"``: either is an error.
        fill_value
            Put into missing cells, which keep their dtype: one value, or ``{key: value}``; then
            other keys are as ``missing`` says.

        Returns
        -------
        dask.dataframe.DataFrame or xarray.Dataset
            Index ``seq_num`` with known divisions; column ``time`` (``datetime64[us,
            UTC]``) first. Nothing is read before ``compute``, and then only the columns asked for.

        Raises
        ------
        StreamNotFound, FieldNotFound
        BadQuery
            For another ``timezone`` than UTC, and ``missing`` or ``fill_value`` that make no
            sense.
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
        return dataframe_view.table(plan, stream_name, runs, options, files)

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
        """One stream as a lazy Dataset along ``time``.

        See :func:`daskbroker.views.dataset.dataset` for what it holds.

        Parameters
        ----------
        stream_name, fields, fill, timestamps, duplicates
            As for :meth:`table`.
        handler_registry, handler_overrides, peek, missing, fill_value
            As for :meth:`table`.
        chunks
            ``"auto"``: what is not in memory are dask arrays, all cut alike along ``time`` into
            blocks of about the partition size; None: xarray's own lazy arrays; ``{"time": n}``
            or ``{name: n}``: so many events a block, for all variables or for one; a size such as
            ``"8 MiB"`` in place of ``n``, or alone: blocks of about that size; anything else as
            :meth:`xarray.Dataset.chunk` takes it.
        dtypes
            Of variables, ``{"img": "uint16"}``: of external ones in place of what descriptors
            declare and files hold, of others in place of what their values have in common.
        roi
            Of external variables, the region of each cell that is shown and ever read:
            ``{"img": np.s_[..., 10:20, :]}``. Unlike a slice after other steps, it reaches the file
            whatever is made of the variable.
        grid
            A dimension for each axis of a grid scan in place of ``time``, as
            :func:`daskbroker.views.dataset.grids.gridded` says: ``start`` tells the axes, their
            coordinates are the motors' setpoints, points that were not taken are NaN. ``chunks``
            then cut the grid: ``{axis: n}``.
        index
            A motor, or another variable with one number for each event, along which the Dataset
            is in place of ``time``, sorted by it: ``h.dataset(index="motor").sel(motor=1.2,
            method="nearest")``.

        Raises
        ------
        StreamNotFound, FieldNotFound
        BadQuery
            If the run is no grid; it says what is missing.
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
        """All streams: an ``xarray.DataTree`` with one Dataset per stream.

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
            nodes[name] = dataset_view.dataset(plan, name, run._runs, own, files, chunks=chunks)
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
        """Every document of the run as ``(name, doc)``: start first, stop last.

        References come before what uses them, events of all streams by time. Lazy; a few
        chunks are in memory at a time.

        Parameters
        ----------
        fill
            Put external data in place of references, many at a time; see
            :func:`daskbroker.assets.filling.events.fill_events` for what events then hold.
        fields
            Select data keys or add projections; descriptors then carry a new uid. A stream
            without any of the data keys or configuration asked for is left out.
        handler_registry, handler_overrides, peek
            As for :meth:`table`.
        missing, fill_value
            As for :meth:`table`, for the external keys that an event's descriptor has. By default
            events with a gap are as they were recorded, and a lost frame is an error once all
            events before it were given.

        Raises
        ------
        FieldNotFound
            For a field that no stream of the run has.
        FillError
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
        """What each event source has of the run: descriptors, chunks, references.

        Raises
        ------
        StoreDamaged
            If some of it cannot be read.
        """
        return [
            source.store.plan_runs([self.uid], references=True).checked()
            for source in self._sources
        ]

    def documents_of(
        self, plans: Iterable[RunPlan], options: ViewOptions, ahead: Prefetcher | None = None
    ) -> Iterator[tuple[str, Document]]:
        """The documents, as :meth:`documents` gives them, of plans that are at hand.

        The stop is the one that is known, so :meth:`as_now` comes before the plans. ``ahead``
        begins to read them at once.
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
        """The manifesto's name for :meth:`documents`."""
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
        """``(name, doc)`` of one stream, with the run's start and stop around it. Lazy.

        Without a name, of every stream: that is :meth:`documents`. The other parameters are as
        there.
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
        """What the run has, and what comes, until its stop; whichever process writes it.

        The store is looked into every ``interval`` seconds. Of a run that has ended, all is given
        at once.

        Parameters
        ----------
        stream_name
            One stream, or all. It need not have begun.
        fill
            Put external data in place of references. Not by default: what an event refers to is
            often not on disk yet when the event comes.
        fields
            As for :meth:`documents`; projections of the stop are empty.
        format
            ``"documents"``: ``(name, doc)``, start first and stop last, as :meth:`stream` has them,
            each once; what comes between two looks is in the order of time. ``"dataframe"``: the
            rows that are new at each look, as a computed table; of one stream. Its dtypes are
            those of these rows; rows that were taken again after a rewind come again.
        interval
            Seconds.
        timeout
            Seconds without anything new, after which it is an error; None: wait for ever.
        handler_registry, handler_overrides, peek
            As for :meth:`table`.

        Yields
        ------
        tuple or pandas.DataFrame

        Raises
        ------
        TimeoutError
        StreamNotFound, FieldNotFound
            When the run has ended without such a stream, or such fields.
        BadQuery
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
        """Whether there is a stop, or nothing comes any more as this is of a time that is past."""
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
        """Plot the run with matplotlib, as the hints of its plan and devices ask for.

        Over one scanned motor, or time, each signal is a line; over two motors it is a map, or
        scattered points where the plan says of no regular grid. Needs ``daskbroker[plot]``.

        Parameters
        ----------
        stream
            By default the one that the scanned motors are in.
        y
            Data keys in place of the hinted signals. One whose cells are images is shown as an
            image.
        frame
            Number of the event of which the cell is shown, negative from the last: an image, or a
            line of a spectrum. Of a cell with several images the first, or ``(event, image)``.
        ax
            Axes to draw on, as many as there are signals, or a matplotlib Figure for new ones; by
            default pyplot makes a figure.

        Returns
        -------
        matplotlib.axes.Axes
            Or an array of them where there are several signals.

        Raises
        ------
        StreamNotFound, FieldNotFound
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
            A folder; or the file itself, if it ends with the suffix of the format: ``.jsonl``,
            ``.parquet``, ``.nc``, ``.zarr``, ``.csv``, ``.nxs``, ``.json`` and ``.parq`` of
            references, ``.icechunk``.
        format
            ``"jsonl"``, ``"parquet"``, ``"netcdf"``, ``"zarr"``, ``"csv"``, ``"nexus"``,
            ``"references"`` or ``"icechunk"``; by default as the suffix says, else ``"jsonl"``.
        **options
            ``stream``, ``fill``, ``files``, ``arrays``, ``partition``, ``to``, ``verify``, as for
            :func:`daskbroker.exporting.runs.export`: ``fill=True`` puts frames in place of
            references, ``arrays="drop"`` leaves columns with arrays out of CSV.

        Returns
        -------
        list of Path
            The files that were written, each complete and synced.

        Raises
        ------
        StreamNotFound
        BadQuery
            For an unknown format, an option that the format does not have, one file for several
            streams, and arrays in CSV.
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
        """Streams with their external frames as ranges of bytes of the detectors' files.

        What comes is kerchunk's format of references: xarray opens it by fsspec's file system
        ``reference``, without daskbroker and without a copy of a frame. ``export(path,
        "references")`` writes it, ``export(path, "icechunk")`` the same for Icechunk.

        Parameters
        ----------
        stream_name
            Of one stream, whose variables are at the top then; else a group for each.
        to
            What references call folders, ``{"/gpfs/x": "s3://x"}``; all files have to be below
            one. Without it they have their paths here, ``root_map`` applied.
        arrays
            Of frames that references cannot tell: ``"raise"``, or ``"drop"`` to leave them out
            with an :class:`daskbroker.ExportWarning`.

        Returns
        -------
        dict
            ``version`` and ``refs``. It does not notice when a file is replaced later.

        Raises
        ------
        StreamNotFound
        BadQuery
            For frames that no one grid of chunks with one chain of codecs can say, naming them.
        FillError
            If a file is missing or cannot be read.
        """
        if stream_name is not ALL:
            self.es_given_stream(stream_name)
        return run_references(self.as_now(), stream_name, to, arrays)

    def dataset_frames(self, stream_name: str) -> DatasetFrames:
        """:meth:`dataset`, and where in files the cells of its external variables lie.

        It is what references are made of; see :mod:`daskbroker.views.dataset.frames`.
        """
        options = ViewOptions()
        plan, files = self._planned(stream_name, options)
        return dataset_frames(plan, stream_name, self.as_now()._runs, options, files)

    def portable(self) -> Header:
        """The run as a worker can have it, without opening the store.

        A Header pickles as its documents and the broker's configuration, and the worker opens
        the store by that. An embedded store must not be opened over a network file system, so
        of such a one this gives a Header that carries its descriptors and the list of its
        chunks (no data but the unsealed tail): the run as it is now, to read only.
        :meth:`daskbroker.Results.map` sends these by itself.
        """
        if all(source.store.opens_on_workers for source in self._sources):
            return self
        return Header(self.db.portable(self), self.start, self.known_stop, live=False)

    # -- mapping, equality, pickling, looks --------------------------------------------------

    def keys(self) -> tuple[str, ...]:
        """What ``h[...]`` takes."""
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

    if not TYPE_CHECKING:  # which shall find that an attribute is not there
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
