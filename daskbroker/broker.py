"""DataBroker: insert, search and open runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cached_property, partial
from importlib import import_module
from os import PathLike
from typing import TYPE_CHECKING, Any

from .assets.access import FileAccess
from .broker_files import BrokerFiles
from .broker_filters import BrokerFilters
from .broker_key import BrokerKey
from .broker_opening import BrokerOpening
from .broker_upkeep import BrokerUpkeep
from .core import clock, open_brokers
from .core.arguments import (
    CALLABLE,
    MAPPING,
    NAME,
    PATHS,
    ROOTS,
    SECONDS,
    TIMEOUT,
    accepts,
    instance,
)
from .core.old_names import missing
from .core.printable import printable
from .core.redaction import redacted
from .core.search import Search
from .display.listing import MAX_RUNS_SHOWN, shown_or
from .display.markup import escaped
from .event_source import EventSource
from .event_sources import EventSources, EventSourcesGiven
from .finding import find, is_found
from .header import Header
from .header_source import HeaderSource
from .inserting import Inserter, Route
from .results import Results
from .search_hints import SearchHints
from .stores.contract import HeaderStore
from .stores.planned import PlannedEventStore, PlannedHeaderStore
from .watching import watch


class DataBroker(BrokerOpening, BrokerFilters, BrokerFiles, BrokerUpkeep):
    """A header source and one or more event sources: search runs, filter them, insert documents.

    Usually made by :func:`daskbroker.connect`. Event sources are indexed by position or by name:
    ``db.event_sources[0]``, ``db.event_sources["far"]``.

    Parameters
    ----------
    header_source
        Header source (start and stop documents), or the store to make one from.
    event_sources
        Event sources (all other documents), or their stores: a mapping from names, or a sequence
        whose unnamed members are called ``"0"``, ``"1"``, …
    route
        Function from a descriptor to the name of the event source that stores its stream; by
        default the first source stores every stream. References go to every source.
    timezone
        Zone in which ``since`` and ``until`` are read if they have none, and in which every time
        is shown: IANA name, offset, or ``"local"`` for the current zone of this machine.
    uri
        Location of the stores: a folder or URI that :func:`daskbroker.connect` accepts. Other
        processes, such as workers, open the broker by it. It is shown without its password.
    key
        Identifier of the broker in this process and in pickles; set by
        :func:`daskbroker.connect`.
    handlers
        Handlers of detector files as ``{spec: "module:Class"}``, in addition to those that are
        built in or installed.
    root_map
        ``{root in the documents: root where the files are now}``.
    readable_roots
        Folders outside which no detector file is opened; no limit if None.

    Raises
    ------
    ConfigError
        If there is no event source, or if two have the same name.

    Notes
    -----
    A broker constructed by hand, and its headers and results, pickle as its ``uri`` with the
    timezone, handlers, root map and readable roots it has at that time. This requires exactly one
    event source and no ``route``; otherwise pickling raises ConfigError. The other process opens
    that location with these options, for reading and inserting, as :func:`daskbroker.connect`
    does. Tables, Datasets and the result of :meth:`daskbroker.Header.portable` need no broker and
    can be pickled in any case.
    """

    @accepts(
        header_source=instance("a HeaderSource or a HeaderStore", HeaderSource, HeaderStore),
        route=CALLABLE.or_none(),
        timezone=NAME,
        uri=NAME.or_none(),
        key=NAME.or_none(),
        handlers=MAPPING.or_none(),
        root_map=ROOTS.or_none(),
        readable_roots=PATHS.or_none(),
    )
    def __init__(
        self,
        header_source: HeaderSource | HeaderStore,
        event_sources: EventSourcesGiven,
        *,
        route: Route | None = None,
        timezone: str = "UTC",
        uri: str | None = None,
        key: str | None = None,
        handlers: Mapping[str, Any] | None = None,
        root_map: Mapping[str | PathLike[str], str | PathLike[str]] | None = None,
        readable_roots: Collection[str | PathLike[str]] | None = None,
    ) -> None:
        super().__init__(clock.resolved_zone(timezone))
        if isinstance(header_source, HeaderStore):
            header_source = HeaderSource(header_source)
        self.header_source = header_source
        self.event_sources = EventSources(event_sources)
        self.uri = None if uri is None else redacted(uri)
        self.files = FileAccess(handlers, root_map, readable_roots)
        for source in self.event_sources:
            source.files = self.files
            source.find_run = header_source.__getitem__
        self.closed = False
        self._key = BrokerKey(key, uri)
        self._inserter = Inserter(header_source.store, self.event_sources, route)
        self.hints = SearchHints(header_source.store, [es.store for es in self.event_sources])
        if key is not None:
            open_brokers.remember(key, self)

    @property
    def has_route(self) -> bool:
        """Whether a callable chooses the event source of each stream."""
        return self._inserter.route is not None

    @property
    def is_in_place(self) -> bool:
        """Whether the opened stores still exist and were not replaced, e.g. by a folder's copy."""
        return all(source.store.is_in_place for source in self.event_sources)

    # -- insert ------------------------------------------------------------------------------

    def insert(self, name: str, doc: Mapping[str, Any], *, run: str | None = None) -> None:
        """Store a document. To store all documents of a RunEngine, ``RE.subscribe(db.insert)``.

        Once this returns, the document survives the death of the process. Once the insert of a
        stop document returns, the whole run survives a loss of power. An open run loses at most
        its last second then, in an embedded store (``daskbroker.sync-interval``). Inserting the
        same document again has no effect.

        Parameters
        ----------
        name, doc
            Name and document as a RunEngine emits them. An event that a broker filled, and that
            was not changed since, is stored with its references if these are stored. Therefore
            ``for pair in header.documents(): db.insert(*pair)`` makes an equal run.
        run
            Uid of the run that a legacy resource without ``run_start`` belongs to, and in which
            references are looked up first; by default the run whose start was inserted last.

        Raises
        ------
        BadDocument
            If the document is not valid; the message names the field.
        UnknownReference
            If its run, descriptor or resource is not stored.
        DuplicateUID
            If a different document has this uid.
        StoreFull, StoreReadOnly
            If the store cannot take the document.
        StoreError
            If a system call failed, or the store was moved, deleted or replaced since it was
            opened; the message names the path.
        StoreUnavailable
            If the store does not answer, or not in time. The document may or may not be stored;
            inserting it again is safe.
        """
        self._inserter.insert(name, doc, run)

    def flush(self) -> None:
        """Wait until all inserted documents are visible to other processes.

        With a local spool (``daskbroker.mongo-spool``) this waits for the events in it; without
        one, documents are visible when :meth:`insert` returns. In an embedded store everything
        inserted so far survives a loss of power once this returns.

        Raises
        ------
        BadDocument
            If the store refused an event that the spool had accepted.
        StoreUnavailable
            If the store accepts nothing; the events stay in the spool.
        """
        for source in self.event_sources:
            source.store.flush()

    def batch(self) -> AbstractContextManager[None]:
        """Return a context manager that syncs all stop documents once, at the end of the block.

        This makes inserting many short runs faster. After the block, everything inserted in it
        survives a loss of power; before, a loss of power costs at most the last second, including
        runs that have stopped. It applies to inserts of this thread into an embedded store. It has
        no effect if ``daskbroker.sync-interval`` is 0.
        """
        return self.header_source.store.one_sync(batch=True)

    # -- search ------------------------------------------------------------------------------

    def __call__(
        self,
        full: str | None = None,
        search: str | None = None,
        since: Any = None,
        until: Any = None,
        **query: Any,
    ) -> Results:
        """Search for runs.

        Parameters
        ----------
        full
            Text to look for in the values of start and stop documents.
        search
            How ``full`` is matched: ``"text"`` (all its words; the default), ``"substring"`` or
            ``"regex"``.
        since, until
            Earliest and latest start time, both inclusive: POSIX seconds, datetimes or ISO text,
            in the broker's zone if they have none. As ``until``, a date or a text to the hour,
            minute or second means the last instant of that period; so does a ``datetime64`` in
            days, weeks, months or years, which is a date, while one in hours or less is an instant.
        **query
            Mongo-style filter on start documents, such as ``**{"sample.name": "x"}``. Some words
            are reserved even if documents have such keys: ``stop={...}`` and ``descriptor={...}``
            filter on those documents; ``data_key="det"`` finds runs in which some descriptor has
            this data key; ``start_time`` and ``stop_time`` are synonyms of ``since`` and
            ``until``; ``exit_status="fail"`` filters on the stop document, ``exit_status="open"``
            finds runs without one; ``derived=False`` finds raw runs, ``derived=True`` runs made
            from others, ``derived_from="3a8f12cd"`` those made from this run, given by its uid or
            the first five or more characters. ``start={...}`` filters on start documents, including
            keys that are named like a reserved word.

        Returns
        -------
        Results
            Matching runs, newest first. Lazy: the store is not read yet.

        Raises
        ------
        BadQuery
            If the query is not valid.

        Warns
        -----
        SearchWarning
            If nothing is found and the query has a list as value, a key that none of the newest
            1,000 runs has, a value of another type than theirs (``scan_id="1"``), or the beginning
            of a uid; also if start documents have a key named like a reserved word. Each warning is
            given once.
        """
        wanted = self._compile(full, search, since, until, **query)
        return Results(self, self._filtered(wanted))

    @accepts(interval=SECONDS, timeout=TIMEOUT)
    def watch(
        self, *, interval: float = 0.5, timeout: float | None = None, **query: Any
    ) -> Iterator[Header]:
        """Wait for new runs, written by any process.

        Parameters
        ----------
        interval
            Seconds between two queries of the store.
        timeout
            Seconds without a new run after which the iteration ends; never if None.
        **query
            Arguments of a search, including ``full``, ``since`` and ``until``; filters apply, too.
            With ``stop={...}`` a run is given once it has a matching stop document, with
            ``descriptor={...}`` once it has a matching stream.

        Returns
        -------
        Iterator of Header
            Each new run once; several new ones at a time oldest first. Most are still in progress
            (see :meth:`daskbroker.Header.follow`). Runs that match when this is called are not
            given, nor is a run older than the 1,000 newest that the broker has then.

        Raises
        ------
        BadQuery
            If the query is not valid.
        """
        return watch(self(**query), interval, timeout)

    def __getitem__(self, key: Any) -> Any:
        """``db[uid]``, ``db[prefix]``, ``db[scan_id]``, ``db[-1]``, ``db[-5:]``, ``db[[...]]``.

        Parameters
        ----------
        key
            Uid, or a prefix of it of five characters or more, if a str. Offset from the newest run
            if a negative int; other ints are a scan_id, which finds the newest raw run that has
            it, or the newest derived one if there is no raw one. Slices count from the newest run.
            A list, tuple, set or array of keys gives a list of runs.

        Returns
        -------
        Header or list of Header

        Raises
        ------
        RunNotFound
            If no run has this uid or scan_id. It is a KeyError.
        AmbiguousUID
            If several uids begin with the prefix; the message lists them. It is a ValueError.
        OffsetOutOfRange
            If there are fewer runs. It is an IndexError.
        """
        return find(self, key)

    def __contains__(self, key: Any) -> bool:
        """Whether ``db[key]`` finds a run; a Header or start document is looked up by its uid."""
        return is_found(self, key)

    def __len__(self) -> int:
        return len(self())

    def __iter__(self) -> Iterator[Header]:
        return iter(self())

    def __bool__(self) -> bool:
        return True

    def tz_convert(self, computed: Any) -> Any:
        """Convert the times of a computed table to the broker's zone; tables always hold UTC.

        Parameters
        ----------
        computed
            DataFrame, Series or Index of pandas: ``db.tz_convert(header.table().compute())``. In a
            DataFrame, the index and every column with a zone are converted.

        Raises
        ------
        BadQuery
            If the table is lazy: Dask would lose rows in another zone than UTC.
        """
        return clock.tz_convert(computed, self.timezone)

    # -- databroker's interfaces -------------------------------------------------------------

    @cached_property
    def v1(self) -> Any:
        """View of this broker with the interface of databroker's ``Broker``.

        See :class:`daskbroker.compat.v1.Broker`.
        """
        return import_module(f"{__package__}.compat.v1").Broker(self)

    @cached_property
    def v2(self) -> Any:
        """View of this broker with the interface of databroker's catalog.

        See :class:`daskbroker.compat.v2.Catalog`.
        """
        return import_module(f"{__package__}.compat.v2").Catalog(self)

    # -- closing, other processes, text ------------------------------------------------------

    def close(self) -> None:
        """Close the connections of the stores; may be called more than once."""
        self.closed = True
        for source in self.event_sources:
            source.close()
        self.header_source.store.close()

    def __enter__(self) -> DataBroker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @accepts(header=instance("a Header", Header))
    def portable_broker(self, header: Header) -> DataBroker:
        """Return a read-only broker of one run that pickles by value and opens no store.

        See :meth:`daskbroker.Header.portable`.
        """
        sources = {
            name: EventSource(
                PlannedEventStore(source.store.plan_runs([header.uid], references=True))
            )
            for name, source in self.event_sources.items()
        }
        pair = HeaderSource(PlannedHeaderStore((header.start, header.known_stop)))
        return DataBroker(pair, sources, **self.options)

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments that give another broker the same zone, handlers and roots."""
        return {
            "timezone": self.timezone,
            "handlers": self.handler_registry.registered(),
            "root_map": self.root_map,
            "readable_roots": self.readable_roots,
        }

    @property
    def key(self) -> str:
        """Identifier by which pickles refer to the broker.

        Raises
        ------
        ConfigError
            If the broker was constructed by hand and no other process could open it: it has no
            ``uri`` or one that no store opens, a route, several event sources, or a handler that
            is not an importable class.
        """
        return self._key.of(self)

    if not TYPE_CHECKING:  # a type checker should report unknown attributes
        __getattr__ = missing

    def __reduce__(self) -> tuple[Any, ...]:
        # A portable broker travels with its data; any other is opened again by its key.
        if isinstance(self.header_source.store, PlannedHeaderStore):
            make = partial(DataBroker, **self.options)
            return (make, (self.header_source, self.event_sources))
        return (open_brokers.broker_of, (self.key,))

    def __repr__(self) -> str:
        return shown_or(self._title, lambda: self().listing(self._title, MAX_RUNS_SHOWN).text())

    def _repr_html_(self) -> str:
        return shown_or(escaped(self._title), lambda: self().listing(self._title).markup())

    @property
    def _title(self) -> str:
        place = self.uri or type(self.header_source.store).__name__
        filters = self._filtered(Search()).shown
        shown = f" filtered by {', '.join(filters)}" if filters else ""
        return f"<DataBroker {printable(place + shown)}>"
