"""From streams of documents to tables and back, and buffers for such streams."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ..core.chunks import EVENT, ChunkPlan, ChunkReader, encode_rows, rows_of_page
from ..core.documents import Document, iter_named, normalize
from ..core.errors import BadDocument, StoreDamaged, StreamNotFound, UnknownReference
from ..core.fields import shown_names
from ..core.planning import PlanBuilder
from ..core.validate import check_keys, document_label, prepare
from .dataframe import table

__all__ = ["RunBuffer", "stream_to_table", "table_to_stream"]


@dataclass(frozen=True)
class MemoryReader(ChunkReader):
    """Reads chunks that are nowhere but in their plan."""

    def read_stored(self, key: Any, columns: Sequence[str] | None) -> pa.Table:
        """See :meth:`daskbroker.core.chunks.ChunkReader.read_stored`."""
        raise StoreDamaged(f"{key!r} is no chunk in memory")


class RunBuffer:
    """Collects the documents of one run, in memory, and shows them as they come.

    It is a callback, so ``RE.subscribe(RunBuffer())`` works, and iterating it gives the
    ``(name, document)`` pairs again, pages as single events.

    Raises
    ------
    BadDocument, UnknownReference
        By a call, for a document that makes no sense there.
    """

    def __init__(self) -> None:
        self._pairs: list[tuple[str, Document]] = []
        self._descriptors: dict[str, Document] = {}
        self._events: dict[str, list[Mapping[str, Any]]] = {}
        self.start: Document | None = None
        self.stop: Document | None = None

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take a document."""
        checked = prepare(name, doc)
        if name == "event_page":
            for row in rows_of_page(EVENT, checked):
                self._add("event", normalize(row))
        else:
            self._add(name, normalize(checked))

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
        return list(dict.fromkeys(d.get("name") or "primary" for d in self._descriptors.values()))

    def plan(self, stream_name: str = "primary") -> ChunkPlan:
        """The events so far of one stream, as chunks in memory.

        Raises
        ------
        StreamNotFound
        """
        chosen = [
            d for d in self._descriptors.values() if (d.get("name") or "primary") == stream_name
        ]
        if not chosen:
            raise StreamNotFound(
                f"there is no stream {stream_name!r}; "
                f"there are: {', '.join(self.streams) or 'none'}"
            )
        builder = PlanBuilder(MemoryReader(), EVENT, f"memory-{uuid.uuid4()}", chosen)
        for place, descriptor in enumerate(chosen):
            events = self._events.get(descriptor["uid"])
            if events:
                note = {"run": descriptor["run_start"]}
                builder.add_table(place, 0, encode_rows(EVENT, events, note))
        return builder.plan()

    def table(self, stream_name: str = "primary", **options: Any) -> Any:
        """A lazy table of one stream, as :meth:`daskbroker.Header.table` gives."""
        plan = self.plan(stream_name)
        start: Mapping[str, Any] = self.start or {"uid": plan.descriptors[0]["run_start"]}
        runs = {d["run_start"]: (start, self.stop) for d in plan.descriptors}
        return table(plan, stream_name, runs, **options)


def stream_to_table(
    documents: Iterable[tuple[str, Mapping[str, Any]]], stream: str = "primary", **options: Any
) -> Any:
    """A stream of documents as a table.

    Parameters
    ----------
    documents
        ``(name, doc)`` of one run; collected in memory.
    stream
        Which stream to show.
    **options
        ``fields``, ``timestamps``, ``duplicates``, ``timezone``, as for a header's table.

    Returns
    -------
    dask.dataframe.DataFrame
        The same as ``header.table(stream)`` of the run.

    Raises
    ------
    BadDocument, StreamNotFound
    """
    buffer = RunBuffer()
    for name, doc in iter_named(documents):
        buffer(name, doc)
    return buffer.table(stream, **options)


def table_to_stream(
    frame: Any, header: Any = None, stream: str | None = None
) -> Iterator[tuple[str, Document]]:
    """A table, with new columns if any, as the documents of a new, valid run.

    The start document repeats what ``header`` says (but for uid and time), and names its
    origin under ``derived_from``: run, stream and descriptors. Columns that the origin has keep
    their data keys; new ones are declared from their values, with the source ``"derived"``.

    Parameters
    ----------
    frame
        pandas or Dask DataFrame, index ``seq_num``. A Dask one is computed partition by
        partition.
    header
        Header, or start document, of the origin; None: only what ``frame.attrs`` tells.
    stream
        Name of the stream; by default the origin's, else ``"primary"``.

    Yields
    ------
    (name, Document)
        start, descriptor, events, stop. Column ``time`` becomes the events' time, columns
        ``ts_<key>`` the timestamps; missing cells stay missing.

    Raises
    ------
    BadDocument
        For a cell with no JSON-like form.
    """
    writer = _RunWriter.of(frame, header, stream)
    yield "start", writer.start
    for part in _parts(frame):
        if writer.descriptor is None:
            yield "descriptor", writer.declare(part)
        yield from writer.events(part)
    if writer.descriptor is None:
        yield (
            "descriptor",
            writer.declare(frame.head(0, compute=True) if hasattr(frame, "dask") else frame),
        )
    yield "stop", writer.stop()


