"""EventSource: the manifesto's source of streams, over a store of events and detector files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Sized
from functools import partial
from typing import TYPE_CHECKING, Any

import dask.dataframe as dd
import pyarrow as pa

from .assets.access import FileAccess
from .assets.filling.filling import Filling, Target
from .assets.filling.missing import MissingMode
from .assets.filling.streams import fill_stream
from .assets.filling.tables import fill_frame
from .assets.peek.background import BackgroundPeeker
from .assets.peek.peeking import PeekMode, peek_all, remembered
from .core.chunks import Chunk, ChunkPlan, chunk_label, damage_of
from .core.documents import ALL, Document
from .core.errors import StreamNotFound
from .core.external import external_keys
from .core.fields import data_keys_of
from .core.interrupts import in_own_context
from .core.layouts import REFERENCES
from .core.listing import listed
from .core.run_plan import RunPlan, stream_of
from .core.stored_streams import from_store, is_from_store
from .stores.contract import EventStore
from .views.documents import streaming as documents_view
from .views.options import ViewOptions
from .views.rows import Duplicates
from .views.table import opening as dataframe_view

if TYPE_CHECKING:
    from .header import Header

__all__ = ["EventSource", "meant_fields", "no_stream"]

BACKGROUND_SECONDS = 10.0
"""Of looks into the files of one run that has stopped; what is left, its first reader does."""


class EventSource:
    """Descriptors, events and references of runs: the manifesto's methods, over a store.

    Parameters
    ----------
    store
        Holds the documents as chunks.
    files
        Handlers and roots of detector files; a broker gives its own to its sources.
    name
        By which a broker knows it; a broker gives one to a source that has none.
    """

    def __init__(
        self, store: EventStore, files: FileAccess | None = None, name: str | None = None
    ) -> None:
        self.store = store
        self.name = name
        self.files = files or FileAccess()
        self._peeker: BackgroundPeeker | None = None

    @property
    def reach(self) -> FileAccess:
        """How detector files are reached; what is found in them is remembered in the store."""
        return self.files.remembering(self.store)

    def __reduce__(self) -> tuple[Any, ...]:
        # Where a source travels, its broker does, and says again how files are reached.
        return (EventSource, (self.store, None, self.name))

    @in_own_context
    def insert(self, name: str, doc: Mapping[str, Any], *, run: str | None = None) -> None:
        """Store a document; see :meth:`daskbroker.stores.contract.EventStore.insert`."""
        self.store.insert(name, doc, run=run)

    # -- what there is -----------------------------------------------------------------------

    def stream_names_given_header(self, header: Any) -> set[str]:
        """Names of the streams of a run."""
        return {stream_of(d) for d in self.store.descriptors_of([run_of(header)])}

    def descriptors_given_header(self, header: Any, stream_name: Any = ALL) -> list[Document]:
        """Descriptors of a run, of one stream or of all, in the order of time.

        Raises
        ------
        StreamNotFound
            If a stream is named that the run does not have.
        """
        run = run_of(header)
        found = self.store.descriptors_of([run], stream_name)
        if not found and stream_name is not ALL:
            raise self._no_stream(run, stream_name)
        return found

    def chunks_given_header(self, header: Any, stream_name: Any = ALL) -> ChunkPlan:
        """Which chunks hold the events of a run; no payload is read."""
        return self._plan(header, stream_name).events

    def read_chunk(self, chunk: Chunk, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a chunk, or only some of its physical columns (``data:<key>``, ``time``…)."""
        with damage_of(chunk_label(chunk.descriptor)):
            return self.store.reader.read(chunk.key, columns)

    def _plan(
        self,
        header: Any,
        stream_name: Any,
        references: bool | Callable[[Sequence[Document]], Sequence[str]] = False,
    ) -> RunPlan:
        run = run_of(header)
        plan = self.store.plan_runs([run], stream_name, references).checked()
        if not plan.descriptors and stream_name is not ALL:
            raise self._no_stream(run, stream_name)
        return plan

    def _no_stream(self, run: str, stream_name: Any) -> StreamNotFound:
        descriptors = self.store.descriptors_of([run])
        return no_stream(
            run, stream_name, set(map(stream_of, descriptors)), data_keys_of(descriptors)
        )

    # -- views -------------------------------------------------------------------------------

    def documents_given_header(
        self,
        header: Any,
        stream_name: Any = ALL,
        fill: bool = False,
        fields: Any = None,
        *,
        handler_registry: Any = None,
        handler_overrides: Any = None,
        peek: PeekMode = None,
        missing: MissingMode | None = None,
        fill_value: Any = None,
    ) -> Iterator[tuple[str, Document]]:
        """``(name, doc)`` of everything but start and stop, references before users. Lazy.

        Parameters
        ----------
        header
            A Header, its start document or its uid.
        stream_name
            One stream, or ``ALL``.
        fill
            Put external data in place of references.
        fields
            See :func:`daskbroker.core.fields.select`; the descriptors change accordingly.
        handler_registry, handler_overrides
            Handlers by spec, and by data key, for this call.
        peek, missing, fill_value
            See :meth:`daskbroker.Header.documents`.
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
        start, stop = _start_and_stop(header)
        plan = self._plan(header, stream_name, references=True)
        return from_store(
            documents_view.stream_documents(
                [(plan, self.reach)], start, stop, options, all_streams=stream_name is ALL
            )
        )

    def table_given_header(
        self,
        header: Any,
        stream_name: str = "primary",
        fill: bool = False,
        fields: Any = None,
        *,
        timestamps: bool = False,
        duplicates: Duplicates = "last",
        timezone: str | None = None,
        handler_registry: Any = None,
        handler_overrides: Any = None,
        peek: PeekMode = None,
        missing: MissingMode | None = None,
        fill_value: Any = None,
    ) -> dd.DataFrame:
        """A lazy table of one stream; see :meth:`daskbroker.Header.table`."""
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
        start, stop = _start_and_stop(header)
        plan = self._plan(header, stream_name, options.runs_to_fill)
        runs = {start["uid"]: (start, stop)}
        return dataframe_view.table(plan, stream_name, runs, options, self.reach)

    # -- what detector files say -------------------------------------------------------------

    def peek(self, header: Any, *, seconds: float | None = None, keep_open: bool = True) -> int:
        """Look into the detector files of a run for shape and dtype, and remember what they say.

        Of each external key the first and the last resource are looked into, unless they were
        before and have not changed. Files that cannot be seen are left out.

        Parameters
        ----------
        header
            A Header, its start document or its uid.
        seconds
            No look begins later than that; None: all are made.
        keep_open
            Keep files open, for who goes on to read them.

        Returns
        -------
        int
            Number of external keys, of each descriptor, that are remembered now and were not.
        """
        _, stop = _start_and_stop(header)
        return self._look(run_of(header), stop is not None, seconds, keep_open)

    def _look(self, run: str, stopped: bool, seconds: float | None, keep_open: bool) -> int:
        plan = self.store.plan_runs([run], ALL, ViewOptions().runs_to_fill)
        if not plan.references:
            return 0
        filling = self.files.filling(plan.references)
        found = peek_all(filling, plan, seconds, keep_open, stopped={run} if stopped else ())
        if found:
            self.store.put_peeks(found)
        return len(found)

    def peek_later(self, run: str) -> None:
        """Look into the files of a run that has stopped, in a thread, for a bounded time."""
        if self._peeker is None:
            look = partial(self._look, stopped=True, seconds=BACKGROUND_SECONDS, keep_open=False)
            self._peeker = BackgroundPeeker(look)
        self._peeker.add(run)

    def close(self) -> None:
        """Let go of the store's connections; safe to call again."""
        if self._peeker is not None:
            self._peeker.close()
        self.store.close()

    # -- filling -----------------------------------------------------------------------------

    def filling(
        self,
        descriptors: Sequence[Mapping[str, Any]],
        handler_registry: Any = None,
        handler_overrides: Any = None,
    ) -> Filling | None:
        """How the events of some descriptors are filled; None if they have no external keys.

        Small and picklable: it is what tasks carry. No payload of events is read.

        Parameters
        ----------
        descriptors
            Of one run or more.
        handler_registry
            Handlers by spec, for this call, before those that are registered.
        handler_overrides
            Handlers by data key.
        """
        runs = dict.fromkeys(d["run_start"] for d in descriptors if external_keys(d))
        if not runs:
            return None
        references = self.store.plan_references(REFERENCES, list(runs))
        found = self.files.filling(references, handler_registry, handler_overrides)
        targets = [Target.of(d, key) for d in descriptors for key in external_keys(d)]
        return remembered(found, targets, self.store.list_peeks(list(runs)))

    def fill_event(
        self,
        event: Mapping[str, Any],
        in_place: bool = False,
        fields: Collection[str] | None = None,
        handler_registry: Any = None,
        handler_overrides: Any = None,
    ) -> Any:
        """An event with its external data in place of references.

        Parameters
        ----------
        event
            Of a descriptor that is stored here.
        in_place
            Change this event (a plain dict) and return it.
        fields
            Only these keys; None: all.
        handler_registry, handler_overrides
            Handlers by spec, and by data key, for this call.

        Raises
        ------
        FillError
        """
        stream = self.fill_event_stream(
            [("event", event)], in_place, fields, handler_registry, handler_overrides
        )
        return next(iter(stream))[1]

    def fill_event_stream(
        self,
        stream: Iterable[tuple[str, Mapping[str, Any]]],
        in_place: bool = False,
        fields: Collection[str] | None = None,
        handler_registry: Any = None,
        handler_overrides: Any = None,
    ) -> Iterator[tuple[str, Any]]:
        """The same ``(name, doc)`` pairs with events and event_pages filled. Lazy.

        Events of a list, and of what ``documents`` and ``stream`` of a Header or of Results give,
        are filled block by block. Any other iterator may wait for what makes its documents, so
        that each of these is given before the next is asked for. Parameters are as for
        :meth:`fill_event`; references are looked up as they are stored when the first event of a
        descriptor comes.
        """

        def filling_of(descriptor: Mapping[str, Any]) -> Filling:
            found = self.filling([descriptor], handler_registry, handler_overrides)
            assert found is not None  # asked for where there are external keys
            return found

        find, waits = self.store.find_descriptor, not _is_at_hand(stream)
        return fill_stream(stream, filling_of, find, in_place, fields, waits=waits)

    def fill_table(
        self,
        table: Any,
        in_place: bool = False,
        fields: Collection[str] | None = None,
        handler_registry: Any = None,
        handler_overrides: Any = None,
    ) -> Any:
        """A table that was made with ``fill=False``, with its external columns filled.

        Parameters
        ----------
        table
            Computed, or lazy: then it is filled when it is computed, and ``in_place`` means
            nothing. Its ``attrs`` name stream and runs.
        in_place, fields, handler_registry, handler_overrides
            As for :meth:`fill_event`.

        Raises
        ------
        FillError
        """
        descriptors = self.store.descriptors_of(
            list(table.attrs.get("runs", ())), table.attrs.get("stream", ALL)
        )
        filling = self.filling(descriptors, handler_registry, handler_overrides)
        if filling is None:
            return table if in_place else table.copy()
        if isinstance(table, dd.DataFrame):
            meta = {"meta": table._meta, "enforce_metadata": False}
            return table.map_partitions(fill_frame, filling, descriptors, False, fields, **meta)
        return fill_frame(table, filling, descriptors, in_place, fields)


