"""Documents of runs in databroker 1's form: fields are selected, and a hook is called for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..core.documents import ALL, Document, StreamName
from ..core.external import external_keys
from ..core.frozen import FrozenDict
from ..core.run_plan import stream_of
from ..header import Header
from .selecting import Selection, names_of

Hook = Callable[[str, Any], Any]
"""Function of name and document whose result is given to the user."""


def hooked_document(name: str, doc: Any) -> Any:
    """Return a document as a :class:`daskbroker.Document`; the default hook of a broker."""
    if name == "event" and "filled" in doc:  # no event shares this mapping with another
        doc = {**doc, "filled": FrozenDict(doc["filled"])}
    return doc if isinstance(doc, Document) else Document(doc)


def hooked(hook: Hook, name: str, doc: Mapping[str, Any]) -> Any:
    """Return the result of a hook for a document.

    A user's own hook gets a plain dict, which it may change.
    """
    if hook is hooked_document:
        return hooked_document(name, doc)
    return hook(name, doc.copy() if isinstance(doc, Document) else Document(doc).copy())


def descriptors_of(header: Header, stream_name: StreamName) -> list[Document]:
    """Return the descriptors of one stream of a run, or of all streams."""
    return [
        doc
        for stream, docs in header.descriptors.items()
        if stream_name is ALL or stream == stream_name
        for doc in docs
    ]


def run_documents(
    header: Header, hook: Hook, stream_name: StreamName, fields: Iterable[str] | None, *, fill: bool
) -> Iterator[tuple[str, Any]]:
    """Yield the documents of a run or of one of its streams; events without data are left out.

    Parameters
    ----------
    header
        The run.
    hook
        Hook that each document goes through.
    stream_name
        Name of one stream, or ``ALL``.
    fields
        Fields as :class:`~daskbroker.compat.selecting.Selection` takes them; all data if None.
    fill
        Whether to replace references by external data.
    """
    fields = names_of(fields)
    descriptors = descriptors_of(header, stream_name)
    chosen = {d["uid"]: Selection.of(fields, d, header.start, header.stop) for d in descriptors}
    kept = (set(chosen[d["uid"]].kept(d)) & set(external_keys(d)) for d in descriptors)
    fill = bool(fill) and any(kept)  # no file is read for keys that are left out
    for name, doc in _stream(header, stream_name, descriptors, fill=fill):
        if name == "descriptor":
            doc = chosen[doc["uid"]].described(doc)
        elif name == "event":
            doc = chosen[doc["descriptor"]].applied(doc)
            if not doc["data"]:
                continue
        yield name, hooked(hook, name, doc)


def _stream(
    header: Header, stream_name: StreamName, descriptors: list[Document], *, fill: bool
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if stream_name is ALL:
        yield from header.documents(fill)
    elif descriptors:
        yield from header.stream(stream_of(descriptors[0]), fill)
    else:  # databroker treats a missing stream as one without events
        yield "start", header.start
        if header.stop is not None:
            yield "stop", header.stop
