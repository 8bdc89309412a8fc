"""Synthetic runs: lists of ``(name, document)`` as a RunEngine would emit them."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Documents = list[tuple[str, dict[str, Any]]]
"""``(name, document)`` pairs of one or more runs."""

FIRST_TIME = 1_760_000_000.0
_numbers = itertools.count()


class RunBuilder:
    """Builder that composes a run document by document, and appends each to ``documents``.

    Each document is 0.125 s later than the one before it.

    Parameters
    ----------
    uid
        Uid of the run; a random one by default.
    time
        Time of the start document in POSIX seconds; by default 1,000 s after the run that was made
        before.
    start
        Further keys of the start document.
    """

    def __init__(self, uid: str | None = None, time: float | None = None, **start: Any) -> None:
        number = next(_numbers)
        self.documents: Documents = []
        self.uid = uid or str(uuid.uuid4())
        self._time = FIRST_TIME + 1000.0 * number if time is None else float(time)
        self._rows: dict[str, int] = {}
        self._streams: dict[str, str] = {}
        begin = {"uid": self.uid, "time": self._time, "scan_id": number + 1, "plan_name": "count"}
        self.add("start", {**begin, **start})

    def add(self, name: str, doc: dict[str, Any]) -> dict[str, Any]:
        """Append any document, and return it."""
        self.documents.append((name, doc))
        return doc

    def now(self) -> float:
        """Advance the time of the run by 0.125 s, and return it in POSIX seconds."""
        self._time += 0.125
        return self._time

    def descriptor(
        self, data_keys: Mapping[str, Any], stream: str = "primary", **extra: Any
    ) -> str:
        """Append a descriptor, and return its uid.

        Parameters
        ----------
        data_keys
            ``{key: spec}``, or ``{key: example value}`` to derive the spec from.
        stream
            Name of the stream.
        extra
            Keys to add or to replace; a key given as None is left out.
        """
        keys = {key: claim(value) for key, value in data_keys.items()}
        doc: dict[str, Any] = {
            "uid": str(uuid.uuid4()),
            "run_start": self.uid,
            "time": self.now(),
            "name": stream,
            "data_keys": keys,
            "object_keys": {"det": list(keys)},
            "configuration": {},
            "hints": {"det": {"fields": list(keys)}},
        }
        doc.update(extra)
        doc = {key: value for key, value in doc.items() if value is not None}
        self.add("descriptor", doc)
        self._streams[doc["uid"]] = stream
        return str(doc["uid"])

    def row(
        self, descriptor: str, data: Mapping[str, Any], seq_num: int | None = None, **extra: Any
    ) -> dict[str, Any]:
        """Return an event without appending it; ``seq_num`` counts on within the stream."""
        stream = self._streams[descriptor]
        number = self._rows.get(stream, 0) + 1 if seq_num is None else seq_num
        self._rows[stream] = number
        time = self.now()
        event = {
            "uid": str(uuid.uuid4()),
            "descriptor": descriptor,
            "seq_num": number,
            "time": time,
            "data": dict(data),
            "timestamps": dict.fromkeys(data, time - 0.01),
            "filled": {},
        }
        event.update(extra)
        return {key: value for key, value in event.items() if value is not None}

    def event(
        self, descriptor: str, data: Mapping[str, Any], seq_num: int | None = None, **extra: Any
    ) -> dict[str, Any]:
        """Append an event. A key given as None in ``extra`` is left out."""
        return self.add("event", self.row(descriptor, data, seq_num, **extra))

    def event_page(self, descriptor: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Append a page made of rows of data with the same keys."""
        return self.add("event_page", page_of([self.row(descriptor, data) for data in rows]))

    def resource(self, spec: str = "NPY_SEQ", **extra: Any) -> str:
        """Append a resource, and return its uid."""
        doc = {
            "uid": str(uuid.uuid4()),
            "run_start": self.uid,
            "spec": spec,
            "root": "/nowhere",
            "resource_path": "frames.npy",
            "resource_kwargs": {},
            "path_semantics": "posix",
            **extra,
        }
        self.add("resource", {key: value for key, value in doc.items() if value is not None})
        return str(doc["uid"])

    def datum(self, resource: str, uid: str | None = None, **kwargs: Any) -> str:
        """Append a datum, and return its datum_id."""
        datum_id = uid or f"{resource}/{uuid.uuid4().hex[:8]}"
        self.add("datum", {"resource": resource, "datum_id": datum_id, "datum_kwargs": kwargs})
        return datum_id

    def stream_resource(self, data_key: str, **extra: Any) -> str:
        """Append a stream_resource, and return its uid."""
        doc = {
            "uid": str(uuid.uuid4()),
            "run_start": self.uid,
            "data_key": data_key,
            "mimetype": "application/x-hdf5",
            "uri": "file://localhost/nowhere/frames.h5",
            "parameters": {"dataset": "/entry/data", "chunk_shape": [1, 4, 4]},
            **extra,
        }
        self.add("stream_resource", doc)
        return str(doc["uid"])

    def stream_datum(
        self,
        stream_resource: str,
        descriptor: str,
        indices: tuple[int, int],
        seq_nums: tuple[int, int] | None = None,
    ) -> str:
        """Append a stream_datum for half-open ranges, and return its uid."""
        first, last = seq_nums or (indices[0] + 1, indices[1] + 1)
        doc = {
            "uid": f"{stream_resource}/{uuid.uuid4().hex[:8]}",
            "stream_resource": stream_resource,
            "descriptor": descriptor,
            "indices": {"start": indices[0], "stop": indices[1]},
            "seq_nums": {"start": first, "stop": last},
        }
        self.add("stream_datum", doc)
        return str(doc["uid"])

    def stop(self, exit_status: str = "success", **extra: Any) -> Documents:
        """Append the stop, and return all documents of the run."""
        rows = {stream: self._rows.get(stream, 0) for stream in self._streams.values()}
        doc = {
            "uid": str(uuid.uuid4()),
            "run_start": self.uid,
            "time": self.now(),
            "exit_status": exit_status,
            "reason": "",
            "num_events": rows,
            **extra,
        }
        self.add("stop", doc)
        return self.documents


