"""Tables of streams of documents, and a buffer for such streams."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ...assets.access import FileAccess
from ...core.arguments import ITERABLE, NAME, accepts
from ...core.chunks import ChunkPlan, ChunkReader
from ...core.documents import Document, as_lists, iter_named
from ...core.errors import BadDocument, StoreDamaged, StreamNotFound, UnknownReference
from ...core.layouts import EVENT, encode_rows, rows_of_page
from ...core.name_lists import listed
from ...core.plan_builder import PlanBuilder, with_frames
from ...core.run_plan import RunPlan, stream_of
from ...core.validate import check_keys, document_label, prepare
from ..row_order import Duplicates
from ..view_options import View, ViewOptions
from .lazy_table import table


@dataclass(frozen=True)
class MemoryReader(ChunkReader):
    """Reader of chunks that exist only in their plan, and so are never read from a store."""

    def read_stored(self, key: Any, columns: Sequence[str] | None) -> pa.Table:
        raise StoreDamaged(f"{key!r} is not a chunk in memory")


class RunBuffer:
    """Buffer of the documents of one run in memory, with tables of those received so far.

    It is a callback, so ``RE.subscribe(RunBuffer())`` works. Iterating it gives the
    ``(name, document)`` pairs again, with event pages as single events.

    Attributes
    ----------
    start, stop
        Start and stop document; None until they come.
    """

    def __init__(self) -> None:
        self._pairs: list[tuple[str, Document]] = []
        self._descriptors: dict[str, Document] = {}
        self._events: dict[str, list[Mapping[str, Any]]] = {}
        self._frames: list[tuple[str, str, range]] = []
        self._key_of: dict[str, str] = {}
        self.start: Document | None = None
        self.stop: Document | None = None

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Add a document.

        Raises
        ------
        BadDocument
            If the document is not valid, or is the start of another run.
        UnknownReference
            If a stop comes before the start, or an event before its descriptor.
        """
        checked = prepare(name, doc)
        if name == "event_page":
            for row in rows_of_page(EVENT, checked):
                self._add("event", as_lists(row))
        else:
            self._add(name, as_lists(checked))

    def _add(self, name: str, doc: Mapping[str, Any]) -> None:
        if name == "start":
            if self.start is not None and self.start["uid"] != doc["uid"]:
                raise BadDocument(f"{document_label(name, doc)}: a RunBuffer holds one run only")
            self.start = Document(doc)
        elif self.start is None and name == "stop":
            raise UnknownReference(f"{document_label(name, doc)}: no start document came before it")
        elif name == "stop":
            self.stop = Document(doc)
        elif name == "descriptor":
            self._descriptors[doc["uid"]] = Document(doc)
        elif name == "event":
            self._add_event(doc)
        elif name == "stream_resource":
            self._key_of[doc["uid"]] = str(doc.get("data_key", ""))
        # An empty range describes no event.
        elif name == "stream_datum" and doc["seq_nums"]["stop"] > doc["seq_nums"]["start"]:
            numbers = range(doc["seq_nums"]["start"], doc["seq_nums"]["stop"])
            resource = doc["stream_resource"]
            key = self._key_of.get(resource, resource)
            self._frames.append((doc["descriptor"], key, numbers))
        self._pairs.append((name, Document(doc)))

    def _add_event(self, doc: Mapping[str, Any]) -> None:
        descriptor = self._descriptors.get(doc["descriptor"])
        if descriptor is None:
            raise UnknownReference(
                f"{document_label('event', doc)}: its descriptor {doc['descriptor']!r} did not come"
            )
        label = document_label("event", doc)
        check_keys(doc["data"], descriptor["data_keys"], label, descriptor["uid"])
        self._events.setdefault(descriptor["uid"], []).append(doc)

    def __iter__(self) -> Iterator[tuple[str, Document]]:
        return iter(list(self._pairs))

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def streams(self) -> list[str]:
        """Names of the streams so far."""
        return list(dict.fromkeys(map(stream_of, self._descriptors.values())))

    def plan(self, stream_name: str = "primary") -> ChunkPlan:
        """Return the events of one stream so far, as chunks in memory.

        Raises
        ------
        StreamNotFound
            If no descriptor of the stream came yet.
        """
        chosen = [d for d in self._descriptors.values() if stream_of(d) == stream_name]
        if not chosen:
            raise StreamNotFound(
                f"there is no stream {stream_name!r}; "
                f"there are: {listed(self.streams, stream_name)}"
            )
        builder = PlanBuilder(MemoryReader(), EVENT, f"memory-{uuid.uuid4()}", chosen)
        for position, descriptor in enumerate(chosen):
            events = self._events.get(descriptor["uid"])
            if events:
                note = {"run": descriptor["run_start"]}
                builder.add_table(position, 0, encode_rows(EVENT, events, note))
        return with_frames(builder.plan(), lambda runs: self._frames)

    @accepts()
    def table(
        self,
        stream_name: str = "primary",
        fields: Any = None,
        timestamps: bool = False,
        duplicates: Duplicates = "last",
        timezone: str | None = None,
    ) -> Any:
        """Return a lazy table of one stream so far, like that of :meth:`daskbroker.Header.table`.

        External columns hold datum ids; they are not filled.
        """
        plan = self.plan(stream_name)
        start: Mapping[str, Any] = self.start or {"uid": plan.descriptors[0]["run_start"]}
        runs = {d["run_start"]: (start, self.stop) for d in plan.descriptors}
        planned = RunPlan(tuple(runs), plan, {})
        shown = ViewOptions(fields, False, timestamps, duplicates, timezone)
        return table(View(planned, stream_name, runs, shown, FileAccess()))


@accepts(doc_generator=ITERABLE, stream=NAME)
def stream_to_table(
    doc_generator: Iterable[tuple[str, Mapping[str, Any]]],
    stream: str = "primary",
    fields: Any = None,
    timestamps: bool = False,
    duplicates: Duplicates = "last",
    timezone: str | None = None,
) -> Any:
    """Return a stream of documents as a lazy table.

    Parameters
    ----------
    doc_generator
        Pairs ``(name, doc)`` of one run; all are collected in memory.
    stream
        Name of the stream to show.
    fields, timestamps, duplicates, timezone
        As for :meth:`daskbroker.Header.table`.

    Returns
    -------
    dask.dataframe.DataFrame
        The same table as ``header.table(stream, fill=False)`` of the run.

    Raises
    ------
    BadDocument, UnknownReference
        If a document is not valid, or refers to one that did not come before it.
    StreamNotFound
        If the run has no such stream.
    """
    buffer = RunBuffer()
    for name, doc in iter_named(doc_generator):
        buffer(name, doc)
    return buffer.table(stream, fields, timestamps, duplicates, timezone)
