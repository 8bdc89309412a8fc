"""EventSources: the event sources of a broker, in order and by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from .core.arguments import ITERABLE, instance
from .core.errors import ConfigError, SourceNotFound
from .core.name_lists import listed
from .core.printable import printable
from .core.run_plan import stream_of
from .event_source import EventSource
from .stores.contract import EventStore

EventSourcesGiven = Mapping[str, EventSource | EventStore] | Sequence[EventSource | EventStore]


_SOURCE = instance("an EventSource or an EventStore", EventSource, EventStore)


class EventSources(Sequence[EventSource]):
    """The event sources of a broker: a sequence that is also indexed by the names of the sources.

    Parameters
    ----------
    sources
        Sources, or their stores: a mapping from names, or a sequence. In a sequence, a source
        keeps its name if it has one; others are named by position, ``"0"``, ``"1"``, …

    Raises
    ------
    ConfigError
        If there is no source, or if two have the same name.
    """

    def __init__(self, sources: EventSourcesGiven) -> None:
        ITERABLE.check("event_sources", sources)
        named = sources.items() if isinstance(sources, Mapping) else enumerate(sources)
        self._by_name: dict[str, EventSource] = {}
        for key, given in named:
            _SOURCE.check("each of event_sources", given)
            source = EventSource(given) if isinstance(given, EventStore) else given
            source.name = key if isinstance(key, str) else source.name or str(key)
            if source.name in self._by_name:
                raise ConfigError(f"two event sources are called {source.name!r}")
            self._by_name[source.name] = source
        if not self._by_name:
            raise ConfigError("a broker needs at least one event source")
        self._sources = list(self._by_name.values())

    @overload
    def __getitem__(self, key: int | str) -> EventSource: ...
    @overload
    def __getitem__(self, key: slice) -> list[EventSource]: ...
    def __getitem__(self, key: Any) -> Any:
        """Return a source by position or by name, or a list of sources by slice.

        Raises
        ------
        SourceNotFound
            If no source has this name; the message lists the names. It is a KeyError.
        """
        if not isinstance(key, str):
            return self._sources[key]
        if key not in self._by_name:
            raise SourceNotFound(
                f"there is no event source {key!r:.200}; there are: {listed(self._by_name, key)}"
            )
        return self._by_name[key]

    def __len__(self) -> int:
        return len(self._sources)

    def __iter__(self) -> Iterator[EventSource]:
        return iter(self._sources)

    def __contains__(self, one: object) -> bool:
        """Whether this source, or one of this name, is among them."""
        return one in self._by_name if isinstance(one, str) else one in list(self)

    def keys(self) -> list[str]:
        """Return the names, in order."""
        return list(self._by_name)

    def values(self) -> list[EventSource]:
        """Return the sources, in order."""
        return list(self)

    def items(self) -> list[tuple[str, EventSource]]:
        """Return pairs of name and source, in order."""
        return list(self._by_name.items())

    def __repr__(self) -> str:
        return f"<EventSources {printable(', '.join(self._by_name))}>"

    def count_rows(self, uid: str) -> dict[str, int]:
        """Return the number of rows of a run by stream, from the plans of all sources.

        No row is read.
        """
        found: dict[str, int] = {}
        for source in self._sources:
            plan = source.store.plan_runs([uid]).checked()
            sizes = plan.sizes()
            for descriptor in plan.descriptors:
                name = stream_of(descriptor)
                found[name] = found.get(name, 0) + sizes[descriptor["uid"]]
        return found
