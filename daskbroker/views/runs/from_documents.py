"""Turn the documents of a run into those of a new run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ...core.documents import Document, iter_named
from ...core.errors import BadDocument
from ...core.run_plan import stream_of
from ...core.validate import document_label
from .new_run import NewRun, Pairs


def documents_to_run(
    documents: Iterable[tuple[str, Mapping[str, Any]]],
    header: Any = None,
    *,
    uid: str | None = None,
    time: float | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Pairs:
    """Turn the documents of a run into those of a new run, with new uids.

    References between documents are changed along with the uids, and so stay valid.

    Parameters
    ----------
    documents
        Pairs ``(name, doc)``, the start first; consumed lazily. A stop is added if there is none.
    header
        Header, or start document, of the origin, for ``derived_from``.
    uid, time, provenance
        As for :func:`table_to_stream`.

    Yields
    ------
    (name, Document)
        One for each document of the origin, and a stop.

    Raises
    ------
    BadDocument
        If the first document is not a start, or if a document refers to one that did not come
        before it.
    """
    pairs = iter_named(documents)
    name, first = next(pairs, ("nothing", Document()))
    if name != "start":
        raise BadDocument(f"the documents of a new run begin with a start, not with {name}")
    run = NewRun.of({}, header, None, uid, time, provenance)
    own = {key: run.start[key] for key in ("uid", "time", "derived_from")}
    renamed = _Renamed(run)
    yield "start", Document({**run.start, **first, **own})
    for name, doc in pairs:
        yield name, renamed(name, doc)
    if not renamed.stopped:
        yield "stop", run.stop(renamed.num_events)


class _Renamed:
    """Gives documents new uids, and keeps track of them for the references of later ones."""

    def __init__(self, run: NewRun) -> None:
        self._run = run
        self._new: dict[tuple[str, str], str] = {}
        self._external: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}
        self._streams: dict[str, str] = {}
        self.num_events: dict[str, int] = {}
        self.stopped = False

    def __call__(self, name: str, doc: Mapping[str, Any]) -> Document:
        change = self._changes.get(name)
        if change is None:
            raise BadDocument(f"{document_label(name, doc)}: cannot be part of a derived run")
        return Document({**doc, **change(self, doc)})

    def _make(self, reference: str, old: object) -> str:
        self._counts[reference] = number = self._counts.get(reference, 0) + 1
        new = self._run.uid_of(f"{reference} {number}")
        self._new[reference, str(old)] = new
        return new

    def _find(self, reference: str, doc: Mapping[str, Any]) -> str:
        try:
            return self._new[reference, doc[reference]]
        except KeyError:
            raise BadDocument(
                f"{doc!r:.200}: its {reference} {doc.get(reference)!r} is not among the "
                "documents before it"
            ) from None

    def _descriptor(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        new = self._make("descriptor", doc["uid"])
        external = [k for k, spec in doc["data_keys"].items() if spec.get("external")]
        self._external[new] = external
        self._streams[new] = stream_of(doc)
        self.num_events.setdefault(self._streams[new], 0)
        return {"uid": new, "run_start": self._run.start["uid"]}

    def _event(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        descriptor = self._find("descriptor", doc)
        self._run.count += 1
        self._count(descriptor, [doc["time"]])
        data = dict(doc["data"])
        for key in self._external[descriptor]:
            if key in data:
                data[key] = self._datum_id(data[key])
        uid = self._run.uid_of(f"event {self._run.count}")
        found = {"uid": uid, "descriptor": descriptor, "data": data}
        if "filled" in doc:
            found["filled"] = {key: self._datum_id(value) for key, value in doc["filled"].items()}
        return found

    def _event_page(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        descriptor = self._find("descriptor", doc)
        self._count(descriptor, doc["time"])
        data = dict(doc["data"])
        for key in self._external[descriptor]:
            if key in data:
                data[key] = [self._datum_id(value) for value in data[key]]
        first, self._run.count = self._run.count + 1, self._run.count + len(doc["uid"])
        uids = [self._run.uid_of(f"event {n}") for n in range(first, self._run.count + 1)]
        filled = {k: [self._datum_id(v) for v in vs] for k, vs in doc.get("filled", {}).items()}
        return {"uid": uids, "descriptor": descriptor, "data": data, "filled": filled}

    def _count(self, descriptor: str, times: Sequence[float]) -> None:
        """Note events for the stop, which a run that was not finished gets from here."""
        self.num_events[self._streams[descriptor]] += len(times)
        self._run.last_time = max([self._run.last_time, *times])

    def _datum_id(self, value: object) -> Any:
        return self._new.get(("datum", value), value) if isinstance(value, str) else value

    def _resource(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        return {"uid": self._make("resource", doc["uid"]), "run_start": self._run.start["uid"]}

    def _stream_resource(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        new = self._make("stream_resource", doc["uid"])
        return {"uid": new, "run_start": self._run.start["uid"]}

    def _datum(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        resource = self._find("resource", doc)
        return {"datum_id": self._make("datum", doc["datum_id"]), "resource": resource}

    def _datum_page(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        resource = self._find("resource", doc)
        return {"datum_id": [self._make("datum", u) for u in doc["datum_id"]], "resource": resource}

    def _stream_datum(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "uid": self._make("stream_datum", doc["uid"]),
            "stream_resource": self._find("stream_resource", doc),
            "descriptor": self._find("descriptor", doc),
        }

    def _stop(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        self.stopped = True
        return {"uid": self._run.uid_of("stop"), "run_start": self._run.start["uid"]}

    _changes: Mapping[str, Callable[[_Renamed, Mapping[str, Any]], dict[str, Any]]] = {
        "descriptor": _descriptor,
        "event": _event,
        "event_page": _event_page,
        "resource": _resource,
        "stream_resource": _stream_resource,
        "datum": _datum,
        "datum_page": _datum_page,
        "stream_datum": _stream_datum,
        "stop": _stop,
    }
