"""DataBroker: where runs are inserted and found."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from .assets.access import FileAccess
from .assets.handlers.registry import HandlerRegistry, HandlerType
from .broker_key import BrokerKey
from .core import clock, registry
from .core.bulk import expand_bulk
from .core.documents import Document
from .core.errors import ConfigError
from .core.external import external_keys
from .core.interrupts import in_own_context
from .core.listing import listed
from .core.old_names import missing
from .core.printable import printable
from .core.redaction import redacted
from .core.remembered import Remembered
from .core.search import Search, compile_search
from .core.settings import setting
from .core.validate import document_label
from .display.listing import SHOWN, shown_or
from .display.markup import escaped
from .event_source import EventSource, run_of
from .event_sources import EventSources, EventSourcesGiven
from .finding import find, is_found
from .header import Header
from .header_source import HeaderSource
from .hints import SearchHints
from .results import Results
from .stores.contract import EventStore, HeaderStore
from .stores.planned import PlannedEventStore, PlannedHeaderStore
from .stores.unfilling import prepared
from .watching import watch

__all__ = ["DataBroker"]

Route = Callable[[Mapping[str, Any]], str]


class DataBroker:
    """One header source, and event sources in order: searching, filters, inserting.

    Usually made by :func:`daskbroker.connect`. The event sources are a sequence, and each is found
    by its name, too: ``db.event_sources[0]``, ``db.event_sources["far"]``.

    Parameters
    ----------
    header_source
        Start and stop documents: a source, or the store of one.
    event_sources
        All else, sources or their stores: a mapping from names, or a sequence (those without a
        name are then called ``"0"``, ``"1"``, …).
    route
        From a descriptor to the name of the event source that shall take its stream; the
        first by default. References go to every source.
    timezone
        In which ``since`` and ``until`` without a zone are read, and every time is shown: IANA
        name or offset, or ``"local"`` for the zone that this machine has now.
    uri
        Where the stores are: a folder or URI, as :func:`daskbroker.connect` takes it. It is shown
        without password. What other processes, such as workers, open the broker by.
    key
        What brokers are known by in a process, and pickle as; :func:`daskbroker.connect` gives
        it.
    handlers
        ``{spec: "module:Class"}`` of handlers of detector files, beside those found by
        themselves.
    root_map
        ``{root in the documents: root where the files are now}``.
    readable_roots
        Folders outside which no detector file is opened; None: no such limit.

    Notes
    -----
    A broker that was put together by hand, and headers and results of it, pickle as its ``uri``
    with timezone, handlers, root map and readable roots as they are then, if it has one event
    source and no ``route``; otherwise pickling raises ConfigError. Another process opens the
    place with these, to read and insert, as :func:`daskbroker.connect` does. Tables, datasets
    and :meth:`daskbroker.Header.portable` need no broker and travel from any.
    """

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
        root_map: Mapping[str, str] | None = None,
        readable_roots: Sequence[str] | None = None,
    ) -> None:
        self.timezone = clock.resolved_zone(timezone)
        if isinstance(header_source, HeaderStore):
            header_source = HeaderSource(header_source)
        self.header_source = header_source
        self.event_sources = EventSources(event_sources)
        self.uri = None if uri is None else redacted(uri)
        self.files = FileAccess(handlers, root_map, readable_roots)
        for source in self.event_sources:
            source.files = self.files
        self.closed = False
        self._key = BrokerKey(key, uri)
        self._route = route
        self._owners: dict[str, str] = {}
        self._with_files: Remembered[str, set[EventSource]] = Remembered()
        self._run: str | None = None
        self._filters: list[tuple[dict[str, Any], Search]] = []
        self.hints = SearchHints(header_source.store, [es.store for es in self.event_sources])
        if key is not None:
            registry.remember(key, self)

    @property
    def has_route(self) -> bool:
        """Whether a callable says which event source takes a stream."""
        return self._route is not None

    @property
    def is_in_place(self) -> bool:
        """Whether what was opened is still there, and not replaced, as by a copy of a folder."""
        return all(source.store.is_in_place for source in self.event_sources)

    # -- opening by configuration ------------------------------------------------------------

    @classmethod
    def named(cls, name: str, *, mode: str | None = None, timezone: str | None = None) -> Self:
        """The broker of a configuration file's name, as ``Broker.named`` of databroker.

        Parameters
        ----------
        name
            As ``daskbroker config`` lists it; ``"temp"`` is :func:`daskbroker.temp`.
        mode, timezone
            As for :func:`daskbroker.connect`.

        Raises
        ------
        ConfigError
            If there is no such configuration; the message names those there are.
        """
        return registry.opened(_request(named=name, mode=mode, timezone=timezone))  # type: ignore[no-any-return]

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], *, mode: str | None = None, timezone: str | None = None
    ) -> Self:
        """The broker that a configuration says, given as what its YAML file would hold.

        Parameters
        ----------
        config
            daskbroker's own form (``uri`` …), databroker's (``metadatastore`` …) or a catalog
            of one source.
        mode, timezone
            As for :func:`daskbroker.connect`.

        Raises
        ------
        ConfigError
        """
        return registry.opened(_request(configuration=config, mode=mode, timezone=timezone))  # type: ignore[no-any-return]

    # -- insert ------------------------------------------------------------------------------

    @in_own_context
    def insert(self, name: str, doc: Mapping[str, Any], *, run: str | None = None) -> None:
        """Store a document; ``RE.subscribe(db.insert)``.

        When it has returned, the document survives the death of the process. When the insert of a
        stop has returned, the whole run survives a loss of power; of an open run that costs the
        last second at most, in an embedded store (``daskbroker.sync-interval``). The same document
        again changes nothing.

        Parameters
        ----------
        name, doc
            As a RunEngine emits them. An event that a broker filled, and that nobody changed, is
            stored with its references, if these are stored: so ``for pair in
            header.documents(): db.insert(*pair)`` makes an equal run.
        run
            Uid of the run that a legacy resource without ``run_start`` belongs to, and in which
            references are looked up first; by default the run whose start came last.

        Raises
        ------
        BadDocument
            The document makes no sense; the message names the field.
        UnknownReference
            Its run, descriptor or resource is not stored.
        DuplicateUID
            A different document has this uid.
        StoreFull, StoreReadOnly
        StoreError
            A call of the system failed, or the store was moved, deleted or replaced since it was
            opened; the message names the path.
        StoreUnavailable
            The store does not answer, or not in time. The document may or may not be stored;
            inserting it again is safe.
        """
        checked = prepared(name, doc, lambda descriptor: self._holder(descriptor).store)
        for one_name, one in list(expand_bulk(name, checked)):
            self._insert_one(one_name, one, run)

    def _insert_one(self, name: str, doc: Mapping[str, Any], run: str | None) -> None:
        if name == "start":
            headers = self.header_source.store
            with headers.one_sync(), headers.insert_limit():
                self._insert_start(doc)
        elif name == "stop":
            with self.header_source.store.one_sync():
                self._insert_stop(doc)
        elif name == "descriptor":
            source = self._source_of(doc)
            source.store.insert_prepared(name, doc)
            if external_keys(doc):
                self._with_files.setdefault(doc["run_start"], set()).add(source)
        elif name in ("event", "event_page", "event_rows"):
            self._holder(doc["descriptor"]).store.insert_prepared(name, doc)
        else:
            self._insert_reference(name, doc, run or self._run)

    def _peek_later(self, run: str) -> None:
        """Of a run that has stopped, and whose descriptors came by here."""
        for source in self._with_files.pop(run, ()):
            if setting("peek-after-stop"):
                source.peek_later(run)

    def _insert_start(self, doc: Mapping[str, Any]) -> None:
        self.header_source.store.insert_with("start", doc, self._event_stores())
        self._run = doc["uid"]

    def _insert_stop(self, doc: Mapping[str, Any]) -> None:
        self.header_source.store.insert_with("stop", doc, self._event_stores())
        self._peek_later(doc["run_start"])

    def _event_stores(self) -> list[EventStore]:
        return [source.store for source in self.event_sources]

    def _source_of(self, descriptor: Mapping[str, Any]) -> EventSource:
        if self._route is None:
            return self.event_sources[0]
        name = self._route(Document(descriptor))
        source = dict(self.event_sources.items()).get(name)
        if source is None:
            raise ConfigError(
                f"{document_label('descriptor', descriptor)}: route gave {name!r}; event sources "
                f"are {listed(self.event_sources.keys(), name)}"
            )
        return source

    def _holder(self, descriptor: str) -> EventSource:
        """The event source that has a descriptor; the first if none has (it will complain)."""
        sources = self.event_sources
        if len(sources) == 1:
            return sources[0]
        for source in sources:
            if source.store.find_descriptor(descriptor) is not None:
                return source
        return sources[0]

    def _insert_reference(self, name: str, doc: Mapping[str, Any], run: str | None) -> None:
        if name == "stream_datum":
            self._holder(doc["descriptor"]).store.insert_prepared(name, doc, run=run)
            return
        for source in self.event_sources:
            source.store.insert_prepared(name, doc, run=run)

    def flush(self) -> None:
        """Return when all that was inserted is where others see it.

        That takes a moment where events wait in a local spool (``daskbroker.mongo-spool``);
        otherwise it is so when :meth:`insert` returns. In an embedded store all of it survives a
        loss of power then.

        Raises
        ------
        BadDocument
            The store has refused an event that the spool had taken.
        StoreUnavailable
            The store takes nothing; the events still wait.
        """
        for source in self.event_sources:
            source.store.flush()

    def batch(self) -> AbstractContextManager[None]:
        """A block in which stops are not synced one by one, but together at its end.

        Many short runs are inserted faster so. When the block has ended, all of it survives a
        loss of power; until then that costs the last second at most, runs that have stopped
        included. It concerns inserts of this thread into an embedded store, and nothing where
        ``daskbroker.sync-interval`` is 0.
        """
        return self.header_source.store.one_sync(batch=True)

    # -- filters -----------------------------------------------------------------------------

    @property
    def filters(self) -> list[dict[str, Any]]:
        """What :meth:`add_filter` was given; a copy."""
        return [copy.deepcopy(arguments) for arguments, _ in self._filters]

    def add_filter(self, **query: Any) -> None:
        """Narrow every search, and ``db[-n]``, from now on; never ``db[uid]``.

        Parameters
        ----------
        **query
            As for a search, ``since``, ``until``, ``full`` included.
        """
        query = copy.deepcopy(query)
        self._filters.append((query, self._compile(**query)))

    def clear_filters(self) -> None:
        """Search everything again."""
        self._filters.clear()

    def _compile(
        self,
        full: str | None = None,
        search: str | None = None,
        since: Any = None,
        until: Any = None,
        **query: Any,
    ) -> Search:
        return compile_search(full, search, since, until, query, self.timezone)

    def _filtered(self, search: Search) -> Search:
        for _, narrower in self._filters:
            search = narrower & search
        return search

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
            How ``full`` is looked for: ``"text"`` (all its words; the default), ``"substring"`` or
            ``"regex"``.
        since, until
            Inclusive; POSIX seconds, datetimes, or ISO text, in the broker's zone unless they
            have one. In ``until`` a date, and text to the hour, minute or second, mean the
            last instant of that.
        **query
            A Mongo-style filter on start documents, ``**{"sample.name": "x"}``. Some words have a
            meaning of their own, whatever is stored: ``stop={...}`` and ``descriptor={...}`` filter
            on those documents; ``data_key="det"``: some descriptor has it; ``start_time`` and
            ``stop_time``: since and until; ``exit_status="fail"``: the stop document's;
            ``derived=False``: raw runs, ``True``: those made of others. ``start={...}`` filters on
            start documents, and reaches keys that are named like these words.

        Returns
        -------
        Results
            Lazy, newest first.

        Raises
        ------
        BadQuery

        Warns
        -----
        SearchWarning
            Once: of a search that finds nothing, if it has a key that none of the newest 1,000 runs
            has, or a list as value; and if start documents have a key named like such a word.
        """
        wanted = self._compile(full, search, since, until, **query)
        return Results(self, self._filtered(wanted))

    def watch(
        self, *, interval: float = 0.5, timeout: float | None = None, **query: Any
    ) -> Iterator[Header]:
        """The runs that come from now on, whichever process writes them.

        Parameters
        ----------
        interval
            Seconds between two looks into the store.
        timeout
            Seconds without a new run, after which it ends; None: never.
        **query
            As for a search, ``full``, ``since`` and ``until`` included; filters narrow it, too. Of
            ``stop={...}`` a run comes when it has such a stop, of ``descriptor={...}`` when it has
            such a stream.

        Returns
        -------
        Iterator of Header
            Each run once, of several the oldest first; most are in progress
            (:meth:`daskbroker.Header.follow`). Runs that are there when this is called are not
            among them, nor is one that is older than 50 known ones, as copied from elsewhere.

        Raises
        ------
        BadQuery
        """
        return watch(self(**query), interval, timeout)

    def __getitem__(self, key: Any) -> Any:
        """``db[uid]``, ``db[prefix]``, ``db[scan_id]``, ``db[-1]``, ``db[-5:]``, ``db[[...]]``.

        A str is a uid or a prefix of five characters or more; an int is an offset if it is
        negative, else a scan_id: the newest raw run that has it, else the newest derived one.

        Raises
        ------
        RunNotFound
            A KeyError.
        AmbiguousUID
            A ValueError that names the matches.
        OffsetOutOfRange
            An IndexError.
        """
        return find(self, key)

    def __contains__(self, key: Any) -> bool:
        """Whether ``db[key]`` is found; of a Header, whether its uid is."""
        return is_found(self, key)

    def __len__(self) -> int:
        return len(self())

    def __iter__(self) -> Iterator[Header]:
        return iter(self())

    def __bool__(self) -> bool:
        return True

    def tz_convert(self, computed: Any) -> Any:
        """Times in the broker's zone; tables hold them in UTC, whatever the zone is.

        Parameters
        ----------
        computed
            A frame, series or index of pandas: ``db.tz_convert(header.table().compute())``. Of a
            frame, every column with a zone and the index are converted.

        Raises
        ------
        BadQuery
            For a lazy table, of which Dask would lose rows in another zone than UTC.
        """
        return clock.tz_convert(computed, self.timezone)

    # -- detector files ----------------------------------------------------------------------

    @property
    def handler_registry(self) -> HandlerRegistry:
        """Handlers of detector files by spec: those registered here, built in or installed."""
        return self.files.registry

    def register_handler(self, spec: str, handler: HandlerType, overwrite: bool = False) -> None:
        """Say which handler reads files of a spec or mimetype.

        Parameters
        ----------
        spec
            As in resource documents.
        handler
            A subclass of :class:`~daskbroker.assets.handlers.BlockHandler`, a classic handler
            class, or ``"module:Class"``.
        overwrite
            Replace another one.

        Raises
        ------
        HandlerExists
            If another one is registered and ``overwrite`` is False.
        """
        self.files.registry.register(spec, handler, overwrite)

    def deregister_handler(self, spec: str) -> None:
        """Forget a handler that was registered.

        Raises
        ------
        HandlerNotFound
            If none was.
        """
        self.files.registry.unregister(spec)

    @property
    def root_map(self) -> dict[str, str]:
        """``{root in the documents: root where the files are now}``; change it as you like."""
        return self.files.root_map

    @property
    def readable_roots(self) -> list[str] | None:
        """Folders outside which no detector file is opened; None: no such limit."""
        return self.files.readable_roots

    # -- databroker's interfaces -------------------------------------------------------------

    @cached_property
    def v1(self) -> Any:
        """The ``Broker`` of databroker 1: see :class:`daskbroker.compat.v1.Broker`."""
        return import_module(f"{__package__}.compat.v1").Broker(self)

    @cached_property
    def v2(self) -> Any:
        """The catalog of databroker 1: see :class:`daskbroker.compat.v2.Catalog`."""
        return import_module(f"{__package__}.compat.v2").Catalog(self)

    # -- upkeep ------------------------------------------------------------------------------

    def seal(
        self, header: Header | Mapping[str, Any] | str | None = None, *, keep_journal: bool = False
    ) -> int:
        """Pack what is in the journal into chunks, of one run or of all; how many were made.

        Needed for databases that databroker has written, for what came after a run's stop, and
        for runs that will never have one.

        Parameters
        ----------
        header
            A run, its start document or its uid; None: all.
        keep_journal
            Leave the events in the journal too, where databroker goes on to read them.

        Raises
        ------
        BadQuery
            If nothing else can read the journal, so that keeping it makes no sense.
        """
        run = None if header is None else run_of(header)
        sources = self.event_sources
        return sum(source.store.seal(run, keep_journal=keep_journal) for source in sources)

    def peek(self, header: Header | str) -> int:
        """Look into the detector files of a run for shape and dtype, and remember what they say.

        That is done in the background when a run has stopped, and when it is opened first. See
        :meth:`daskbroker.event_source.EventSource.peek`.

        Parameters
        ----------
        header
            A run, or its uid.

        Returns
        -------
        int
            Number of external keys, of each descriptor, that are remembered now and were not.
        """
        run = self[header] if isinstance(header, str) else header
        return sum(source.peek(run) for source in self.event_sources)

    def close(self) -> None:
        """Let go of the store's connections; safe to call again."""
        self.closed = True
        for source in self.event_sources:
            source.close()
        self.header_source.store.close()

    def __enter__(self) -> DataBroker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def portable(self, header: Header) -> DataBroker:
        """A broker of one run, to read only, that pickles by value and opens no store.

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
        """What a broker on other sources has to share with this one."""
        return {
            "timezone": self.timezone,
            "handlers": self.handler_registry.registered(),
            "root_map": self.root_map,
            "readable_roots": self.readable_roots,
        }

    @property
    def key(self) -> str:
        """What the broker is known by, in a pickle.

        Raises
        ------
        ConfigError
            For a broker put together by hand that no other process could open: without a ``uri``,
            with one that no store opens, with a route or several event sources, or with a
            handler that is no importable class.
        """
        return self._key.of(self)

    if not TYPE_CHECKING:  # which shall find that an attribute is not there
        __getattr__ = missing

    def __reduce__(self) -> tuple[Any, ...]:
        if isinstance(self.header_source.store, PlannedHeaderStore):
            return (_assemble, (self.header_source, self.event_sources, self.options))
        return (registry.broker_of, (self.key,))

    def __repr__(self) -> str:
        return shown_or(self._title, lambda: self().listing(self._title, SHOWN).text())

    def _repr_html_(self) -> str:
        return shown_or(escaped(self._title), lambda: self().listing(self._title).markup())

    @property
    def _title(self) -> str:
        place = self.uri or type(self.header_source.store).__name__
        filters = self._filtered(Search()).shown
        shown = f" filtered by {', '.join(filters)}" if filters else ""
        return f"<DataBroker {printable(place + shown)}>"


def _request(**wanted: Any) -> str:
    """What the opener of brokers takes, beside settings."""
    try:
        return json.dumps(wanted, sort_keys=True)
    except (TypeError, ValueError):
        raise ConfigError("a configuration is made of text, numbers, lists and mappings") from None


def _assemble(
    header_source: HeaderSource,
    event_sources: Mapping[str, EventSource],
    options: Mapping[str, Any],
) -> DataBroker:
    return DataBroker(header_source, event_sources, **options)
