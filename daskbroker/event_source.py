"""EventSource: the manifesto's source of streams, over a store of events and detector files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .assets.access import FileAccess, Handlers, Overrides
from .assets.filling.filling import Filling
from .assets.filling.missing import MissingMode
from .assets.filling.stream_filling import check_are_data_keys, fill_stream
from .assets.filling.target import Target
from .assets.peek.background import BackgroundPeeker
from .assets.peek.peeking import PeekMode, peek_all, with_stored_peeks
from .core.absent_streams import no_stream
from .core.chunks import Chunk, ChunkPlan, chunk_label, damage_of
from .core.documents import ALL, Document, StreamName
from .core.errors import BadQuery, StreamNotFound
from .core.external import external_keys
from .core.fields import data_keys_of
from .core.layouts import REFERENCES
from .core.run_plan import RunPlan, stream_of
from .core.stored_streams import from_store, is_from_store
from .given_run import AnyRun, FindRun, looked_up, run_of, start_and_stop
from .stores.contract import EventStore
from .views.documents import streaming as documents_view
from .views.row_order import Duplicates
from .views.view_options import FillOptions, View, ViewOptions

if TYPE_CHECKING:
    import dask.dataframe as dd

BACKGROUND_SECONDS = 10.0
"""Maximum seconds of peeking into the files of a stopped run; its first reader does the rest."""


class EventSource:
    """Descriptors, events and references of runs in a store, with views of them.

    Parameters
    ----------
    store
        Store that holds the documents as chunks.
    files
        Handlers and roots of detector files; a broker sets its own on its sources.
    name
        Name in the broker's event sources; a broker names a source that has none.

    Attributes
    ----------
    find_run
        Lookup of start and stop by uid, which a broker sets on its sources. It raises RunNotFound
        for a text that is no uid. A source of its own (None) takes such a text as a run without
        streams.
    """

    def __init__(
        self, store: EventStore, files: FileAccess | None = None, name: str | None = None
    ) -> None:
        self.store = store
        self.name = name
        self.files = files or FileAccess()
        self.find_run: FindRun | None = None
        self._peeker: BackgroundPeeker | None = None

    @property
    def reach(self) -> FileAccess:
        """Access to detector files; shapes and dtypes found in them are kept in the store."""
        return self.files.remembering(self.store)

    def __reduce__(self) -> tuple[Any, ...]:
        # A source is pickled as part of its broker, which sets its own `files` again.
        return (EventSource, (self.store, None, self.name))

    def insert(self, name: str, doc: Mapping[str, Any], *, run: str | None = None) -> None:
        """Store a document; see :meth:`daskbroker.stores.contract.EventStore.insert`."""
        self.store.insert(name, doc, run=run)

    # -- what there is -----------------------------------------------------------------------

    def stream_names_given_header(self, header: AnyRun) -> set[str]:
        """Return the names of the streams of a run.

        Raises
        ------
        RunNotFound
            If a text is given that is no uid.
        """
        return {stream_of(d) for d in self.descriptors_given_header(header)}

    def descriptors_given_header(
        self, header: AnyRun, stream_name: StreamName = ALL
    ) -> list[Document]:
        """Return the descriptors of a run, of one stream or of all, ordered by time.

        Raises
        ------
        StreamNotFound
            If the run does not have the named stream.
        RunNotFound
            If a text is given that is no uid.
        """
        run = run_of(header)
        found = self.store.descriptors_of([run], stream_name)
        if not found:
            self._check_absent(header, run, stream_name)
        return found

    def chunks_given_header(self, header: AnyRun, stream_name: StreamName = ALL) -> ChunkPlan:
        """Return the plan of the chunks that hold the events of a run; reads no payload.

        Raises
        ------
        StreamNotFound
            If the run does not have the named stream.
        """
        return self._plan(header, stream_name).events

    def read_chunk(self, chunk: Chunk, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a chunk, or only some of its physical columns (``data:<key>``, ``time``…).

        Raises
        ------
        StoreDamaged
            If the chunk cannot be read.
        """
        with damage_of(chunk_label(chunk.descriptor)):
            return self.store.reader.read(chunk.key, columns)

    def _plan(
        self,
        header: AnyRun,
        stream_name: StreamName,
        *,
        references: bool | Callable[[Sequence[Document]], Sequence[str]] = False,
    ) -> RunPlan:
        run = run_of(header)
        plan = self.store.plan_runs([run], stream_name, references=references).checked()
        if not plan.descriptors:
            self._check_absent(header, run, stream_name)
        return plan

    def _check_absent(self, header: AnyRun, run: str, stream_name: StreamName) -> None:
        """Raise an error if nothing was found of a run, and that is the fault of what was given."""
        # A text may be the uid of no run, so it is looked up if it has found nothing.
        if isinstance(header, str):
            looked_up(header, self.find_run)
        # A run without streams is valid; a stream that is named must exist.
        if stream_name is not ALL:
            raise self._no_stream(run, stream_name)

    def _no_stream(self, run: str, stream_name: StreamName) -> StreamNotFound:
        descriptors = self.store.descriptors_of([run])
        return no_stream(
            run, stream_name, set(map(stream_of, descriptors)), data_keys_of(descriptors)
        )

    # -- views -------------------------------------------------------------------------------

    def documents_given_header(
        self,
        header: AnyRun,
        stream_name: StreamName = ALL,
        fill: bool = False,
        fields: Any = None,
        *,
        handler_registry: Handlers = None,
        handler_overrides: Overrides = None,
        peek: PeekMode = None,
        missing: MissingMode | None = None,
        fill_value: Any = None,
    ) -> Iterator[tuple[str, Document]]:
        """Iterate over the documents of a run except start and stop, as ``(name, doc)``. Lazy.

        References come before the documents that use them.

        Parameters
        ----------
        header
            Run as a Header, start document or uid.
        stream_name
            Name of one stream, or ``ALL``.
        fill
            Whether to replace references by external data.
        fields
            See :func:`daskbroker.core.fields.select`; the descriptors change accordingly.
        handler_registry, handler_overrides
            Handlers by spec, and by data key, for this call.
        peek, missing, fill_value
            As for :meth:`daskbroker.Header.documents`.

        Raises
        ------
        StreamNotFound
            If the run does not have the named stream.
        """
        external = FillOptions(handler_registry, handler_overrides, peek, missing, fill_value)
        options = ViewOptions(fields, fill, external=external)
        start, stop = start_and_stop(header, self.find_run)
        plan = self._plan(header, stream_name, references=True)
        return from_store(
            documents_view.stream_documents(
                [(plan, self.reach)], start, stop, options, all_streams=stream_name is ALL
            )
        )

    def table_given_header(
        self,
        header: AnyRun,
        stream_name: str = "primary",
        fill: bool = False,
        fields: Any = None,
        *,
        timestamps: bool = False,
        duplicates: Duplicates = "last",
        timezone: str | None = None,
        handler_registry: Handlers = None,
        handler_overrides: Overrides = None,
        peek: PeekMode = None,
        missing: MissingMode | None = None,
        fill_value: Any = None,
    ) -> dd.DataFrame:
        """Open one stream as a lazy table; see :meth:`daskbroker.Header.table`."""
        from .views.table import lazy_table  # see `header_views` on late imports

        external = FillOptions(handler_registry, handler_overrides, peek, missing, fill_value)
        options = ViewOptions(fields, fill, timestamps, duplicates, timezone, external=external)
        start, stop = start_and_stop(header, self.find_run)
        plan = self._plan(header, stream_name, references=options.runs_to_fill)
        runs = {start["uid"]: (start, stop)}
        return lazy_table.table(View(plan, stream_name, runs, options, self.reach))

    # -- what detector files say -------------------------------------------------------------

    def peek(self, header: AnyRun, *, seconds: float | None = None, keep_open: bool = True) -> int:
        """Read shapes and dtypes from the detector files of a run, and keep them in the store.

        For each external key, the files of the first and the last resource are read, unless they
        were read before and have not changed. Files that are not accessible are left out.

        Parameters
        ----------
        header
            Run as a Header, start document or uid.
        seconds
            Seconds after which no further file is opened; no limit if None.
        keep_open
            Whether to keep files open for later reads in this process.

        Returns
        -------
        int
            Number of external keys, counted per descriptor, that are kept now and were not before.
        """
        _, stop = start_and_stop(header, self.find_run)
        run = run_of(header)
        return self._look(run, seconds, stopped=stop is not None, keep_open=keep_open)

    def _look(self, run: str, seconds: float | None, *, stopped: bool, keep_open: bool) -> int:
        plan = self.store.plan_runs([run], ALL, references=ViewOptions().runs_to_fill)
        # Without references there is no file to look into.
        if not plan.references:
            return 0
        filling = self.files.filling(plan.references)
        found = peek_all(
            filling, plan, seconds, keep_open=keep_open, stopped={run} if stopped else ()
        )
        if found:
            self.store.put_peeks(found)
        return len(found)

    def peek_later(self, run: str) -> None:
        """Start peeking into the files of a stopped run, in a thread and for a bounded time."""
        # The thread is started by the first run that stops.
        if self._peeker is None:
            look = partial(self._look, stopped=True, seconds=BACKGROUND_SECONDS, keep_open=False)
            self._peeker = BackgroundPeeker(look)
        self._peeker.add(run)

    def close(self) -> None:
        """Close the connections of the store; may be called more than once."""
        if self._peeker is not None:
            self._peeker.close()
        self.store.close()

    # -- filling -----------------------------------------------------------------------------

    def filling(
        self,
        descriptors: Sequence[Mapping[str, Any]],
        handler_registry: Handlers = None,
        handler_overrides: Overrides = None,
    ) -> Filling | None:
        """Return what is needed to fill events of some descriptors; None without external keys.

        The result is small and picklable, so that tasks can carry it. No payload of events is
        read.

        Parameters
        ----------
        descriptors
            Descriptors of one or more runs.
        handler_registry
            Handlers by spec for this call; they take precedence over registered ones.
        handler_overrides
            Handlers by data key for this call.
        """
        runs = dict.fromkeys(d["run_start"] for d in descriptors if external_keys(d))
        # No external key: nothing to fill.
        if not runs:
            return None
        references = self.store.plan_references(REFERENCES, list(runs))
        found = self.files.filling(references, handler_registry, handler_overrides)
        targets = [Target.of(d, key) for d in descriptors for key in external_keys(d)]
        return with_stored_peeks(found, targets, self.store.list_peeks(list(runs)))

    def fill_event(
        self,
        ev: Mapping[str, Any],
        in_place: bool = False,
        fields: Iterable[str] | None = None,
        handler_registry: Handlers = None,
        handler_overrides: Overrides = None,
    ) -> Any:
        """Return an event with external data in place of its references.

        Parameters
        ----------
        ev
            Event whose descriptor is stored here.
        in_place
            Whether to change and return this event, which must be a plain dict.
        fields
            Names of the data keys to fill, or one name; all external keys if None.
        handler_registry, handler_overrides
            Handlers by spec, and by data key, for this call.

        Raises
        ------
        FillError
            If external data cannot be read.
        BadDocument
            If it is no event.
        UnknownReference
            If its descriptor is not stored here.
        FieldNotFound
            If a field is none of its descriptor's data keys.
        """
        stream = self.fill_event_stream(
            [("event", ev)], in_place, fields, handler_registry, handler_overrides
        )
        ((_, filled),) = stream  # to its end, where fields are checked
        return filled

    def fill_event_stream(
        self,
        ev_gen: Iterable[tuple[str, Mapping[str, Any]]],
        in_place: bool = False,
        fields: Iterable[str] | None = None,
        handler_registry: Handlers = None,
        handler_overrides: Overrides = None,
    ) -> Iterator[tuple[str, Any]]:
        """Yield the same ``(name, doc)`` pairs with events and event_pages filled. Lazy.

        Events of a list, or from ``documents`` and ``stream`` of a Header or of Results, are filled
        block by block. Any other iterator may have to wait for its next document, so each
        document is given before the next is requested. The references of a descriptor are looked
        up in the store when its first event comes. Parameters are as for :meth:`fill_event`. A
        field that is a data key of no descriptor is an error after the last document.
        """

        def filling_of(descriptor: Mapping[str, Any]) -> Filling:
            found = self.filling([descriptor], handler_registry, handler_overrides)
            assert found is not None  # asked for where there are external keys
            return found

        find, waits = self.store.find_descriptor, not _is_at_hand(ev_gen)
        keys = _keys_to_fill(fields)
        return fill_stream(ev_gen, filling_of, find, keys, in_place=in_place, waits=waits)

    def fill_table(
        self,
        tab: Any,
        in_place: bool = False,
        fields: Iterable[str] | None = None,
        handler_registry: Handlers = None,
        handler_overrides: Overrides = None,
    ) -> Any:
        """Fill the external columns of a table that was made with ``fill=False``.

        Parameters
        ----------
        tab
            Computed or lazy table, whose ``attrs`` name its stream and runs. A lazy table is
            filled when it is computed, and ``in_place`` has no effect on it.
        in_place, fields, handler_registry, handler_overrides
            As for :meth:`fill_event`.

        Returns
        -------
        pandas.DataFrame or dask.dataframe.DataFrame
            Filled table, of the same kind as ``tab``.

        Raises
        ------
        FillError
            If external data cannot be read.
        BadQuery
            If it is no table, or its ``attrs``, which most operations drop, name no runs.
        """
        import dask.dataframe as dd
        import pandas as pd

        from .assets.filling.table_filling import fill_frame

        attrs = getattr(getattr(tab, "_meta", tab), "attrs", {})
        # Dask keeps attrs in its meta; a table made by other means has none.
        if not isinstance(tab, (pd.DataFrame, dd.DataFrame)) or "runs" not in attrs:
            raise BadQuery(
                "fill_table takes a table whose attrs name its runs and stream, as tables of "
                "daskbroker and most parts of them do; fill the table before other steps"
            )
        keys = _keys_to_fill(fields)
        descriptors = self.store.descriptors_of(list(attrs["runs"]), attrs.get("stream", ALL))
        check_are_data_keys(keys, descriptors)
        filling = self.filling(descriptors, handler_registry, handler_overrides)
        # The table has no external column.
        if filling is None:
            return tab if in_place else tab.copy()
        # Filled partition by partition; Dask must not enforce dtypes of unfilled cells.
        if isinstance(tab, dd.DataFrame):
            meta = {"meta": tab._meta, "enforce_metadata": False}
            return tab.map_partitions(fill_frame, filling, descriptors, keys, **meta)
        return fill_frame(tab, filling, descriptors, keys, in_place=in_place)


def _keys_to_fill(fields: Iterable[str] | None) -> list[str] | None:
    """Return the names that may have been given as one text, or as an iterator."""
    return [fields] if isinstance(fields, str) else None if fields is None else list(fields)


def _is_at_hand(stream: Iterable[Any]) -> bool:
    """Whether a stream gives its next document without waiting for anything to happen."""
    return isinstance(stream, Sized) or is_from_store(stream)
