"""Insert documents into the stores of a broker: which of them takes which document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .core.bounded_dict import BoundedDict
from .core.bulk import expand_bulk
from .core.documents import Document
from .core.errors import BadArgument, ConfigError
from .core.external import external_keys
from .core.name_lists import listed
from .core.settings import setting
from .core.validate import document_label
from .event_source import EventSource
from .event_sources import EventSources
from .stores.contract import HeaderStore
from .stores.unfilling import prepared

Route = Callable[[Mapping[str, Any]], str]
"""Function from a descriptor to the name of the event source that takes its stream."""


class Inserter:
    """Insert documents into a header store and event sources.

    Parameters
    ----------
    headers
        Store of start and stop documents.
    sources
        Event sources; each gets the start and stop of every run, too.
    route
        Chooses the event source of each stream; the first takes all streams if None.

    Attributes
    ----------
    route
        The parameter of this name.
    """

    def __init__(self, headers: HeaderStore, sources: EventSources, route: Route | None) -> None:
        self._headers = headers
        self._sources = sources
        self.route = route
        self._with_files: BoundedDict[str, set[EventSource]] = BoundedDict()
        self._run: str | None = None

    def insert(self, name: str, doc: Mapping[str, Any], run: str | None) -> None:
        """Store a document; see :meth:`daskbroker.DataBroker.insert`."""
        if run is not None and not isinstance(run, str):  # for each event, so no decorator
            raise BadArgument(f"run takes a uid, not {run!r:.100}")
        checked = prepared(name, doc, lambda descriptor: self._source_having(descriptor).store)
        for one_name, one in expand_bulk(name, checked):
            self._insert_prepared(one_name, one, run)

    def _insert_prepared(self, name: str, doc: Mapping[str, Any], run: str | None) -> None:
        if name in ("start", "stop"):
            with self._headers.one_sync():
                self._headers.insert_with(name, doc, [source.store for source in self._sources])
            if name == "start":
                self._run = doc["uid"]
            else:
                self._peek_later(doc["run_start"])
        elif name == "descriptor":
            source = self._source_for(doc)
            source.store.insert_prepared(name, doc)
            if external_keys(doc):
                known = self._with_files.get(doc["run_start"], set())
                self._with_files[doc["run_start"]] = {*known, source}
        elif name in ("event", "event_page", "event_rows"):
            self._source_having(doc["descriptor"]).store.insert_prepared(name, doc)
        elif name == "stream_datum":
            source = self._source_having(doc["descriptor"])
            source.store.insert_prepared(name, doc, run=run or self._run)
        else:
            # A resource or datum names no descriptor, so any source may need it.
            for source in self._sources:
                source.store.insert_prepared(name, doc, run=run or self._run)

    def _peek_later(self, run: str) -> None:
        """Start peeking, in the background, into the files of a run that has just stopped.

        Only sources are asked that received descriptors with external keys from this broker.
        """
        for source in self._with_files.pop(run, ()):
            if setting("peek-after-stop"):
                source.peek_later(run)

    def _source_for(self, descriptor: Mapping[str, Any]) -> EventSource:
        """Return the event source that takes a new descriptor.

        Raises
        ------
        ConfigError
            If the route gives the name of no event source.
        """
        if self.route is None:
            return self._sources[0]
        name = self.route(Document(descriptor))
        names = self._sources.keys()
        if name not in names:
            raise ConfigError(
                f"{document_label('descriptor', descriptor)}: route returned {name!r}; event "
                f"sources are {listed(names, name)}"
            )
        return self._sources[name]

    def _source_having(self, descriptor: str) -> EventSource:
        """Return the event source that has a descriptor.

        If none has it, return the first, whose insert then raises UnknownReference.
        """
        # Each lookup may ask a server; with one source there is no choice.
        if len(self._sources) > 1:
            for source in self._sources:
                if source.store.find_descriptor(descriptor) is not None:
                    return source
        return self._sources[0]