def claim(value: Any) -> dict[str, Any]:
    """Return the spec of a data key from an example value; a spec is returned as it is."""
    if isinstance(value, Mapping) and {"dtype", "shape", "source"} <= value.keys():
        return dict(value)
    names = {bool: "boolean", int: "integer", float: "number", str: "string"}
    if isinstance(value, (list, tuple, np.ndarray)):
        try:
            shape = list(np.shape(value))
        except ValueError:  # ragged
            shape = [len(value)]
        return {"source": "synthetic", "dtype": "array", "shape": shape}
    return {"source": "synthetic", "dtype": names.get(type(value), "number"), "shape": []}


def page_of(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one event_page of events that have the same keys."""
    first = events[0]
    page: dict[str, Any] = {"descriptor": first["descriptor"]}
    for key in ("uid", "seq_num", "time"):
        page[key] = [event[key] for event in events]
    for key in ("data", "timestamps", "filled"):
        if key in first:
            page[key] = {name: [event[key][name] for event in events] for name in first[key]}
    return page


def _values(key: str, index: int) -> Any:
    """Return a deterministic reading: an integer for keys that begin with ``n``, else a float."""
    return index * 3 if key.startswith("n") else index * 0.5 + len(key)


def make_run(
    events: int = 5,
    keys: Sequence[str] | Mapping[str, Sequence[Any]] = ("x", "y", "n"),
    streams: Sequence[str] = ("primary",),
    *,
    stop: bool = True,
    uid: str | None = None,
    time: float | None = None,
    **start: Any,
) -> Documents:
    """Return a plain run.

    Parameters
    ----------
    events
        Number of events of each stream; ignored if ``keys`` gives values.
    keys
        Names of data keys, or the values of each key, with one event per value.
    streams
        Names of the streams; their events alternate.
    stop
        Whether the run has stopped.
    uid, time, start
        See :class:`RunBuilder`.
    """
    columns: Mapping[str, Sequence[Any]] = (
        keys
        if isinstance(keys, Mapping)
        else {key: [_values(key, index) for index in range(events)] for key in keys}
    )
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    builder = RunBuilder(uid, time, **start)
    examples = {key: values[0] if len(values) else 0.0 for key, values in columns.items()}
    descriptors = [builder.descriptor(examples, stream) for stream in streams]
    for row in rows:
        for descriptor in descriptors:
            builder.event(descriptor, row)
    return builder.stop() if stop else builder.documents


def rewound_run(*, stop: bool = True) -> Documents:
    """Return a run with a rewind: ``E(1, x=1) E(2, x=2) E(2, x=20) E(3, x=3)``."""
    builder = RunBuilder()
    descriptor = builder.descriptor({"x": 1})
    for seq_num, x in ((1, 1), (2, 2), (2, 20), (3, 3)):
        builder.event(descriptor, {"x": x}, seq_num)
    return builder.stop() if stop else builder.documents


def ragged_run(cells: Sequence[Any] | None = None, *, stop: bool = True) -> Documents:
    """Return a run with a data key of declared shape ``[4]`` whose cells differ in length."""
    values = [[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0], []] if cells is None else cells
    builder = RunBuilder()
    spec = {"source": "synthetic", "dtype": "array", "shape": [4]}
    descriptor = builder.descriptor({"spectrum": spec})
    for value in values:
        builder.event(descriptor, {"spectrum": value})
    return builder.stop() if stop else builder.documents


def baseline_run(keys: int = 500, *, stop: bool = True) -> Documents:
    """Return a run with two readings of very many data keys, in the stream ``baseline``."""
    builder = RunBuilder()
    row = {f"motor_{number}_user_setpoint": number * 0.25 for number in range(keys)}
    descriptor = builder.descriptor(row, "baseline")
    for _ in range(2):
        builder.event(descriptor, row)
    return builder.stop() if stop else builder.documents


def paged_run(
    pages: int = 3, rows: int = 4, *, arrays: bool = False, stop: bool = True
) -> Documents:
    """Return a run with events in pages; columns are lists, or NumPy arrays with ``arrays``."""
    builder = RunBuilder()
    descriptor = builder.descriptor({"x": 0.5, "n": 1, "label": "a", "v": [1.0, 2.0]})
    for page in range(pages):
        first = page * rows
        doc = builder.event_page(
            descriptor,
            [
                {"x": n * 0.5, "n": n, "label": f"a{n}", "v": [n * 1.0, n * 2.0]}
                for n in range(first, first + rows)
            ],
        )
        if arrays:
            doc["data"] = {key: np.array(column) for key, column in doc["data"].items()}
            doc["seq_num"] = np.array(doc["seq_num"])
            doc["time"] = np.array(doc["time"])
    return builder.stop() if stop else builder.documents


def stream_datum_run(frames: int = 6, step: int = 2, *, stop: bool = True) -> Documents:
    """Return a run without events, whose only data are frames of stream_datum documents."""
    builder = RunBuilder()
    spec = {"source": "x", "dtype": "array", "shape": [1, 4, 4], "external": "STREAM:"}
    descriptor = builder.descriptor({"img": spec})
    resource = builder.stream_resource("img")
    for first in range(0, frames, step):
        builder.stream_datum(resource, descriptor, (first, min(first + step, frames)))
    if not stop:
        return builder.documents
    return builder.stop(num_events={"primary": frames})


def external_run(events: int = 3, *, stop: bool = True, late: bool = False) -> Documents:
    """Return a run with two streams, whose external key refers to datums of one resource.

    Parameters
    ----------
    events
        Number of events of each stream.
    stop
        Whether the run has stopped.
    late
        Whether each datum comes after the event that uses it.
    """
    builder = RunBuilder()
    spec = {"source": "x", "dtype": "array", "shape": [4, 4], "external": "FILESTORE:"}
    keys = {"img": spec, "x": 0.5}
    resource = builder.resource()
    for stream in ("primary", "dark"):
        descriptor = builder.descriptor(keys, stream)
        for index in range(events):
            datum_id = f"{resource}/{stream}-{index}"
            if not late:
                builder.datum(resource, datum_id, point_number=index)
            data = {"img": datum_id, "x": index * 0.5}
            builder.event(descriptor, data, filled={"img": False})
            if late:
                builder.datum(resource, datum_id, point_number=index)
    return builder.stop() if stop else builder.documents


def interleave(*runs: Iterable[tuple[str, dict[str, Any]]]) -> Documents:
    """Return the documents of several runs in turns; those of each run keep their order."""
    turns = itertools.zip_longest(*runs)
    return [pair for turn in turns for pair in turn if pair is not None]
