"""Conversion of event-model's deprecated bulk documents to rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .errors import BadDocument
from .validate import prepare


def expand_bulk(name: str, doc: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Split a bulk document into rows that are stored together; return any other as it is.

    A ``bulk_events`` document gives ``("event_rows", {"descriptor", "rows"})`` for each
    descriptor, a ``bulk_datum`` one ``("datum_rows", {"resource", "rows"})``, or nothing if it is
    empty. The rows are checked.

    Raises
    ------
    BadDocument
        If the document or one of its rows is not valid.
    """
    if name == "bulk_events":
        return list(_bulk_events(doc))
    if name == "bulk_datum":
        return list(_bulk_datum(doc))
    return [(name, doc)]


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
