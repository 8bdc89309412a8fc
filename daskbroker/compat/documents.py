"""Documents of runs as databroker 1 gives them: fields selected, a hook called for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..core.documents import ALL, Document
from ..core.external import external_keys
from ..core.frozen import FrozenDict
from ..core.run_plan import stream_of
from ..header import Header
from .selecting import Selection

__all__ = ["Hook", "as_document", "hooked", "run_documents"]

Hook = Callable[[str, Any], Any]
"""Called with name and document; what it returns is what a user gets."""


def as_document(name: str, doc: Any) -> Any:
    """The hook that a broker begins with: a :class:`daskbroker.Document`."""
    if name == "event" and "filled" in doc:  # which each event has for itself
        doc = {**doc, "filled": FrozenDict(doc["filled"])}
    return doc if isinstance(doc, Document) else Document(doc)


def hooked(hook: Hook, name: str, doc: Mapping[str, Any]) -> Any:
    """What a hook makes of a document; one of a user's own gets a plain dict, to change."""
    if hook is as_document:
        return as_document(name, doc)
    return hook(name, doc.copy() if isinstance(doc, Document) else Document(doc).copy())


def run_documents(
    header: Header, hook: Hook, stream_name: Any, fields: Iterable[str] | None, fill: bool
) -> Iterator[tuple[str, Any]]:
    """The documents of a run or of one stream of it; events without data are left out. Lazy."""
    fields = None if fields is None else set(fields)
    descriptors = [
        doc
        for stream, docs in header.descriptors.items()
        if stream_name is ALL or stream == stream_name
        for doc in docs
    ]
    chosen = {d["uid"]: Selection.of(fields, d, header.start, header.stop) for d in descriptors}
    kept = (set(chosen[d["uid"]].kept(d)) & set(external_keys(d)) for d in descriptors)
    fill = bool(fill) and any(kept)  # no file is read for what is left out
    for name, doc in _stream(header, stream_name, descriptors, fill):
        if name == "descriptor":
            doc = chosen[doc["uid"]].described(doc)
        elif name == "event":
            doc = chosen[doc["descriptor"]].applied(doc)
            if not doc["data"]:
                continue
        yield name, hooked(hook, name, doc)


def _stream(
    header: Header, stream_name: Any, descriptors: list[Document], fill: bool
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if stream_name is ALL:
        yield from header.documents(fill)
    elif descriptors:
        yield from header.stream(stream_of(descriptors[0]), fill)
    else:  # a stream that is not there is one without events
        yield "start", header.start
        if header.stop is not None:
            yield "stop", header.stop