def no_stream(
    run: str, name: Any, there: Iterable[str], data_keys: Collection[str] = ()
) -> StreamNotFound:
    """The error for a stream that a run does not have.

    Parameters
    ----------
    run, name
        Uid, and what was asked for.
    there
        Names of the streams that it has.
    data_keys
        Of the run, for whoever asked for one of these.
    """
    return StreamNotFound(
        f"run {run!r} has no stream {name!r:.200}; it has: {listed(sorted(there), name)}"
        f"{meant_fields(name, data_keys)}"
    )


def meant_fields(name: Any, data_keys: Collection[str] = ()) -> str:
    """For the message about a stream that is not there: that it may be fields that were meant."""
    if isinstance(name, str) and name not in data_keys:
        return ""
    fields = [name] if isinstance(name, str) else name
    why = f"{name!r} is a data key" if isinstance(name, str) else "a stream is named by text"
    return f". {why}: data keys are given as fields={fields!r:.200}"


def run_of(header: Header | Mapping[str, Any] | tuple[Any, ...] | str) -> str:
    """The uid of a run, given as a Header, a start document, a pair, or the uid itself."""
    if isinstance(header, str):
        return header
    if isinstance(header, tuple):
        header = header[0]
    start = getattr(header, "start", header)
    if isinstance(start, Mapping) and isinstance(start.get("uid"), str):
        return str(start["uid"])
    raise TypeError(f"a header, a start document or a uid is needed, not {type(header).__name__}")


def _is_at_hand(stream: Iterable[Any]) -> bool:
    """Whether nothing has to happen before the next document of a stream is there."""
    return isinstance(stream, Sized) or is_from_store(stream)


def _start_and_stop(header: Any) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """Of a Header as it is now; called before anything is planned."""
    if isinstance(header, tuple):
        return header[0], header[1]
    if hasattr(header, "as_now"):
        header = header.as_now()
        return header.start, header.known_stop
    start = getattr(header, "start", header)
    if isinstance(start, Mapping):
        return start, getattr(header, "stop", None)
    return {"uid": header, "time": 0.0}, None