def _parts(frame: Any) -> Iterator[pd.DataFrame]:
    if isinstance(frame, pd.DataFrame):
        if len(frame):
            yield frame
        return
    for number in range(frame.npartitions):
        part = frame.get_partition(number).compute()
        if len(part):
            yield part


_DTYPES = {"f": "number", "i": "integer", "u": "integer", "b": "boolean", "O": "string"}


@dataclass
class _RunWriter:
    """Makes the documents of a derived run."""

    start: Document
    stream: str
    known: Mapping[str, Mapping[str, Any]]
    names: Mapping[str, str]
    descriptor: Document | None = None
    count: int = 0
    last_time: float = field(default=0.0)

    @classmethod
    def of(cls, frame: Any, header: Any, stream: str | None) -> _RunWriter:
        attrs = dict(
            getattr(frame, "attrs", None) or getattr(getattr(frame, "_meta", None), "attrs", {})
        )
        origin = getattr(header, "start", header) or {}
        name = stream or attrs.get("stream") or "primary"
        kept = {k: v for k, v in origin.items() if k not in ("uid", "time", "scan_id")}
        runs = [origin["uid"]] if origin else list(attrs.get("runs", []))
        provenance = {"runs": runs, "stream": attrs.get("stream", name)}
        if "descriptors" in attrs:
            provenance["descriptors"] = list(attrs["descriptors"])
        start = {**kept, "uid": str(uuid.uuid4()), "time": time.time(), "derived_from": provenance}
        known: dict[str, Mapping[str, Any]] = {}
        descriptors = getattr(header, "descriptors", {})
        for descriptor in descriptors.get(name, descriptors.get(attrs.get("stream"), [])):
            known.update(descriptor["data_keys"])
        names = {shown: key for key, shown in shown_names(known).items()}
        return cls(Document(start), name, known, names)

    def declare(self, part: pd.DataFrame) -> Document:
        """The descriptor of the new run, from the first rows."""
        keys = {self._key(name): self._declared(part, name) for name in self._data(part)}
        self.descriptor = Document(
            {
                "uid": str(uuid.uuid4()),
                "run_start": self.start["uid"],
                "time": self.start["time"],
                "name": self.stream,
                "data_keys": keys,
                "object_keys": {},
                "configuration": {},
                "hints": {},
            }
        )
        return self.descriptor

    def _key(self, name: str) -> str:
        return self.names.get(name, name.removeprefix("data:"))

    def _data(self, part: pd.DataFrame) -> list[str]:
        plain = {"time", "uid", "descriptor", "run", "seq_num"}
        stamps = {f"ts_{self._key(name)}" for name in part.columns}
        return [name for name in part.columns if name not in plain and name not in stamps]

    def _declared(self, part: pd.DataFrame, name: str) -> dict[str, Any]:
        key = self._key(name)
        if key in self.known:
            return {k: v for k, v in self.known[key].items() if k != "external"}
        present = part[name].dropna()
        first = normalize(present.iloc[0]) if len(present) else None
        shape = list(np.shape(first)) if isinstance(first, list) else []
        kind = getattr(part[name].dtype, "kind", "O")
        dtype = "array" if shape else _DTYPES.get(kind, "string")
        return {"source": "derived", "dtype": dtype, "shape": shape}

    def events(self, part: pd.DataFrame) -> Iterator[tuple[str, Document]]:
        """An event per row; cells that are missing are left out."""
        assert self.descriptor is not None
        names = self._data(part)
        seconds = self._times(part)
        columns = {self._key(n): part[n].astype(object).tolist() for n in names}
        present = {self._key(n): part[n].notna().tolist() for n in names}
        stamps = {key: part[f"ts_{key}"].tolist() for key in columns if f"ts_{key}" in part.columns}
        numbered = part.index.name == "seq_num"
        for row in range(len(part)):
            self.count += 1
            keys = [key for key in columns if present[key][row] is not False]
            self.last_time = seconds[row]
            yield (
                "event",
                Document(
                    {
                        "uid": str(uuid.uuid4()),
                        "descriptor": self.descriptor["uid"],
                        "seq_num": int(part.index[row]) if numbered else self.count,
                        "time": seconds[row],
                        "data": {key: normalize(columns[key][row], key) for key in keys},
                        "timestamps": {
                            key: stamps[key][row] if key in stamps else seconds[row] for key in keys
                        },
                        "filled": {},
                    }
                ),
            )

    def _times(self, part: pd.DataFrame) -> list[float]:
        if "time" not in part.columns or not isinstance(part["time"].dtype, pd.DatetimeTZDtype):
            return [float(self.start["time"])] * len(part)
        nanoseconds = part["time"].dt.tz_convert("UTC").dt.tz_localize(None)
        values = nanoseconds.to_numpy().astype("datetime64[ns]").astype(np.int64)
        missing = part["time"].isna().to_numpy()
        return [
            float(self.start["time"]) if gap else int(value) / 1e9
            for value, gap in zip(values, missing, strict=True)
        ]

    def stop(self) -> Document:
        """The last document."""
        return Document(
            {
                "uid": str(uuid.uuid4()),
                "run_start": self.start["uid"],
                "time": max(self.start["time"], self.last_time),
                "exit_status": "success",
                "reason": "",
                "num_events": {self.stream: self.count},
            }
        )
