"""The contract of an event source: a store implements few primitives, the rest is derived here.

The methods are the manifesto's. An :class:`EventSource` holds all of a run but its start and
stop: descriptors, events, and the references to detector files.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ..core.chunks import Chunk, ChunkPlan, chunk_label, damage_of
from ..core.documents import ALL, Document
from ..core.errors import BadDocument, StreamNotFound, UnknownReference
from ..core.layouts import DATUM, EVENT, LAYOUTS, REFERENCES, STREAM_DATUM, Layout
from ..core.planning import with_frames
from ..core.run_plan import RunPlan, frame_spans, stream_of
from ..core.validate import check_keys, document_label, prepare
from ..views import dataframe as dataframe_view
from ..views import documents as documents_view
from ..views.options import ViewOptions
from ..views.rows import Duplicates
from .filestore import Filestore

if TYPE_CHECKING:
    import dask.dataframe as dd

__all__ = ["EventSource", "no_stream", "run_of"]


def run_of(header: Any) -> str:
    """The uid of a run, given as a Header, a start document, a pair, or the uid itself."""
    if isinstance(header, str):
        return header
    if isinstance(header, tuple):
        header = header[0]
    start = getattr(header, "start", header)
    if isinstance(start, Mapping) and isinstance(start.get("uid"), str):
        return str(start["uid"])
    raise TypeError(f"a header, a start document or a uid is needed, not {type(header).__name__}")


class EventSource(Filestore):
    """Descriptors, events and references of runs, as chunks.

    A store implements the primitives; every method of the manifesto is derived from them.
    """

    reader: Any
    """The :class:`~daskbroker.core.chunks.ChunkReader` of its chunks."""

    opens_on_workers: bool = False
    """Whether workers may open the store itself, and not only read chunks by their keys."""

    @property
    def is_in_place(self) -> bool:
        """Whether what was opened is still what is there, and not replaced by something else."""
        return True

    # -- primitives --------------------------------------------------------------------------

    @abstractmethod
    def put_run(self, uid: str) -> None:
        """Know of a run, before anything else of it comes."""

    @abstractmethod
    def has_run(self, uid: str) -> bool:
        """Whether it knows of a run."""

    @abstractmethod
    def current_run(self) -> str | None:
        """The newest run it knows of."""

    @abstractmethod
    def stop_run(self, uid: str) -> None:
        """The run has stopped: seal what is in the journal of it."""

    @abstractmethod
    def put_descriptor(self, doc: Mapping[str, Any]) -> None:
        """Store a checked descriptor of a known run."""

    @abstractmethod
    def put_asset(self, layout: Layout, doc: Mapping[str, Any], run: str) -> None:
        """Store a checked resource or stream_resource of a known run, to be found by uid."""

    @abstractmethod
    def find_asset_run(self, layout: Layout, uid: str, run: str | None) -> str | None:
        """The run a resource belongs to: the given one if it has it, else the newest that has."""

    @abstractmethod
    def append(
        self, layout: Layout, owner: str, rows: Sequence[Mapping[str, Any]], run: str
    ) -> None:
        """Store checked rows durably, all of them or none.

        ``owner`` names the sequence: a descriptor's uid for events, the run's for references.
        """

    @abstractmethod
    def append_page(self, layout: Layout, owner: str, page: Mapping[str, Any], run: str) -> None:
        """Store a checked page as :meth:`append` stores its rows: all of it, or nothing."""

    @abstractmethod
    def plan_events(self, descriptors: Sequence[Document]) -> ChunkPlan:
        """The chunks of events of some descriptors, in their order, without reading a payload."""

    @abstractmethod
    def seal(self, run: str | None = None, *, keep_journal: bool = False) -> int:
        """Pack what is in the journal, of one run or of all; how many chunks were made.

        Parameters
        ----------
        run
            Uid; None: every run.
        keep_journal
            Leave the rows in the journal too, for other readers of it.

        Raises
        ------
        BadQuery
            If the store's journal is nobody else's to read, so that it cannot be kept.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of connections."""

    def flush(self) -> None:
        """Return when all that was inserted is where others see it. Most stores have it there."""
        return

    def create_indexes(self) -> list[str]:
        """Make the indexes that are missing; names of those made. Most stores have theirs."""
        return []

    # -- insert ------------------------------------------------------------------------------

    def insert(self, name: str, doc: Mapping[str, Any], *, run: str | None = None) -> None:
        """Store a document durably; the same one again changes nothing.

        Parameters
        ----------
        name, doc
            As a RunEngine emits them; pages and the deprecated bulk documents too.
        run
            Uid of the run that a resource without ``run_start`` belongs to; by default the
            newest run.

        Raises
        ------
        BadDocument
            The document, or one of its fields, makes no sense.
        UnknownReference
            Its run, descriptor or resource is not stored.
        DuplicateUID
            A different document has this uid.
        """
        for one_name, one in list(expand_bulk(name, prepare(name, doc))):
            self.insert_prepared(one_name, one, run=run)

    def insert_prepared(self, name: str, doc: Mapping[str, Any], *, run: str | None = None) -> None:
        """Store a document that :func:`daskbroker.core.validate.prepare` has checked."""
        if name == "start":
            self.put_run(doc["uid"])
        elif name == "stop":
            self._known_run(name, doc, doc["run_start"])
            self.stop_run(doc["run_start"])
        elif name == "descriptor":
            self._known_run(name, doc, doc["run_start"])
            self.put_descriptor(doc)
        elif name in ("resource", "stream_resource"):
            owner = doc.get("run_start") or run or self.current_run()
            self._known_run(name, doc, owner)
            self.put_asset(LAYOUTS[name], doc, str(owner))
        elif name in ("event", "event_page", "event_rows"):
            self._insert_events(name, doc)
        else:
            self._insert_references(name, doc, run)

    def _known_run(self, name: str, doc: Mapping[str, Any], uid: str | None) -> None:
        if uid is None or not self.has_run(uid):
            raise UnknownReference(
                f"{document_label(name, doc)}: its run {uid!r} is not stored; "
                "insert its start document first"
            )

    def _insert_events(self, name: str, doc: Mapping[str, Any]) -> None:
        descriptor = self.find_descriptor(doc["descriptor"])
        rows = doc["rows"] if name == "event_rows" else [doc]
        if descriptor is None:
            raise UnknownReference(
                f"{document_label('event', rows[0])}: its descriptor {doc['descriptor']!r} is not "
                "stored; insert it first"
            )
        known = descriptor["data_keys"].keys()
        for row in rows:
            for part in ("data", "timestamps"):
                if not row[part].keys() <= known:
                    label = document_label("event", row)
                    check_keys(row[part], known, label, descriptor["uid"])
        if name != "event_page":
            self.append(EVENT, descriptor["uid"], rows, descriptor["run_start"])
        elif len(doc["uid"]):
            self.append_page(EVENT, descriptor["uid"], doc, descriptor["run_start"])

    def _insert_references(self, name: str, doc: Mapping[str, Any], run: str | None) -> None:
        layout = STREAM_DATUM if name == "stream_datum" else DATUM
        owner = self.find_asset_run(LAYOUTS[layout.owner], doc[layout.owner], run)
        if owner is None:
            raise UnknownReference(
                f"{document_label(name, doc)}: its {layout.owner} {doc[layout.owner]!r} is not "
                "stored; insert it first"
            )
        if name == "stream_datum" and self.find_descriptor(doc["descriptor"]) is None:
            raise UnknownReference(
                f"{document_label(name, doc)}: its descriptor {doc['descriptor']!r} is not stored"
            )
        if name == "datum_page":
            if len(doc["datum_id"]):
                self.append_page(layout, owner, doc, owner)
        else:
            self.append(layout, owner, doc["rows"] if name == "datum_rows" else [doc], owner)

    # -- planning ----------------------------------------------------------------------------

    def plan_runs(
        self,
        runs: Sequence[str],
        stream_name: Any = ALL,
        references: bool | Callable[[Sequence[Document]], Sequence[str]] = False,
    ) -> RunPlan:
        """What there is of some runs, without reading a payload.

        Parameters
        ----------
        runs
            Uids; those of unknown runs are allowed.
        stream_name
            One stream, or ``ALL``.
        references
            Plan the references of all the runs (True), of none (False), or of those that a
            function chooses by the descriptors.

        Returns
        -------
        RunPlan
            A descriptor without events, of whose frames stream_datum documents tell, has a row
            for each ``seq_num`` that they name; its time is not known.
        """
        descriptors = self.list_descriptors(runs, stream_name)
        events = self.plan_events(descriptors)
        # References come before the events that need them, so they are planned after these.
        if callable(references):
            chosen = list(references(descriptors))
        else:
            chosen = list(runs) if references else []
        planned = self.plan_references(REFERENCES, chosen) if chosen else {}

        def spans_of(some: Sequence[str]) -> Iterator[tuple[str, range]]:
            known = planned if set(some) <= set(chosen) else None
            return frame_spans(
                (known or self.plan_references((STREAM_DATUM,), some))["stream_datum"]
            )

        return RunPlan(tuple(runs), with_frames(events, spans_of), planned)

    # -- the manifesto's methods -------------------------------------------------------------

    def stream_names_given_header(self, header: Any) -> set[str]:
        """Names of the streams of a run."""
        return {stream_of(d) for d in self.list_descriptors([run_of(header)])}

    def descriptors_given_header(self, header: Any, stream_name: Any = ALL) -> list[Document]:
        """Descriptors of a run, of one stream or of all, in the order of time.

        Raises
        ------
        StreamNotFound
            If a stream is named that the run does not have.
        """
        run = run_of(header)
        found = self.list_descriptors([run], stream_name)
        if not found and stream_name is not ALL:
            raise no_stream(run, stream_name, self.stream_names_given_header(run))
        return found

    def chunks_given_header(self, header: Any, stream_name: Any = ALL) -> ChunkPlan:
        """Which chunks hold the events of a run; no payload is read."""
        return self.planned_header(header, stream_name).events

    def read_chunk(self, chunk: Chunk, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a chunk, or only some of its physical columns (``data:<key>``, ``time``…)."""
        with damage_of(chunk_label(chunk.descriptor)):
            return self.reader.read(chunk.key, columns)  # type: ignore[no-any-return]

    def documents_given_header(
        self,
        header: Any,
        stream_name: Any = ALL,
        fill: bool = False,
        fields: Any = None,
        *,
        handler_registry: Any = None,
        handler_overrides: Any = None,
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
        """
        options = ViewOptions(
            fields,
            fill,
            handler_registry=handler_registry,
            handler_overrides=handler_overrides,
        )
        plan = self.planned_header(header, stream_name, references=True)
        pair = _start_and_stop(header)
        return documents_view.stream_documents(
            [(plan, self.files)], *pair, options, all_streams=stream_name is ALL
        )

    def planned_header(
        self,
        header: Any,
        stream_name: Any = ALL,
        references: bool | Callable[[Sequence[Document]], Sequence[str]] = False,
    ) -> RunPlan:
        """See :meth:`plan_runs`, of one run.

        Raises
        ------
        StreamNotFound
            If a stream is named that the run does not have.
        """
        run = run_of(header)
        plan = self.plan_runs([run], stream_name, references)
        if not plan.descriptors and stream_name is not ALL:
            raise no_stream(run, stream_name, self.stream_names_given_header(run))
        return plan

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
        )
        start, stop = _start_and_stop(header)
        plan = self.planned_header(header, stream_name, options.runs_to_fill)
        runs = {start["uid"]: (start, stop)}
        return dataframe_view.table(plan, stream_name, runs, options, self.files)


def no_stream(run: str, name: Any, there: Iterable[str]) -> StreamNotFound:
    """The error for a stream that a run does not have."""
    return StreamNotFound(
        f"run {run!r} has no stream {name!r}; it has: {', '.join(sorted(there)) or 'none'}"
    )


def _start_and_stop(header: Any) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    if isinstance(header, tuple):
        return header[0], header[1]
    start = getattr(header, "start", header)
    if isinstance(start, Mapping):
        return start, getattr(header, "stop", None)
    return {"uid": header, "time": 0.0}, None


def expand_bulk(name: str, doc: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The deprecated bulk documents as rows that are stored together; anything else as it is.

    Of ``bulk_events`` these are ``("event_rows", {"descriptor", "rows"})`` per descriptor, of
    ``bulk_datum`` one ``("datum_rows", {"resource", "rows"})``.
    """
    if name == "bulk_events":
        yield from _bulk_events(doc)
    elif name == "bulk_datum":
        yield from _bulk_datum(doc)
    else:
        yield name, doc


def _bulk_events(doc: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    by_descriptor: dict[str, list[Mapping[str, Any]]] = {}
    for events in doc.values():
        if not isinstance(events, list):
            raise BadDocument("bulk_events: must map stream names to lists of events")
        for event in events:
            row = prepare("event", event)
            by_descriptor.setdefault(row["descriptor"], []).append(row)
    for descriptor, rows in by_descriptor.items():
        yield "event_rows", {"descriptor": descriptor, "rows": rows}


def _bulk_datum(doc: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    ids, kwarg_list = doc.get("datum_ids"), doc.get("datum_kwarg_list")
    if not isinstance(ids, list) or not isinstance(kwarg_list, list) or len(ids) != len(kwarg_list):
        raise BadDocument("bulk_datum: needs datum_ids and datum_kwarg_list of equal length")
    resource = doc.get("resource")
    rows = [
        prepare("datum", {"resource": resource, "datum_id": datum_id, "datum_kwargs": kwargs})
        for datum_id, kwargs in zip(ids, kwarg_list, strict=True)
    ]
    if rows:
        yield "datum_rows", {"resource": resource, "rows": rows}
