"""The documents of one run: read from its start to its stop, or followed while it is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from .assets.access import Handlers, Overrides
from .assets.filling.missing import MissingMode
from .assets.peek.peeking import PeekMode
from .core.arguments import FLAG, SECONDS, TIMEOUT, accepts, instance
from .core.documents import ALL, AllStreams, Document, StreamName
from .core.errors import BadQuery
from .core.run_plan import RunPlan
from .core.stored_streams import from_store
from .stored_run import StoredRun
from .views.documents import streaming as documents_view
from .views.documents.prefetch import Prefetcher
from .views.view_options import FillOptions, ViewOptions

FOLLOWED = ("documents", "dataframe")
_STREAM = instance("the name of a stream; leave it out to follow all", str, AllStreams)
_FILL = replace(FLAG, what="True or False (header.stream(name) has the documents of one stream)")


class HeaderDocuments(StoredRun):
    """Methods of :class:`daskbroker.Header` that yield documents and new rows."""

    @accepts(fill=_FILL)
    def documents(
        self,
        fill: bool = True,
        fields: Any = None,
        *,
        handler_registry: Handlers = None,
        handler_overrides: Overrides = None,
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
            Whether to replace references by external data, many at a time. For the content of
            filled events see :func:`daskbroker.assets.filling.event_filling.fill_events`.
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
        external = FillOptions(handler_registry, handler_overrides, peek, missing, fill_value)
        options = ViewOptions(fields, fill, external=external)
        return from_store(self._documents(options))

    def _documents(self, options: ViewOptions) -> Iterator[tuple[str, Document]]:
        run = self.as_now()
        yield from run.documents_of(run.plans(), options)

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

    @accepts()
    def stream(
        self,
        stream_name: StreamName = ALL,
        fill: bool = True,
        fields: Any = None,
        *,
        handler_registry: Handlers = None,
        handler_overrides: Overrides = None,
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
        external = FillOptions(handler_registry, handler_overrides, peek, missing, fill_value)
        options = ViewOptions(fields, fill, external=external)
        run = self.as_now()
        if isinstance(stream_name, AllStreams):
            return from_store(run.documents_of(run.plans(), options))
        sources = [run._planned(stream_name, references=True)]
        return from_store(
            run._with_start_and_stop(
                documents_view.stream_documents(
                    sources, run.start, run.known_stop, options, all_streams=False
                )
            )
        )

    @accepts(stream_name=_STREAM, interval=SECONDS, timeout=TIMEOUT)
    def follow(
        self,
        stream_name: StreamName = ALL,
        fill: bool = False,
        fields: Any = None,
        *,
        format: str = "documents",
        interval: float = 0.2,
        timeout: float | None = None,
        handler_registry: Handlers = None,
        handler_overrides: Overrides = None,
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
        from .views.documents.following import Follower  # see `header_views` on late imports

        if format not in FOLLOWED or (format == "dataframe" and stream_name is ALL):
            raise BadQuery(
                f"format must be {' or '.join(map(repr, FOLLOWED))}, and the latter needs a "
                f"stream_name; not {format!r} with stream_name {stream_name!r}"
            )
        external = FillOptions(handler_registry, handler_overrides, peek)
        options = ViewOptions(fields, fill, external=external)
        references = True if format == "documents" else options.runs_to_fill
        sources = [
            (
                partial(source.store.plan_runs, [self.uid], stream_name, references=references),
                source.reach,
            )
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
