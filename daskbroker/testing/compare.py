"""Compare documents that were inserted with those that are read back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..core.documents import NamedMapping, equal, normalize
from ..core.printable import without_middle

"""One ``(name, document)``."""

_PLAIN = frozenset({bool, int, float, str, type(None)})


def expand_documents(documents: Iterable[NamedMapping]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Split pages and the deprecated bulk documents into single documents.

    Parameters
    ----------
    documents
        ``(name, document)`` pairs; they are copied and normalized.
    """
    for name, given in documents:
        doc = normalize(given, name)
        if name == "event_page":
            yield from (("event", row) for row in _rows(doc, "descriptor", "uid"))
        elif name == "datum_page":
            yield from (("datum", row) for row in _rows(doc, "resource", "datum_id"))
        elif name == "bulk_events":
            yield from (("event", event) for events in doc.values() for event in events)
        elif name == "bulk_datum":
            for uid, kwargs in zip(doc["datum_ids"], doc["datum_kwarg_list"], strict=True):
                row = {"resource": doc["resource"], "datum_id": uid, "datum_kwargs": kwargs}
                yield "datum", row
        else:
            yield name, doc


def _rows(page: Mapping[str, Any], owner: str, uid: str) -> Iterator[dict[str, Any]]:
    for index in range(len(page[uid])):
        yield {
            key: value
            if key == owner
            else {name: cells[index] for name, cells in value.items()}
            if isinstance(value, dict)
            else value[index]
            for key, value in page.items()
        }


def difference(expected: Any, received: Any, path: str = "") -> str | None:
    """Return a text that says where two normalized values differ; None if they are the same.

    Stricter than :func:`daskbroker.core.documents.equal`: ``1`` and ``1.0`` differ.
    """
    here = path or "value"
    if isinstance(expected, Mapping) and isinstance(received, Mapping):
        if expected.keys() != received.keys():
            lost = sorted(expected.keys() - received.keys())
            added = sorted(received.keys() - expected.keys())
            return f"{here}: keys lost {lost}, added {added}"
        pairs = ((f"{path}.{key}", expected[key], received[key]) for key in expected)
    elif isinstance(expected, list) and isinstance(received, list):
        if len(expected) != len(received):
            return f"{here}: {len(expected)} items became {len(received)}"
        kinds = [*map(type, expected)]
        if _PLAIN.issuperset(kinds) and kinds == [*map(type, received)] and expected == received:
            return None  # no need to look at thousands of numbers one by one
        both = zip(expected, received, strict=True)
        pairs = ((f"{path}[{index}]", a, b) for index, (a, b) in enumerate(both))
    elif type(expected) is not type(received) or not equal(expected, received):
        return f"{here}: {_with_type(expected)} became {_with_type(received)}"
    else:
        return None
    return next(filter(None, (difference(a, b, where) for where, a, b in pairs)), None)


def _with_type(value: Any) -> str:
    return without_middle(f"{value!r} ({type(value).__name__})", 200)


def _identity(name: str, doc: Mapping[str, Any]) -> tuple[str, str]:
    return name, str(doc["datum_id"] if name == "datum" else doc["uid"])


def assert_documents_equal(
    expected: Iterable[NamedMapping], received: Iterable[NamedMapping]
) -> None:
    """Check that the same documents are on both sides, in any order.

    Documents are matched by kind and uid, after pages and bulk documents are split. A document
    that is expected twice (because it was inserted twice) must be received once.

    Raises
    ------
    AssertionError
        If documents are lost, invented, doubled or changed; the message names the first ones.
    """
    wanted = {_identity(name, doc): doc for name, doc in expand_documents(expected)}
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for name, doc in expand_documents(received):
        key = _identity(name, doc)
        assert key not in found, f"{key} came out twice"
        found[key] = doc
    lost = [key for key in wanted if key not in found]
    invented = [key for key in found if key not in wanted]
    assert not lost, f"{len(lost)} documents are lost: {lost[:3]}"
    assert not invented, f"{len(invented)} documents came from nowhere: {invented[:3]}"
    for key, doc in wanted.items():
        where = difference(doc, found[key])
        assert where is None, f"{key} changed: {where}"


def assert_references_first(received: Iterable[NamedMapping]) -> None:
    """Check that each document of one run comes after all documents that it refers to.

    The start must come first and a stop last; a descriptor, resource or datum before its users.

    Raises
    ------
    AssertionError
        If a document came too early; the message names it.
    """
    documents = list(expand_documents(received))
    assert documents, "there are no documents at all"
    assert documents[0][0] == "start", f"the first document is a {documents[0][0]}, not a start"
    run = documents[0][1]["uid"]
    datum_ids = {doc["datum_id"] for name, doc in documents if name == "datum"}
    seen: set[tuple[str, Any]] = set()
    external: dict[str, list[str]] = {}
    for index, (name, doc) in enumerate(documents):
        what = f"document {index}, {_identity(name, doc)},"
        assert ("stop", None) not in seen, f"{what} comes after the stop"
        for kind, uid in _references(name, doc, external, datum_ids, run):
            assert (kind, uid) in seen, f"{what} comes before its {kind} {uid!r}"
        seen.add(("stop", None) if name == "stop" else _identity(name, doc))
        if name == "descriptor":
            keys = doc["data_keys"].items()
            external[doc["uid"]] = [key for key, spec in keys if spec.get("external")]


def _references(
    name: str,
    doc: Mapping[str, Any],
    external: Mapping[str, list[str]],
    datum_ids: set[str],
    run: str,
) -> Iterator[tuple[str, Any]]:
    if name in ("descriptor", "stop"):
        yield "start", doc["run_start"]
    elif name in ("resource", "stream_resource"):
        yield "start", doc.get("run_start", run)
    elif name == "datum":
        yield "resource", doc["resource"]
    elif name == "stream_datum":
        yield "stream_resource", doc["stream_resource"]
        yield "descriptor", doc["descriptor"]
    elif name == "event":
        yield "descriptor", doc["descriptor"]
        for key in external[doc["descriptor"]]:
            value = doc["data"].get(key)
            if isinstance(value, str) and value in datum_ids:
                yield "datum", value
