"""A run in its stores: its start and stop documents, streams, descriptors and plans."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

from .assets.access import FileAccess
from .core.absent_streams import no_stream
from .core.clock import seconds_of
from .core.documents import ALL, AllStreams, Document, StreamName
from .core.errors import FieldNotFound, StreamNotFound
from .core.fields import data_keys_of
from .core.name_lists import listed
from .core.run_plan import RunPlan, stream_of
from .event_source import EventSource

if TYPE_CHECKING:
    from .broker import DataBroker

LOOK_AGAIN_SECONDS = 0.2
"""Minimum seconds between two lookups of a missing stop by the attribute ``stop``."""


class _Descriptors(dict[str, list[Document]]):
    """Descriptors by stream; the error for another key says so, as databroker had a list."""

    def __missing__(self, key: object) -> list[Document]:
        raise StreamNotFound(
            f"descriptors are given by stream, such as descriptors['primary'][0]; there is no "
            f"stream {key!r:.200}, there are: {listed(self, key)}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return (dict, (dict(self),))


class StoredRun:
    """A run in the stores of a broker; base of :class:`daskbroker.Header`."""

    def __init__(
        self, db: DataBroker, start: Document, stop: Document | None, *, live: bool = True
    ) -> None:
        self.db = db
        self.start = start
        self.known_stop = stop
        self._live = live
        self._looked = 0.0 if stop is not None else time.monotonic()

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

    def refresh(self) -> Self:
        """Look up the stop document now, if none is known.

        Returns
        -------
        Self
            This object, so that calls can be chained.

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

    def as_now(self) -> Self:
        """Return the run as of now: a Header that looks up a missing stop once, and never again.

        Views, copies, exports and :func:`daskbroker.reprocess` begin with it. If the run ends
        while they work, what they make has no stop that is later than its events.
        """
        if not self._live:
            return self
        return type(self)(self.db, self.start, self.refresh().known_stop, live=False)

    # -- streams -----------------------------------------------------------------------------

    @property
    def streams(self) -> list[str]:
        """Names of the streams in all event sources, in the order in which they began."""
        return list(self.descriptors)

    @property
    def descriptors(self) -> dict[str, list[Document]]:
        """``{stream: [descriptor, ...]}``, ordered by the times of the descriptors."""
        found = sorted(
            (d for es in self._sources for d in es.descriptors_given_header(self.start)),
            key=seconds_of,
        )
        by_stream = _Descriptors()
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
            if stream_name in list(source.stream_names_given_header(self.start)):
                return source
        raise no_stream(self.uid, stream_name, self.streams, self.fields())

    def fields(self, stream_name: StreamName = ALL) -> set[str]:
        """Return the names of the data keys of one stream, or of all streams."""
        return set(data_keys_of(self._descriptors_of(stream_name)))

    def devices(self, stream_name: StreamName = ALL) -> set[str]:
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

    def _descriptors_of(self, stream_name: StreamName) -> list[Document]:
        if not isinstance(stream_name, AllStreams):
            return self.es_given_stream(stream_name).descriptors_given_header(
                self.start, stream_name
            )
        return [d for descriptors in self.descriptors.values() for d in descriptors]

    # -- plans -------------------------------------------------------------------------------

    @property
    def _runs(self) -> dict[str, tuple[Document, Document | None]]:
        return {self.uid: (self.start, self.known_stop)}

    def _planned(
        self,
        stream_name: str,
        *,
        references: bool | Callable[[Sequence[Document]], Sequence[str]],
    ) -> tuple[RunPlan, FileAccess]:
        """Return the plan of a stream, and the access to its detector files."""
        for source in self._sources:
            plan = source.store.plan_runs([self.uid], stream_name, references=references)
            plan = plan.checked()
            if plan.descriptors:
                return plan, source.reach
        raise no_stream(self.uid, stream_name, self.streams, self.fields())

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
