"""Header: one run, as the user holds it."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .assets.access import FileAccess
from .assets.peek.peeking import PeekMode
from .core.clock import seconds_of, show_time
from .core.documents import ALL, Document
from .core.errors import BadQuery, FieldNotFound, StoreDamaged
from .core.fields import data_keys_of
from .core.listing import listed
from .core.old_names import missing
from .core.printable import printable
from .core.run_plan import RunPlan, stream_of
from .core.search import origin_of
from .event_source import EventSource, no_stream
from .views import dataframe as dataframe_view
from .views import dataset as dataset_view
from .views import documents as documents_view
from .views.options import ViewOptions
from .views.rows import Duplicates

if TYPE_CHECKING:
    import xarray as xr

    from .broker import DataBroker

__all__ = ["Header"]

FORMATS = ("dataframe", "dataset")


class Header:
    """A run: its start and stop documents, and views of its data.

    Made by searching a broker, not by hand. Pickles as its two documents and the broker's
    configuration; unpickled, it uses the one broker of that configuration in the process.

    Attributes
    ----------
    start
        The start document.
    stop
        The stop document, None while there is none.
    db
        The broker it comes from.
    """

    def __init__(self, db: DataBroker, start: Document, stop: Document | None) -> None:
        self.db = db
        self.start = start
        self.stop = stop

    @property
    def uid(self) -> str:
        """Of the run."""
        return str(self.start["uid"])

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
        return {self.uid: (self.start, self.stop)}

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

        Returns
        -------
        dask.dataframe.DataFrame or xarray.Dataset
            Index ``seq_num`` with known divisions; column ``time`` (``datetime64[us,
            UTC]``) first. Nothing is read before ``compute``, and then only the columns asked for.

        Raises
        ------
        StreamNotFound, FieldNotFound
        BadQuery
            For another ``timezone`` than UTC.
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
        )
        plan, files = self._planned(stream_name, options)
        if format == "dataset":
            return dataset_view.dataset(plan, stream_name, self._runs, options, files)
        return dataframe_view.table(plan, stream_name, self._runs, options, files)

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
        handler_registry: Any = None,
        handler_overrides: Any = None,
        peek: PeekMode = None,
    ) -> xr.Dataset:
        """One stream as a lazy Dataset along ``time``.

        See :func:`daskbroker.views.dataset.dataset` for what it holds.

        Parameters
        ----------
        stream_name, fields, fill, timestamps, duplicates
            As for :meth:`table`.
        handler_registry, handler_overrides, peek
            As for :meth:`table`.
        chunks
            ``"auto"``: what is not in memory are dask arrays, all cut alike along ``time`` into
            blocks of about the partition size; None: xarray's own lazy arrays; ``{"time": n}``
            or ``{name: n}``: so many events a block, for all variables or for one; anything else
            as :meth:`xarray.Dataset.chunk` takes it.
        dtypes
            Of external variables, ``{"img": "uint16"}``, in place of what descriptors declare and
            files hold.
        roi
            Of external variables, the region of each cell that is shown and ever read:
            ``{"img": np.s_[..., 10:20, :]}``. Unlike a slice after other steps, it reaches the file
            whatever is made of the variable.
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
        )
        plan, files = self._planned(stream_name, options)
        return dataset_view.dataset(plan, stream_name, self._runs, options, files, chunks=chunks)

    def tree(
        self, fill: bool = True, *, chunks: Any = "auto", peek: PeekMode = None
    ) -> xr.DataTree:
        """All streams: an ``xarray.DataTree`` with one Dataset per stream."""
        options = ViewOptions(fill=fill, peek=peek)
        found: dict[str, tuple[RunPlan, FileAccess]] = {}
        for source in self._sources:
            plan = source.store.plan_runs([self.uid], ALL, options.runs_to_fill).checked()
            for name in plan.streams:
                found.setdefault(name, (plan.of_stream(name), source.reach))
        began = sorted(found, key=lambda name: found[name][0].descriptors[0]["time"])
        nodes = {
            name: dataset_view.dataset(
                found[name][0], name, self._runs, options, found[name][1], chunks=chunks
            )
            for name in began
        }
        return dataset_view.tree(nodes, dataset_view.run_attrs(self.start, self.stop), self.uid)

    def documents(
        self,
        fill: bool = True,
        fields: Any = None,
        *,
        handler_registry: Any = None,
        handler_overrides: Any = None,
        peek: PeekMode = None,
    ) -> Iterator[tuple[str, Document]]:
        """Every document of the run as ``(name, doc)``: start first, stop last.

        References come before what uses them, events of all streams by time. Lazy; a few
        chunks are in memory at a time.

        Parameters
        ----------
        fill
            Put external data in place of references, many at a time; see
            :func:`daskbroker.assets.filled_events.fill_events` for what events then hold.
        fields
            Select data keys or add projections; descriptors then carry a new uid. A stream
            without any of the data keys or configuration asked for is left out.
        handler_registry, handler_overrides, peek
            As for :meth:`table`.

        Raises
        ------
        FieldNotFound
            For a field that no stream of the run has.
        """
        options = ViewOptions(
            fields,
            fill,
            handler_registry=handler_registry,
            handler_overrides=handler_overrides,
            peek=peek,
        )
        yield from self.documents_of(self.plans(), options)

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
        self, plans: Iterable[RunPlan], options: ViewOptions
    ) -> Iterator[tuple[str, Document]]:
        """The documents, as :meth:`documents` gives them, of plans that are at hand."""
        files = [source.reach for source in self._sources]
        sources = list(zip(plans, files, strict=True))
        return self._with_start_and_stop(
            documents_view.stream_documents(sources, self.start, self.stop, options)
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
        )
        if stream_name is ALL:
            return self.documents_of(self.plans(), options)
        sources = [self._planned(stream_name, True)]
        return self._with_start_and_stop(
            documents_view.stream_documents(
                sources, self.start, self.stop, options, all_streams=False
            )
        )

    def _with_start_and_stop(
        self, stream: Iterator[tuple[str, Document]]
    ) -> Iterator[tuple[str, Document]]:
        yield "start", self.start
        yield from stream
        if self.stop is not None:
            yield "stop", self.stop

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
        return Header(self.db.portable(self), self.start, self.stop)

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
        return (_unpickle, (self.db, dict(self.start), self.stop and dict(self.stop)))

    @cached_property
    def _facts(self) -> Mapping[str, Any]:
        start, stop = self.start, self.stop
        origin = origin_of(start)
        return {
            "uid": self.uid,
            "scan_id": start.get("scan_id", ""),
            "plan_name": start.get("plan_name", ""),
            "time": show_time(start.get("time"), self.db.timezone),
            "exit_status": "open" if stop is None else stop.get("exit_status", ""),
            **({"derived_from": origin} if origin else {}),
        }

    def __repr__(self) -> str:
        return "<Header " + " ".join(f"{k}={v!r}" for k, v in self._facts.items() if v != "") + ">"

    def _repr_html_(self) -> str:
        try:
            facts = {**self._facts, "streams": ", ".join(self.streams)}
        except StoreDamaged as error:  # a list of runs is shown all the same
            facts = {**self._facts, "streams": str(error)}
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(key)}</th>"
            f"<td>{html.escape(printable(value))}</td></tr>"
            for key, value in facts.items()
        )
        return f"<table><caption>daskbroker Header</caption>{rows}</table>"


def _unpickle(db: DataBroker, start: dict[str, Any], stop: dict[str, Any] | None) -> Header:
    return Header(db, Document(start), None if stop is None else Document(stop))
