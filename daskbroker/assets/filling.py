"""Filling: external data in place of references.

Handlers for detector files are not part of this version: what is filled inline already goes
through, and a reference that would have to be followed raises :class:`FillError` at once,
naming run, stream and key.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from ..core.documents import Document
from ..core.errors import FillError

__all__ = ["cannot_fill", "external_keys", "fill_documents", "fill_frame"]


def external_keys(descriptor: Mapping[str, Any]) -> list[str]:
    """Data keys whose values are outside the store (event-model's ``external``)."""
    return [key for key, spec in descriptor["data_keys"].items() if spec.get("external")]


def cannot_fill(run: str, stream: str, key: str, reference: Any = None) -> FillError:
    """The error for a reference that has no handler."""
    what = "" if reference is None else f" (reference {reference!r})"
    return FillError(
        f"run {run!r}, stream {stream!r}, key {key!r}{what}: external data cannot be filled, as "
        "no handler is registered for it; fill=False leaves references as they are"
    )


def fill_documents(
    stream: Iterable[tuple[str, Mapping[str, Any]]],
    in_place: bool = False,
    fields: Collection[str] | None = None,
    descriptor_of: Callable[[str], Mapping[str, Any] | None] | None = None,
    handler_registry: Any = None,
    handler_overrides: Any = None,
) -> Iterator[tuple[str, Any]]:
    """The same documents, with every external value of an event filled. Lazy.

    Parameters
    ----------
    stream
        ``(name, doc)``; descriptors come before their events, unless ``descriptor_of`` finds
        them.
    in_place
        Change the given events (plain dicts) rather than give new ones.
    fields
        Only these keys; None: all.
    descriptor_of
        From uid to descriptor.

    Raises
    ------
    FillError
        At the first event with a reference that cannot be followed.
    """
    references: dict[str, tuple[Mapping[str, Any], list[str]]] = {}
    for name, doc in stream:
        if name == "descriptor":
            references[doc["uid"]] = doc, _wanted(doc, fields)
        elif name == "event":
            uid = doc["descriptor"]
            if uid not in references:
                descriptor = descriptor_of(uid) if descriptor_of is not None else None
                found = descriptor or {"data_keys": {}}
                references[uid] = found, _wanted(found, fields)
            descriptor, keys = references[uid]
            if keys:
                _check_filled(doc, descriptor, keys)
            if not in_place and type(doc) is not Document:
                doc = Document(doc)
        yield name, doc


def _wanted(descriptor: Mapping[str, Any], fields: Collection[str] | None) -> list[str]:
    return [key for key in external_keys(descriptor) if fields is None or key in fields]


def _check_filled(
    event: Mapping[str, Any], descriptor: Mapping[str, Any], keys: Iterable[str]
) -> None:
    """Values that are inline already need no filling; the others cannot be had."""
    for key in keys:
        if event.get("filled", {}).get(key) is not True:
            run = descriptor.get("run_start", "")
            stream = descriptor.get("name", "primary")
            raise cannot_fill(run, stream, key, event["data"].get(key))


def fill_frame(
    table: pd.DataFrame,
    descriptors: Iterable[Mapping[str, Any]],
    in_place: bool = False,
    fields: Collection[str] | None = None,
) -> pd.DataFrame:
    """A table with its external columns filled.

    Raises
    ------
    FillError
        If there is such a column.
    """
    for descriptor in descriptors:
        for key in external_keys(descriptor):
            if key in table.columns and (fields is None or key in fields):
                raise cannot_fill(descriptor["run_start"], descriptor.get("name", "primary"), key)
    return table if in_place else table.copy()
